"""Every command on a tiny run, in this process; and every kind of bad input as one line."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import timm

from dppmask import cli
from dppmask.commands.live import LivePictures

DATA = "--data Scenes --data.size 32 --data.train_size 8 --data.val_size 4 --data.task single"
TINY = (
    "--backbone test_vit --image_size 32 --patch_size 8 --batch_size 4 --epochs 1 --num_workers 0 "
    "--accelerator cpu --method.decoder_embed_dim 16 --method.decoder_depth 1 --method.decoder_num_heads 2"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert cli.main(["pretrain", *f"{DATA} {TINY} --run {folder}".split()]) == 0
    return folder


@pytest.fixture
def dppmask(capsys):
    """Run a command line; its exit code, standard output and standard error."""

    def call(line: str) -> tuple[int, str, str]:
        code = cli.main(line.split())
        return code, *capsys.readouterr()

    return call


def test_pretrain_prints_the_run_folder(dppmask, tmp_path):
    code, out, err = dppmask(f"pretrain {DATA} {TINY} --mask DPPMask --run {tmp_path / 'a'}")
    assert (code, out) == (0, f"{tmp_path / 'a'}\n")
    assert "loss" in err
    assert (tmp_path / "a" / "encoder" / "model.safetensors").exists()


def test_a_training_that_was_stopped_says_how_to_go_on(dppmask, tmp_path, monkeypatch):
    def stop(self, trainer, module, outputs, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(LivePictures, "on_train_batch_end", stop)
    run = tmp_path / "run"
    code, out, err = dppmask(f"pretrain {DATA} {TINY} --run {run}")
    assert (code, out) == (130, "")
    assert err.endswith(f"stopped early and saved; dppmask pretrain --run {run} --resume goes on\n")
    monkeypatch.undo()
    assert dppmask(f"pretrain --run {run} --resume")[0] == 0


def test_config_of_a_run_repeats_it(dppmask, run, tmp_path):
    again = tmp_path / "again"
    assert dppmask(f"pretrain --run {again} --config {run / 'config.yaml'}")[0] == 0
    old, new = ((folder / "config.yaml").read_text() for folder in (run, again))
    assert new == old.replace(str(run), str(again))
    losses = [json.loads((folder / "metrics.jsonl").read_text())["loss"] for folder in (run, again)]
    assert losses[0] == losses[1]


def test_resume_needs_the_run_alone(dppmask, run):
    assert dppmask(f"pretrain --run {run} --resume")[:2] == (0, f"{run}\n")


def test_evaluate_prints_one_json_line(dppmask, run):
    code, out, _ = dppmask(f"evaluate --run {run} --protocol KNN --protocol.k [1,3] {DATA}")
    assert code == 0
    assert out.count("\n") == 1
    record = json.loads(out)
    assert record["protocol"] == "KNN"
    assert record == json.loads((run / "results.jsonl").read_text().splitlines()[-1])


def test_mask_statistics_need_no_run(dppmask):
    masks = "--protocol.masks+ RandomMask --protocol.masks+ DPPMask --protocol.masks.source pixels"
    size = "--protocol.image_size 32 --protocol.patch_size 8"
    code, out, err = dppmask(f"evaluate --protocol MaskStatistics {masks} {size} {DATA}")
    assert code == 0, err
    assert json.loads(out)["protocol"] == "MaskStatistics"


def test_masks_draws_a_picture(dppmask, tmp_path):
    picture = tmp_path / "gallery.png"
    dpp = "--mask+ DPPMask --mask.source pixels"
    masks = f"--mask+ RandomMask {dpp} {dpp} --mask.purge_ratio 1.0"
    code, out, _ = dppmask(
        f"masks {DATA} {masks} --image_size 32 --patch_size 8 --num_images 2 --out {picture}"
    )
    assert (code, out) == (0, f"{picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_covisibility_draws_a_picture_and_says_how_far_off_the_masks_are(dppmask, tmp_path):
    picture = tmp_path / "pairs.png"
    masks = "--mask+ KDPPMask --mask.source pixels --mask+ DPPMask --mask.source pixels --mask_ratio 0.5"
    size = "--image_size 32 --patch_size 8 --patch [1,2] --image 1 --num_masks 20"
    code, out, err = dppmask(f"covisibility {DATA} {masks} {size} --backbone test_vit --out {picture}")
    assert code == 0, err
    path, random, kdpp, dpp = out.splitlines()
    assert path == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert random.startswith("RandomMask: patch 1, 2 is visible in ")
    assert re.search(r"KDPPMask .* off the exact chances by \d+\.\d\d standard errors at most", kdpp)
    assert "exact" not in dpp
    assert "patch must lie in the grid" in refused(
        dppmask, f"covisibility {DATA} {masks} {size} --patch [4,0] --out {picture}"
    )


def test_plot_draws_the_results_of_a_protocol(dppmask, tmp_path):
    masks = "--protocol.masks+ DPPMask --protocol.masks.source pixels"
    size = "--protocol.image_size 32 --protocol.patch_size 8"
    record = dppmask(f"evaluate --protocol MaskStatistics {masks} {size} {DATA}")[1]
    results, picture = tmp_path / "results.jsonl", tmp_path / "picture.png"
    results.write_text(record)
    for protocol in ("", "--protocol MaskStatistics"):
        code, out, err = dppmask(f"plot --results {results} {protocol} --out {picture}")
        assert (code, out) == (0, f"{picture}\n"), err
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()
    message = refused(dppmask, f"plot --results {results} --protocol MaskStatistic --out {picture}")
    assert "protocol MaskStatistic is not among the results; did you mean MaskStatistics?" in message


@pytest.mark.parametrize("command", ["attention", "similarity --places [[0,1],[3,2]]"])
def test_pictures_of_an_encoder(dppmask, run, tmp_path, command):
    picture = tmp_path / "picture.png"
    code, out, err = dppmask(f"{command} --run {run} {DATA} --num_images 2 --out {picture}")
    assert (code, out) == (0, f"{picture}\n"), err
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_features_of_every_image(dppmask, run, tmp_path):
    file = tmp_path / "features.npz"
    code, out, _ = dppmask(f"features --run {run} {DATA} --out {file}")
    assert (code, out) == (0, f"{file}\n")
    with np.load(file) as stored:
        assert stored["features"].shape == (8, 64)
        assert stored["labels"].shape == (8,)


def test_exported_encoder_is_loaded_by_timm_alone(dppmask, run, tmp_path):
    folder = tmp_path / "encoder"
    assert dppmask(f"export --run {run} --out {folder}")[:2] == (0, f"{folder}\n")
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).embed_dim == 64
    code, _, err = dppmask(f"export --run {run} --out {folder}")
    assert (code, err) == (2, f"dppmask export: --out {folder} exists already; choose another folder\n")


@pytest.mark.parametrize("size", [0, 10_000, 300])
def test_a_full_disk_leaves_no_half_export(dppmask, run, tmp_path, full_disk, size):
    folder = tmp_path / "encoder"
    with full_disk(size):
        message = refused(dppmask, f"export --run {run} --out {folder}")
    assert "model.safetensors: the disk is full" in message
    assert not folder.exists()
    assert dppmask(f"export --run {run} --out {folder}")[0] == 0


def refused(dppmask, line: str) -> str:
    """The one line that a wrong command line gets."""
    code, out, err = dppmask(line)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--data ImageFolder --data.root {tmp}/missing", ["root", "missing does not exist"]),
        ("--data ImageFolder --data.root {tmp}", ["holds no images"]),
        ("--mask DPPMsk", ["--mask", "DPPMsk", "did you mean DPPMask?"]),
        ("--mask DPPMask --mask.purge_ratio 2.0", ["--mask", "purge_ratio must be in [0, 1]", "2.0"]),
        ("--mask DPPMask --mask.source teacher", ["DPPMask", "teacher", "MAE"]),
        (
            "--mask FeatureMask --mask.source pixels --mask.bandwidth 1",
            ["--mask must name one of", "DPPMask"],
        ),
        ("--mask MaskStrategy", ["--mask must name one of", "DPPMask", "got dppmask.masks.MaskStrategy"]),
        ("--mask Coarse --mask.strategy MaskStrategy", ["Coarse cannot be drawn", "must implement choose"]),
        (
            "--method MaskedImageModel",
            ["--method must name one of", "MAE", "got dppmask.models.base.MaskedImageModel"],
        ),
        ("--method MEA", ["--method", "MEA", "did you mean MAE?"]),
        ("--method.decoder_num_heads 3", ["num_heads", "3"]),
        (
            "--backbone vit_smal_patch16_224",
            ["backbone", "vit_smal_patch16_224", "did you mean vit_small_patch16_224?"],
        ),
        ("--backbone resnet50", ["backbone", "resnet50"]),
        ("--epoch 3", ["--epoch", "did you mean epochs?"]),
        ("--mask_ratio 0", ["mask_ratio must be in (0, 1)", "got 0"]),
        ("--mask_ratio 1", ["mask_ratio must be in (0, 1)", "got 1"]),
        ("--mask_ratio -0.5", ["mask_ratio must be in (0, 1)", "got -0.5"]),
        ("--mask_ratio [0.9,0.5]", ["mask_ratio", "low <= high"]),
        ("--image_size 36", ["image_size", "multiple", "36"]),
        ("--image_size 8", ["at least 2 patches", "got 1", "patch_size"]),
        (
            "--mask Coarse --mask.strategy DPPMask --mask.cell 3",
            ["cell must divide the grid", "got cell 3 for 4 × 4"],
        ),
        ("--base_lr -1", ["base_lr must be at least 0", "got -1"]),
        ("--weight_decay -1", ["weight_decay must be at least 0", "got -1"]),
        ("--num_workers -1", ["num_workers must be at least 0", "got -1"]),
        ("--method.decoder_num_heads 0", ["decoder_num_heads must be at least 1", "got 0"]),
        ("--method.decoder_embed_dim 0", ["decoder_embed_dim must be at least 1", "got 0"]),
        ("--method.decoder_depth -1", ["decoder_depth must be at least 1", "got -1"]),
        ("--method.decoder_mlp_ratio -1", ["decoder_mlp_ratio must be positive", "got -1"]),
        ('--backbone_args {"depth":0}', ["depth must be a whole number, at least 1", "got 0"]),
        ('--backbone_args {"num_heads":0}', ["num_heads must be a whole number", "got 0"]),
        ('--backbone_args {"mlp_ratio":-1}', ["mlp_ratio must be positive", "got -1"]),
        ('--backbone_args {"drop_path_rate":2}', ["drop_path_rate must be in [0, 1)", "got 2"]),
        ("--batch_size 400", ["batch_size", "400", "8"]),
        ("--precision 8-bit", ["precision", "8-bit"]),
        ("--init_from {tmp}/nowhere.pth", ["nowhere.pth"]),
        ("--config nothing_like_it", ["--config nothing_like_it"]),
    ],
    ids=lambda value: value.replace("{tmp}/", "") if isinstance(value, str) else "",
)
def test_pretrain_refuses_in_one_line(dppmask, tmp_path, options, words):
    (tmp_path / "notes.txt").write_text("no image")
    run = tmp_path / "run"
    message = refused(
        dppmask, f"pretrain {DATA} {TINY} {options.replace('{tmp}', str(tmp_path))} --run {run}"
    )
    assert all(word in message for word in words), message
    assert not run.exists(), "nothing is left behind"


def test_a_run_that_is_not_there_cannot_be_resumed_by_name_alone(dppmask, tmp_path):
    assert "data must be given" in refused(dppmask, f"pretrain --run {tmp_path / 'run'} --resume")


def test_an_existing_run_is_not_overwritten(dppmask, run):
    assert "exists already" in refused(dppmask, f"pretrain {DATA} {TINY} --run {run}")


@pytest.mark.parametrize("option", ["mask_ratio 0.75", "seed 0", "config mae_at_defaults"])
def test_a_value_that_equals_the_default_is_no_less_given(dppmask, tmp_path, option):
    """The run was started with others."""
    run = tmp_path / "run"
    assert dppmask(f"pretrain {DATA} {TINY} --mask_ratio 0.9 --seed 3 --run {run}")[0] == 0
    (tmp_path / "mae_at_defaults").write_text("mask_ratio: 0.75\n")
    line = f"pretrain --run {run} --resume --{option}".replace("mae_at", f"{tmp_path}/mae_at")
    assert "cannot resume" in refused(dppmask, line)
    assert dppmask(f"pretrain --run {run} --resume --mask_ratio 0.9")[0] == 0


@pytest.mark.parametrize(
    "option", ["--backbone vit_tiny_patch16_224", "--patch_size 16", "--method.decoder_depth 2"]
)
def test_another_architecture_cannot_resume(dppmask, run, option):
    message = refused(dppmask, f"pretrain {DATA} {TINY} {option} --run {run} --resume")
    assert "cannot resume" in message
    assert option.split()[0].strip("-").partition(".")[0] in message


@pytest.mark.parametrize(
    "command", ["pretrain --resume", "evaluate --protocol KNN " + DATA, "export --out {tmp}/out"]
)
def test_a_truncated_checkpoint_is_named(dppmask, run, tmp_path, command):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken, ignore=shutil.ignore_patterns("encoder"))
    for checkpoint in (broken / "checkpoints").glob("*.ckpt"):
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content[: len(content) // 2])
    message = refused(dppmask, f"{command.format(tmp=tmp_path)} --run {broken}")
    assert "truncated" in message
    assert ".ckpt" in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate --run nowhere --protocol KNN", ["nowhere"]),
        ("evaluate --run {run} --protocol KN", ["--protocol", "KN", "did you mean KNN?"]),
        ("evaluate --run {run} --protocol KNN --device tpu9", ["device", "tpu9"]),
        ("evaluate --protocol KNN", ["KNN evaluates an encoder"]),
        (
            "masks --mask RandomMask --mask_ratio 1.5 --out {tmp}/a.png",
            ["mask_ratio must be in (0, 1)", "1.5"],
        ),
        ("masks --mask RandomMask --out {tmp}/a.doc", ["a.doc"]),
        (
            "masks --mask Coarse --mask.strategy RandomMask --mask.cell 3 --run {run} --out {tmp}/a.png",
            ["cell must divide the grid"],
        ),
        ("evaluate --protocol MaskStatistics --protocol.patch_size 0", ["patch_size must be at least 1"]),
        ("evaluate --protocol MaskStatistics --protocol.image_size 0", ["image_size must be", "got 0"]),
        ("evaluate --protocol MaskStatistics --protocol.bandwidth 0", ["bandwidth must be positive"]),
        ("masks --out {tmp}/a.png", ["required and not given: --mask"]),
        ("attention --out {tmp}/a.png", ["required and not given: --run"]),
        ("similarity --run {run} --places [[9,9]] --out {tmp}/a.png", ["places", "row 9, column 9"]),
        ("features --run {run} --out {tmp}/a.csv", [".npz", "a.csv"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_other_commands_refuse_in_one_line(dppmask, run, tmp_path, line, words):
    message = refused(dppmask, f"{line.format(run=run, tmp=tmp_path)} {DATA}")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "command",
    cli.COMMANDS,
)
def test_help_goes_to_stdout(command, capsys):
    try:
        code = cli.main([command, "--help"])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: dppmask {command}")


def test_no_error_suggests_what_cannot_be_chosen(dppmask, tmp_path):
    message = refused(dppmask, f"pretrain {DATA} {TINY} --mask FeatureMsk --run {tmp_path / 'run'}")
    assert "unknown FeatureMsk" in message
    assert "FeatureMask" not in message


def test_help_offers_what_can_be_chosen(capsys):
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    offered = (
        "CLEVR, COCO, CutOutVariants, HubDataset, IN9, ImageFolder, SceneVariants, Scenes, SegmentedFolder"
    )
    assert re.findall(r"one of: (CLEVR[^)]*)\)", text) == [offered]
    for name in (
        "MaskStrategy,",
        "FeatureMask",
        "ImageSource,",
        "ImageFiles",
        "FileSource",
        "ReadableImages",
        "MaskedImageModel,",
    ):
        assert name not in text


def test_recipes_lists_and_prints(dppmask):
    code, out, _ = dppmask("recipes")
    assert code == 0
    assert any(line.startswith("masks/dpp ") for line in out.splitlines())
    code, out, _ = dppmask("recipes masks/dpp")
    assert out.startswith("# masks/dpp.yaml — ")
    message = refused(dppmask, "recipes masks/dpq")
    assert message.startswith("dppmask recipes: masks/dpq is neither")
    assert "did you mean" in message
    assert "expected the name of one recipe" in refused(dppmask, "recipes a b")
