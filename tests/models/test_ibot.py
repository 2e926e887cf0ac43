"""The method: one teacher pass, who gets gradients, ragged masks, numbers that stay finite."""

from functools import partial

import pytest
import torch

from dppmask.errors import UserError
from dppmask.masks import DPPMask, Mask, RandomMask
from dppmask.models.build import build_model
from dppmask.models.encoder import Encoder
from dppmask.models.ibot import IBOT
from dppmask.models.ibot_loss import IBOTLoss
from dppmask.rng import fold_in, seeded
from dppmask.training.optim import adamw, clip_each_gradient
from dppmask.views import Views

B, N = 3, 16
SMALL = {
    "out_dim": 24,
    "head_hidden_dim": 32,
    "head_bottleneck_dim": 16,
    "num_local_crops": 2,
    "local_size": 16,
    "warmup_teacher_temp_epochs": 2,
}


def make_model(encoder=None, **changes):
    encoder = {"image_size": 32, "patch_size": 8, "position": "learned"} | (encoder or {})
    encoder.setdefault("backbone_args", {"depth": 2})
    with seeded(0):
        return IBOT(Encoder(encoder.pop("backbone", "test_vit"), **encoder), **SMALL | changes)


def make_views(seed=0, batch=B, num_global=2, num_local=2):
    generator = fold_in(seed)
    local = torch.randn(num_local * batch, 3, 16, 16, generator=generator) if num_local else None
    crops = torch.randn(num_global * batch, 3, 32, 32, generator=generator)
    return Views(crops, local, num_global, num_local)


def ragged_mask(rows=2 * B, seed=1):
    counts = torch.randint(0, N, (rows,), generator=fold_in(seed))
    counts[0] = 0
    return Mask.from_scores(torch.rand(rows, N, generator=fold_in(seed, 1)), counts)


def step(model, views, mask, **context):
    output = model(model.context(views, **context), mask)
    output.loss.backward()
    return output


def test_equals_the_loss_of_the_parts_written_out():
    """The student through timm's own blocks with replaced embeddings; crops of another size likewise."""
    model, views, mask = make_model().eval(), make_views(), ragged_mask()
    with torch.no_grad():
        model.mask_token.normal_(generator=fold_in(5))
        for parameter in model.teacher.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=fold_in(6)))
    output = model(model.context(views, epoch=1), mask)

    backbone = model.encoder.backbone
    patches = backbone.patch_embed(views.global_crops).clone()
    patches[mask.masked] = model.mask_token[0, 0].expand(int(mask.masked.sum()), -1)
    x = torch.cat([backbone.cls_token.expand(2 * B, -1, -1), patches], dim=1) + backbone.pos_embed
    x = backbone.norm(backbone.blocks(x))
    student_cls, student_patch = model.head(x[:, 0], x[:, 1:])
    local = model.encoder(model.encoder.embed(views.local_crops, any_size=True))
    whole = model.teacher.encoder.backbone.forward_features(views.global_crops)
    teacher_cls, teacher_patch = model.teacher.head(whole[:, 0], whole[:, 1:])
    loss = IBOTLoss(24, 24, 2, 2, 0.04, 0.07, 0.04, 0.07, 2, 2)
    expected = loss(
        student_cls=student_cls,
        student_patch=student_patch,
        student_local_cls=model.head(local.prefix[:, 0])[0],
        teacher_cls=teacher_cls,
        teacher_patch=teacher_patch,
        masked=mask.masked.view(2, B, N),
        epoch=1,
    )
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(output.patch_loss, expected.patch_loss)
    torch.testing.assert_close(output.metrics, {"cls_loss": expected.cls, "patch_loss": expected.patch})
    assert output.patch_loss.shape == (2 * B, N)
    torch.testing.assert_close(model.loss.center, loss.center)


@pytest.mark.parametrize("mask_first", [None, DPPMask(source="teacher"), DPPMask(source="tokens")], ids=str)
def test_one_teacher_pass_per_step(mask_first):
    model, passes = make_model(), []
    model.teacher.encoder.register_forward_hook(lambda *_: passes.append("teacher"))
    model.encoder.register_forward_hook(lambda *_: passes.append("student"))
    context = model.context(make_views())
    mask = ragged_mask()
    if mask_first is not None:
        mask = mask_first(context, torch.full((2 * B,), 6), generator=fold_in(0))
    model(context, mask)
    assert sorted(passes) == ["student", "student", "teacher"]  # global crops, local crops


def test_attention_is_computed_only_where_it_is_needed():
    model = make_model()
    assert model.context(make_views()).teacher.attention.shape == (2 * B, model.encoder.num_heads, N)
    model.needs_attention = False
    assert model.context(make_views()).teacher.attention is None


def test_everything_trainable_gets_a_gradient_and_the_teacher_none():
    model = make_model(patch_out_dim=20)
    step(model, make_views(), ragged_mask())
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert not any(p.requires_grad for p in model.teacher.parameters())
    assert all(p.grad is None for p in model.teacher.parameters())
    assert model.mask_token.grad.norm() > 0


@pytest.mark.parametrize("reduction", ["diluted", "masked"])
def test_a_batch_in_which_nothing_is_hidden_trains(reduction):
    model = make_model(reduction=reduction, patch_out_dim=20)
    output = step(model, make_views(), Mask.from_bool(torch.zeros(2 * B, N, dtype=torch.bool)))
    assert output.metrics["patch_loss"] == 0
    assert output.loss.isfinite()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []  # DDP waits for every parameter
    assert torch.equal(model.mask_token.grad, torch.zeros_like(model.mask_token))


def test_hidden_pixels_do_not_reach_the_student_but_the_teacher():
    model, views, mask = make_model().eval(), make_views(num_local=2), ragged_mask()
    pixels = mask.masked.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = Views(views.global_crops + pixels, views.local_crops, 2, 2)
    one, two = (model.encoder(model.encoder.embed(v.global_crops), mask, mask_token=model.mask_token)
                for v in (views, other))  # fmt: skip
    assert torch.equal(one.patches, two.patches)
    teacher = [model.context(v).teacher.patches for v in (views, other)]
    assert not torch.allclose(*teacher)


def test_targets_of_a_mask_are_what_is_scored():
    model, views, mask = make_model().eval(), make_views(), ragged_mask()
    target = mask.masked & (torch.arange(N) % 2 == 0)
    model.loss.center_momentum = 1.0  # so that a second call is the same
    narrow = model(model.context(views), Mask(mask.masked, target=target))
    full = model(model.context(views), mask)
    weights = target.float()
    expected = ((narrow.patch_loss * weights).sum(1) / weights.sum(1).clamp(min=1)).mean()
    torch.testing.assert_close(narrow.metrics["patch_loss"], expected)
    assert narrow.metrics["patch_loss"] != full.metrics["patch_loss"]
    assert torch.equal(narrow.patch_loss, full.patch_loss)


def test_teacher_starts_as_the_student_then_follows():
    model = make_model(teacher_momentum=0.9)
    name = "encoder.backbone.blocks.0.mlp.fc1.weight"
    weights = dict(model.named_parameters())
    assert torch.equal(weights[name], weights[f"teacher.{name}"])
    before = weights[name].detach().clone()
    with torch.no_grad():
        weights[name].add_(1.0)
    model.after_step(0.0)
    torch.testing.assert_close(weights[f"teacher.{name}"], before + 0.1)
    model.after_step(1.0)
    torch.testing.assert_close(weights[f"teacher.{name}"], before + 0.1)
    model.before_training()
    assert torch.equal(weights[f"teacher.{name}"], weights[name])


def test_prototypes_stay_in_the_first_epochs():
    model = make_model(freeze_last_layer_epochs=2)
    optimizer = adamw(model, lr=0.1, weight_decay=0.5)
    prototypes = model.head.last["cls"].direction
    before, perceptron = prototypes.detach().clone(), model.head.perceptron[0].weight.detach().clone()
    for epoch in (0, 1, 2):
        optimizer.zero_grad()
        step(model, make_views(), ragged_mask(), epoch=epoch)
        model.before_step(epoch)
        optimizer.step()
        assert torch.equal(prototypes, before) == (epoch < 2)
    assert not torch.equal(model.head.perceptron[0].weight, perceptron)


def test_students_paths_are_dropped_and_the_teachers_never():
    model = make_model({"backbone_args": {"depth": 2, "drop_path_rate": 0.5}}).train()
    views = make_views()
    student, teacher = [], []
    for seed in (0, 1):
        with seeded(seed):
            context = model.context(views)
            teacher.append(context.teacher.patches)
            student.append(model.encoder(context.tokens, ragged_mask(), mask_token=model.mask_token).patches)
    assert torch.equal(*teacher)
    assert not torch.equal(*student)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_few_dozen_steps_neither_explode_nor_collapse(precision):
    """Teachers' assignments stay spread over prototypes, and differ between images."""
    model = make_model({"backbone_args": {"depth": 2, "drop_path_rate": 0.1}}).train()
    optimizer = adamw(model, lr=2e-3, weight_decay=0.04, betas=(0.9, 0.999))
    strategy, losses = RandomMask(), []
    for index in range(40):
        views = make_views(seed=index % 4, batch=8)
        with seeded(0, index), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            context = model.context(views, epoch=index // 10)
            counts = torch.randint(0, N // 2, (16,), generator=fold_in(1, index))
            output = model(context, strategy(context, counts, generator=fold_in(2, index)))
        assert output.loss.dtype == torch.float32
        optimizer.zero_grad()
        output.loss.backward()
        model.before_step(index // 10)
        clip_each_gradient(model, 3.0)
        optimizer.step()
        model.after_step(index / 40)
        losses.append(output.loss.item())
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert all(p.isfinite().all() for p in model.parameters())
    logits = model.cls_logits(torch.cat([make_views(seed=i, batch=8).global_crops for i in range(4)]))
    shares = ((logits - model.loss.center) / 0.07).softmax(-1)  # [64, K]
    spread = -(shares.mean(0) * shares.mean(0).log()).sum()
    own = -(shares * shares.log()).sum(1).mean()
    assert spread > 0.5 * torch.tensor(24.0).log()  # not one prototype for all
    assert own < spread - 0.02  # not the same spread-out answer for every image


def test_cls_logits_are_the_teachers():
    model, images = make_model(), make_views().global_crops
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
    tokens = model.teacher.encoder.encode(images)
    torch.testing.assert_close(model.cls_logits(images), model.teacher.head(tokens.prefix[:, 0])[0])


def test_images_alone_are_enough_for_a_mask():
    model = make_model()
    context = model.context(make_views().global_crops)
    mask = DPPMask(source="teacher")(context, 8, generator=fold_in(0))
    assert mask.masked.sum(1).tolist() == [8] * 6
    with pytest.raises(ValueError, match="built for 2 global and 2 local crops, got 1 and 0"):
        model(context, mask)


def test_built_from_a_configuration():
    config = {
        "method": {
            "class_path": "dppmask.models.ibot.IBOT",
            "init_args": SMALL | {"local_scale": [0.1, 0.3]},
        },
        "backbone": "test_vit",
        "image_size": 32,
        "patch_size": 8,
        "position": "learned",
    }
    model = build_model(config)
    assert model.encoder.position == "learned"
    assert model.multi_crop.local_scale == [0.1, 0.3]
    assert build_model(config | {"method": partial(IBOT, **SMALL)}).multi_crop.num_local == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"backbone": "vit_base_patch16_gap_224"}}, "IBOT needs a class token"),
        ({"local_size": 20}, "local_size must be a multiple of patch_size 8, got 20; 16 would do"),
        ({"num_global_crops": 1, "num_local_crops": 0}, "2 crops in all"),
    ],
)
def test_wrong_options(changes, message):
    encoder = changes.pop("encoder", {})
    encoder |= {"backbone_args": {"depth": 1, "embed_dim": 32, "num_heads": 2}} if encoder else {}
    with pytest.raises(UserError, match=message):
        make_model(encoder, **changes)
