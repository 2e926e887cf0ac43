"""Small images with a square object each; its brightness says its class, the background which image it is."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from dppmask.data.base import ImageSource, Sample, Split
from dppmask.rng import fold_in

SIDE = 20


@dataclass
class Squares(ImageSource):
    """A square of brightness 200 + class at a random place; red of the background is the index."""

    count: int = 12
    num_classes: int = 3
    opened: Split = "train"

    def __post_init__(self):
        self.class_names = [f"class {i}" for i in range(self.num_classes)]

    def split(self, name):
        return Squares(self.count, self.num_classes, name)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        top, left = torch.randint(1, SIDE - 9, (2,), generator=fold_in(5, index)).tolist()
        mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        mask[top : top + 8, left : left + 7] = True
        image = torch.full((3, SIDE, SIDE), index, dtype=torch.uint8)
        label = index % self.num_classes
        image[:, mask] = 200 + label
        return Sample(image, label, objects=mask[None], sample_id=index)


def write_squares(root, masks, *, part="val", source=None):
    """The same as files: images as png below ``root/part``, masks alternately as png and npy."""
    source = Squares() if source is None else source
    for index in range(len(source)):
        sample = source[index]
        place = f"{part}/{source.class_names[sample.label]}/{index}"
        for folder in (root, masks):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(root / f"{place}.png")
        mask = sample.objects[0].numpy()
        if index % 2:
            np.save(masks / f"{place}.npy", mask)
        else:
            Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{place}.png")
