"""Labelled squares whose brightness tells their class and whose floor tells which class it comes from."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dppmask.data.base import ImageSource, Sample, Split

SIDE = 16
CLASSES = ["dark", "medium", "bright"]
OBJECTS = (120, 180, 240)  # of the classes
FLOORS = (10, 40, 70)
BOX = slice(4, 12)


@dataclass
class Squares(ImageSource):
    """The same square in the middle of every image."""

    count: int = 24
    opened: Split = "train"

    def __post_init__(self):
        self.class_names = list(CLASSES)

    def split(self, name):
        return Squares(self.count, name)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        label = index % 3
        image = torch.full((3, SIDE, SIDE), FLOORS[label], dtype=torch.uint8)
        mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        mask[BOX, BOX] = True
        image[:, mask] = OBJECTS[label]
        return Sample(image, label, objects=mask[None], sample_id=index)


class Reader(nn.Module):
    """Logits by the level nearest to what it sees: of the object, or of the floor.

    Args:
        looks_at: "object" or "floor".
        num_outputs: At least 3; the outputs beyond never win, unless ``unsure``.
        unsure: Whether output 3 wins where the floor is that of "bright".
    """

    def __init__(self, looks_at: str, *, num_outputs: int = 3, unsure: bool = False) -> None:
        super().__init__()
        self.looks_at = looks_at
        self.num_outputs = num_outputs
        self.unsure = unsure

    def forward(self, images: Tensor) -> Tensor:
        """Images whose values are brightness / 255."""
        middle = images[:, 0, 7:9, 7:9].mean((1, 2)) * 255
        floor = images[:, 0, :2].mean((1, 2)) * 255
        seen, levels = (middle, OBJECTS) if self.looks_at == "object" else (floor, FLOORS)
        logits = torch.full((len(images), self.num_outputs), -1000.0)
        logits[:, :3] = -(seen[:, None] - torch.tensor(levels)).abs()
        if self.unsure:
            logits[:, 3] = torch.where(floor > 60, 10.0, -1000.0)
        return logits
