"""One MAE training step, ours against transformers' ViTMAE at equal shapes, in turns in one run.

``python benchmarks/mae_step.py [--out benchmarks/results/mae_step_cpu.csv] [--quick] [--threads 1]`` writes
the CSV. A step is forward, backward and AdamW with a fresh random mask: encoder ViT-S, decoder 512 x 8 x 16,
224 px, ratio 0.75, float32. ``ratio`` is the median time over that of transformers (below 1 is faster).
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from dppmask.masks import RandomMask, num_masked_for
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.rng import fold_in, seeded
from harness import machine, measure_in_turns, write_rows

WIDTH, DEPTH, NUM_HEADS = 384, 12, 6  # ViT-S
MASK_RATIO = 0.75


def transformers_mae() -> ViTMAEForPreTraining:
    """The rival, as large as ours."""
    config = ViTMAEConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=NUM_HEADS,
        intermediate_size=4 * WIDTH,
        layer_norm_eps=1e-6,
        mask_ratio=MASK_RATIO,
        norm_pix_loss=True,
    )
    return ViTMAEForPreTraining(config)


def our_step(model: MAE, images: Tensor) -> Callable[[], None]:
    """A training step, RandomMask included."""
    optimizer = adamw(model)
    strategy, generator = RandomMask(), fold_in(0)
    num_masked = num_masked_for(MASK_RATIO, model.encoder.num_patches)

    def step() -> None:
        optimizer.zero_grad()
        context = model.context(images)
        model(context, strategy(context, num_masked, generator=generator)).loss.backward()
        optimizer.step()

    return step


def transformers_step(model: ViTMAEForPreTraining, images: Tensor) -> Callable[[], None]:
    optimizer = adamw(model)

    def step() -> None:
        optimizer.zero_grad()
        model(images).loss.backward()
        optimizer.step()

    return step


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trained(model), lr=1e-4, betas=(0.9, 0.95))


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def check_equal_sizes(ours: nn.Module, theirs: nn.Module) -> None:
    """Nothing is measured unless both train equally many weights."""
    sizes = [sum(parameter.numel() for parameter in trained(model)) for model in (ours, theirs)]
    if sizes[0] != sizes[1]:
        raise SystemExit(f"the models train {sizes[0]} and {sizes[1]} weights; nothing was measured")


def main() -> None:
    default = Path(__file__).parent / "results" / "mae_step_cpu.csv"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--quick", action="store_true", help="few repeats: to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    repeats = 2 if options.quick else 30
    with seeded(0):
        images = torch.randn(options.batch_size, 3, 224, 224)
        ours, theirs = MAE(Encoder("vit_small_patch16_224")), transformers_mae().train()
        check_equal_sizes(ours, theirs)
        steps = {"dppmask": our_step(ours, images), "transformers": transformers_step(theirs, images)}
        timings = measure_in_turns(steps, repeats=repeats, warmup=2)
    facts = {"batch": options.batch_size, "repeats": repeats, "threads": options.threads}
    rows = [
        {
            "implementation": name,
            "median_s": round(timing.median, 4),
            "low_s": round(timing.low, 4),
            "high_s": round(timing.high, 4),
            "ratio": round(timing.median / timings["transformers"].median, 3),
            **facts,
            **machine("timm", "transformers"),
        }
        for name, timing in timings.items()
    ]
    write_rows(options.out, rows)
    for row in rows:
        print(f"{row['implementation']:>12}  {row['median_s']:.3f} s  ratio {row['ratio']:.3f}")


if __name__ == "__main__":
    main()
