import copy

import pytest
import torch
from torch import nn

from dppmask.errors import UserError
from dppmask.models.checkpoint import save_encoder
from dppmask.models.ema import EMATeacher, FrozenTeacher, make_teacher, rising_momentum
from dppmask.models.encoder import Encoder
from dppmask.rng import fold_in, seeded


def make_encoder(seed=0, **options):
    options = {"image_size": (24, 32), "patch_size": 8, "backbone_args": {"depth": 2}} | options
    with seeded(seed):
        return Encoder("test_vit", **options)


class Student(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        self.encoder = make_encoder(seed, position="learned")
        with seeded(seed):
            self.head = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


def images(batch=2):
    return torch.randn(batch, 3, 24, 32, generator=fold_in(5))


def test_average_equals_the_formula_over_several_steps():
    student = Student()
    teacher = EMATeacher(0.9, student.encoder, head=student.head)
    expected = {name: p.detach().double() for name, p in teacher.named_parameters()}
    for step in range(5):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=fold_in(1, step)))
        progress = (step + 1) / 5
        teacher.follow(student, progress)
        momentum = rising_momentum(0.9, progress)
        for name, parameter in student.named_parameters():
            expected[name] = momentum * expected[name] + (1 - momentum) * parameter.detach().double()
    actual = {name: p.double() for name, p in teacher.named_parameters()}
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_starts_as_its_student_and_shares_nothing_with_it():
    student = Student()
    teacher = EMATeacher(0.9, student.encoder, head=student.head)
    before = copy.deepcopy(teacher.state_dict())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)
    teacher.start_from(student)
    assert all((p == 0).all() for p in teacher.parameters())


def test_buffers_are_copied():
    student = Student()
    teacher = EMATeacher(0.9, student.encoder, head=student.head)
    student.head(torch.randn(8, 3, generator=fold_in(1)))
    teacher.follow(student, 0.0)
    assert torch.equal(teacher.head[1].running_mean, student.head[1].running_mean)
    assert teacher.head[1].num_batches_tracked == 1


@pytest.mark.parametrize(
    ("progress", "expected"), [(0, 0.996), (0.5, 0.998), (1, 1), (1.1, 1), (1 / 3, 0.997)]
)
def test_momentum_rises_on_half_a_cosine(progress, expected):
    assert rising_momentum(0.996, progress) == pytest.approx(expected, abs=1e-12)


def test_is_never_trained_and_drops_no_path():
    encoder = make_encoder(backbone_args={"depth": 2, "drop_path_rate": 0.9})
    teacher = EMATeacher(0.9, encoder)
    parent = nn.ModuleDict({"teacher": teacher}).train()
    assert not any(module.training for module in parent["teacher"].modules())
    with seeded(0):
        first, second = (teacher.tokens(images(), attention=False).patches for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())
    assert any(p.requires_grad for p in encoder.parameters())


def test_attention_only_where_it_is_wanted_and_there():
    teacher = EMATeacher(0.9, make_encoder())
    assert teacher.tokens(images(), attention=False).attention is None
    assert teacher.tokens(images(), attention=True).attention.shape == (2, teacher.encoder.num_heads, 12)
    assert teacher.provides == {"teacher", "attention"}
    registers = Encoder(
        "vit_medium_patch16_reg4_gap_256",
        image_size=(24, 32),
        patch_size=8,
        backbone_args={"depth": 1, "embed_dim": 32, "num_heads": 2},
    )
    without = EMATeacher(0.9, registers)
    assert without.provides == {"teacher"}
    assert without.tokens(images(), attention=True).attention is None


def test_wrong_momentum():
    with pytest.raises(UserError, match=r"teacher_momentum must be in \[0, 1\], got 1\.5"):
        EMATeacher(1.5, make_encoder())


def test_teachers_by_name(tmp_path):
    student = make_encoder()
    assert make_teacher(None, student, momentum=0.9) is None
    assert isinstance(make_teacher("ema", student, momentum=0.9), EMATeacher)
    other = make_encoder(seed=1)
    save_encoder(other, tmp_path)
    frozen = make_teacher(tmp_path, student, momentum=0.9)
    assert isinstance(frozen, FrozenTeacher)
    expected = other.eval().encode(images()).patches
    torch.testing.assert_close(frozen.tokens(images(), attention=False).patches, expected)
    before = copy.deepcopy(frozen.state_dict())
    frozen.start_from(nn.ModuleDict({"encoder": student}))
    frozen.follow(nn.ModuleDict({"encoder": student}), 0.5)
    torch.testing.assert_close(frozen.state_dict(), before, rtol=0, atol=0)


def test_a_frozen_teacher_of_another_image_size_is_resized(tmp_path):
    save_encoder(make_encoder(seed=1, image_size=64), tmp_path)
    frozen = make_teacher(tmp_path, make_encoder(), momentum=0.9)
    assert frozen.tokens(images(), attention=False).patches.shape[1] == 12


def test_a_frozen_teacher_gets_images_as_it_knows_them():
    student, other = make_encoder(), make_encoder(seed=1)
    other.mean, other.std = (0.5, 0.4, 0.3), (0.5, 0.6, 0.7)
    pixels = torch.rand(2, 3, 24, 32, generator=fold_in(6))

    def normalised(encoder):
        mean, std = (torch.tensor(values)[:, None, None] for values in (encoder.mean, encoder.std))
        return (pixels - mean) / std

    expected = other.eval().encode(normalised(other)).patches
    actual = FrozenTeacher(other, student.mean, student.std).tokens(normalised(student), attention=False)
    torch.testing.assert_close(actual.patches, expected)


def test_a_teacher_of_other_patches_is_refused(tmp_path):
    save_encoder(make_encoder(seed=1, patch_size=4), tmp_path)
    with pytest.raises(
        UserError, match=r"3 x 4 in 3 channels, but .* sees 6 x 8 .*use one with patch_size 8"
    ):
        make_teacher(tmp_path, make_encoder(), momentum=0.9)
