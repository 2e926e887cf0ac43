from contextlib import nullcontext

import pytest
import timm
import torch

from dppmask.errors import UserError
from dppmask.masks.base import Mask, take
from dppmask.models.encoder import Encoder
from dppmask.models.positions import resize_table, sincos_table
from dppmask.rng import fold_in, seeded

SHAPES = [
    pytest.param((32, 32), 8, 3, id="square"),
    pytest.param((24, 56), 8, 1, id="odd-3x7-grey"),
    pytest.param((28, 12), 4, 4, id="tall-4-channels"),
    pytest.param((40, 24), 8, 2, id="5x3"),
]


def tiny_encoder(image_size=(24, 32), **options):
    options.setdefault("patch_size", 8)
    options["backbone_args"] = {"depth": 2} | options.get("backbone_args", {})
    with seeded(0):
        return Encoder(options.pop("backbone", "test_vit"), image_size=image_size, **options).eval()


def random_images(encoder, batch=2, seed=0):
    return torch.randn(batch, encoder.in_chans, *encoder.image_size, generator=fold_in(seed))


def random_mask(encoder, num_masked, batch=2, seed=1):
    return Mask.from_scores(torch.rand(batch, encoder.num_patches, generator=fold_in(seed)), num_masked)


@pytest.mark.parametrize(("image_size", "patch_size", "in_chans"), SHAPES)
@pytest.mark.parametrize("position", ["sincos", "learned"])
def test_unmasked_equals_timm(image_size, patch_size, in_chans, position):
    encoder = tiny_encoder(image_size, patch_size=patch_size, in_chans=in_chans, position=position)
    images = random_images(encoder)
    encoded = encoder.encode(images)
    expected = encoder.backbone.forward_features(images)
    assert encoded.patches.shape == (2, encoder.num_patches, encoder.embed_dim)
    torch.testing.assert_close(torch.cat([encoded.prefix, encoded.patches], dim=1), expected)


@pytest.mark.parametrize(
    ("backbone", "num_prefix"),
    [
        ("deit3_small_patch16_224", 1),  # the class token has no position
        ("vit_medium_patch16_reg4_gap_256", 4),  # registers, no class token
        ("vit_small_patch14_reg4_dinov2", 5),  # class token, registers, layer scale
        ("vit_small_patch16_18x2_224", 1),  # parallel branches in a block
        ("vit_base_patch16_gap_224", 0),  # no prefix at all
        ("vit_base_patch16_clip_224", 1),  # norm before the blocks
    ],
)
def test_variants_equal_timm(backbone, num_prefix):
    encoder = tiny_encoder(backbone=backbone, backbone_args={"embed_dim": 32, "num_heads": 2})
    images = random_images(encoder)
    encoded = encoder.encode(images)
    assert encoder.num_prefix == encoded.prefix.shape[1] == num_prefix
    expected = encoder.backbone.forward_features(images)
    torch.testing.assert_close(torch.cat([encoded.prefix, encoded.patches], dim=1), expected)


def test_every_parameter_gets_a_gradient():
    encoder = tiny_encoder(
        backbone="vit_small_patch14_reg4_dinov2", backbone_args={"embed_dim": 32, "num_heads": 2}
    )
    encoded = encoder.encode(random_images(encoder), mask=random_mask(encoder, 5))
    (encoded.prefix.square().sum() + encoded.patches.square().sum()).backward()
    without = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_blocks_are_those_of_timm_side_by_side():
    encoder = tiny_encoder(backbone_args={"depth": 4})
    images = random_images(encoder)
    encoded = encoder.encode(images, blocks=3)
    layers = encoder.backbone.forward_intermediates(
        images, indices=3, norm=True, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    torch.testing.assert_close(encoded.patches, torch.cat([patches for patches, _ in layers], dim=-1))
    torch.testing.assert_close(encoded.prefix, torch.cat([prefix for _, prefix in layers], dim=-1))


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_the_last_block(masked):
    encoder = tiny_encoder(backbone_args={"num_heads": 4})
    seen = {}
    attention = encoder.backbone.blocks[-1].attn
    attention.fused_attn = False  # the unfused path hands its weights to this dropout
    attention.attn_drop.register_forward_hook(lambda module, inputs, output: seen.update(weights=output))
    mask = random_mask(encoder, 5) if masked else None
    encoded = encoder.encode(random_images(encoder), mask=mask, attention=True)
    expected = seen["weights"][:, :, 0, 1:]
    assert encoded.attention.shape == (2, 4, 7 if masked else 12)
    torch.testing.assert_close(encoded.attention, expected)
    assert (encoded.attention >= 0).all()
    assert (encoded.attention.sum(-1) < 1).all()


def test_attention_with_query_and_key_norm():
    encoder = tiny_encoder(backbone_args={"qk_norm": True})
    seen = {}
    attention = encoder.backbone.blocks[-1].attn
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda module, inputs, output: seen.update(weights=output))
    encoded = encoder.encode(random_images(encoder), attention=True)
    torch.testing.assert_close(encoded.attention, seen["weights"][:, :, 0, 1:])


def test_masked_pixels_never_matter():
    encoder = tiny_encoder()
    mask = random_mask(encoder, 8)
    images = random_images(encoder)
    rows, columns = encoder.grid
    hidden = mask.masked.view(2, 1, rows, columns).repeat_interleave(8, 2).repeat_interleave(8, 3)
    poisoned = images.masked_fill(hidden, 1e30)
    clean, dirty = encoder.encode(images, mask=mask), encoder.encode(poisoned, mask=mask)
    assert torch.equal(clean.patches, dirty.patches)
    assert torch.equal(clean.prefix, dirty.prefix)


def test_visible_patches_alone_are_encoded():
    """Dropping patches is the same as attention that cannot see them."""
    encoder = tiny_encoder()
    images, mask = random_images(encoder), random_mask(encoder, 8)
    visible = torch.cat([torch.ones(2, 1, dtype=torch.bool), ~mask.masked], dim=1)
    x = encoder.backbone._pos_embed(encoder.backbone.patch_embed(images))
    for block in encoder.backbone.blocks:
        x = block(x, attn_mask=visible[:, None, None, :])
    expected = encoder.backbone.norm(x)
    encoded = encoder.encode(images, mask=mask)
    torch.testing.assert_close(encoded.prefix, expected[:, :1])
    torch.testing.assert_close(encoded.patches, take(expected[:, 1:], mask.ids_keep))


def test_without_positions_patches_permute():
    encoder = tiny_encoder()
    order = torch.randperm(12, generator=fold_in(3))
    tokens = torch.randn(2, 12, 64, generator=fold_in(4))
    one, other = encoder(tokens), encoder(tokens[:, order])
    torch.testing.assert_close(one.patches[:, order], other.patches)
    torch.testing.assert_close(one.prefix, other.prefix)


def test_sincos_is_fixed_and_learned_is_trained():
    fixed, learned = tiny_encoder(position="sincos"), tiny_encoder(position="learned")
    torch.testing.assert_close(fixed.position_table.data, sincos_table((3, 4), 64))
    assert not fixed.position_table.requires_grad
    assert learned.position_table.requires_grad


def test_initialisation_is_that_of_mae():
    encoder = tiny_encoder(patch_size=4)
    kernel = encoder.backbone.patch_embed.proj.weight
    bound = (6 / (3 * 16 + 64)) ** 0.5
    assert 0.95 * bound < kernel.abs().max() <= bound
    linear = encoder.backbone.blocks[0].mlp.fc1
    bound = (6 / (64 + 192)) ** 0.5
    assert 0.95 * bound < linear.weight.abs().max() <= bound
    assert not linear.bias.any()
    wide = tiny_encoder(backbone_args={"embed_dim": 512, "depth": 1, "reg_tokens": 2})
    for token in (wide.backbone.cls_token, wide.backbone.reg_token):
        assert 0.018 < token.std() < 0.022


def test_seed_decides_the_weights():
    one, same = tiny_encoder(), tiny_encoder()
    with seeded(1):
        other = Encoder("test_vit", image_size=(24, 32), patch_size=8, backbone_args={"depth": 2})
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.backbone.cls_token, other.backbone.cls_token)


def test_arguments_rebuild_the_encoder():
    encoder = tiny_encoder(position="learned", in_chans=4, backbone_args={"num_heads": 4})
    again = Encoder(**encoder.arguments())
    again.load_state_dict(encoder.state_dict())
    images = random_images(encoder)
    assert again.num_heads == 4
    assert torch.equal(again.eval().encode(images).patches, encoder.encode(images).patches)
    assert len(again.mean) == len(again.std) == 4


def test_attributes():
    encoder = tiny_encoder(image_size=(24, 32))
    assert (encoder.grid, encoder.num_patches, encoder.num_prefix) == ((3, 4), 12, 1)
    assert (encoder.embed_dim, encoder.depth, encoder.num_heads) == (64, 2, 2)
    assert encoder.image_size == (24, 32)
    assert tiny_encoder(image_size=32).image_size == (32, 32)
    assert type(encoder.backbone) is timm.models.VisionTransformer


@pytest.mark.parametrize("autocast", [False, True])
def test_gradient_reaches_the_patch_embedding_of_visible_patches_only(autocast):
    encoder = tiny_encoder()
    images = random_images(encoder).requires_grad_()
    mask = random_mask(encoder, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
        encoded = encoder.encode(images, mask=mask)
    encoded.patches.float().square().sum().backward()
    touched = images.grad.abs().sum(1).view(2, 3, 8, 4, 8).sum((2, 4)).flatten(1) > 0
    assert torch.equal(touched, ~mask.masked)
    assert encoder.backbone.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 30}, r"image_size must be a multiple of patch_size 8, got 30 x 30; 24 x 24 would do"),
        ({"image_size": (24, 33)}, r"got 24 x 33; 24 x 32 would do"),
        ({"image_size": (24, 24, 24)}, r"image_size must be a positive number or \(height, width\)"),
        ({"image_size": 0}, r"image_size must be a positive number"),
        ({"patch_size": 0}, r"patch_size must be a positive number, got 0"),
        ({"position": "rotary"}, r"position must be 'sincos' or 'learned', got 'rotary'"),
        (
            {"backbone": "vit_smal_patch16_224"},
            r"'vit_smal_patch16_224' is no timm .*did you mean vit_small_patch16_224",
        ),
        ({"backbone": "qqqqqq"}, r"no timm architecture; choose from .*in all"),
        (
            {"backbone": "swin_tiny_patch4_window7_224"},
            r"'swin_tiny.*' is not a plain timm VisionTransformer",
        ),
        ({"backbone": "vit_base_r50_s16_224"}, r"is not a plain timm VisionTransformer"),
        ({"backbone": "deit_tiny_distilled_patch16_224"}, r"is not a plain timm VisionTransformer"),
        (
            {"backbone": "vit_base_patch16_224.mae"},
            r"names trained weights; use vit_base_patch16_224, and init_from",
        ),
        ({"backbone_args": {"dept": 3}}, r"backbone_args do not fit test_vit: .*'dept'"),
        ({"backbone_args": {"num_heads": 5}}, r"backbone_args do not fit test_vit: .*divisible"),
        ({"backbone_args": {"img_size": 64}}, r"must not contain img_size: use image_size"),
        (
            {"backbone_args": {"pretrained": True}},
            r"must not contain pretrained: weights are loaded with init_from",
        ),
        (
            {"backbone_args": {"embed_dim": 66}},
            r"position 'sincos' needs an embed_dim that is a multiple of 4, got 66",
        ),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        tiny_encoder(**options)
    assert "\n" not in str(caught.value)


def test_wrong_inputs():
    encoder = tiny_encoder()
    images = random_images(encoder)
    with pytest.raises(
        ValueError, match=r"\[batch, 3, 24, 32\] as the encoder was built, got \[2, 3, 32, 24\]"
    ):
        encoder.encode(images.transpose(2, 3))
    with pytest.raises(ValueError, match=r"blocks must be in \[1, 2\]"):
        encoder.encode(images, blocks=3)
    with pytest.raises(ValueError, match=r"mask has shape \[2, 11\], the tokens \[2, 12\]"):
        encoder.encode(images, mask=Mask.from_bool(torch.zeros(2, 11, dtype=torch.bool)))
    ragged = Mask.from_bool(torch.arange(12).expand(2, 12) < torch.tensor([[3], [4]]))
    with pytest.raises(ValueError, match="hides a different number of patches in each image"):
        encoder.encode(images, mask=ragged)


@pytest.mark.parametrize("backbone", ["vit_base_patch16_gap_224", "vit_small_patch16_18x2_224"])
def test_attention_without_class_token_or_standard_block_is_an_error(backbone):
    encoder = tiny_encoder(backbone=backbone, backbone_args={"embed_dim": 32, "num_heads": 2})
    with pytest.raises(ValueError, match=f"attention=True needs a class token .*{backbone} lacks"):
        encoder.encode(random_images(encoder), attention=True)


def test_mask_token_stands_in_before_the_position_and_rows_may_differ():
    encoder = tiny_encoder(position="learned")
    images, mask_token = random_images(encoder), torch.randn(1, 1, encoder.embed_dim, generator=fold_in(3))
    mask = Mask.from_bool(torch.rand(2, 12, generator=fold_in(4)) < torch.tensor([[0.2], [0.7]]))
    assert mask.num_masked is None
    encoded = encoder(encoder.embed(images), mask, mask_token=mask_token)
    patches = encoder.backbone.patch_embed(images)
    for row, hidden in enumerate(mask.masked):
        patches[row, hidden] = mask_token[0, 0]
    expected = encoder(patches + encoder.position_table[:, -12:])
    torch.testing.assert_close(encoded.patches, expected.patches)
    torch.testing.assert_close(encoded.prefix, expected.prefix)


def test_nothing_hidden_is_the_whole_image_and_the_mask_token_has_a_gradient():
    encoder = tiny_encoder()
    images, mask_token = random_images(encoder), torch.zeros(1, 1, encoder.embed_dim, requires_grad=True)
    mask = Mask.from_bool(torch.zeros(2, 12, dtype=torch.bool))
    encoded = encoder(encoder.embed(images), mask, mask_token=mask_token)
    assert torch.equal(encoded.patches, encoder.encode(images).patches)
    encoded.patches.sum().backward()
    assert torch.equal(mask_token.grad, torch.zeros_like(mask_token))


@pytest.mark.parametrize("position", ["sincos", "learned"])
@pytest.mark.parametrize("size", [(16, 16), (24, 32), (40, 8)])
def test_crops_of_another_size_get_a_resized_table(position, size):
    encoder = tiny_encoder(position=position)
    crops = torch.randn(2, 3, *size, generator=fold_in(2))
    other = tiny_encoder(size, position=position)
    state = encoder.state_dict()
    name = "backbone.pos_embed"
    other.load_state_dict(state | {name: resize_table(state[name], encoder.grid, other.grid)})
    actual, expected = encoder(encoder.embed(crops, any_size=True)), other.encode(crops)
    torch.testing.assert_close(actual.patches, expected.patches)
    torch.testing.assert_close(actual.prefix, expected.prefix)


def test_sizes_that_do_not_fit():
    encoder = tiny_encoder()
    with pytest.raises(ValueError, match=r"images must have shape \[batch, 3, 24, 32\]"):
        encoder.embed(torch.zeros(1, 3, 16, 16))
    with pytest.raises(UserError, match="multiple of patch_size 8, got 20 x 16"):
        encoder.embed(torch.zeros(1, 3, 20, 16), any_size=True)
    with pytest.raises(ValueError, match=r"\[batch, 3, 16, 16\] as the encoder was built"):
        encoder.embed(torch.zeros(1, 1, 16, 16), any_size=True)
