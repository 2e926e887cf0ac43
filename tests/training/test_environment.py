import json
import subprocess

import pytest

from dppmask.training.environment import commit, describe_environment, record_environment, typed_command

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main")


def test_environment_says_where_a_number_comes_from():
    environment = describe_environment()
    assert environment["versions"]["torch"]
    assert environment["hardware"]["cpu_cores"] >= 1
    assert "python" in environment["command"] or "pytest" in environment["command"]
    json.dumps(environment)


@pytest.mark.parametrize("program", ["/home/me/.venv/bin/dppmask", "/lib/dppmask/__main__.py"])
def test_our_own_command_names_no_folder_of_this_machine(program, monkeypatch):
    monkeypatch.setattr("sys.argv", [program, "reproduce", "table1", "--seeds", "[0, 1]"])
    assert typed_command() == "dppmask reproduce table1 --seeds '[0, 1]'"


def test_resuming_adds_to_the_list(tmp_path):
    path = tmp_path / "environment.json"
    for _ in range(3):
        record_environment(path)
    content = json.loads(path.read_text())
    assert len(content["resumed"]) == 2
    assert content["resumed"][1]["versions"] == content["versions"]


def test_commit_of_a_checkout_and_its_changes(tmp_path):
    def git(*arguments):
        subprocess.run([*GIT, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    assert commit(tmp_path) is None
    git("init")
    (tmp_path / "file").write_text("a")
    assert commit(tmp_path) is None  # inside a checkout, but not part of it: an installed wheel
    git("add", "file")
    git("commit", "-m", "x")
    clean = commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "file").write_text("b")
    assert commit(tmp_path) == f"{clean}+changes"


def test_changes_outside_the_folder_do_not_count(tmp_path):
    def git(*arguments):
        subprocess.run([*GIT, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "code").write_text("a")
    (tmp_path / "results").write_text("a")
    git("add", ".")
    git("commit", "-m", "x")
    clean = commit(tmp_path / "package")
    (tmp_path / "results").write_text("b")
    assert commit(tmp_path / "package") == clean
    (tmp_path / "package" / "code").write_text("b")
    assert commit(tmp_path / "package") == f"{clean}+changes"
