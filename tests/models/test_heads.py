import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dppmask.models.heads import ProjectionHead, Prototypes
from dppmask.rng import fold_in, seeded


def make_head(patch_out_dim=None, **options):
    with seeded(0):
        return ProjectionHead(6, 10, patch_out_dim, hidden_dim=12, bottleneck_dim=5, **options)


def tokens(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, 6, generator=fold_in(seed)).to(dtype)


def written_out(head, x, last):
    """The head's definition, from its weights alone."""
    first, second, third = (layer for layer in head.perceptron if isinstance(layer, nn.Linear))
    for layer in (first, second):
        x = x @ layer.weight.T + layer.bias
        x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    x = x @ third.weight.T + third.bias
    x = x / x.norm(dim=-1, keepdim=True)
    rows = last.direction / last.direction.norm(dim=1, keepdim=True)
    return torch.einsum("...d,kd->...k", x, rows) * last.length[:, 0]


@pytest.mark.parametrize("patch_out_dim", [None, 4])
def test_equals_its_definition(patch_out_dim):
    head = make_head(patch_out_dim)
    with torch.no_grad():
        head.last["cls"].length.uniform_(0.5, 2, generator=fold_in(1))
    cls, patches = tokens(3), tokens(3, 4, seed=1)
    actual_cls, actual_patches = head(cls, patches)
    last = head.last["cls" if patch_out_dim is None else "patch"]
    torch.testing.assert_close(actual_cls, written_out(head, cls, head.last["cls"]))
    torch.testing.assert_close(actual_patches, written_out(head, patches, last))


def test_class_tokens_alone():
    logits, nothing = make_head()(tokens(3))
    assert logits.shape == (3, 10)
    assert nothing is None


def test_equals_torchs_weight_norm():
    with seeded(0):
        ours = Prototypes(5, 7, fixed_length=False)
        theirs = nn.utils.parametrizations.weight_norm(nn.Linear(5, 7, bias=False))
    with torch.no_grad():
        ours.length.uniform_(0.5, 2, generator=fold_in(1))
        theirs.parametrizations.weight.original0.copy_(ours.length)
        theirs.parametrizations.weight.original1.copy_(ours.direction)
    x = torch.randn(3, 5, generator=fold_in(2))
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    torch.testing.assert_close(ours.direction.grad, theirs.parametrizations.weight.original1.grad)
    torch.testing.assert_close(ours.length.grad, theirs.parametrizations.weight.original0.grad)


def test_logits_are_cosines_where_lengths_are_fixed():
    head = make_head(norm_last_layer=True)
    logits, _ = head(tokens(50))
    assert logits.abs().max() <= 1 + 1e-6
    assert not head.last["cls"].length.requires_grad
    assert make_head().last["cls"].length.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_also_under_autocast(dtype):
    head, cls, patches = make_head(), tokens(3, dtype=dtype), tokens(3, 4, dtype=dtype)
    expected = head(cls.float(), patches.float())
    with torch.autocast("cpu", dtype):
        actual = head(cls, patches)
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_a_token_of_zeros_gives_no_nan():
    head = make_head()
    with torch.no_grad():
        for layer in head.perceptron:
            if isinstance(layer, nn.Linear):
                layer.bias.zero_()
    zeros = torch.zeros(2, 6, requires_grad=True)
    logits, _ = head(zeros)
    F.cross_entropy(logits, torch.zeros(2, dtype=torch.int64)).backward()
    assert zeros.grad.isfinite().all()
