"""The foreground of a scene: ray casting of cubes, spheres and cylinders, their light and their shadows.

The camera looks at each object along parallel rays. Its axes are right (1, 0, 0), up (0, cos t, -sin t) and
the view direction (0, -sin t, -cos t) for a tilt t, in a world with x right, y up and z towards the viewer.
"""

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from dppmask.data.scene_layout import BODY_HEIGHT, COLOURS, REACH, Scene, SceneObject

SAMPLES = 3  # per pixel and side; odd, so that one of them is the middle of the pixel
MIDDLE = slice(SAMPLES // 2, None, SAMPLES)
GAMMA = 2.2
BEVEL = 0.04  # how softly two faces of a body meet, in radii
SHADOW_LENGTH = 1.4  # of what casts a shadow, in radii
LINEAR_COLOURS = {
    name: torch.tensor([(value / 255) ** GAMMA for value in colour])[:, None, None]
    for name, colour in COLOURS.items()
}


@dataclass(frozen=True, eq=False)
class Foreground:
    """Objects without what is behind them; colours are linear.

    Attributes:
        colour: float ``[3, H, W]``, multiplied by ``alpha``.
        alpha: float ``[H, W]``, how much of each pixel the objects cover.
        shade: float ``[H, W]``, how much light their shadows leave to the floor.
        owners: uint8 ``[H, W]``; 0 = background, k + 1 = object k is in front at the middle of the pixel.
    """

    colour: Tensor
    alpha: Tensor
    shade: Tensor
    owners: Tensor


@dataclass(frozen=True, eq=False)
class Rays:
    """Rays around one object; all lengths are in its radius.

    Attributes:
        u: ``[w]``, to the right of the middle of the body.
        v: ``[h, 1]``, up from the middle of the body.
        sine: Of the camera's tilt.
        cosine: Of the camera's tilt.
    """

    u: Tensor
    v: Tensor
    sine: float
    cosine: float

    def height(self, distance: Tensor) -> Tensor:
        """World y, from the middle of the body, after a distance along the rays."""
        return self.cosine * self.v - self.sine * distance

    def depth(self, distance: Tensor) -> Tensor:
        """World z after a distance along the rays."""
        return -self.sine * self.v - self.cosine * distance


@dataclass(frozen=True, eq=False)
class Surface:
    """What the rays meet.

    Attributes:
        hit: bool ``[h, w]``.
        normal: Unit vectors ``[3, h, w]``; anything where nothing is hit.
        height: World y above the floor ``[h, w]``.
    """

    hit: Tensor
    normal: Tensor
    height: Tensor


def render_foreground(scene: Scene, height: int, width: int) -> Foreground:
    """Cast rays at the objects of a scene, painting from the farthest to the nearest."""
    layers = torch.zeros(4, height, width)  # red, green, blue, alpha
    owners = torch.zeros(height, width, dtype=torch.uint8)
    for number, item in enumerate(scene.objects, start=1):
        rays, rows, columns = _aim(item, scene.tilt, height, width)
        surface = _meet(item, rays)
        coverage = surface.hit.float()
        painted = _pool(torch.cat([_light(item, surface, scene) * coverage, coverage[None]]))
        window = layers[:, rows, columns]
        window.mul_(1 - painted[3]).add_(painted)
        owners[rows, columns].masked_fill_(surface.hit[MIDDLE, MIDDLE], number)
    return Foreground(layers[:3], layers[3], _shade(scene, height, width), owners)


def pixel_axes(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Middles of pixels, x ``[W]`` to the right and y ``[H]`` upwards, in half short sides of the image."""
    unit = 2 / min(height, width)
    return (torch.arange(width) + 0.5 - width / 2) * unit, (height / 2 - 0.5 - torch.arange(height)) * unit


def _aim(item: SceneObject, tilt: float, height: int, width: int) -> tuple[Rays, slice, slice]:
    """The rays that may meet an object, and the rows and columns of pixels they belong to."""
    pixels = item.radius * min(height, width) / 2  # in a radius
    left = width / 2 + pixels * item.x / item.radius
    top = height / 2 - pixels * item.centre_y(tilt) / item.radius
    columns, u = _within_reach(left, pixels, width)
    rows, down = _within_reach(top, pixels, height)
    return Rays(u, -down[:, None], math.sin(tilt), math.cos(tilt)), rows, columns


def _within_reach(middle: float, radius: float, side: int) -> tuple[slice, Tensor]:
    """The pixels within reach of a body along one axis, and its samples there, from the middle in radii."""
    first, last = max(0, math.floor(middle - REACH * radius)), min(side, math.ceil(middle + REACH * radius))
    samples = (torch.arange(SAMPLES * first, SAMPLES * last) + 0.5) / SAMPLES
    return slice(first, last), (samples - middle) / radius


def _pool(samples: Tensor) -> Tensor:
    """Mean over the samples of each pixel; strided sums are faster than average pooling."""
    rows = reduce(torch.add, (samples[:, first::SAMPLES] for first in range(SAMPLES)))
    return reduce(torch.add, (rows[:, :, first::SAMPLES] for first in range(SAMPLES))) / SAMPLES**2


def _meet(item: SceneObject, rays: Rays) -> Surface:
    if item.shape == "sphere":
        return _meet_sphere(rays)
    if item.shape == "cube":
        return _meet_cube(rays, item.yaw)
    return _meet_cylinder(rays)


def _meet_sphere(rays: Rays) -> Surface:
    radius = BODY_HEIGHT["sphere"]
    square = radius**2 - rays.u**2 - rays.v**2
    entry = -square.clamp_min(0).sqrt()
    y = rays.height(entry)
    normal = torch.stack([rays.u.expand_as(y), y, rays.depth(entry)]) / radius
    return Surface(square > 0, normal, y + radius)


def _meet_cube(rays: Rays, yaw: float) -> Surface:
    """Slab method; the normal is that of the slab entered last, a blend where two nearly tie."""
    half = BODY_HEIGHT["cube"]
    sine, cosine = math.sin(yaw), math.cos(yaw)
    axes = ((cosine, 0.0, sine), (-sine, 0.0, cosine), (0.0, 1.0, 0.0))
    entries, exits, outward = [], [], []
    for x, y, z in axes:
        slope = -rays.sine * y - rays.cosine * z  # of the view direction along this axis
        middle = (x * rays.u + (rays.cosine * y - rays.sine * z) * rays.v) / -slope
        entries.append(middle - half / abs(slope))
        exits.append(middle + half / abs(slope))
        outward.append([-math.copysign(1.0, slope) * part for part in (x, y, z)])
    entered = torch.stack(entries)  # [3, h, w]
    entry = entered.amax(0)
    hit = entry < torch.stack(exits).amin(0)
    weights = ((entered - entry) / BEVEL).exp_()
    normal = (torch.tensor(outward).T @ weights.flatten(1)).view_as(weights)
    return Surface(hit, _unit(normal), rays.height(entry) + half)


def _meet_cylinder(rays: Rays) -> Surface:
    radius, half = BODY_HEIGHT["cube"], BODY_HEIGHT["cylinder"]
    square = radius**2 - rays.u**2
    reach = square.clamp_min(0).sqrt()
    side_entry = (-rays.sine * rays.v - reach) / rays.cosine
    side_exit = (-rays.sine * rays.v + reach) / rays.cosine
    top_entry = (rays.cosine * rays.v - half) / rays.sine
    bottom_exit = (rays.cosine * rays.v + half) / rays.sine
    entry = torch.maximum(side_entry, top_entry)
    hit = (square > 0) & (entry < torch.minimum(side_exit, bottom_exit))
    top = ((top_entry - side_entry) / BEVEL).sigmoid_()  # 1 on the lid, 0 on the side
    side = (1 - top) / radius
    normal = torch.stack([side * rays.u, top, side * rays.depth(side_entry)])
    return Surface(hit, _unit(normal), rays.height(entry) + half)


def _unit(vectors: Tensor) -> Tensor:
    return vectors * vectors.square().sum(0).clamp_min(1e-12).rsqrt_()


def _light(item: SceneObject, surface: Surface, scene: Scene) -> Tensor:
    """Linear colour ``[3, h, w]``: the sky from above, the lamp, and what the material reflects."""
    base, upward = LINEAR_COLOURS[item.colour], surface.normal[1]
    facing_lamp, facing_view, facing_half = _facing(surface.normal, scene)
    occlusion = (0.45 + 0.6 * surface.height).clamp_(max=1.0)  # less sky near the floor
    sky = (0.30 + 0.18 * upward) * occlusion
    if item.material == "rubber":
        return base * (sky + 0.95 * facing_lamp) + 0.05 * _power(facing_half, 4)
    mirrored = 2 * facing_view * upward - math.sin(scene.tilt)  # how far up the reflected ray goes
    room = 0.10 + 1.9 * (mirrored + 0.25).clamp_(0, 0.7).square_()
    rim = 0.12 * (1 - facing_view).square_()
    return base * (0.6 * sky + 0.45 * facing_lamp + room * occlusion) + (rim + 0.9 * _power(facing_half, 6))


def _facing(normal: Tensor, scene: Scene) -> Tensor:
    """Cosines ``[3, h, w]`` of the normal with the lamp, the viewer and halfway between; 0 if turned away."""
    lamp, view = torch.tensor(scene.light), torch.tensor([0.0, math.sin(scene.tilt), math.cos(scene.tilt)])
    halfway = lamp + view
    directions = torch.stack([lamp, view, halfway / halfway.norm()])
    return (directions @ normal.flatten(1)).view_as(normal).clamp_min_(0)


def _power(x: Tensor, squarings: int) -> Tensor:
    """``x ** (2 ** squarings)``, in place: much faster than a general power."""
    for _ in range(squarings):
        x.square_()
    return x


def _shade(scene: Scene, height: int, width: int) -> Tensor:
    """Soft shadows on the floor: capsules from where an object stands to where its top throws its shadow."""
    x, y = pixel_axes(height, width)
    place = torch.tensor([(item.x, item.y, item.radius) for item in scene.objects])[:, :, None, None]
    right = (x - place[:, 0]) / place[:, 2]  # [K, 1, W]
    near = (place[:, 1] - y[:, None]) / (math.sin(scene.tilt) * place[:, 2])  # [K, H, 1]
    lamp_x, lamp_y, lamp_z = scene.light
    end_x, end_z = -SHADOW_LENGTH * lamp_x / lamp_y, -SHADOW_LENGTH * lamp_z / lamp_y
    along = ((right * end_x + near * end_z) / (end_x**2 + end_z**2)).clamp_(0, 1)
    distance = ((right - along * end_x).square() + (near - along * end_z).square()).sqrt()
    softness = 0.15 + 0.35 * along
    darkness = ((0.85 + softness - distance) / (2 * softness)).clamp_(0, 1)
    darkness = darkness.square() * (3 - 2 * darkness)
    return (1 - 0.62 * (1 - 0.35 * along) * darkness).prod(0)
