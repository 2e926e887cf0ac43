"""What every mask strategy promises. Inherit ``StrategyContract`` and give it a fixture ``strategy``."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dppmask.masks import Mask, MaskContext, MaskStrategy, Tokens, take
from dppmask.rng import fold_in
from dppmask.specs import build, describe

# Rows and columns of patches: odd, non-square, flat; multiples of 3, so that cells of 3 × 3 patches fit.
GRIDS = [(6, 6), (3, 9), (9, 3)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
COUNTS = {
    "none": lambda N: 0,
    "one": lambda N: 1,
    "half": lambda N: N // 2,
    "three quarters": lambda N: round(0.75 * N),
    "all but one": lambda N: N - 1,
}
grids = pytest.mark.parametrize("grid", GRIDS, ids=str)


def full_context(
    batch: int = 4, grid: tuple[int, int] = (6, 6), *, dtype: torch.dtype = torch.float32, seed: int = 0
) -> MaskContext:
    """A context that knows everything: images with oblong patches, tokens, a teacher with attention."""
    generator = fold_in(seed, batch, *grid)
    num_patches = grid[0] * grid[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    attention = normal(batch, 2, num_patches).softmax(-1)
    teacher = Tokens(normal(batch, 1, 8), normal(batch, num_patches, 8), attention)
    images = normal(batch, 3, 4 * grid[0], 2 * grid[1])
    return MaskContext(images, grid, tokens=normal(batch, num_patches, 16), teacher=teacher)


def draw(strategy: MaskStrategy, context: MaskContext, num_masked: int | Tensor, *, seed: int = 0) -> Mask:
    return strategy(context, num_masked, generator=fold_in(7, seed))


def global_states() -> tuple[object, ...]:
    numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002 (the legacy generator is what must not move)
    return torch.get_rng_state().tolist(), numpy_state, random.getstate()


class StrategyContract:
    @grids
    @pytest.mark.parametrize("count", COUNTS)
    def test_hides_exactly_the_count(self, strategy, grid, count):
        context = full_context(3, grid)
        N = context.num_patches
        num_masked = COUNTS[count](N)
        mask = draw(strategy, context, num_masked)
        assert mask.masked.dtype == torch.bool
        assert mask.masked.shape == (3, N)
        assert mask.num_masked == num_masked
        assert mask.masked.sum(1).tolist() == [num_masked] * 3

    @grids
    def test_hides_exactly_the_count_of_each_row(self, strategy, grid):
        context = full_context(5, grid)
        N = context.num_patches
        counts = torch.tensor([0, 1, N // 2, N - 1, N // 2])
        mask = draw(strategy, context, counts)
        assert mask.masked.sum(1).tolist() == counts.tolist()
        assert mask.num_masked is None

    def test_indices_are_consistent(self, strategy):
        context = full_context()
        x = context.tokens
        mask = draw(strategy, context, 25)
        assert mask.ids_keep.shape == (4, 11)
        assert mask.ids_mask.shape == (4, 25)
        assert (mask.ids_keep.diff(dim=1) > 0).all()
        assert (mask.ids_mask.diff(dim=1) > 0).all()
        assert not mask.masked.gather(1, mask.ids_keep).any()
        assert mask.masked.gather(1, mask.ids_mask).all()
        shuffled = torch.cat([take(x, mask.ids_keep), take(x, mask.ids_mask)], dim=1)
        assert torch.equal(take(shuffled, mask.ids_restore), x)

    def test_equal_generators_give_equal_masks(self, strategy):
        first, second = (draw(copy.deepcopy(strategy), full_context(), 20, seed=3) for _ in range(2))
        assert torch.equal(first.masked, second.masked)

    def test_other_generators_give_other_masks(self, strategy):
        masks = [draw(strategy, full_context(), 20, seed=seed).masked for seed in range(4)]
        assert any(not torch.equal(masks[0], other) for other in masks[1:]) or not strategy.is_random

    def test_a_generator_moves_on(self, strategy):
        generator = fold_in(0, 1)
        masks = [strategy(full_context(), 20, generator=generator).masked for _ in range(4)]
        assert any(not torch.equal(masks[0], other) for other in masks[1:]) or not strategy.is_random

    def test_images_of_a_batch_differ(self, strategy):
        same = full_context(1)
        context = MaskContext(
            same.images.expand(8, -1, -1, -1),
            same.grid,
            tokens=same.tokens.expand(8, -1, -1),
            teacher=Tokens(*(x.expand(8, -1, -1) for x in vars(same.teacher).values())),
        )
        masked = draw(strategy, context, 20).masked
        assert len(masked.unique(dim=0)) > 1 or not strategy.is_random

    def test_global_generators_are_not_touched(self, strategy):
        before = global_states()
        draw(strategy, full_context(), 20)
        assert global_states() == before

    def test_no_gradient_is_cut(self, strategy):
        context = full_context()
        tokens = context.tokens.requires_grad_()
        mask = draw(strategy, context, 20)
        assert context.tokens is tokens
        assert not mask.masked.requires_grad
        take(context.tokens, mask.ids_keep).sum().backward()
        assert torch.equal(tokens.grad[..., 0] == 1, ~mask.masked)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_any_dtype(self, strategy, dtype):
        mask = draw(strategy, full_context(dtype=dtype), 27)
        assert mask.masked.sum(1).tolist() == [27] * 4
        assert mask.scores is None or mask.scores.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_autocast_changes_nothing(self, strategy, dtype):
        plain = draw(strategy, full_context(), 27)
        with torch.autocast("cpu", dtype):
            mixed = draw(strategy, full_context(), 27)
        assert torch.equal(plain.masked, mixed.masked)

    @pytest.mark.parametrize("num_masked", [1, 20, 35])
    def test_batch_of_one(self, strategy, num_masked):
        assert draw(strategy, full_context(1), num_masked).masked.sum(1).tolist() == [num_masked]

    def test_flat_and_repeated_patches(self, strategy):
        context = MaskContext(
            torch.zeros(2, 3, 24, 12),
            (6, 6),
            tokens=torch.ones(2, 36, 8),
            teacher=Tokens(torch.zeros(2, 1, 8), torch.zeros(2, 36, 8), torch.full((2, 2, 36), 1 / 36)),
        )
        for num_masked in (1, 27, 35):
            mask = draw(strategy, context, num_masked)
            assert mask.masked.sum(1).tolist() == [num_masked] * 2
            assert mask.scores is None or mask.scores.isfinite().all()

    def test_permuting_the_batch_permutes_the_masks(self, strategy):
        context = full_context(5)
        features, noise = strategy.features(context), torch.rand(5, 36, generator=fold_in(0, 1))
        counts = torch.tensor([20, 3, 27, 35, 0])
        order = torch.tensor([3, 0, 4, 1, 2])
        permuted = tree_map(lambda x: x[order] if isinstance(x, Tensor) else x, features)
        straight = strategy.choose(features, noise, counts).masked
        assert torch.equal(strategy.choose(permuted, noise[order], counts[order]).masked, straight[order])

    def test_choose_is_pure(self, strategy):
        features, noise = strategy.features(full_context()), torch.rand(4, 36, generator=fold_in(0, 2))
        kept = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, (features, noise))
        first, second = (strategy.choose(features, noise, 20).masked for _ in range(2))
        assert torch.equal(first, second)
        torch.testing.assert_close((features, noise), kept, rtol=0, atol=0)

    def test_works_from_tokens_or_says_what_it_needs(self, strategy):
        tokens = full_context().tokens
        context = MaskContext.from_tokens(tokens, grid=(6, 6))
        missing = strategy.needs - {"tokens"}
        if missing:
            with pytest.raises(ValueError, match=f"needs {min(missing)}"):
                draw(strategy, context, 20)
        else:
            assert draw(strategy, context, 20).masked.sum(1).tolist() == [20] * 4

    def test_computes_nothing_it_does_not_need_and_nothing_twice(self, strategy):
        full, calls = full_context(), []
        context = MaskContext(
            full.images,
            full.grid,
            tokens=lambda: calls.append("tokens") or full.tokens,
            teacher=lambda: calls.append("teacher") or full.teacher,
        )
        for _ in range(2):
            draw(strategy, context, 20)
        needed = {"teacher" if name == "attention" else name for name in strategy.needs - {"images"}}
        assert sorted(calls) == sorted(needed)

    def test_pickles(self, strategy):
        twin = pickle.loads(pickle.dumps(strategy))
        twin.load_state_dict(strategy.state_dict())
        assert torch.equal(draw(twin, full_context(), 20).masked, draw(strategy, full_context(), 20).masked)

    def test_is_built_again_from_its_description(self, strategy):
        spec = describe(strategy)
        twin = build(spec)
        assert type(twin) is type(strategy)
        assert describe(twin) == spec
        assert torch.equal(draw(twin, full_context(), 20).masked, draw(strategy, full_context(), 20).masked)

    @pytest.mark.parametrize("num_masked", [-1, 36])
    def test_refuses_impossible_counts(self, strategy, num_masked):
        with pytest.raises(ValueError, match=r"num_masked must be in \[0, 35\]"):
            draw(strategy, full_context(), num_masked)

    def test_refuses_a_ratio_in_place_of_a_count(self, strategy):
        with pytest.raises(TypeError, match="num_masked_for"):
            draw(strategy, full_context(), 0.75)
