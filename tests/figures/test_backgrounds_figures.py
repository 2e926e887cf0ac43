import pytest
import torch

from dppmask.data.scene_variants import SceneVariants
from dppmask.data.scenes import Scenes
from dppmask.data.variants import VARIANTS
from dppmask.errors import UserError
from dppmask.evaluation.variant_examples import background_examples
from dppmask.figures.background_examples import draw_examples, draw_variants
from dppmask.figures.backgrounds import MATRICES, background_bars, draw
from dppmask.figures.style import figure_bytes

SCENES = Scenes(size=32, train_size=2, val_size=6, task="single")


def record(*, seed=0, source="runs/a", classifier=None, variants=tuple(VARIANTS)):
    shares = {name: (seed + number + 1) / 20 for number, name in enumerate(variants)}
    metrics = shares | ({"bg_gap": 0.25} if "mixed_rand" in variants else {})
    rows = [
        {
            "variant": name,
            "class": label,
            "predicted": {"a": 3, "none of them": 1} if label == "a" else {"b": 4},
        }
        for name in variants
        for label in ("a", "b")
    ]
    return {
        "protocol": "Backgrounds",
        "settings": {"init_args": {"classifier": classifier}},
        "subject": {"source": source},
        "seed": seed,
        "metrics": metrics,
        "standard_errors": dict.fromkeys(metrics, 0.02),
        "baselines": {"chance": dict.fromkeys(metrics, 0.5)},
        "tables": {"confusion": rows},
    }


def test_one_evaluation_is_bars_and_confusion():
    figure = draw([record()])
    bars, *matrices = (axes for part in figure.subfigs for axes in part.axes)
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([n / 20 for n in range(1, 9)])
    assert [place.get_title(loc="left") for place in matrices] == list(MATRICES)
    (image,) = matrices[0].images
    assert image.get_array().tolist() == [[0.75, 0, 0.25], [0, 1, 0]]
    legend = [text.get_text() for text in bars.get_legend().get_texts()]
    assert "runs/a: gap 25.0 ± 2.0 points" in legend
    assert "chance" in legend
    assert figure_bytes(figure) == figure_bytes(draw([record()]))


def test_several_evaluations_share_the_bars():
    records = [record(seed=0), record(seed=1), record(classifier="runs/a/finetune", variants=["original"])]
    names = [bars.name for bars in background_bars(records)]
    assert names == ["runs/a, seed 0", "runs/a, seed 1", "runs/a/finetune"]
    assert background_bars(records)[2].caption == "runs/a/finetune"
    figure = draw(records)
    assert len(figure.axes) == 1
    assert len(figure.axes[0].patches) == 8 + 8 + 1
    with pytest.raises(UserError, match="at most 6 can be told apart"):
        draw([record()] * 7)


def test_examples_show_the_same_foreground_in_every_variant(tmp_path):
    source = SceneVariants(SCENES)
    examples = background_examples(source, 3)
    assert list(examples.columns) == list(VARIANTS)
    for name, images in examples.columns.items():
        part = source.variant(name).split("val")
        for index, image in zip((0, 2, 4), images, strict=True):
            assert torch.equal(image, part[index].image)
    figure = draw_examples(examples)
    assert len(figure.axes) == 3 * 8
    assert figure.axes[0].get_ylabel() == examples.classes[0]
    assert draw_variants(data=SCENES, out=str(tmp_path / "strip.png"), num_images=1).stat().st_size > 1000
    with pytest.raises(UserError, match="num_images must be at least 1"):
        background_examples(source, 0)
