import os
import subprocess
import sys

import pytest

import dppmask
from dppmask import cli
from dppmask.errors import UserError

HEAVY = {"torch", "jsonargparse", "timm", "torchvision", "lightning", "numpy"}


def imported_by(*statements: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after the statements."""
    code = "\n".join(
        ["import sys", *statements, "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"]
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(finished.stderr.split())


def test_help_and_the_package_import_nothing_heavy():
    names = imported_by("import dppmask.cli", "dppmask.cli.main(['--help'])", "dppmask.cli.main(['recipes'])")
    assert not HEAVY & names


def test_masks_import_torch_alone():
    names = imported_by("import dppmask.masks")
    assert "torch" in names
    assert not {"timm", "torchvision", "lightning", "jsonargparse", "matplotlib", "sklearn", "PIL"} & names


def test_help_answers_in_under_a_second():
    command = [sys.executable, "-m", "dppmask", "--help"]
    used = []
    for _ in range(3):  # the processor's time, and the best of three: the machine may be busy
        before = os.times()
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        after = os.times()
        used.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert min(used) < 1.0
    assert all(name in text for name in cli.COMMANDS)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dppmask {dppmask.__version__}\n"


def test_without_arguments_the_help_is_shown(capsys):
    assert cli.main([]) == 0
    assert "usage: dppmask COMMAND" in capsys.readouterr().out


def test_unknown_command_names_the_nearest(capsys):
    assert cli.main(["pretrian"]) == 2
    assert capsys.readouterr().err == "dppmask: there is no command 'pretrian'; did you mean pretrain?\n"


def run_command(monkeypatch, function):
    monkeypatch.setattr(sys.modules[__name__], "stand_in", function, raising=False)
    monkeypatch.setitem(sys.modules, "stand_in_module", sys.modules[__name__])
    monkeypatch.setitem(cli.COMMANDS, "work", cli.Command("stand_in_module:stand_in", "for this test"))
    return cli.main(["work", "a", "b"])


def test_result_goes_to_stdout(monkeypatch, capsys):
    assert run_command(monkeypatch, "+".join) == 0
    assert capsys.readouterr().out == "a+b\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            UserError("epochs must be\n  at least 1, got 0"),
            2,
            "dppmask work: epochs must be at least 1, got 0",
        ),
        (PermissionError(13, "Permission denied", "/x"), 2, "dppmask work: Permission denied: /x"),
        (OSError(28, "No space left on device"), 2, "dppmask work: the disk is full (No space left"),
        (
            ModuleNotFoundError("No module named 'timm'", name="timm"),
            2,
            "dppmask work: this command needs the package timm",
        ),
        (KeyboardInterrupt(), 130, "dppmask work: interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_of_the_user_take_one_line(monkeypatch, capsys, error, code, line):
    def work(arguments):
        raise error

    assert run_command(monkeypatch, work) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_an_interrupt_that_became_a_silent_exit_is_told(monkeypatch, capsys):
    def work(arguments):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    assert run_command(monkeypatch, work) == 130
    assert capsys.readouterr().err == "dppmask work: interrupted\n"


def test_debugging_shows_the_traceback(monkeypatch, capsys):
    def work(arguments):
        raise UserError("no")

    monkeypatch.setenv(cli.DEBUG, "1")
    assert run_command(monkeypatch, work) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("dppmask work: no\n")


@pytest.mark.parametrize("error", [RuntimeError("bug"), ValueError("bug"), OSError("bug")])
def test_faults_of_the_program_keep_their_traceback(monkeypatch, error):
    def work(arguments):
        raise error

    with pytest.raises(type(error), match="bug"):
        run_command(monkeypatch, work)
