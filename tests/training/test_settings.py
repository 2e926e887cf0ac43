import inspect
from functools import partial
from pathlib import Path

import pytest
import yaml

from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.masks import Coarse, DPPMask
from dppmask.models.mae import MAE
from dppmask.training.settings import brief, check_same, completed, plain, stored, told_what_is_given


def options(**changes):
    return {"run": Path("runs/x"), "method": MAE, "mask": DPPMask(), "data": Scenes(), "epochs": 3} | changes


def test_plain_options_survive_yaml():
    config = plain(options(mask=Coarse(DPPMask(0.1)), mask_ratio=(0.5, 0.75), loggers=(), resume=True))
    assert yaml.safe_load(yaml.safe_dump(config)) == config
    assert config["run"] == "runs/x"
    assert config["mask_ratio"] == [0.5, 0.75]
    assert "resume" not in config


def test_objects_classes_partial_calls_and_specs_that_mean_the_same_are_the_same():
    spec = {"class_path": "dppmask.models.mae.MAE", "init_args": {"decoder_depth": 2}}
    assert plain(options(method=spec)) == plain(options(method=partial(MAE, decoder_depth=2)))
    assert plain(options(method=MAE)) == plain(options(method={"class_path": "dppmask.models.mae.MAE"}))
    spec = {"class_path": "dppmask.masks.DPPMask", "init_args": {"purge_ratio": 0.1}}
    assert plain(options(mask=spec)) == plain(options(mask=DPPMask(purge_ratio=0.1)))


def test_options_that_are_not_given_are_completed():
    old = {"seed": 7, "epochs": 100}
    config = {"seed": 0, "epochs": 50, "mask_ratio": 0.75}
    assert completed(config, {"epochs"}, old) == {"seed": 7, "epochs": 50, "mask_ratio": 0.75}
    assert completed(config, {"seed", "epochs"}, old) == config


def test_a_function_knows_which_arguments_are_given_and_its_caller_sees_nothing_of_it():
    @told_what_is_given
    def work(*, epochs=3, seed=0, given=()):
        return epochs, seed, given

    assert work(epochs=3) == (3, 0, {"epochs"})
    assert str(inspect.signature(work)) == "(*, epochs=3, seed=0)"


def test_only_what_changes_the_weights_must_be_the_same():
    old = plain(options(num_workers=2))
    check_same(old, plain(options(num_workers=8)), Path("runs/x"))
    with pytest.raises(UserError, match=r"^cannot resume runs/x with mask=DPPMask\(purge_ratio=0\.5, .*0\.3"):
        check_same(old, plain(options(mask=DPPMask(0.5))), Path("runs/x"))


def test_brief_is_how_a_user_writes_it():
    assert brief({"class_path": "a.b.C", "init_args": {"x": 1, "d": {"class_path": "D"}}}) == "C(x=1, d=D())"
    assert brief("text") == "'text'"


@pytest.mark.parametrize(("text", "message"), [("a: [", "not valid YAML"), ("- 1", "must hold the options")])
def test_a_damaged_config_is_one_line(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        stored(tmp_path)
    assert "\n" not in str(error.value)


def test_no_config_yet(tmp_path):
    assert stored(tmp_path) is None
