import pytest
import torch
from torch import nn

from dppmask.masks import Mask, MaskContext, MaskStrategy, Tokens, num_masked_for, take
from dppmask.rng import fold_in


def random_masked(batch: int, num_patches: int, num_masked: int) -> torch.Tensor:
    noise = torch.rand(batch, num_patches, generator=fold_in(0, batch, num_patches, num_masked))
    return noise.argsort(1).argsort(1) < num_masked


@pytest.mark.parametrize(("N", "M"), [(2, 1), (5, 0), (7, 6), (196, 147)])
def test_indices_split_and_restore_the_patches(N, M):
    x = torch.randn(3, N, 4, generator=fold_in(0, N, M))
    mask = Mask.from_bool(random_masked(3, N, M))
    assert mask.num_masked == M
    assert mask.num_patches == N
    for ids, hidden in ((mask.ids_keep, False), (mask.ids_mask, True)):
        assert (ids.diff(dim=1) > 0).all()
        assert (mask.masked.gather(1, ids) == hidden).all()
    parts = torch.cat([take(x, mask.ids_keep), take(x, mask.ids_mask)], dim=1)
    assert torch.equal(take(parts, mask.ids_restore), x)


def test_take_lets_the_gradient_through():
    x = torch.zeros(2, 5, 3, requires_grad=True)
    take(x, torch.tensor([[0, 4], [1, 2]])).sum().backward()
    assert x.grad[..., 0].tolist() == [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]


def test_from_scores_hides_the_largest_and_of_equals_the_later():
    scores = torch.tensor([[0.2, 0.9, 0.2, 0.2], [5.0, 5.0, 5.0, 5.0]])
    assert Mask.from_scores(scores, 2).masked.tolist() == [
        [False, True, False, True],
        [False, False, True, True],
    ]


def test_from_scores_takes_a_count_per_row():
    scores = torch.rand(4, 9, generator=fold_in(0, 1))
    counts = torch.tensor([0, 3, 8, 9])
    mask = Mask.from_scores(scores, counts)
    assert mask.masked.sum(1).tolist() == counts.tolist()
    for row, count in enumerate(counts.tolist()):
        assert torch.equal(mask.masked[row : row + 1], Mask.from_scores(scores[row : row + 1], count).masked)


def test_from_ids_keep_takes_any_order():
    mask = Mask.from_ids_keep(torch.tensor([[3, 0], [1, 2]]), num_patches=4)
    assert mask.masked.tolist() == [[False, True, True, False], [True, False, False, True]]
    assert mask.ids_keep.tolist() == [[0, 3], [1, 2]]
    with pytest.raises(ValueError, match="differ within a row"):
        Mask.from_ids_keep(torch.tensor([[3, 3]]), num_patches=4)


@pytest.mark.parametrize(("ids", "got"), [([[0, 4]], "0…4"), ([[-1, 2]], "-1…2")])
def test_from_ids_keep_refuses_indices_outside_the_grid(ids, got):
    with pytest.raises(ValueError, match=rf"ids of visible patches must be in \[0, 3\], got {got}"):
        Mask.from_ids_keep(torch.tensor(ids), num_patches=4)


def test_from_bool_counts_and_refuses_other_types():
    ragged = Mask.from_bool(torch.tensor([[True, False], [False, False]]))
    assert ragged.num_masked is None
    with pytest.raises(TypeError, match=r"True = hidden.*float32"):
        Mask.from_bool(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"\[batch, patches\], got \[4\]"):
        Mask.from_bool(torch.zeros(4, dtype=torch.bool))


@pytest.mark.parametrize("name", ["ids_keep", "ids_mask", "ids_restore"])
def test_a_ragged_mask_has_no_indices(name):
    ragged = Mask.from_scores(torch.rand(2, 4, generator=fold_in(0, 2)), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="needs_equal_counts"):
        getattr(ragged, name)


def test_targets_default_to_the_masked_patches():
    masked = random_masked(2, 8, 6)
    assert Mask.from_bool(masked).targets is masked
    target = masked & random_masked(2, 8, 4)
    assert Mask.from_bool(masked, target=target).targets is target


def test_to_moves_every_field():
    fields = {name: torch.zeros(1, 4) for name in ("scores", "soft")}
    mask = Mask.from_bool(random_masked(1, 4, 2), target=random_masked(1, 4, 1), **fields).to("meta")
    assert mask.num_masked == 2
    for tensor in (mask.masked, mask.target, mask.scores, mask.soft):
        assert tensor.device.type == "meta"


@pytest.mark.parametrize(
    ("ratio", "N", "expected"),
    [(0.75, 196, 147), (0.9, 100, 90), (0.9, 196, 176), (0.01, 9, 1), (0.99, 9, 8)],
)
def test_the_one_counting_rule(ratio, N, expected):
    assert num_masked_for(ratio, N) == expected


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 75, float("nan")])
def test_a_ratio_outside_the_unit_interval_is_refused(ratio):
    with pytest.raises(ValueError, match=r"mask_ratio must be in \(0, 1\)"):
        num_masked_for(ratio, 196)


def test_one_patch_cannot_be_masked():
    with pytest.raises(ValueError, match="at least 2 patches"):
        num_masked_for(0.5, 1)


def test_a_context_knows_its_sizes():
    images = torch.zeros(3, 3, 8, 16)
    context = MaskContext(images, grid=(2, 4))
    assert (context.batch_size, context.num_patches, context.device.type) == (3, 8, "cpu")
    assert context.provides == {"images"}
    context = MaskContext(teacher=lambda: Tokens(torch.zeros(2, 1, 4), torch.zeros(2, 6, 4)))
    assert context.provides == {"teacher", "attention"}
    assert (context.batch_size, context.num_patches) == (2, 6)
    with pytest.raises(ValueError, match="got none of them"):
        _ = MaskContext().num_patches


def test_counts_must_fit_the_batch():
    class First(MaskStrategy):
        def choose(self, features, noise, num_masked):
            return Mask.from_scores(noise, num_masked)

    context = MaskContext.from_tokens(torch.zeros(3, 5, 2))
    with pytest.raises(ValueError, match=r"shape \[3\], got \[2\]"):
        First()(context, torch.tensor([1, 2]), generator=fold_in(0, 3))
    with pytest.raises(TypeError, match="int64, got a tensor of"):
        First()(context, torch.ones(3), generator=fold_in(0, 3))


def test_a_strategy_without_a_choice_says_so():
    context = MaskContext.from_tokens(torch.zeros(3, 5, 2))
    with pytest.raises(NotImplementedError, match="MaskStrategy must implement choose"):
        MaskStrategy()(context, 2, generator=fold_in(0, 4))


def test_a_strategy_prints_its_arguments():
    class Wrapper(MaskStrategy):
        def __init__(self, inner: nn.Module, width: float = 2.0) -> None:
            super().__init__()
            self.inner = inner
            self.width = width

    assert repr(Wrapper(MaskStrategy())).replace("\n", "") == "Wrapper(  width=2.0  (inner): MaskStrategy())"
