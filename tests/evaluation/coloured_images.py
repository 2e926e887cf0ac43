"""Small sources whose answer is plain to see: what a colour says, and a control where it says nothing."""

from dataclasses import dataclass

import torch

from dppmask.data.base import ImageSource, Sample, Split
from dppmask.models.encoder import Encoder
from dppmask.rng import fold_in, seeded

SIDE = 16
PALETTE = torch.tensor([(200, 60, 60), (60, 200, 60), (60, 60, 200), (180, 180, 60)])


@dataclass
class Coloured(ImageSource):
    """Noisy images of one colour; the class is the colour, or a random number where ``meaningless``."""

    train_size: int = 60
    val_size: int = 30
    num_classes: int = 3
    meaningless: bool = False
    opened: Split = "train"

    def __post_init__(self):
        self.class_names = [f"class {i}" for i in range(self.num_classes)]

    def split(self, name):
        return Coloured(self.train_size, self.val_size, self.num_classes, self.meaningless, name)

    def __len__(self):
        return self.train_size if self.opened == "train" else self.val_size

    def __getitem__(self, index):
        generator = fold_in(0, self.opened == "train", index)
        colour, other = torch.randint(self.num_classes, (2,), generator=generator).tolist()
        noise = torch.randint(-50, 50, (3, SIDE, SIDE), generator=generator)
        image = (PALETTE[colour][:, None, None] + noise).to(torch.uint8)
        return Sample(image, label=other if self.meaningless else colour, sample_id=index)


@dataclass
class Lamps(ImageSource):
    """Each channel is bright or dark by itself: three labels an image, and a fourth that never holds."""

    train_size: int = 60
    val_size: int = 30
    opened: Split = "train"

    def __post_init__(self):
        self.class_names = ["red", "green", "blue", "never"]
        self.multi_label = True

    def split(self, name):
        return Lamps(self.train_size, self.val_size, name)

    def __len__(self):
        return self.train_size if self.opened == "train" else self.val_size

    def __getitem__(self, index):
        generator = fold_in(1, self.opened == "train", index)
        bright = torch.rand(3, generator=generator) < 0.4
        shift = torch.randint(0, 100, (3, 1, 1), generator=generator)
        noise = torch.randint(0, 50, (3, SIDE, SIDE), generator=generator)
        image = (90 * bright[:, None, None] + shift + noise).to(torch.uint8)
        return Sample(image, labels=torch.cat([bright, torch.tensor([False])]), sample_id=index)


class Unlabelled(Coloured):
    """The same images without classes."""

    def __post_init__(self):
        self.class_names = None

    def split(self, name):
        return Unlabelled(self.train_size, self.val_size, self.num_classes, self.meaningless, name)

    def __getitem__(self, index):
        return Sample(super().__getitem__(index).image, sample_id=index)


def tiny_encoder(**changes):
    """Two blocks of width 32 on images of 16 pixels."""
    arguments = {"image_size": SIDE, "patch_size": 4, "backbone_args": {"depth": 2, "embed_dim": 32}}
    with seeded(3):
        return Encoder("test_vit", **arguments | changes)
