"""``dppmask scenes`` writes what the other commands read."""

import json

import pytest

from dppmask import cli
from dppmask.data.clevr import CLEVR

SMALL = "--data.size 32 --data.train_size 3 --data.val_size 2"


def test_folder_goes_to_stdout_and_is_read_again(tmp_path, capsys):
    out = tmp_path / "clevr"
    for _ in range(2):
        assert cli.main(f"scenes --format clevr --out {out} {SMALL}".split()) == 0
        assert capsys.readouterr().out == f"{out}\n"
    assert (len(CLEVR(str(out)).split("train")), len(CLEVR(str(out)).split("val"))) == (3, 2)


def test_evaluate_reads_what_scenes_wrote(tmp_path, capsys):
    assert cli.main(f"scenes --format coco --out {tmp_path} {SMALL} --data.val_size 3".split()) == 0
    line = (
        f"evaluate --protocol MaskStatistics --protocol.image_size 32 --protocol.patch_size 8 "
        f"--data COCO --data.root {tmp_path} --data.objects true"
    )
    capsys.readouterr()
    assert cli.main(line.split()) == 0
    assert "RandomMask/objects_lost" in json.loads(capsys.readouterr().out)["metrics"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--format clevr", "required and not given: --out"),
        ("--format cleverer --out x", "--format must be one of imagefolder, clevr, coco, got cleverer"),
        ("--format clevr --out x --data.task single", "format clevr needs scenes of task multi"),
        ("--format clevr --out x --data ImageFolder --data.root x", "--data must be Scenes"),
        ("--format clevr --out x --data.siez 32", "unknown option --data.siez"),
    ],
)
def test_wrong_options_are_one_line(options, message, capsys):
    assert cli.main(f"scenes {options}".split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dppmask scenes: ")
    assert message in err
    assert err.count("\n") == 1
