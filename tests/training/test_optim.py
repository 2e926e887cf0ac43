import pytest
import torch
from torch import nn

from dppmask.models.encoder import Encoder
from dppmask.training.optim import adamw, clip_each_gradient, layer_wise_groups, parameter_groups, set_rates


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.position = nn.Parameter(torch.zeros(1, 9, 4), requires_grad=False)
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        self.convolution = nn.Conv2d(3, 2, 1)
        self.matrix_shaped = nn.Module()
        self.matrix_shaped.bias = nn.Parameter(torch.zeros(2, 2))
        self.scale = nn.Parameter(torch.zeros(()))


def names(model, group):
    wanted = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


def test_matrices_and_tokens_decay_biases_and_vectors_do_not():
    model = Toy()
    decayed, free = parameter_groups(model, 0.05)
    assert names(model, decayed) == {"cls_token", "linear.weight", "convolution.weight"}
    assert names(model, free) == {
        "linear.bias", "norm.weight", "norm.bias", "convolution.bias", "matrix_shaped.bias", "scale",
    }  # fmt: skip
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)


def test_a_model_without_one_kind_has_one_group():
    assert len(parameter_groups(nn.LayerNorm(3), 0.05)) == 1
    assert len(parameter_groups(nn.Linear(3, 3, bias=False), 0.05)) == 1


def test_every_trainable_parameter_of_an_encoder_is_in_exactly_one_group():
    encoder = Encoder("test_vit", image_size=32, patch_size=8)
    groups = parameter_groups(encoder, 0.05)
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in encoder.parameters() if p.requires_grad)
    assert all("pos_embed" not in name for group in groups for name in names(encoder, group))
    assert any("cls_token" in name for name in names(encoder, groups[0]))


def test_one_step_equals_adamw_written_out():
    model = nn.Linear(2, 1)
    lr, decay, (beta1, beta2), eps = 0.1, 0.05, (0.9, 0.95), 1e-8
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    optimizer = adamw(model, lr=lr, weight_decay=decay)
    model(torch.tensor([[1.0, -2.0]])).sum().backward()
    optimizer.step()

    def stepped(value, gradient, decay):
        first, second = (1 - beta1) * gradient / (1 - beta1), (1 - beta2) * gradient**2 / (1 - beta2)
        return value * (1 - lr * decay) - lr * first / (second.sqrt() + eps)

    torch.testing.assert_close(model.weight.detach(), stepped(weight, torch.tensor([[1.0, -2.0]]), decay))
    torch.testing.assert_close(model.bias.detach(), stepped(bias, torch.tensor([1.0]), 0.0))


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_weight_decay_shrinks_only_the_decayed_group(decay):
    model = nn.Linear(3, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = adamw(model, lr=0.5, weight_decay=decay)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before["weight"] * (1 - 0.5 * decay))
    assert torch.equal(model.bias, before["bias"])


def test_momenta_are_those_of_mae_unless_given():
    model = nn.Linear(2, 1)
    assert adamw(model, lr=0.1, weight_decay=0.0).defaults["betas"] == (0.9, 0.95)
    assert adamw(model, lr=0.1, weight_decay=0.0, betas=(0.9, 0.999)).defaults["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("model", [Toy(), nn.LayerNorm(3)], ids=["both groups", "nothing decays"])
def test_rates_change_where_they_apply(model):
    optimizer = adamw(model, lr=0.1, weight_decay=0.05)
    set_rates(optimizer, lr=0.2, weight_decay=0.3)
    assert {group["lr"] for group in optimizer.param_groups} == {0.2}
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == ([0.3, 0.0] if len(decays) == 2 else [0.0])


def test_each_gradient_is_clipped_by_itself():
    model = nn.Linear(3, 2)
    model.register_parameter("unused", nn.Parameter(torch.zeros(2)))
    weight, bias = torch.full((2, 3), 2.0), torch.tensor([0.1, -0.2])
    model.weight.grad, model.bias.grad = weight.clone(), bias.clone()
    clip_each_gradient(model, 3.0)
    torch.testing.assert_close(model.weight.grad, weight * 3.0 / 24**0.5)
    assert torch.equal(model.bias.grad, bias)
    assert model.unused.grad is None


def test_gradients_of_zeros_stay():
    model = nn.Linear(3, 2)
    model.weight.grad = torch.zeros(2, 3)
    clip_each_gradient(model, 3.0)
    assert torch.equal(model.weight.grad, torch.zeros(2, 3))


def test_rates_of_layers_keep_their_shares():
    model = Encoder("test_vit", image_size=32, patch_size=8, position="learned")
    options = {"last_layer": model.depth + 1, "layer_decay": 0.5, "weight_decay": 0.1}
    groups = layer_wise_groups(model.named_parameters(), model.layer_of, **options)
    optimizer = torch.optim.AdamW(groups, lr=9.0)
    set_rates(optimizer, lr=0.8, weight_decay=0.2)
    decays = {
        name: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name in names(model, group)
    }
    assert decays["backbone.norm.weight"] == (0.8, 0.0)
    assert decays["backbone.blocks.5.attn.qkv.weight"] == (0.4, 0.2)
    assert decays["backbone.patch_embed.proj.weight"] == (pytest.approx(0.8 / 2**7), 0.2)
    assert decays["backbone.pos_embed"] == (pytest.approx(0.8 / 2**7), 0.0)
    assert len(decays) == len(list(model.parameters()))
