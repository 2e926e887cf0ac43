"""The foreground of a scene: ray casting of cubes, spheres and cylinders, their light and their shadows.

The camera looks at each object along parallel rays. Its axes are right (1, 0, 0), up (0, cos t, -sin t) and
the view direction (0, -sin t, -cos t) for a tilt t, in a world with x right, y up and z towards the viewer.

NumPy, because here are many operations on few pixels: they take half the time that they take in torch.
"""

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dppmask.data.scene_layout import BODY_HEIGHT, COLOURS, REACH, Scene, SceneObject

Array = NDArray[np.floating]
SAMPLES = 3  # per pixel and side; odd, so that one of them is the middle of the pixel
MIDDLE = slice(SAMPLES // 2, None, SAMPLES)
GAMMA = 2.2
BEVEL = 0.04  # how softly two faces of a body meet, in radii
SMALLEST_LOG = -30.0  # below this, exponentials would become subnormal numbers, which are very slow
SHADOW_LENGTH = 1.4  # of what casts a shadow, in radii
LINEAR_COLOURS = {
    name: np.array([(value / 255) ** GAMMA for value in colour], dtype=np.float32)[:, None, None]
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

    u: Array
    v: Array
    sine: float
    cosine: float

    def height(self, distance: Array) -> Array:
        """World y, from the middle of the body, after a distance along the rays."""
        return self.cosine * self.v - self.sine * distance

    def depth(self, distance: Array) -> Array:
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

    hit: NDArray[np.bool_]
    normal: Array
    height: Array


def render_foreground(scene: Scene, height: int, width: int) -> Foreground:
    """Cast rays at the objects of a scene, painting from the farthest to the nearest."""
    layers = np.zeros((4, height, width), np.float32)  # red, green, blue, alpha
    owners = np.zeros((height, width), np.uint8)
    for number, item in enumerate(scene.objects, start=1):
        rays, rows, columns = _aim(item, scene.tilt, height, width)
        surface = _meet(item, rays)
        samples = np.empty((4, *surface.hit.shape), np.float32)
        samples[3] = surface.hit
        np.multiply(_light(item, surface, scene), samples[3], out=samples[:3])
        painted = pool(samples, SAMPLES)
        window = layers[:, rows, columns]
        window *= 1 - painted[3]
        window += painted
        owners[rows, columns][surface.hit[MIDDLE, MIDDLE]] = number
    colour, alpha, shade = layers[:3], layers[3], _shade(scene, height, width)
    return Foreground(*(torch.from_numpy(field) for field in (colour, alpha, shade, owners)))


def pixel_axes(height: int, width: int) -> tuple[Array, Array]:
    """Middles of pixels, x ``[W]`` to the right and y ``[H]`` upwards, in half short sides of the image."""
    unit = 2 / min(height, width)
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return (columns + 0.5 - width / 2) * unit, (height / 2 - 0.5 - rows) * unit


def pool(samples: Array, side: int) -> Array:
    """Means ``[C, H, W]`` over blocks of ``side`` by ``side`` samples."""
    rows = reduce(np.add, (samples[:, first::side] for first in range(side)))
    return reduce(np.add, (rows[:, :, first::side] for first in range(side))) / side**2


def _aim(item: SceneObject, tilt: float, height: int, width: int) -> tuple[Rays, slice, slice]:
    """The rays that may meet an object, and the rows and columns of pixels they belong to."""
    half = min(height, width) / 2
    columns, u = _within_reach(width / 2 + half * item.x, half * item.radius, width)
    rows, down = _within_reach(height / 2 - half * item.centre_y(tilt), half * item.radius, height)
    return Rays(u, -down[:, None], math.sin(tilt), math.cos(tilt)), rows, columns


def _within_reach(middle: float, radius: float, side: int) -> tuple[slice, Array]:
    """The pixels within reach of a body along one axis, and its samples there, from the middle in radii."""
    first, last = max(0, math.floor(middle - REACH * radius)), min(side, math.ceil(middle + REACH * radius))
    samples = (np.arange(SAMPLES * first, SAMPLES * last, dtype=np.float32) + 0.5) / SAMPLES
    return slice(first, last), (samples - middle) / radius


def _meet(item: SceneObject, rays: Rays) -> Surface:
    if item.shape == "sphere":
        return _meet_sphere(rays)
    if item.shape == "cube":
        return _meet_cube(rays, item.yaw)
    return _meet_cylinder(rays)


def _meet_sphere(rays: Rays) -> Surface:
    radius = BODY_HEIGHT["sphere"]
    square = radius**2 - rays.u**2 - rays.v**2
    entry = -np.sqrt(np.maximum(square, 0))
    y = rays.height(entry)
    normal = np.stack([np.broadcast_to(rays.u, y.shape), y, rays.depth(entry)])
    normal /= radius
    return Surface(square > 0, normal, y + radius)


def _meet_cube(rays: Rays, yaw: float) -> Surface:
    """Slab method; the normal is that of the slab entered last, a blend where two nearly tie."""
    half = BODY_HEIGHT["cube"]
    sine, cosine = math.sin(yaw), math.cos(yaw)
    entries, exits, outward = [], [], []
    for x, y, z in ((cosine, 0.0, sine), (-sine, 0.0, cosine), (0.0, 1.0, 0.0)):
        slope = -rays.sine * y - rays.cosine * z  # of the view direction along this axis
        middle = (x / -slope) * rays.u + ((rays.cosine * y - rays.sine * z) / -slope) * rays.v
        entries.append(middle - half / abs(slope))
        exits.append(middle + half / abs(slope))
        outward.append([-math.copysign(1.0, slope) * part for part in (x, y, z)])
    entry = reduce(np.maximum, entries)
    hit = entry < reduce(np.minimum, exits)
    weights = [np.exp(np.maximum((entered - entry) / BEVEL, SMALLEST_LOG)) for entered in entries]
    normal = np.stack(
        [
            reduce(np.add, (weight * face[axis] for weight, face in zip(weights, outward, strict=True)))
            for axis in range(3)
        ]
    )
    return Surface(hit, _unit(normal), rays.height(entry) + half)


def _meet_cylinder(rays: Rays) -> Surface:
    radius, half = BODY_HEIGHT["cube"], BODY_HEIGHT["cylinder"]
    square = radius**2 - rays.u**2
    reach = np.sqrt(np.maximum(square, 0)) / rays.cosine
    axis = (-rays.sine / rays.cosine) * rays.v
    side_entry = axis - reach
    top_entry = (rays.cosine * rays.v - half) / rays.sine  # the same along a row
    entry = np.maximum(side_entry, top_entry)
    hit = (square > 0) & (entry < np.minimum(axis + reach, top_entry + 2 * half / rays.sine))
    side = 1 / (1 + np.exp(np.maximum((top_entry - side_entry) / BEVEL, SMALLEST_LOG)))  # 0 on the lid
    normal = np.stack([side * (rays.u / radius), 1 - side, (side / radius) * rays.depth(side_entry)])
    return Surface(hit, _unit(normal), rays.height(entry) + half)


def _unit(vectors: Array) -> Array:
    length = np.sqrt(vectors[0] ** 2 + vectors[1] ** 2 + vectors[2] ** 2)
    return vectors / length


def _light(item: SceneObject, surface: Surface, scene: Scene) -> Array:
    """Linear colour ``[3, h, w]``: the sky from above, the lamp, and what the material reflects."""
    base, upward = LINEAR_COLOURS[item.colour], surface.normal[1]
    facing_lamp, facing_view, facing_half = _facing(surface.normal, scene)
    occlusion = np.minimum(0.45 + 0.6 * surface.height, 1)  # less sky near the floor
    sky = (0.26 + 0.16 * upward) * occlusion
    if item.material == "rubber":
        return base * (sky + 0.8 * facing_lamp) + 0.04 * _power(facing_half, 4)
    mirrored = 2 * facing_view * upward - math.sin(scene.tilt)  # how far up the reflected ray goes
    horizon = mirrored + 0.7 * surface.height - 0.4  # flat faces show a gradient too
    room = 0.06 + 1.7 * np.minimum(np.maximum(horizon, 0), 0.8) ** 2
    shine = 0.10 * (1 - facing_view) ** 2 + 0.02 * room + 0.9 * _power(facing_half, 6)
    return base * (0.35 * sky + 0.35 * facing_lamp + room) + shine


def _facing(normal: Array, scene: Scene) -> Array:
    """Cosines ``[3, h, w]`` of the normal with the lamp, the viewer and halfway between; 0 if turned away."""
    lamp, view = np.array(scene.light), np.array([0.0, math.sin(scene.tilt), math.cos(scene.tilt)])
    halfway = lamp + view
    directions = np.stack([lamp, view, halfway / np.linalg.norm(halfway)]).astype(np.float32)
    cosines = np.dot(directions, normal.reshape(3, -1)).reshape(normal.shape)
    return np.maximum(cosines, 0, out=cosines)


def _power(x: Array, squarings: int) -> Array:
    """``x ** (2 ** squarings)`` of cosines; from 0.3 down it is as dark, and would underflow."""
    x = np.maximum(x, 0.3)
    for _ in range(squarings):
        np.square(x, out=x)
    return x


def _shade(scene: Scene, height: int, width: int) -> Array:
    """Soft shadows on the floor: capsules from where an object stands to where its top throws its shadow."""
    x, y = pixel_axes(height, width)
    lamp_x, lamp_y, lamp_z = scene.light
    end_x, end_z = -SHADOW_LENGTH * lamp_x / lamp_y, -SHADOW_LENGTH * lamp_z / lamp_y
    square = end_x**2 + end_z**2
    shade = np.ones((height, width), np.float32)
    for item in scene.objects:
        right = (x - item.x) / item.radius  # [W]
        near = (item.y - y[:, None]) / (math.sin(scene.tilt) * item.radius)  # [H, 1]
        along = np.minimum(np.maximum(right * (end_x / square) + near * (end_z / square), 0), 1)
        distance = np.sqrt((right - along * end_x) ** 2 + (near - along * end_z) ** 2)
        softness = 0.15 + 0.35 * along
        darkness = np.minimum(np.maximum((0.85 + softness - distance) / (2 * softness), 0), 1)
        darkness = darkness**2 * (3 - 2 * darkness)
        shade *= 1 - (0.70 - 0.28 * along) * darkness
    return shade
