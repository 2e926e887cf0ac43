"""The official MAE, written down once more from its description, against ours with the same weights."""

import math

import pytest
import torch
import torch.nn.functional as F

from dppmask.errors import UserError
from dppmask.masks.base import Mask
from dppmask.models import official
from dppmask.models.checkpoint import load_official_mae
from dppmask.rng import fold_in


def layer_norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)


def linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block(state, name, x, num_heads):
    head_dim = x.shape[-1] // num_heads
    qkv = linear(state, f"{name}.attn.qkv", layer_norm(state, f"{name}.norm1", x))
    heads = []
    for head in range(num_heads):
        start = head * head_dim
        query, key, value = (part[..., start : start + head_dim] for part in qkv.chunk(3, dim=-1))
        heads.append((query @ key.mT / math.sqrt(head_dim)).softmax(-1) @ value)
    x = x + linear(state, f"{name}.attn.proj", torch.cat(heads, dim=-1))
    hidden = F.gelu(linear(state, f"{name}.mlp.fc1", layer_norm(state, f"{name}.norm2", x)))
    return x + linear(state, f"{name}.mlp.fc2", hidden)


def patches_of(images, p):
    """Each patch as (row, column, channel), patches row-major, by plain slicing."""
    rows, columns = images.shape[2] // p, images.shape[3] // p
    cells = [images[:, :, i * p : i * p + p, j * p : j * p + p] for i in range(rows) for j in range(columns)]
    return torch.stack([cell.permute(0, 2, 3, 1).flatten(1) for cell in cells], dim=1)


def reference_mae(state, images, masked, *, num_heads, decoder_num_heads, norm_pix_loss):
    """Loss and prediction, image by image; ``masked`` bool [B, N]."""
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    decoder_depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("decoder_blocks."))
    p = state["patch_embed.proj.weight"].shape[-1]
    kernel = state["patch_embed.proj.weight"].permute(0, 2, 3, 1).flatten(1)
    embedded = patches_of(images, p) @ kernel.T + state["patch_embed.proj.bias"] + state["pos_embed"][:, 1:]
    predictions = []
    for tokens, hidden in zip(embedded, masked, strict=True):
        class_token = (state["cls_token"] + state["pos_embed"][:, :1])[0]
        x = torch.cat([class_token, tokens[~hidden]])
        for index in range(depth):
            x = block(state, f"blocks.{index}", x, num_heads)
        x = linear(state, "decoder_embed", layer_norm(state, "norm", x))
        full = state["mask_token"][0].repeat(len(hidden), 1)
        full[~hidden] = x[1:]
        x = torch.cat([x[:1], full]) + state["decoder_pos_embed"][0]
        for index in range(decoder_depth):
            x = block(state, f"decoder_blocks.{index}", x, decoder_num_heads)
        predictions.append(linear(state, "decoder_pred", layer_norm(state, "decoder_norm", x))[1:])
    prediction = torch.stack(predictions)
    target = patches_of(images, p)
    if norm_pix_loss:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    error = ((prediction - target) ** 2).mean(-1)
    return error[masked].mean(), prediction


SIZES = [
    pytest.param({}, 4, 2, id="plain"),
    pytest.param(
        {"side": 5, "patch_size": 8, "in_chans": 1, "width": 24, "depth": 3}, 3, 4, id="odd-grid-grey"
    ),
    pytest.param(
        {"side": 2, "patch_size": 2, "in_chans": 4, "hidden": 49, "decoder_depth": 2}, 2, 8, id="4-channels"
    ),
]


@pytest.mark.parametrize("norm_pix_loss", [False, True])
@pytest.mark.parametrize(("sizes", "num_heads", "decoder_num_heads"), SIZES)
def test_loaded_model_equals_the_reference(
    official_state, sizes, num_heads, decoder_num_heads, norm_pix_loss
):
    state = official_state(**sizes)
    heads = {"num_heads": num_heads, "decoder_num_heads": decoder_num_heads, "norm_pix_loss": norm_pix_loss}
    model = load_official_mae({"model": state}, **heads).eval()
    images = torch.randn(3, model.encoder.in_chans, *model.encoder.image_size, generator=fold_in(1))
    num_patches = model.encoder.num_patches
    mask = Mask.from_scores(torch.rand(3, num_patches, generator=fold_in(2)), num_patches // 2)
    loss, prediction = reference_mae(state, images, mask.masked, **heads)
    output = model(model.context(images), mask)
    assert abs(output.loss.item() - loss.item()) < 1e-5
    torch.testing.assert_close(output.prediction, prediction, rtol=0, atol=1e-4)


def test_gradients_equal_the_reference(official_state):
    state = official_state()
    heads = {"num_heads": 4, "decoder_num_heads": 2, "norm_pix_loss": True}
    model = load_official_mae(state, **heads)
    images = torch.randn(2, 3, 12, 12, generator=fold_in(1))
    mask = Mask.from_scores(torch.rand(2, 9, generator=fold_in(2)), 6)
    trained = {name: value.requires_grad_() for name, value in state.items() if "pos_embed" not in name}
    loss, _ = reference_mae(state, images, mask.masked, **heads)
    loss.backward()
    model(model.context(images), mask).loss.backward()
    ours = dict(model.named_parameters())
    for name, value in official.method_state(trained).items():
        torch.testing.assert_close(ours[name].grad, value.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_sizes_are_read_off_the_tensors(official_state):
    arguments = official.encoder_arguments(official_state(side=5, in_chans=2, hidden=49), num_heads=3)
    assert arguments["image_size"] == 20
    assert arguments["in_chans"] == 2
    assert arguments["position"] == "sincos"
    assert arguments["backbone_args"]["depth"] == 2
    assert int(48 * arguments["backbone_args"]["mlp_ratio"]) == 49


def test_every_hidden_width_survives_the_ratio():
    """A width over a width, multiplied back in floating point, may fall below the integer."""
    for hidden in range(1, 200):
        ratio = official._mlp_ratio({"blocks.0.mlp.fc1.weight": torch.empty(hidden, 49)}, "blocks")
        assert int(49 * ratio) == hidden


def test_trained_positions_are_recognised(official_state):
    state = official_state()
    state["pos_embed"] = state["pos_embed"] + 0.01
    assert official.encoder_arguments(state, num_heads=3)["position"] == "learned"


@pytest.mark.parametrize("width", sorted(official.PUBLISHED_HEADS))
def test_published_widths_need_no_heads(official_state, width):
    state = official_state(width=width, depth=1, hidden=8)
    heads = official.encoder_arguments(state)["backbone_args"]["num_heads"]
    assert width // heads in (64, 80)


def test_encoder_only_weights_are_explained(official_state):
    state = {k: v for k, v in official_state().items() if not k.startswith(("mask_token", "decoder"))}
    with pytest.raises(UserError, match=r"encoder alone .*use load_encoder"):
        load_official_mae(state, num_heads=4, decoder_num_heads=2, norm_pix_loss=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embed": None}, "the tensor pos_embed is missing"),
        ({"patch_embed.proj.weight": None}, "these are no MAE or plain ViT weights"),
        ({"pos_embed": torch.zeros(1, 12, 48)}, "square grid and a class token, got 12 rows"),
        ({"blocks.1.attn.qkv.bias": None}, "blocks.1.attn.qkv.bias is missing"),
        ({"extra": torch.zeros(1)}, "encoder.backbone.extra has no place"),
        ({"decoder_pred.bias": torch.zeros(3)}, r"decoder.head.bias has shape \[3\] where \[48\] is wanted"),
    ],
)
def test_wrong_weights_are_one_line(official_state, change, message):
    state = {name: value for name, value in (official_state() | change).items() if value is not None}
    with pytest.raises(UserError, match=message) as caught:
        load_official_mae(state, num_heads=4, decoder_num_heads=2, norm_pix_loss=True)
    assert "\n" not in str(caught.value)


def test_unknown_width_needs_heads(official_state):
    with pytest.raises(UserError, match=r"num_heads must be given .*width 48"):
        official.encoder_arguments(official_state())
