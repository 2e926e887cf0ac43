import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from dppmask.commands.parser import OptionParser, call_with_options
from dppmask.data.base import ImageSource
from dppmask.errors import UserError
from dppmask.masks import Coarse, DPPMask, MaskStrategy, RandomMask
from dppmask.models.base import MaskedImageModel
from dppmask.models.mae import MAE
from dppmask.specs import describe


class OwnMask(MaskStrategy):
    """A strategy of the user's, found by its full path."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.width = width


def work(
    *,
    run: str,
    data: ImageSource | None = None,
    method: type[MaskedImageModel] | Mapping[str, Any] = MAE,
    mask: MaskStrategy | Mapping[str, Any] | None = None,
    mask_ratio: float | tuple[float, float] = 0.75,
    backbone_args: Mapping[str, Any] | None = None,
    epochs: int = 4,
    resume: bool = False,
    loggers: Sequence[str] = (),
    callbacks: Sequence[object] = (),
):
    """Work.

    Args:
        run: Where.
        epochs: Passes.
    """


def gallery(*, mask: list[MaskStrategy], out: str):
    """Draw."""


PARSER = OptionParser("dppmask work", work, skip={"callbacks"})


def parse(line: str) -> dict[str, Any]:
    return PARSER.parse(["--run", "x", *line.split()])


def error_of(line: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(line)
    return str(caught.value)


def test_only_what_is_given_is_returned(config):
    assert parse("") == {"run": "x"}
    defaults = config("defaults.yaml", "epochs: 4\nmethod: MAE\n")
    for line in (
        f"--config {defaults} --mask_ratio=0.75",
        "--method.norm_pix_loss true --epochs 4 --mask_ratio 0.75",
    ):
        options = parse(line)
        assert options.keys() == {"run", "epochs", "mask_ratio", "method"}
        assert (options["epochs"], options["mask_ratio"]) == (4, 0.75)


def test_classes_by_short_name_with_all_their_arguments():
    mask = parse("--mask DPPMask --mask.purge_ratio 0.1")["mask"]
    assert describe(mask) == describe(DPPMask(purge_ratio=0.1))


def test_a_class_of_the_user_by_its_full_path():
    mask = parse(f"--mask {__name__}.OwnMask --mask.width 5")["mask"]
    assert mask.width == 5


def test_a_class_inside_a_class():
    mask = parse("--mask Coarse --mask.cell 4 --mask.strategy DPPMask --mask.strategy.purge_ratio 0.1")[
        "mask"
    ]
    assert isinstance(mask, Coarse)
    assert (mask.cell, mask.strategy.purge_ratio) == (4, 0.1)


def test_a_module_in_the_working_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "masks_of_mine.py").write_text(
        "from dppmask.masks import RandomMask\nclass Mine(RandomMask):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    mask = OptionParser("dppmask work", work).parse(["--run", "x", "--mask", "masks_of_mine.Mine"])["mask"]
    assert type(mask).__module__ == "masks_of_mine"


def test_the_method_gets_its_encoder_later():
    init_args = parse("--method MAE --method.norm_pix_loss false --method.decoder_depth 2")["method"][
        "init_args"
    ]
    assert "encoder" not in init_args
    assert (init_args["norm_pix_loss"], init_args["decoder_depth"]) == (False, 2)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--resume", {"resume": True}),
        ("--resume --epochs 2", {"resume": True, "epochs": 2}),
        ("--resume true", {"resume": True}),
        ("--resume false", {"resume": False}),
        ("--loggers wandb --loggers+ tensorboard", {"loggers": ["wandb", "tensorboard"]}),
        ("--loggers [wandb]", {"loggers": ["wandb"]}),
        ("--mask_ratio [0.2,0.4]", {"mask_ratio": (0.2, 0.4)}),
        (
            "--backbone_args.depth 2 --backbone_args.dynamic_img_size true",
            {"backbone_args": {"depth": 2, "dynamic_img_size": True}},
        ),
    ],
)
def test_values(line, expected):
    assert parse(line) == {"run": "x", **expected}


def test_repeated_classes_keep_their_order_and_arguments():
    line = (
        "--out o --mask+ DPPMask --mask.purge_ratio 0.1 --mask RandomMask --mask DPPMask --mask.bandwidth 9"
    )
    masks = OptionParser("dppmask gallery", gallery).parse(line.split())["mask"]
    assert [type(mask).__name__ for mask in masks] == ["DPPMask", "RandomMask", "DPPMask"]
    assert (masks[0].purge_ratio, masks[2].bandwidth) == (0.1, 9.0)


@pytest.fixture
def config(tmp_path):
    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_files_are_layered_and_the_command_line_wins_wherever_it_stands(config):
    base = config(
        "base.yaml",
        "epochs: 7\nmask_ratio: 0.5\nmask: {class_path: DPPMask, init_args: {purge_ratio: 0.1}}\n",
    )
    above = config("above.yaml", "mask_ratio: 0.6\n")
    options = parse(f"--epochs 9 --mask.bandwidth 2.0 --config {base} --config={above}")
    assert (options["epochs"], options["mask_ratio"]) == (9, 0.6)
    assert describe(options["mask"]) == describe(DPPMask(purge_ratio=0.1, bandwidth=2.0))


def test_a_later_file_may_choose_another_class(config, recwarn):
    base = config("base.yaml", "mask: {class_path: DPPMask, init_args: {purge_ratio: 0.1}}\n")
    above = config("above.yaml", "mask: {class_path: RandomMask}\n")
    assert isinstance(parse(f"--config {base} --config {above}")["mask"], RandomMask)
    assert not recwarn


def test_printed_options_are_a_config_file(config, capsys):
    line = "--run x --mask DPPMask --mask.purge_ratio 0.1 --epochs 9 --mask_ratio [0.2,0.4]"
    with pytest.raises(SystemExit) as stop:
        PARSER.parse([*line.split(), "--print_config"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["epochs"] == 9
    again = describe(PARSER.parse(["--config", config("printed.yaml", printed)]))
    options = describe(PARSER.parse(line.split()))
    assert {name: again[name] for name in options} == options
    assert again["data"] is None


def test_what_a_function_prints_goes_to_stderr(capsys):
    def chatty(*, run: str) -> str:
        print("half way")
        return run

    assert call_with_options("dppmask chatty", chatty, ["--run", "x"]) == "x"
    assert tuple(capsys.readouterr()) == ("", "half way\n")


class Engine:
    """What no text can name."""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--size 3", (None, 3)),
        ("--size 3 --run null --name x", (None, 3, "x")),
        ("--run a --size 3", ("a", 3)),
    ],
)
def test_a_function_of_the_library_takes_what_can_be_told_in_words(line, expected):
    def call(run: str | Path | Engine | None, size: int, *, name: str = "n") -> tuple[object, ...]:
        assert run is None or type(run) is str
        return (run, size) if name == "n" else (run, size, name)

    assert call_with_options("dppmask call", call, line.split()) == expected


def test_an_argument_that_may_not_be_none_is_still_required():
    def call(run: str | Engine | None, out: str | Path) -> None:
        """Never called."""

    with pytest.raises(UserError, match=r"required and not given: --out$"):
        call_with_options("dppmask call", call, [])


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        PARSER.parse(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in PARSER.names)
    assert "callbacks" not in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--epoch 3", "unknown option --epoch; did you mean epochs?"),
        ("--epochs", "--epochs needs a value"),
        ("--epochs many", "--epochs must be a whole number, got many"),
        ("--mask_ratio big", "--mask_ratio must be a number or [a, b], got big"),
        ("--resume maybe", "--resume must be true or false, got maybe"),
        ("--backbone_args 3", "--backbone_args must be a mapping or null, got 3"),
        ("extra", "unexpected argument 'extra'; every option is written --name value"),
        ("--mask DPPMsk", "--mask: unknown DPPMsk; did you mean DPPMask?"),
        ("--mask nowhere.Mask", "--mask: cannot find nowhere.Mask (No module named 'nowhere')"),
        ("--mask DPPMask --mask.purge 1", "unknown option --mask.purge; DPPMask: did you mean purge_ratio?"),
        ("--mask DPPMask --mask.purge_ratio x", "--mask.purge_ratio must be a number, got x"),
        (
            "--mask DPPMask --mask.source eyes",
            "--mask.source must be one of tokens, pixels, teacher, got eyes",
        ),
        (
            "--mask RandomMask --mask.purge_ratio 1",
            "unknown option --mask.purge_ratio; RandomMask takes no options",
        ),
        ("--mask.purge_ratio 1", "--mask.purge_ratio stands before --mask NAME, or without it"),
        ("--mask Coarse --mask.strategy DPPMsk", "--mask.strategy: unknown DPPMsk; did you mean DPPMask?"),
        ("--mask Coarse", "required and not given: --mask.strategy"),
        ("--method MEA", "--method: unknown MEA; did you mean MAE?"),
        (
            "--method MAE --method.encoder x",
            "unknown option --method.encoder; MAE is given its encoder by the program",
        ),
        ("--config", "--config needs a value: a YAML file or the name of a recipe"),
        ("--config maee", "--config maee is neither a file nor a shipped recipe; did you mean mae?"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(line, message):
    assert error_of(line) == message


def test_a_class_of_the_wrong_kind_is_refused():
    assert error_of("--mask collections.Counter").startswith("--mask must name one of AttMask, BlockMask, ")


def test_a_required_option_is_named():
    with pytest.raises(UserError, match=r"^required and not given: --run$"):
        PARSER.parse([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3\n", "unknown option epoch; did you mean epochs?"),
        ("epochs: [\n", "is no valid YAML: line 2: "),
        ("epochs\n", "must hold options, one 'name: value' a line"),
        ("epochs: many\n", "--epochs must be a whole number, got many"),
        ("mask: {class_path: DPPMsk}\n", "--mask: unknown DPPMsk; did you mean DPPMask?"),
        (
            "mask: {class_path: DPPMask, init_args: {purge: 1}}\n",
            "unknown option --mask.purge; DPPMask: did you mean purge_ratio?",
        ),
    ],
)
def test_files_are_checked_like_the_command_line(config, text, message):
    assert message in error_of(f"--config {config('bad.yaml', text)}")


def test_values_that_a_class_refuses_name_the_option():
    with pytest.raises(UserError, match=r"^--mask: purge_ratio must be in \[0, 1\], got 3"):
        parse("--mask DPPMask --mask.purge_ratio 3.0")
