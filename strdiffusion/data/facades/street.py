"""A street as seen from across it: sky, houses, pavement, and what stands in front."""

import numpy as np

from strdiffusion.data.facades import materials
from strdiffusion.data.facades.building import draw_building
from strdiffusion.data.facades.dice import Dice
from strdiffusion.data.facades.sheet import Sheet, mixed, paints, toned, varied
from strdiffusion.data.facades.windows import IRON, Light

SKIES = (  # above, at the horizon
    ((112, 158, 214), (206, 224, 240)),
    ((176, 192, 208), (222, 226, 228)),
    ((140, 170, 206), (238, 226, 206)),
    ((84, 134, 200), (178, 208, 236)),
)
LEAVES = ((86, 112, 58), (70, 100, 62), (112, 124, 60), (150, 122, 54))
SUPERSAMPLING = 4
EDGE = 0.125  # houses are drawn to this far outside the picture


def draw_street(size: int, dice: Dice) -> Sheet:
    """The sheet with the street that `dice` throws, for a picture of `size` pixels a side."""
    sheet = Sheet(size * SUPERSAMPLING)
    light = Light(side=dice.choice((-1, 1)), shadow=dice.uniform(0.55, 0.8))
    ground, horizon = dice.uniform(0.84, 0.96), dice.uniform(0.7, 0.82)
    draw_sky(sheet, dice)
    storey = dice.uniform(0.19, 0.31)
    x = -EDGE - dice.uniform(0, 0.3)
    while x < 1 + EDGE:
        x = draw_building(sheet, x, ground, storey * dice.uniform(0.92, 1.08), light, dice)
    if dice.chance(0.35):
        draw_cast_shadow(sheet, ground, light, dice)
    draw_pavement(sheet, ground, dice)
    sheet.perspective(dice.uniform(-0.2, 0.2), horizon)
    if dice.chance(0.4):
        draw_lamp(sheet, dice.uniform(0.1, 0.9), dice.uniform(0.97, 1.0), dice.uniform(0.4, 0.55), dice)
    for _ in range(dice.choice((0, 0, 0, 1, 1, 2))):
        draw_tree(sheet, dice.uniform(0, 1), dice.uniform(0.97, 1.02), light, dice)
    warmth = dice.uniform(0.96, 1.04)
    exposure = dice.uniform(0.86, 1.06)
    sheet.pixels *= np.array([exposure * warmth, exposure, exposure / warmth], np.float32)
    return sheet


@paints("sky")
def draw_sky(sheet: Sheet, dice: Dice) -> None:
    high, low = dice.choice(SKIES)
    sheet.gradient(-EDGE, -EDGE, 1 + EDGE, 0.7, high, low)
    for _ in range(dice.choice((0, 0, 1, 2, 3))):
        x, y = dice.uniform(0, 1), dice.uniform(0, 0.3)
        for _ in range(10):
            shape = dice.uniform(0.04, 0.12), dice.uniform(0.012, 0.035)
            sheet.ellipse(x + dice.uniform(-0.14, 0.14), y + dice.uniform(-0.02, 0.02), *shape, mixed(low, (250, 250, 250), 0.6))


def draw_cast_shadow(sheet: Sheet, ground: float, light: Light, dice: Dice) -> None:
    """The shadow of the houses across the street, up to a slanting line."""
    left, slope = dice.uniform(0.45, 0.8), dice.uniform(-0.15, 0.15)
    sheet.polygon([(-EDGE, left - slope), (1 + EDGE, left + slope), (1 + EDGE, ground), (-EDGE, ground)], factor=(light.shadow + 1) / 2)


@paints("street")
def draw_pavement(sheet: Sheet, ground: float, dice: Dice) -> None:
    """The pavement, its kerb, and the road."""
    kerb = ground + dice.uniform(0.035, 0.06)
    stone, road = varied(dice, (178, 172, 164), 12), varied(dice, (98, 98, 102), 12)
    for top, bottom, colour, material in ((ground, kerb, stone, materials.slabs), (kerb + 0.012, 1 + EDGE, road, materials.asphalt)):
        sheet.rectangle(-EDGE, top, 1 + EDGE, bottom, colour)
        area = sheet.region(-EDGE, top, 1 + EDGE, bottom)
        sheet.texture(-EDGE, top, 1 + EDGE, bottom, material(dice, area.shape[:2], sheet.resolution))
    sheet.rectangle(-EDGE, kerb, 1 + EDGE, kerb + 0.012, toned(stone, 1.12))
    sheet.shade(-EDGE, kerb + 0.012, 1 + EDGE, kerb + 0.02, 0.7)
    sheet.shade(-EDGE, ground, 1 + EDGE, ground + 0.01, 0.75)


@paints("street")
def draw_lamp(sheet: Sheet, x: float, foot: float, height: float, dice: Dice) -> None:
    top = foot - height
    sheet.rectangle(x - 0.005, top, x + 0.005, foot, IRON)
    sheet.rectangle(x - 0.012, foot - 0.06, x + 0.012, foot, IRON)
    sheet.rectangle(x - 0.02, top, x + 0.02, top + 0.006, IRON)
    glass = varied(dice, (236, 226, 190), 10)
    sheet.polygon([(x - 0.022, top - 0.05), (x + 0.022, top - 0.05), (x + 0.014, top), (x - 0.014, top)], glass)
    sheet.polygon([(x - 0.026, top - 0.05), (x + 0.026, top - 0.05), (x, top - 0.075)], IRON)


@paints("tree")
def draw_tree(sheet: Sheet, x: float, foot: float, light: Light, dice: Dice) -> None:
    """A trunk and a crown of many leaves, lit from one side."""
    crown, radius = foot - dice.uniform(0.3, 0.45), dice.uniform(0.1, 0.17)
    sheet.rectangle(x - 0.012, crown, x + 0.012, foot, (84, 68, 54))
    sheet.shade(x - 0.012 + 0.012 * (light.side > 0), crown, x + 0.012 * (light.side > 0), foot, 0.75)
    colour = varied(dice, dice.choice(LEAVES), 10)
    for _ in range(220):
        u, v = dice.uniform(-1, 1), dice.uniform(-1, 1)
        if u * u + v * v > 1:
            continue
        lit = 1 - 0.22 * (u * light.side + v) + dice.uniform(-0.16, 0.16)
        leaf = dice.uniform(0.012, 0.026)
        sheet.ellipse(x + u * radius, crown + v * radius * 1.15, leaf, leaf * 0.8, toned(colour, lit))
