import pytest
import timm
import torch
from coloured_images import Coloured, tiny_encoder
from safetensors.torch import save_file
from squares import CLASSES, SIDE, Reader, Squares
from torch import nn

from dppmask.data.background_builder import write_backgrounds
from dppmask.data.cut_outs import CutOutVariants
from dppmask.data.in9 import IN9
from dppmask.data.in9_classes import imagenet_to_in9
from dppmask.data.scenes import Scenes
from dppmask.data.transforms import EvalTransform
from dppmask.data.variants import VARIANTS
from dppmask.errors import UserError
from dppmask.evaluation import Backgrounds, Subject, backgrounds
from dppmask.evaluation.class_map import IN9_NAMES
from dppmask.evaluation.classifier import Classifier, save_classifier
from dppmask.evaluation.features import View
from dppmask.evaluation.judged_classifier import JudgedClassifier
from dppmask.rng import fold_in, seeded
from dppmask.specs import build, describe

DATA = CutOutVariants(Squares(), size=None)
TOP = {"original", "only_fg", "mixed_same", "mixed_rand", "mixed_next"}


@pytest.fixture
def reads(monkeypatch):
    """A protocol whose classifier is a network of known answers."""

    def protocol(network, names=CLASSES, **options):
        judged = JudgedClassifier(
            network, (SIDE, SIDE), (0.0,) * 3, (1.0,) * 3, network.num_outputs, list(names), "a reader"
        )
        monkeypatch.setattr(backgrounds, "open_classifier", lambda source, weights: judged)
        return Backgrounds(classifier="reader", **options)

    return protocol


def share_of_equal_classes(name):
    part = DATA.variant(name).split("val")
    return sum(part.label(i) == part.label(part.partner(i)) for i in range(len(part))) / len(part)


def test_who_looks_at_the_object_does_not_mind_the_background(reads):
    result = reads(Reader("object"), num_backgrounds=5).run(Subject(), DATA)
    assert {result.metrics[name] for name in TOP} == {1.0}
    assert (
        result.metrics["no_fg"] == result.metrics["only_bg_b"] == pytest.approx(1 / 3)
    )  # black: the darkest
    assert result.metrics["bg_gap"] == result.standard_errors["bg_gap"] == 0
    assert result.metrics["challenge"] == 1.0
    assert set(result.metrics) == {*VARIANTS, "bg_gap", "challenge"}


def test_who_looks_at_the_background_falls_for_every_other_one(reads):
    result = reads(Reader("floor"), num_backgrounds=5).run(Subject(), DATA)
    expected = {"original": 1, "mixed_same": 1, "mixed_next": 0, "no_fg": 1, "only_bg_t": 1, "challenge": 0}
    assert {name: result.metrics[name] for name in expected} == expected
    share = share_of_equal_classes("mixed_rand")
    assert 0 < share < 1
    assert result.metrics["mixed_rand"] == pytest.approx(share)
    assert result.metrics["bg_gap"] == pytest.approx(1 - share)
    assert result.standard_errors["bg_gap"] == pytest.approx((share * (1 - share) / 24) ** 0.5)
    rows = [row for row in result.tables["confusion"] if row["variant"] == "mixed_next"]
    assert [row["predicted"] for row in rows] == [{"medium": 8}, {"bright": 8}, {"dark": 8}]


def test_an_answer_outside_the_classes_is_wrong_unless_it_is_not_asked_for(reads):
    names = [*CLASSES, "something else"]
    result = reads(Reader("object", num_outputs=4, unsure=True), names).run(Subject(), DATA)
    assert result.metrics["original"] == pytest.approx(2 / 3)
    assert result.metrics["restricted_original"] == 1.0
    assert result.tables["confusion"][2]["predicted"] == {"none of them": 8}
    assert any(
        "1 outputs stand for none of the 3 classes and count as wrong" in note for note in result.notes
    )


def test_a_class_without_an_output_bounds_what_can_be_reached(reads):
    result = reads(Reader("object"), ["dark", "medium", "something else"]).run(Subject(), DATA)
    assert result.baselines["ceiling"]["original"] == pytest.approx(2 / 3)
    assert result.metrics["original"] == pytest.approx(2 / 3)
    assert any("no output stands for bright: at most 2 of 3 classes" in note for note in result.notes)
    complete = reads(Reader("object")).run(Subject(), DATA)
    assert "ceiling" not in complete.baselines
    assert complete.baselines["chance"] == pytest.approx(dict.fromkeys(VARIANTS, 1 / 3) | {"bg_gap": 0})


def test_files_give_what_their_source_gave(reads, tmp_path):
    write_backgrounds(DATA, tmp_path)
    data = IN9(str(tmp_path))
    for network in (Reader("object"), Reader("floor")):
        protocol = reads(network, num_backgrounds=5)
        written, made = protocol.run(Subject(), data), protocol.run(Subject(), DATA)
        assert written.metrics == made.metrics
        assert written.standard_errors == made.standard_errors


def test_missing_variants_and_unreadable_images_are_said(reads, tmp_path):
    write_backgrounds(DATA, tmp_path, variants=["original", "mixed_same", "mixed_rand"])
    next((tmp_path / "mixed_rand/val/00_dark").glob("*.JPEG")).write_bytes(b"no picture")
    protocol = reads(Reader("object"))
    result = protocol.run(Subject(), IN9(str(tmp_path)))
    assert set(result.metrics) == {"original", "mixed_same", "mixed_rand", "bg_gap"}
    assert result.tables["variants"][2]["images"] == 23
    for words in (
        "mixed_rand: 1 images could not be read",
        "variants that are not there: only_fg, mixed_next",
        "the error of bg_gap is not paired",
    ):
        assert any(words in note for note in result.notes)
    with pytest.raises(UserError, match="num_backgrounds needs the variant only_bg_t"):
        reads(Reader("object"), num_backgrounds=1).run(Subject(), IN9(str(tmp_path)))


def test_a_stored_classifier_equals_a_loop_over_images(tmp_path):
    encoder, view = tiny_encoder(), View("mean")
    encoder.mean = (0.3, 0.2, 0.1)
    with seeded(1):
        classifier = Classifier(encoder, nn.Linear(view.width(encoder), 3), view, CLASSES).eval()
    save_classifier(classifier, tmp_path)
    result = Backgrounds(classifier=str(tmp_path)).run(Subject(), DATA)
    transform = EvalTransform(16, mean=encoder.mean, std=encoder.std)
    for name in ("original", "mixed_next"):
        part = DATA.variant(name).split("val")
        right = 0
        for index in range(len(part)):
            sample = part[index]
            with torch.no_grad():
                right += classifier(transform(sample.image)[0][None]).argmax().item() == sample.label
        assert result.metrics[name] == right / len(part)
    assert any(f"the classifier in {tmp_path}; 3 outputs" in note for note in result.notes)
    assert any("mean (0.3, 0.2, 0.1)" in note for note in result.notes)


def test_a_timm_classifier_of_imagenet_answers_by_superclass(tmp_path):
    with seeded(0):
        network = timm.create_model("test_vit", num_classes=1000).eval()
        nn.init.normal_(network.head.weight)
        nn.init.normal_(network.patch_embed.proj.weight)  # else all images look alike
    save_file(network.state_dict(), tmp_path / "weights.safetensors")

    class Nine(Squares):
        def __post_init__(self):
            self.class_names = list(IN9_NAMES)

        def split(self, name):
            return Nine(self.count, name)

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            cells = torch.randint(0, 256, (3, 4, 4), generator=fold_in(2, index), dtype=torch.uint8)
            image = cells.repeat_interleave(4, 1).repeat_interleave(4, 2)
            return type(sample)(image, index % 9, objects=sample.objects, sample_id=index)

    data = CutOutVariants(Nine(count=45), size=None)
    protocol = Backgrounds(classifier="test_vit", weights=str(tmp_path / "weights.safetensors"))
    result = protocol.run(Subject(), data)
    config, superclass = network.pretrained_cfg, imagenet_to_in9()
    transform = EvalTransform(config["input_size"][1:], mean=config["mean"], std=config["std"])
    official, restricted = [], []
    with torch.no_grad():
        for sample in (data.split("val")[index] for index in range(45)):
            logits = network(transform(sample.image)[0][None])[0]
            official.append(superclass[logits.argmax()].item() == sample.label)
            best = max(
                (value, index) for index, value in enumerate(logits.tolist()) if superclass[index] >= 0
            )
            restricted.append(superclass[best[1]].item() == sample.label)
    assert sum(official) > 0
    assert result.metrics["original"] == pytest.approx(sum(official) / 45)
    assert result.metrics["restricted_original"] == pytest.approx(sum(restricted) / 45)
    assert any("630 outputs stand for none of the 9 classes" in note for note in result.notes)
    with pytest.raises(UserError, match="do not fit resnet18"):
        Backgrounds(classifier="resnet18", weights=protocol.weights).run(Subject(), data)


def test_a_head_is_fitted_on_the_training_part_beside_its_baselines():
    scenes = Scenes(size=32, train_size=40, val_size=20, task="single")
    encoder = tiny_encoder(image_size=32, patch_size=8)
    result = Backgrounds().run(Subject(encoder), scenes)
    assert set(result.metrics) == {*VARIANTS, "bg_gap"}
    assert set(result.baselines) == {"chance", "background_only", "random_encoder"}
    assert set(result.baselines["random_encoder"]) == set(result.metrics)
    assert set(result.baselines["background_only"]) == set(result.metrics) - {"only_fg"}
    assert Backgrounds().run(Subject(encoder), scenes) == result
    assert any("fitted on 40 images of the data's own training part" in note for note in result.notes)


def test_kept_arguments_rebuild_it():
    protocol = Backgrounds(
        classifier="test_vit", classes="imagenet-1k", num_backgrounds=3, baselines=("chance",)
    )
    assert describe(build(describe(protocol))) == describe(protocol)


@pytest.mark.parametrize(
    ("protocol", "subject", "data", "message"),
    [
        (Backgrounds(), Subject(), DATA, "Backgrounds without a classifier evaluates an encoder"),
        (Backgrounds(), Subject(tiny_encoder()), Coloured(), "without an object mask"),
        (Backgrounds(), Subject(tiny_encoder()), Scenes(), "use --data.task single"),
        (
            Backgrounds(classifier="resnet"),
            Subject(),
            DATA,
            "neither a folder with a classifier nor a timm name",
        ),
        (Backgrounds(classifier="resnet18.none"), Subject(), DATA, "timm publishes no weights"),
        (Backgrounds(classifier="."), Subject(), DATA, "holds no classifier.json; fine-tune first"),
        (Backgrounds(classifier=".", weights="a"), Subject(), DATA, "is a folder that has its own"),
    ],
)
def test_unsuitable_subjects_and_data(protocol, subject, data, message):
    with pytest.raises(UserError, match=message):
        protocol.run(subject, data)


def test_files_without_a_training_part_need_a_classifier(tmp_path):
    write_backgrounds(DATA, tmp_path, variants=["original"])
    with pytest.raises(UserError, match=r"no training part to fit a head on .*; or give a classifier"):
        Backgrounds().run(Subject(tiny_encoder()), IN9(str(tmp_path)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "file"}, "weights belong to a classifier"),
        ({"num_backgrounds": -1}, "num_backgrounds must be at least 0"),
        ({"baselines": ("raw_pixels",)}, "baseline 'raw_pixels' does not exist"),
        ({"pooling": "max"}, "pooling must be one of"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        Backgrounds(**options)
