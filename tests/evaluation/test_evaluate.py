import json
from functools import partial

import numpy as np
import pytest
import safetensors
import torch
from coloured_images import Coloured, Lamps, Unlabelled, tiny_encoder

from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.evaluation import (
    KNN,
    Clustering,
    LinearFast,
    LinearSweep,
    MaskStatistics,
    MultiLabel,
    evaluate,
    extract,
)
from dppmask.models.checkpoint import save_encoder
from dppmask.specs import build


@pytest.fixture
def run(tmp_path):
    """What evaluation needs of a run folder: a configuration and an exported encoder."""
    save_encoder(tiny_encoder(), tmp_path / "run" / "encoder")
    (tmp_path / "run" / "config.yaml").write_text("seed: 0\n")
    return tmp_path / "run"


def numbers(record):
    return {name: record[name] for name in ("metrics", "standard_errors", "baselines", "tables", "notes")}


def test_a_record_tells_everything(run):
    record = evaluate(run, KNN(k=(3,)), Coloured(), seed=4)
    assert record["protocol"] == "KNN"
    assert build(record["settings"]).k == (3,)
    assert record["data"]["init_args"]["train_size"] == 60
    assert record["subject"]["source"] == str(run)
    assert record["subject"]["encoder"]["backbone"] == "test_vit"
    assert record["seed"] == 4
    assert {"command", "commit", "versions", "hardware", "date", "compute"} <= set(record)
    assert set(record["baselines"]) == {"chance", "raw_pixels", "random_encoder"}


def test_records_are_appended_to_the_run_and_equal_calls_agree(run):
    data = Coloured(val_size=40, meaningless=True)
    records = [evaluate(run, protocol, data, seed=1) for protocol in (KNN(k=(3,)), KNN(k=(3,)), LinearFast())]
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert lines == records
    assert numbers(lines[0]) == numbers(lines[1])
    assert lines[2]["protocol"] == "LinearFast"


def test_cached_features_give_the_same_numbers(run):
    first = evaluate(run, KNN(k=(3,)), Coloured())
    cached = set((run / "features").iterdir())
    assert numbers(evaluate(run, KNN(k=(3,)), Coloured())) == numbers(first)
    assert set((run / "features").iterdir()) == cached
    assert numbers(evaluate(tiny_encoder(), KNN(k=(3,)), Coloured())) == numbers(first)


def test_an_encoder_or_nothing_leaves_no_file(run):
    record = evaluate(run / "encoder", KNN(k=(3,), baselines=()), Coloured())
    assert record["metrics"]
    assert not (run / "results.jsonl").exists()
    assert {path.name for path in run.iterdir()} == {"encoder", "config.yaml"}
    masks = MaskStatistics(num_images=4, image_size=32, patch_size=8)
    assert evaluate(None, masks, Scenes(size=32, train_size=2, val_size=4))["subject"] == {"source": None}


@pytest.mark.parametrize("task", ["single", "multi"])
def test_every_protocol_on_scenes(task, run):
    data = Scenes(size=32, train_size=12, val_size=6, task=task)
    protocols = [LinearFast(l2=(0.1,)), MaskStatistics(mask_ratio=0.5)]
    if task == "single":
        protocols.append(KNN(k=(3,)))
        protocols.append(Clustering(num_clusters=4, restarts=1))
        protocols.append(LinearSweep(epochs=1, batch_size=6, base_lrs=(0.1, 1.0), blocks=2))
    for protocol in protocols:
        record = evaluate(run, protocol, data, batch_size=5)
        values = [*record["metrics"].values(), *record["standard_errors"].values()]
        assert values
        assert np.isfinite(values).all()
        assert record["baselines"]["chance"]


def test_another_image_size(run):
    record = evaluate(run, KNN(k=(3,), baselines=()), Coloured(), image_size=32)
    assert record["subject"]["encoder"]["image_size"] == [32, 32]
    with pytest.raises(UserError, match="image_size changes an encoder while it is loaded"):
        evaluate(tiny_encoder(), KNN(), Coloured(), image_size=32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device must be 'auto', 'cpu' or 'cuda', got 'gpu'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"precision": "8"}, "precision must be '32' or 'bf16'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        evaluate(tiny_encoder(), KNN(), Coloured(), **options)


def test_no_such_run(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        evaluate(tmp_path / "nowhere", KNN(), Coloured())


@pytest.mark.parametrize("data", [Coloured(5), Lamps(5), Unlabelled(5)], ids=["classes", "labels", "neither"])
def test_embeddings_in_both_formats(tmp_path, run, data):
    tables = {}
    for suffix in (".npz", ".safetensors"):
        out = extract(run, data, tmp_path / f"table{suffix}", pooling="mean")
        if suffix == ".npz":
            tables[suffix] = dict(np.load(out, allow_pickle=False))
        else:
            with safetensors.safe_open(out, "np") as file:
                tables[suffix] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                tables[suffix]["names"] = np.array(json.loads(file.metadata()["names"]))
    one, other = tables.values()
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    assert one["features"].shape == (5, 32)
    assert one["names"].tolist() == list("01234")
    assert ("labels" in one) == (not isinstance(data, Unlabelled))


def test_embeddings_are_those_of_the_encoder(tmp_path, run):
    out = extract(tiny_encoder(), Coloured(5), tmp_path / "table.npz", split="val", pooling="mean")
    loaded = np.load(extract(run, Coloured(5), tmp_path / "other.npz", split="val", pooling="mean"))
    torch.testing.assert_close(
        torch.from_numpy(np.load(out)["features"]), torch.from_numpy(loaded["features"])
    )
    with pytest.raises(UserError, match=r"out must end with .npz or .safetensors, got 'table.csv'"):
        extract(run, Coloured(5), tmp_path / "table.csv")


def test_names_are_files_where_there_are_files(tmp_path, run):
    class Files(Coloured):
        def path(self, index):
            return tmp_path / f"{index}.png"

        def split(self, name):
            return Files(self.train_size, opened=name)

    for index in range(3):
        (tmp_path / f"{index}.png").touch()
    names = np.load(extract(run, Files(3), tmp_path / "table.npz"))["names"]
    assert names.tolist() == [str(tmp_path / f"{index}.png") for index in range(3)]


@pytest.mark.parametrize(("protocol", "task"), [(KNN(k=(2,)), "single"), (MultiLabel(), "multi")])
def test_without_data_the_built_in_scenes_that_suit_the_protocol(monkeypatch, capsys, protocol, task):
    few = partial(Scenes, size=32, train_size=16, val_size=8)
    monkeypatch.setattr("dppmask.evaluation.run.Scenes", few)
    record = evaluate(tiny_encoder(), protocol)
    assert record == evaluate(tiny_encoder(), protocol, few(task=task)) | {"date": record["date"]}
    assert f"evaluating on Scenes, task {task}" in capsys.readouterr().err
