"""Images per second of Scenes, and of ImageFolder in turns with torchvision's ImageFolder; of multi-crop.

``python benchmarks/data.py [--out benchmarks/results/data_cpu.csv]``: one process, one thread, no workers.
Both folder loaders read the same JPEG files (375 x 500, as in ImageNet) in random order and give normalised
batches of random resized crops (224 px, bicubic, antialiased), flipped half of the time; torchvision has
its usual recipe on PIL images. ``ratio`` is the median time over that of torchvision (below 1 is faster).
Multi-crop is iBOT's augmentation of the same files: 2 crops of 224 and 10 of 96 pixels per image.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from dppmask.bench.harness import machine, measure_in_turns, write_rows
from dppmask.data.folder import ImageFolder
from dppmask.data.module import TrainLoader
from dppmask.data.multi_crop import MultiCropTransform
from dppmask.data.scenes import Scenes
from dppmask.data.transforms import IMAGENET_MEAN, IMAGENET_STD, train_transform
from dppmask.rng import fold_in
from dppmask.views import MultiCrop

BATCH_SIZE, CROP = 50, 224
CLASSES, COPIES = 5, 10  # the same bytes under several names cost the same to decode


def write_photographs(root: Path, count: int) -> None:
    """JPEG files with the grain of a photograph, in class folders."""
    source = Scenes(size=(375, 500))
    for number in range(count // COPIES):
        grain = 6 * torch.randn(3, 375, 500, generator=fold_in(0, number))
        pixels = (source[number].image + grain).clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
        picture = Image.fromarray(pixels.numpy())
        for copy in range(COPIES):
            folder = root / f"class{copy % CLASSES}"
            folder.mkdir(exist_ok=True)
            picture.save(folder / f"{number}_{copy}.jpg", quality=92)


def our_loader(root: Path) -> Iterable[object]:
    source = ImageFolder(str(root)).split("train")
    return TrainLoader(source, train_transform(CROP), batch_size=BATCH_SIZE, seed=0)


def multi_crop_loader(root: Path) -> Iterable[object]:
    source = ImageFolder(str(root)).split("train")
    return TrainLoader(source, MultiCropTransform(CROP, MultiCrop()), batch_size=BATCH_SIZE, seed=0)


def torchvision_loader(root: Path) -> Iterable[object]:
    bicubic = transforms.InterpolationMode.BICUBIC
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(CROP, scale=(0.2, 1.0), interpolation=bicubic),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return DataLoader(
        datasets.ImageFolder(root, transform), batch_size=BATCH_SIZE, shuffle=True, drop_last=True
    )


def exhaust(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def render(size: int, task: str, count: int) -> None:
    """Ask a new source, which remembers nothing, for its first images."""
    source = Scenes(size=size, task=task)
    for index in range(count):
        source[index]


def read_again(source: Scenes, count: int) -> None:
    for index in range(count):
        source[index]


def scene_cases() -> dict[str, tuple[Callable[[], None], int]]:
    """What to time, and how many images that is."""
    remembered = Scenes(size=64)
    return {
        "Scenes, 64 px, 3 to 10 objects": (partial(render, 64, "multi", 200), 200),
        "Scenes, 64 px, one object": (partial(render, 64, "single", 200), 200),
        "Scenes, 224 px, 3 to 10 objects": (partial(render, 224, "multi", 40), 40),
        "Scenes, 64 px, once rendered": (partial(read_again, remembered, 200), 200),
    }


def folder_cases(root: Path, count: int) -> dict[str, tuple[Callable[[], None], int]]:
    """Each loader, one epoch."""
    loaders = {
        "ImageFolder, ours": our_loader(root),
        "ImageFolder, torchvision": torchvision_loader(root),
        "ImageFolder, multi-crop": multi_crop_loader(root),
    }
    return {name: (partial(exhaust, loader), count) for name, loader in loaders.items()}


def rows_of(cases: dict[str, tuple[Callable[[], None], int]], rival: str | None, repeats: int) -> list[dict]:
    """A row per case: images per second (median and spread) and the ratio to the rival's time."""
    timings = measure_in_turns({name: call for name, (call, _) in cases.items()}, repeats=repeats, warmup=1)
    rows = []
    for name, (_, count) in cases.items():
        timing = timings[name]
        speeds = {"median": timing.median, "low": timing.high, "high": timing.low}
        rows.append(
            {
                "case": name,
                **{f"images_per_second_{key}": round(count / seconds, 1) for key, seconds in speeds.items()},
                "ratio": round(timing.median / timings[rival].median, 3) if rival else "",
                "images": count,
                "repeats": repeats,
                "threads": torch.get_num_threads(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data_cpu.csv")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = rows_of(scene_cases(), None, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), options.images)
        cases = folder_cases(Path(folder), options.images)
        rows += rows_of(cases, "ImageFolder, torchvision", options.repeats)
    facts = machine("torchvision", "pillow")
    write_rows(options.out, [row | facts for row in rows])
    for row in rows:
        print(f"{row['case']:<34} {row['images_per_second_median']:>8} images/s  {row['ratio']}")


if __name__ == "__main__":
    main()
