import re
from contextlib import nullcontext

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from dppmask.errors import UserError
from dppmask.masks.base import Mask, MaskContext, MaskStrategy
from dppmask.masks.dpp import DPPMask
from dppmask.masks.uniform import RandomMask
from dppmask.models.base import Views
from dppmask.models.checkpoint import load_official_mae
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.rng import fold_in, seeded


def tiny_mae(
    image_size=(24, 32),
    *,
    patch_size=8,
    in_chans=3,
    norm_pix_loss=True,
    teacher=None,
    backbone="test_vit",
    **backbone_args,
):
    with seeded(0):
        encoder = Encoder(
            backbone,
            image_size=image_size,
            patch_size=patch_size,
            in_chans=in_chans,
            backbone_args={"depth": 2, "embed_dim": 32, "num_heads": 2} | backbone_args,
        )
        return MAE(
            encoder,
            decoder_embed_dim=24,
            decoder_depth=1,
            decoder_num_heads=2,
            norm_pix_loss=norm_pix_loss,
            teacher=teacher,
        )


def random_images(model, batch=2, seed=0):
    return torch.randn(batch, model.encoder.in_chans, *model.encoder.image_size, generator=fold_in(seed))


def random_mask(model, num_masked, batch=2, seed=1, **fields):
    scores = torch.rand(batch, model.encoder.num_patches, generator=fold_in(seed))
    return Mask.from_scores(scores, num_masked, **fields)


def pixels_of(model, patches):
    """bool [B, N] → bool [B, 1, H, W]."""
    p = model.encoder.patch_size
    return patches.view(-1, 1, *model.encoder.grid).repeat_interleave(p, 2).repeat_interleave(p, 3)


# ---- agreement with an independent implementation

TO_OFFICIAL = [
    (r"^vit\.embeddings\.cls_token", "cls_token"),
    (r"^vit\.embeddings\.position_embeddings", "pos_embed"),
    (r"^vit\.embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^vit\.(encoder\.)?layers?\.", "blocks."),
    (r"^vit\.layernorm", "norm"),
    (r"^decoder\.decoder_layers\.", "decoder_blocks."),
    (r"^decoder\.", ""),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.(o_proj|output\.dense)", "attn.proj"),
    (r"(mlp\.fc1|intermediate\.dense)", "mlp.fc1"),
    (r"(mlp\.fc2|output\.dense)", "mlp.fc2"),
    (r"attention\.(attention\.)?(q_proj|query)", "attn.q"),
    (r"attention\.(attention\.)?(k_proj|key)", "attn.k"),
    (r"attention\.(attention\.)?(v_proj|value)", "attn.v"),
]


def official_layout(twin):
    """The weights of transformers' ViTMAE under the official names, with fused query, key and value."""
    state = {}
    for name, value in twin.state_dict().items():
        for pattern, replacement in TO_OFFICIAL:
            name = re.sub(pattern, replacement, name)
        state[name] = value.clone()
    for name in [name for name in state if ".attn.q." in name]:
        parts = [state.pop(name.replace(".q.", f".{part}.")) for part in "qkv"]
        state[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    return state


@pytest.fixture(scope="module", params=[False, True], ids=["pixels", "norm_pix"])
def twins(request):
    """transformers' ViTMAE and ours with the same random weights; (twin, model)."""
    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        image_size=40,
        patch_size=8,
        decoder_hidden_size=24,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=48,
        layer_norm_eps=1e-6,
        mask_ratio=0.6,
        norm_pix_loss=request.param,
    )
    with seeded(0):
        twin = ViTMAEForPreTraining(config)
        for parameter in twin.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    model = load_official_mae(
        official_layout(twin), num_heads=4, decoder_num_heads=3, norm_pix_loss=request.param
    )
    return twin.eval(), model.eval()


def test_twin_loss_prediction_and_gradients(twins):
    twin, model = twins
    noise = torch.rand(3, 25, generator=fold_in(1))
    images = random_images(model, batch=3)
    twin.zero_grad()
    model.zero_grad()
    expected = twin(images, noise=noise)
    output = model(model.context(images), Mask.from_scores(noise, 15))
    assert torch.equal(expected.mask.bool(), Mask.from_scores(noise, 15).masked)
    assert abs(output.loss.item() - expected.loss.item()) < 1e-5
    torch.testing.assert_close(output.prediction, expected.logits, rtol=0, atol=1e-4)
    expected.loss.backward()
    output.loss.backward()
    ours = dict(model.named_parameters())
    pairs = {
        "encoder.backbone.patch_embed.proj.weight": twin.vit.embeddings.patch_embeddings.projection.weight,
        "encoder.backbone.cls_token": twin.vit.embeddings.cls_token,
        "decoder.mask_token": twin.decoder.mask_token,
        "decoder.head.weight": twin.decoder.decoder_pred.weight,
    }
    for name, parameter in pairs.items():
        torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=1e-4, atol=1e-6)


# ---- the loss


def test_loss_is_the_mean_over_targets():
    model = tiny_mae()
    images, mask = random_images(model), random_mask(model, 7)
    output = model(model.context(images), mask)
    assert output.prediction.shape == (2, 12, 8 * 8 * 3)
    torch.testing.assert_close(
        output.patch_loss, (output.prediction - model.target(images)).square().mean(-1)
    )
    torch.testing.assert_close(output.loss, output.patch_loss[mask.masked].mean())


def test_target_is_normalised_per_patch():
    target = tiny_mae().target(random_images(tiny_mae()) * 5 + 3)
    torch.testing.assert_close(target.mean(-1), torch.zeros(2, 12), rtol=0, atol=1e-5)
    torch.testing.assert_close(target.var(-1), torch.ones(2, 12), rtol=0, atol=1e-4)


def test_flat_patches_have_a_finite_loss_and_gradient():
    model = tiny_mae()
    output = model(model.context(torch.ones(2, 3, 24, 32)), random_mask(model, 7))
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
@pytest.mark.parametrize(
    ("image_size", "patch_size", "in_chans"),
    [((24, 32), 8, 3), ((8, 8), 8, 1), ((20, 12), 4, 4), ((6, 10), 2, 2)],
)
def test_patches_and_pixels_are_inverse(image_size, patch_size, in_chans, norm_pix_loss):
    model = tiny_mae(image_size, patch_size=patch_size, in_chans=in_chans, norm_pix_loss=norm_pix_loss)
    images = random_images(model)
    patches = model.patchify(images)
    assert torch.equal(model.unpatchify(patches), images)
    torch.testing.assert_close(model.to_pixels(model.target(images), images), images, rtol=0, atol=1e-5)
    rows, columns = model.encoder.grid
    last = images[:, :, -patch_size:, -patch_size:].permute(0, 2, 3, 1).flatten(1)  # row, column, channel
    assert torch.equal(patches[:, rows * columns - 1], last)
    below = images[:, :, patch_size : 2 * patch_size, :patch_size].permute(0, 2, 3, 1).flatten(1)
    assert rows == 1 or torch.equal(patches[:, columns], below)


def test_hidden_pixels_reach_the_loss_through_the_target_alone():
    model = tiny_mae()
    images, mask = random_images(model), random_mask(model, 7)
    poisoned = torch.where(pixels_of(model, mask.masked), torch.full_like(images, 1e4), images)
    clean, dirty = model(model.context(images), mask), model(model.context(poisoned), mask)
    assert torch.equal(clean.prediction, dirty.prediction)
    assert torch.equal(clean.patch_loss[~mask.masked], dirty.patch_loss[~mask.masked])
    assert not torch.equal(clean.loss, dirty.loss)


# ---- thrown patches: masked, but no target


def test_thrown_patches_are_neither_encoded_nor_decoded():
    """The loss equals that of a decoder run on the shortened sequence; rows may throw different numbers."""
    model = tiny_mae()
    images = random_images(model)
    scored = random_mask(model, 8).masked & (torch.rand(2, 12, generator=fold_in(5)) < 0.6)
    mask = random_mask(model, 8, target=scored)
    thrown = mask.masked & ~scored
    assert thrown.sum(1).tolist() != [0, 0]
    output = model(model.context(images), mask)
    encoded = model.encoder(model.context(images).tokens, mask)
    decoder = model.decoder
    for row in range(2):
        full = decoder.mask_token[0].repeat(12, 1)
        full[~mask.masked[row]] = decoder.embed(encoded.patches[row])
        x = torch.cat([decoder.embed(encoded.prefix[row]), full]) + decoder.position[0]
        x = x[torch.cat([torch.tensor([True]), ~thrown[row]])][None]
        for block in decoder.blocks:
            x = block(x)
        expected = decoder.head(decoder.norm(x))[0, 1:]
        torch.testing.assert_close(output.prediction[row][~thrown[row]], expected, rtol=1e-4, atol=1e-5)
        assert not output.prediction[row][thrown[row]].any()
    torch.testing.assert_close(output.loss, output.patch_loss[scored].mean())


def test_target_of_every_masked_patch_changes_nothing():
    model = tiny_mae()
    context = model.context(random_images(model))
    plain = random_mask(model, 7)
    explicit = random_mask(model, 7, target=plain.masked)
    torch.testing.assert_close(model(context, plain).prediction, model(context, explicit).prediction)


# ---- strategies and gradients


class ReadsEverything(MaskStrategy):
    """Reads the tokens under no_grad and hides what the noise says."""

    needs = frozenset({"images", "tokens"})

    @torch.no_grad()
    def features(self, context):
        return context.tokens.detach().float()

    def choose(self, features, noise, num_masked):
        assert features.shape[:2] == noise.shape
        return Mask.from_scores(noise, num_masked)


def patch_gradient(model, mask_of, *, autocast=False):
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
        context = model.context(random_images(model))
        mask = mask_of(context)
        model(context, mask).loss.backward()
    return mask, model.encoder.backbone.patch_embed.proj.weight.grad.clone()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    "strategy", [RandomMask(), DPPMask(source="tokens"), DPPMask(source="pixels"), ReadsEverything()], ids=str
)
def test_reading_the_tokens_cuts_no_gradient(strategy, autocast):
    """The same mask gives the same gradient, whoever made it."""
    model = tiny_mae()
    mask, gradient = patch_gradient(
        model, lambda context: strategy(context, 7, generator=fold_in(3)), autocast=autocast
    )
    _, expected = patch_gradient(model, lambda context: Mask.from_bool(mask.masked), autocast=autocast)
    assert gradient.abs().sum() > 0
    assert torch.equal(gradient, expected)


def test_patch_embedding_is_computed_once():
    model = tiny_mae()
    calls = []
    model.encoder.backbone.patch_embed.register_forward_hook(lambda *args: calls.append(1))
    context = model.context(random_images(model))
    assert calls == []
    mask = ReadsEverything()(context, 7, generator=fold_in(3))
    model(context, mask)
    assert len(calls) == 1


def test_tokens_carry_no_gradient_in_evaluation():
    model = tiny_mae()
    with torch.no_grad():
        assert not model.context(random_images(model)).tokens.requires_grad
    context = model.context(random_images(model))
    with torch.no_grad():
        assert context.tokens.requires_grad


def test_every_trained_parameter_gets_a_gradient():
    model = tiny_mae()
    model(model.context(random_images(model)), random_mask(model, 7)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


# ---- precision, compilation, devices


def test_loss_is_float32_under_autocast():
    model = tiny_mae()
    images, mask = random_images(model), random_mask(model, 7)
    plain = model(model.context(images), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(model.context(images), mask)
    assert output.loss.dtype == output.patch_loss.dtype == torch.float32
    assert output.prediction.dtype == torch.bfloat16
    assert not torch.equal(plain.loss, output.loss)
    torch.testing.assert_close(output.loss, plain.loss, rtol=2e-2, atol=0)


@pytest.mark.parametrize("with_target", [False, True])
def test_compiles_without_a_graph_break(with_target):
    torch.compiler.reset()
    model = tiny_mae()
    images, mask = random_images(model), random_mask(model, 7)
    if with_target:
        mask = random_mask(model, 7, target=mask.masked & (torch.arange(12) % 2 == 0))
    expected = model(model.context(images), mask)
    expected.loss.backward()
    gradient = model.encoder.backbone.patch_embed.proj.weight.grad.clone()
    model.zero_grad()
    output = torch.compile(model, fullgraph=True, backend="aot_eager")(model.context(images), mask)
    output.loss.backward()
    torch.testing.assert_close(output.prediction, expected.prediction)
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(model.encoder.backbone.patch_embed.proj.weight.grad, gradient)


@pytest.mark.gpu
def test_no_host_synchronisation_in_forward():
    model = tiny_mae().cuda()
    images = random_images(model).cuda()
    noise = torch.rand(2, 12).cuda()
    model(model.context(images), Mask.from_scores(noise, 7)).loss.backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(model.context(images), Mask.from_scores(noise, 7)).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("num_masked", [1, 11])
@pytest.mark.parametrize("batch", [1, 3])
def test_one_hidden_and_one_visible(num_masked, batch):
    model = tiny_mae()
    mask = random_mask(model, num_masked, batch=batch)
    output = model(model.context(random_images(model, batch=batch)), mask)
    torch.testing.assert_close(output.loss, output.patch_loss[mask.masked].mean())


@pytest.mark.parametrize(
    ("backbone", "num_prefix"),
    [("vit_base_patch16_gap_224", 0), ("deit3_small_patch16_224", 1), ("vit_small_patch14_reg4_dinov2", 5)],
)
def test_any_prefix(backbone, num_prefix):
    model = tiny_mae(backbone=backbone)
    output = model(model.context(random_images(model)), random_mask(model, 7))
    output.loss.backward()
    assert model.encoder.num_prefix == num_prefix
    assert output.prediction.shape == (2, 12, 192)


# ---- borders


def test_context_offers_what_it_says():
    model = tiny_mae()
    images = random_images(model)
    context = model.context(images, progress=0.5, epoch=3)
    assert model.provides == {"images", "tokens"}
    assert context.images is images
    assert context.grid == (3, 4)
    assert (context.progress, context.epoch) == (0.5, 3)
    assert context.tokens.shape == (2, 12, 32)
    assert not context.has_teacher
    assert model.context(Views(images, num_global=1)).images is images


def test_errors():
    model = tiny_mae()
    images = random_images(model)
    with pytest.raises(ValueError, match=r"make the context with MAE.context\(images\)"):
        model(MaskContext(images, grid=(3, 4)), random_mask(model, 7))
    ragged = Mask.from_bool(torch.arange(12).expand(2, 12) < torch.tensor([[3], [4]]))
    assert model.needs_equal_counts
    with pytest.raises(ValueError, match="different number of patches"):
        model(model.context(images), ragged)
    for options in (
        {"decoder_embed_dim": 30, "decoder_num_heads": 2},
        {"decoder_embed_dim": 32, "decoder_num_heads": 3},
    ):
        with pytest.raises(
            UserError, match="decoder_embed_dim must be a multiple of 4 and of decoder_num_heads"
        ):
            MAE(model.encoder, **options)


# ---- a teacher for the masks


def test_a_teacher_is_asked_once_and_only_if_a_mask_reads_it():
    model, passes = tiny_mae(teacher="ema"), []
    model.teacher.encoder.register_forward_hook(lambda *_: passes.append("teacher"))
    images = random_images(model)
    assert model.provides == {"images", "tokens", "teacher", "attention"}
    context = model.context(images)
    model(context, random_mask(model, 6))
    assert passes == []
    mask = DPPMask(source="teacher")(context, 6, generator=fold_in(0))
    assert context.teacher.attention.shape == (2, 2, 12)
    model(context, mask).loss.backward()
    assert passes == ["teacher"]
    assert all(p.grad is None for p in model.teacher.parameters())


def test_without_a_teacher_nothing_is_promised_or_saved():
    model = tiny_mae()
    assert model.provides == {"images", "tokens"}
    assert model.context(random_images(model)).provides == {"images", "tokens"}
    assert not any(name.startswith("teacher") for name in model.state_dict())


def test_the_loss_does_not_depend_on_the_teacher():
    plain, taught = tiny_mae(), tiny_mae(teacher="ema")
    losses = []
    for model in (plain, taught):
        images, mask = random_images(model), random_mask(model, 6)
        losses.append(model(model.context(images), mask).loss)
    assert torch.equal(*losses)


def test_the_ema_teacher_follows():
    model = tiny_mae(teacher="ema")
    student, teacher = model.encoder.backbone.norm.weight, model.teacher.encoder.backbone.norm.weight
    with torch.no_grad():
        student.add_(1.0)
    model.after_step(0.0)
    torch.testing.assert_close(teacher, student - 0.996)
    model.before_training()
    assert torch.equal(teacher, student)
