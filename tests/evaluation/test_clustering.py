import pytest
import torch
import yaml
from coloured_images import PALETTE, Coloured, Lamps, tiny_encoder
from sklearn.metrics import adjusted_rand_score

from dppmask.errors import UserError
from dppmask.evaluation import Clustering, Subject, evaluate
from dppmask.evaluation.clustering import kmeans
from dppmask.models.build import build_model
from dppmask.models.checkpoint import save_encoder
from dppmask.models.mae import MAE
from dppmask.rng import fold_in, seeded
from dppmask.specs import build, describe

NAMES = {"nmi", "acc", "ari"}


class Headed(MAE):
    """An MAE with a head on the class token: how near an image's mean colour is to each of the palette's."""

    def __init__(self, encoder, outputs=3):
        super().__init__(encoder, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2)
        self.outputs = outputs

    def cls_logits(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        mean, std = (torch.tensor(x)[:, None, None] for x in (self.encoder.mean, self.encoder.std))
        colour = (images * std + mean).mean((2, 3))  # [B, 3]
        logits = -torch.cdist(colour, PALETTE[:3] / 255)
        return torch.nn.functional.pad(logits, (0, self.outputs - 3), value=-9.0)


def run_of(folder, method, **arguments):
    """A run folder of a method that was never trained."""
    config = {
        "method": {"class_path": f"{method.__module__}.{method.__name__}", "init_args": arguments},
        "backbone": "test_vit",
        "image_size": 16,
        "patch_size": 4,
    }
    with seeded(0):
        model = build_model(config)
    save_encoder(model.encoder, folder / "encoder")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "checkpoints").mkdir()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
    return folder


def kmeans_names(result):
    return {name for name in result.metrics if name.startswith("kmeans_")}


def test_plain_classes_are_sorted_and_meaningless_ones_are_not():
    subject = Subject(tiny_encoder())
    found = Clustering(pooling="mean").run(subject, Coloured(train_size=90))
    assert found.metrics["kmeans_acc"] > 0.9
    assert found.metrics["kmeans_nmi"] > 0.8
    assert found.metrics["kmeans_ari"] > 0.8
    assert found.baselines["raw_pixels"]["kmeans_acc"] > 0.9  # the colour is in the pixels
    control = Clustering(pooling="mean").run(subject, Coloured(train_size=90, val_size=60, meaningless=True))
    for name, chance in control.baselines["chance"].items():
        assert abs(control.metrics[name] - chance) < 4 * max(control.standard_errors[name], 0.02), name


def test_every_number_stands_beside_its_baselines():
    result = Clustering(restarts=2).run(Subject(tiny_encoder()), Coloured())
    assert set(result.baselines) == {"chance", "raw_pixels", "random_encoder"}
    for values in (result.metrics, result.standard_errors, *result.baselines.values()):
        assert set(values) == {f"kmeans_{name}" for name in NAMES}
    assert result.tables["clusters"] == [{"source": "kmeans", "clusters": 3, "used": 3}]


def test_the_number_of_clusters_is_free():
    result = Clustering(num_clusters=6, pooling="mean", baselines=("chance",)).run(
        Subject(tiny_encoder()), Coloured(train_size=90)
    )
    assert result.tables["clusters"][0]["clusters"] == 6
    assert result.metrics["kmeans_acc"] < 0.9  # one cluster of six for each class
    assert result.metrics["kmeans_nmi"] > 0.5


def clouds(count, *, key):
    centres = 4 * torch.eye(5)[:4]
    labels = torch.arange(count) % 4
    return centres[labels] + 0.3 * torch.randn(count, 5, generator=fold_in(55, key)), labels


def test_kmeans_joins_the_nearest_centre_of_the_training_part():
    (train, _), (val, labels) = clouds(80, key=0), clouds(41, key=1)
    clusters = kmeans(train, val, 4, restarts=3, seed=0)
    assert clusters.dtype == torch.int64
    assert adjusted_rand_score(labels, clusters) == 1.0
    with pytest.raises(UserError, match="at most the number of training images, 3, got 4"):
        kmeans(train[:3], val, 4, restarts=1, seed=0)


def test_normalising_looks_at_angles():
    data = Coloured(train_size=90)
    angles, lengths = (
        Clustering(normalise=normalise, pooling="mean", baselines=()).run(Subject(tiny_encoder()), data)
        for normalise in (True, False)
    )
    assert kmeans_names(angles) == kmeans_names(lengths)
    long, short = torch.tensor([[10.0, 0.1], [0.1, 10.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    rows = torch.nn.functional.normalize(torch.cat([long, short]), dim=1)
    assert kmeans(rows, rows, 2, restarts=2, seed=0).unflatten(0, (2, 2)).diff(dim=0).abs().sum() == 0


def test_the_head_of_a_run_is_reported_beside_kmeans(tmp_path):
    record = evaluate(run_of(tmp_path, Headed), Clustering(restarts=1), Coloured())
    metrics = record["metrics"]
    assert {name for name in metrics if name.startswith("head_")} == {f"head_{name}" for name in NAMES}
    assert metrics["head_acc"] > 0.9
    assert metrics["head_nmi"] > 0.8
    assert set(record["standard_errors"]) == set(metrics)
    assert set(record["baselines"]["chance"]) == set(metrics)
    assert 0.3 < record["baselines"]["chance"]["head_acc"] < 0.5
    assert set(record["baselines"]["random_encoder"]) == {f"kmeans_{name}" for name in NAMES}
    assert [row["source"] for row in record["tables"]["clusters"]] == ["kmeans", "head"]


def test_a_head_of_another_width_has_no_accuracy_and_says_so(tmp_path):
    run = run_of(tmp_path, Headed, outputs=8)
    record = evaluate(run, Clustering(restarts=1, baselines=("chance",)), Coloured())
    assert "head_acc" not in {**record["metrics"], **record["baselines"]["chance"]}
    assert record["metrics"]["head_nmi"] > 0.8
    assert record["tables"]["clusters"][1] == {"source": "head", "clusters": 8, "used": 3}
    assert "head_acc is left out: the head has 8 outputs for 3 classes" in record["notes"]


def test_a_method_without_a_head_has_kmeans_alone(tmp_path):
    small = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
    record = evaluate(run_of(tmp_path, MAE, **small), Clustering(restarts=1, baselines=()), Coloured())
    assert set(record["metrics"]) == {f"kmeans_{name}" for name in NAMES}
    assert record["notes"] == []


def test_equal_calls_give_equal_results():
    def run(seed):
        protocol = Clustering(restarts=1, baselines=("chance", "random_encoder"))
        return protocol.run(Subject(tiny_encoder()), Coloured(meaningless=True, val_size=60), seed=seed)

    one, same, other = run(0), run(0), run(1)
    assert one == same
    assert one.baselines != other.baselines


def test_kept_arguments_rebuild_it():
    protocol = Clustering(num_clusters=5, restarts=2, normalise=False, pooling="mean", baselines=("chance",))
    assert describe(build(describe(protocol))) == describe(protocol)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clusters": 1}, "num_clusters must be at least 2, got 1"),
        ({"restarts": 0}, "restarts must be at least 1, got 0"),
        ({"baselines": ("luck",)}, "baseline 'luck' does not exist"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        Clustering(**options)


def test_unsuitable_data():
    with pytest.raises(UserError, match="Clustering needs one class per image"):
        Clustering().run(Subject(tiny_encoder()), Lamps())
    with pytest.raises(UserError, match="num_clusters must be at most the number of training images, 60"):
        Clustering(num_clusters=61).run(Subject(tiny_encoder()), Coloured())
