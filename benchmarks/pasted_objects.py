"""How many small objects masks lose on photographs, with the tokens of an untrained or of a trained encoder.

``python benchmarks/pasted_objects.py [--run RUN] [--out benchmarks/results/pasted_objects.csv]`` writes one
row per strategy and mask ratio. Irregular pieces of one photograph are pasted on another, 14 x 14 patches; an
object is lost if less than 5 % of it is visible. Without ``--run`` the tokens are those of a fresh ViT-S at
224 px; a run is shown the photographs at its own patch size.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dppmask.bench.harness import Row, machine, write_rows
from dppmask.evaluation.mask_measures import LOST_BELOW
from dppmask.masks import DPPMask, MaskContext, MaskStrategy, RandomMask, num_masked_for
from dppmask.models.encoder import Encoder
from dppmask.models.weights import load_encoder
from dppmask.rng import fold_in, seeded
from pasted_photographs import PastedObjects, pasted_objects

GRID = (14, 14)
MASK_RATIOS = (0.75, 0.9)
PURGE_RATIOS = (0.0, 0.1, 0.3)
ENCODER_SEED, MASK_SEED = 71, 72
NUM_IMAGES, NUM_MASKS = 128, 2


def open_encoder(run: str | None) -> Encoder:
    """A trained encoder at 14 x 14 patches, or a fresh ViT-S."""
    if run is not None:
        return load_encoder(run, image_size=GRID[0] * load_encoder(run).patch_size)
    with seeded(ENCODER_SEED):  # depth 1: tokens come before any block
        return Encoder("vit_small_patch16_224", backbone_args={"depth": 1})


def objects_lost(
    strategy: MaskStrategy, tokens: Tensor, photographs: PastedObjects, mask_ratio: float
) -> Tensor:
    """The share of masks that lose the object of each image, float64 ``[B]``; all have equal noise."""
    context = MaskContext(photographs.images, GRID, tokens=tokens)
    num_masked = num_masked_for(mask_ratio, context.num_patches)
    masks = [strategy(context, num_masked, generator=fold_in(MASK_SEED, n)) for n in range(NUM_MASKS)]
    lost = [photographs.visible_share(mask.masked, GRID) < LOST_BELOW for mask in masks]
    return torch.stack(lost).double().mean(0)


@torch.no_grad()
def measure(run: str | None) -> Iterator[Row]:
    """One row per ratio and strategy, random masks first."""
    encoder = open_encoder(run)
    photographs = pasted_objects(NUM_IMAGES, size=encoder.image_size[0])
    tokens = encoder.embed(photographs.images)
    for mask_ratio in MASK_RATIOS:
        for strategy in (RandomMask(), *(DPPMask(purge_ratio) for purge_ratio in PURGE_RATIOS)):
            lost = objects_lost(strategy, tokens, photographs, mask_ratio)
            yield {
                "encoder": run or f"fresh vit_small_patch16_224, seed {ENCODER_SEED}",
                "mask_ratio": mask_ratio,
                "strategy": type(strategy).__name__,
                "purge_ratio": getattr(strategy, "purge_ratio", ""),
                "objects_lost": round(lost.mean().item(), 4),
                "standard_error": round((lost.std() / len(lost) ** 0.5).item(), 4),
                "images": NUM_IMAGES,
                "masks": NUM_MASKS,
                "mask_seed": MASK_SEED,
                "command": shlex.join(["python", *sys.argv]),
                **machine(),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", help="a run, or whatever else load_encoder takes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pasted_objects.csv"))
    options = parser.parse_args()
    rows = list(measure(options.run))
    write_rows(options.out, rows)
    for row in rows:
        name = f"{row['strategy']} {row['purge_ratio']}".strip()
        print(
            f"ratio {row['mask_ratio']}  {name:<12}  {row['objects_lost']:.1%} ± {row['standard_error']:.1%}"
        )


if __name__ == "__main__":
    main()
