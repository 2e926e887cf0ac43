"""The background of a scene: nine families of procedural floors, in perspective, under a soft lamp.

A family maps floor coordinates and smooth noise to a mixture of two or three muted colours.
"""

import colorsys
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from dppmask.data.scene_layout import PERSPECTIVE, Dice
from dppmask.data.scene_objects import GAMMA, pixel_axes, pool

SAMPLES = 2  # per pixel and side
TILE = 96  # side of a tile of noise
TILE_REACH = 2.2  # floor units from its middle to its border, where it is mirrored
OCTAVES = (5, 11, 24, 48)  # cells of each lattice on a tile
TILT = math.radians(40)


@dataclass(frozen=True, eq=False)
class Floor:
    """Where each sample lies on the floor, turned by a random angle, and three fields of noise there.

    Attributes:
        x: ``[h, w]``, about -1.5 to 1.5.
        z: ``[h, w]``.
        coarse: Smooth noise ``[h, w]``, about -1 to 1.
        warp: More of it, independent.
        fine: Rough noise, about -1 to 1.
    """

    x: Tensor
    z: Tensor
    coarse: Tensor
    warp: Tensor
    fine: Tensor


def render_background(family: str, generator: torch.Generator, height: int, width: int) -> Tensor:
    """A floor of one family, linear colour ``[3, H, W]``.

    Args:
        family: A key of :data:`FAMILIES`.
        generator: Source of its colours, scale, direction and noise.
        height: H.
        width: W.
    """
    dice = Dice(generator)
    floor = _lay_floor(dice, height, width)
    amounts = FAMILIES[family](floor, dice)
    colours = _mix(_palette(dice), amounts) * (1 + 0.10 * floor.fine)
    lit = torch.from_numpy(pool(colours.numpy(), SAMPLES)) * _lamp(dice, height, width)
    return lit.clamp_(0, 1)


def _lay_floor(dice: Dice, height: int, width: int) -> Floor:
    across, up = map(torch.from_numpy, pixel_axes(SAMPLES * height, SAMPLES * width))
    depth = 1 / (1 - PERSPECTIVE * up[:, None])  # [h, 1]
    across, away = across * depth, up[:, None] * depth / math.sin(TILT)
    angle = dice.uniform(0, 2 * math.pi)
    x = math.cos(angle) * across - math.sin(angle) * away
    z = math.sin(angle) * across + math.cos(angle) * away
    coarse, warp, fine = _noise(dice, x, z)
    return Floor(x, z, coarse, warp, fine)


def _noise(dice: Dice, x: Tensor, z: Tensor) -> Tensor:
    """Three fields ``[3, h, w]`` of fractal value noise; the last has only the small cells."""
    tile = torch.zeros(3, TILE, TILE)
    for octave, cells in enumerate(OCTAVES):
        lattice = torch.rand(3, cells, cells, generator=dice.generator) * 2 - 1
        weights = torch.tensor([0.62**octave, 0.5**octave, 0.9 if octave >= 3 else 0.0])[:, None, None]
        spread = _interpolation(cells)
        tile += spread @ (weights * lattice) @ spread.T
    grid = torch.empty(1, *x.shape, 2)
    torch.mul(x, 1 / TILE_REACH, out=grid[0, :, :, 0])
    torch.mul(z, 1 / TILE_REACH, out=grid[0, :, :, 1])
    return grid_sample(tile[None], grid, padding_mode="reflection", align_corners=False)[0]


@functools.cache
def _interpolation(cells: int) -> Tensor:
    """The matrix ``[TILE, cells]`` that spreads a row of a lattice over a row of a tile, bicubic."""
    return interpolate(torch.eye(cells)[None, None], size=(TILE, cells), mode="bicubic")[0, 0]


def _palette(dice: Dice) -> Tensor:
    """Three muted linear colours ``[3, 3]``: a base, a darker or lighter relative, an accent."""
    hue, saturation, value = dice.uniform(0, 1), dice.uniform(0.05, 0.42), dice.uniform(0.42, 0.80)
    step = dice.uniform(0.14, 0.30) * (-1 if value > 0.6 else 1)
    relatives = [
        (hue, saturation, value),
        (hue + dice.uniform(-0.07, 0.07), saturation * dice.uniform(0.6, 1.3), value + step),
        (hue + dice.uniform(-0.15, 0.15), saturation * 0.8, value + 0.5 * step),
    ]
    return torch.tensor([colorsys.hsv_to_rgb(h % 1.0, min(s, 1.0), v) for h, s, v in relatives]) ** GAMMA


def _mix(palette: Tensor, amounts: tuple[Tensor, Tensor]) -> Tensor:
    """Colours ``[3, h, w]``: the base, mixed with its relative, then with the accent."""
    base, relative, accent = palette[:, :, None, None]
    relation, accentuation = amounts
    mixed = base + (relative - base) * relation
    return mixed.add_((accent - mixed).mul_(accentuation))


def _lamp(dice: Dice, height: int, width: int) -> Tensor:
    """Brightness ``[H, W]``: falls off from a spot near the middle."""
    x, y = map(torch.from_numpy, pixel_axes(height, width))
    spot_x, spot_y = dice.uniform(-0.6, 0.6), dice.uniform(-0.2, 0.8)
    return 1.12 - 0.16 * ((x - spot_x).square() + (y[:, None] - spot_y).square())


# A family returns two amounts [h, w] in [0, 1]: of the relative and of the accent.
Amounts = tuple[Tensor, Tensor]


def _clouds(floor: Floor, dice: Dice) -> Amounts:
    contrast = dice.uniform(0.5, 1.2)
    return (0.5 + contrast * floor.coarse).clamp(0, 1), (0.6 * floor.warp).clamp(0, 0.6)


def _wood(floor: Floor, dice: Dice) -> Amounts:
    """Planks along one direction with a seam between them and a grain in each."""
    planks = floor.x * dice.uniform(1.2, 2.2)
    number = planks.floor()
    rings = torch.sin(26 * planks + 7 * floor.warp + 5 * torch.sin(1.3 * floor.z + 2.4 * number))
    tint = 0.25 * torch.sin(12.9898 * number)  # differs from plank to plank
    seam = _line(planks, 0.03)
    return (0.45 + tint + 0.22 * rings + 0.2 * floor.coarse).clamp(0, 1), 0.8 * seam


def _marble(floor: Floor, dice: Dice) -> Amounts:
    frequency = dice.uniform(1.5, 3.0)
    veins = 1 - torch.sin(frequency * floor.x + 4.5 * floor.coarse).abs()
    thin = 1 - torch.sin(2 * frequency * floor.z + 5.0 * floor.warp).abs()
    return veins.square().square(), 0.6 * thin.square().square().square()


def _stripes(floor: Floor, dice: Dice) -> Amounts:
    wave = torch.sin(floor.x * dice.uniform(5, 11) + dice.uniform(0, 0.8) * floor.coarse)
    return _edge(wave, 5.0), 0.25 * (0.5 + 0.5 * floor.coarse).clamp(0, 1)


def _checks(floor: Floor, dice: Dice) -> Amounts:
    frequency = dice.uniform(3.5, 7.0)
    wave = torch.sin(frequency * floor.x) * torch.sin(frequency * floor.z)
    return _edge(wave, 12.0), 0.35 * (0.5 + 0.7 * floor.coarse).clamp(0, 1)


def _dots(floor: Floor, dice: Dice) -> Amounts:
    frequency = dice.uniform(1.6, 2.8)
    rows = floor.z * frequency
    columns = floor.x * frequency + 0.5 * rows.floor()  # every other row is shifted
    distance = ((_within(columns) - 0.5).square() + (_within(rows) - 0.5).square()).sqrt()
    return _edge(dice.uniform(0.22, 0.34) - distance, 30.0), 0.3 * (0.5 + floor.coarse).clamp(0, 1)


def _bricks(floor: Floor, dice: Dice) -> Amounts:
    frequency = dice.uniform(1.8, 3.0)
    rows = floor.z * frequency
    columns = 0.5 * floor.x * frequency + 0.5 * rows.floor()
    tint = 0.5 + 0.5 * torch.sin(
        12.9898 * columns.floor() + 78.233 * rows.floor()
    )  # differs from brick to brick
    mortar = torch.maximum(_line(columns, 0.04), _line(rows, 0.08))
    return (0.7 * tint + 0.25 * floor.coarse).clamp(0, 1), 0.9 * mortar


def _cells(floor: Floor, dice: Dice) -> Amounts:
    """Cobbles around jittered points, one in each cell of a grid; mortar where two are equally near."""
    frequency = dice.uniform(1.8, 2.8)
    x, z = floor.x * frequency, floor.z * frequency
    column, row = x.floor(), z.floor()
    nearest, second = torch.full_like(x, 9.0), torch.full_like(x, 9.0)
    tint = torch.zeros_like(x)
    for right, down in itertools.product((-1, 0, 1), repeat=2):
        hashed = torch.sin(12.9898 * (column + right) + 78.233 * (row + down))
        away_x = column + (right + 0.5) + 0.4 * torch.sin(43.7 * hashed) - x
        away_z = row + (down + 0.5) + 0.4 * torch.sin(91.3 * hashed) - z
        distance = (away_x.square_() + away_z.square_()).sqrt_()
        tint += (distance < nearest) * (hashed - tint)
        second = torch.minimum(second, torch.maximum(nearest, distance))
        nearest = torch.minimum(nearest, distance)
    mortar = (1 - (second - nearest) / 0.12).clamp(0, 1)
    return (0.5 + 0.4 * tint + 0.2 * floor.coarse).clamp(0, 1), 0.85 * mortar


def _gradient(floor: Floor, dice: Dice) -> Amounts:
    radial = (floor.x.square() + floor.z.square()).sqrt() * 0.5
    linear = 0.5 + 0.35 * floor.x
    return torch.lerp(linear, radial, dice.uniform(0, 1)).clamp(0, 1), (0.25 + 0.3 * floor.z).clamp(0, 0.7)


def _edge(wave: Tensor, sharpness: float) -> Tensor:
    """A smooth step from 0 to 1 where the wave crosses zero."""
    return (wave * sharpness).sigmoid()


def _line(position: Tensor, width: float) -> Tensor:
    """1 within ``width`` of an integer, falling to 0 at twice that."""
    return (2 - (position - position.round()).abs() / width).clamp(0, 1)


def _within(position: Tensor) -> Tensor:
    """Position within a unit cell, from 0 to 1; faster than ``% 1``."""
    return position - position.floor()


FAMILIES: dict[str, Callable[[Floor, Dice], Amounts]] = {
    "clouds": _clouds,
    "wood": _wood,
    "marble": _marble,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "bricks": _bricks,
    "cells": _cells,
    "gradient": _gradient,
}
