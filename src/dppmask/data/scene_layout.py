"""What stands where in a scene: shapes, colours, places, camera and light, drawn before anything is rendered.

A layout knows no pixels: the same scene can be rendered at any size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")

SHAPES = ("cube", "sphere", "cylinder")
COLOURS = {  # names, order and sRGB values of CLEVR
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
KINDS = [(shape, colour) for shape in SHAPES for colour in COLOURS]  # their positions are the 24 labels
KIND_NAMES = [f"{colour} {shape}" for shape, colour in KINDS]
MATERIALS = ("rubber", "metal")
SIZES = ("small", "large")
MAX_OBJECTS = 10

PERSPECTIVE = 0.15  # an object shrinks by this share for every unit it stands higher in the image
BODY_HEIGHT = {"cube": 0.75, "sphere": 0.95, "cylinder": 0.8}  # of the centre above the floor, in radii
REACH = 1.3  # no point of a body is farther from its centre, in radii
COVER = 1.15  # a nearer object is taken to hide a disc of this radius, in radii
PROBES = torch.tensor(
    [
        (math.sqrt((i + 0.5) / 24) * math.cos(2.4 * i), math.sqrt((i + 0.5) / 24) * math.sin(2.4 * i))
        for i in range(24)
    ]
)  # a sunflower of points on the disc of a body, at which visibility is judged
MIN_VISIBLE_PROBES = 7


@dataclass(frozen=True)
class SceneObject:
    """One object. Lengths are in half short sides of the image, from its centre; x is right and y is up.

    Attributes:
        shape: One of :data:`SHAPES`.
        colour: A key of :data:`COLOURS`.
        material: One of :data:`MATERIALS`.
        size: One of :data:`SIZES`.
        x: Where the object stands on the floor, as seen in the image.
        y: The same, upwards.
        radius: As seen in the image, perspective included.
        yaw: Turn about the vertical, in radians.
    """

    shape: str
    colour: str
    material: str
    size: str
    x: float
    y: float
    radius: float
    yaw: float

    def centre_y(self, tilt: float) -> float:
        """Height of the middle of the body in the image, for a camera that looks down by ``tilt``."""
        return self.y + BODY_HEIGHT[self.shape] * self.radius * math.cos(tilt)


@dataclass(frozen=True)
class Scene:
    """What stands before the background.

    Attributes:
        objects: From the farthest to the nearest.
        tilt: How far the camera looks down, in radians.
        light: Unit vector towards the lamp; x right, y up, z towards the viewer.
    """

    objects: tuple[SceneObject, ...]
    tilt: float
    light: tuple[float, float, float]


class Dice:
    """Numbers from one torch generator, drawn in blocks because a block costs as much as a number."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self._block: list[float] = []

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        if not self._block:
            self._block = torch.rand(64, generator=self.generator, dtype=torch.float64).tolist()
        return low + (high - low) * self._block.pop()

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[int(self.uniform(0, len(items)))]


@dataclass(frozen=True)
class Stage:
    """Where objects may stand, and how large they are.

    Attributes:
        half_width: Of the image, in half short sides.
        half_height: The same.
        radii: Of each size.
        tilt: How far the camera looks down, in radians.
    """

    half_width: float
    half_height: float
    radii: dict[str, float]
    tilt: float


def draw_scene(
    dice: Dice, kinds: Sequence[tuple[str, str]], *, aspect: float, radii: dict[str, float]
) -> Scene:
    """Place objects so that some of each remains visible.

    Objects never stand in each other; a farther one may be hidden in part. A layout that hides too much of an
    object is drawn again, which is rare.

    Args:
        dice: Source of all numbers.
        kinds: Shape and colour of each object.
        aspect: Width over height of the image.
        radii: Of each size, in half short sides of the image.
    """
    tilt = math.radians(dice.uniform(32, 48))
    stage = Stage(max(aspect, 1.0), max(1 / aspect, 1.0), radii, tilt)
    light = _draw_light(dice)
    while True:
        objects: list[SceneObject] = []
        for shape, colour in kinds:
            objects.append(_place(dice, shape, colour, stage, objects))
        objects.sort(key=lambda item: -item.y)
        if visible_probes(objects, tilt).min() >= MIN_VISIBLE_PROBES:
            return Scene(tuple(objects), tilt, light)


def visible_probes(objects: Sequence[SceneObject], tilt: float) -> torch.Tensor:
    """How many of the probes of each object no nearer one hides, int64 ``[K]``; objects from far to near."""
    centres = torch.tensor([(item.x, item.centre_y(tilt)) for item in objects])
    radii = torch.tensor([item.radius for item in objects])
    points = centres[:, None] + radii[:, None, None] * PROBES  # [K, probes, 2]
    distance = (points[:, :, None] - centres).square().sum(3).sqrt()  # [K, probes, K]
    rank = torch.arange(len(objects))
    hidden = (distance < COVER * radii) & (rank > rank[:, None, None])
    return (~hidden.any(2)).sum(1)


def _draw_light(dice: Dice) -> tuple[float, float, float]:
    azimuth = math.radians(dice.uniform(25, 75)) * dice.choice((-1, 1))
    height = math.radians(dice.uniform(38, 62))
    return (
        math.sin(azimuth) * math.cos(height),
        math.sin(height),
        math.cos(azimuth) * math.cos(height),
    )


def _place(dice: Dice, shape: str, colour: str, stage: Stage, others: Sequence[SceneObject]) -> SceneObject:
    """The first of some candidate places that leaves room, or the one that leaves most."""
    material, size = dice.choice(MATERIALS), dice.choice(SIZES)
    scale = stage.radii[size] * dice.uniform(0.92, 1.08)
    yaw = math.radians(dice.uniform(10, 80))  # a cube seen exactly along a face would divide by zero
    best, most_room = None, -math.inf
    for _ in range(16):
        x, y, radius = _candidate(dice, scale, stage)
        candidate = SceneObject(shape, colour, material, size, x, y, radius, yaw)
        room = min((_room(candidate, other, stage.tilt) for other in others), default=1.0)
        if best is None or room > most_room:
            best, most_room = candidate, room
        if most_room >= 1.0:
            break
    assert best is not None
    return best


def _candidate(dice: Dice, scale: float, stage: Stage) -> tuple[float, float, float]:
    """A place at which the whole body lies within the image, and the radius there."""
    largest = scale * (1 + PERSPECTIVE * stage.half_height)
    margin = 1.15 * largest
    x = dice.uniform(margin - stage.half_width, stage.half_width - margin)
    top = stage.half_height - margin - largest * math.cos(stage.tilt)
    y = dice.uniform(0.8 * largest - stage.half_height, top)
    return x, y, scale * (1 - PERSPECTIVE * y)


def _room(one: SceneObject, other: SceneObject, tilt: float) -> float:
    """At least 1 where the two neither touch on the floor nor hide each other's middle."""
    on_floor = math.hypot(one.x - other.x, (one.y - other.y) / math.sin(tilt))
    in_image = math.hypot(one.x - other.x, one.centre_y(tilt) - other.centre_y(tilt))
    return min(on_floor / (one.radius + other.radius), in_image / max(one.radius, other.radius))
