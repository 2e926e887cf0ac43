"""Every strategy at every mask ratio, on the same images with the same noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dppmask.masks import Mask, MaskContext, MaskStrategy, num_masked_for
from dppmask.rng import fold_in


class Setting(NamedTuple):
    """One kind of masks.

    Attributes:
        strategy: Label of the strategy.
        mask_ratio: Share of hidden patches.
    """

    strategy: str
    mask_ratio: float


@dataclass(frozen=True, eq=False)
class MaskGrid:
    """What is compared.

    Attributes:
        strategies: By label.
        mask_ratios: Shares of hidden patches.
        seed: Of all masks.
    """

    strategies: Mapping[str, MaskStrategy]
    mask_ratios: Sequence[float]
    seed: int

    @property
    def needs(self) -> frozenset[str]:
        """What the strategies read."""
        return frozenset().union(*(strategy.needs for strategy in self.strategies.values()))

    def draw(self, context: MaskContext, num_masks: int, *counters: int) -> dict[Setting, list[Mask]]:
        """Several masks of each image in every setting; the j-th of all settings have the same noise.

        Args:
            context: The images.
            num_masks: How many masks.
            counters: What else is counted, such as the number of the batch.
        """
        return {
            Setting(label, mask_ratio): [
                strategy(
                    context,
                    num_masked_for(mask_ratio, context.num_patches),
                    generator=fold_in(self.seed, *counters, number),
                )
                for number in range(num_masks)
            ]
            for mask_ratio in self.mask_ratios
            for label, strategy in self.strategies.items()
        }
