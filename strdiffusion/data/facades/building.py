"""One house: floors of windows between a ground floor and a roof, in a style of its own."""

from dataclasses import dataclass, replace

import numpy as np

from strdiffusion.data.facades import materials, windows
from strdiffusion.data.facades.dice import Dice
from strdiffusion.data.facades.sheet import Colour, Sheet, paints, toned, varied
from strdiffusion.data.facades.windows import Light, WindowStyle

LIMESTONE = ((226, 212, 184), (214, 200, 174), (234, 224, 202), (204, 196, 182))
STUCCO = ((232, 216, 180), (224, 190, 160), (240, 234, 220), (206, 214, 212), (226, 202, 140), (200, 170, 150), (184, 196, 204))
BRICK = ((164, 88, 68), (146, 78, 62), (182, 112, 84), (196, 150, 116))
SLATE, ZINC, CLAY = (92, 100, 114), (142, 150, 160), (172, 94, 64)
WALLS = {"limestone": (LIMESTONE, materials.ashlar), "stucco": (STUCCO, materials.stucco), "brick": (BRICK, materials.brick)}
ROOFS = ((SLATE, materials.slate), (ZINC, materials.zinc), (CLAY, materials.tiles))


@dataclass(frozen=True)
class Building:
    """Where a house stands and what it is made of. Lengths are shares of the picture's side, y runs down."""

    left: float
    right: float
    ground: float  # where it meets the pavement
    ground_floor: float  # height of the lowest storey
    storey: float  # height of each other storey
    storeys: int
    bays: int
    wall: str
    colour: Colour
    stone: Colour

    @property
    def top(self) -> float:
        return self.ground - self.ground_floor - self.storeys * self.storey

    @property
    def bay(self) -> float:
        return (self.right - self.left) / self.bays


@paints("wall")
def draw_building(sheet: Sheet, left: float, ground: float, storey: float, light: Light, dice: Dice) -> float:
    """Draw a house from x = left on; returns where it ends."""
    bay, bays = storey * dice.uniform(0.62, 0.95), dice.integer(2, 5)
    wall = dice.choice(("limestone", "limestone", "stucco", "stucco", "brick"))
    colour = varied(dice, dice.choice(WALLS[wall][0]), 10)
    stone = toned(colour, 1.08) if wall == "limestone" else varied(dice, dice.choice(LIMESTONE), 8)
    house = Building(
        left=left,
        right=left + bay * bays,
        ground=ground,
        ground_floor=storey * dice.uniform(1.05, 1.3),
        storey=storey * dice.uniform(0.94, 1.06),
        storeys=dice.integer(1, 3),
        bays=bays,
        wall=wall,
        colour=colour,
        stone=stone,
    )
    draw_wall(sheet, house, dice)
    draw_floors(sheet, house, light, dice)
    draw_ground_floor(sheet, house, light, dice)
    draw_cornice(sheet, house, light, dice)
    draw_roof(sheet, house, light, dice)
    return house.right


def draw_wall(sheet: Sheet, house: Building, dice: Dice) -> None:
    """The wall, and stone corners on plaster and brick."""
    sheet.rectangle(house.left, house.top, house.right, house.ground, house.colour)
    area = sheet.region(house.left, house.top, house.right, house.ground)
    sheet.texture(house.left, house.top, house.right, house.ground, WALLS[house.wall][1](dice, area.shape[:2], sheet.resolution))
    if house.wall != "limestone" and dice.chance(0.6):
        y, i = house.top, 0
        while y < house.ground:
            wide, end = 0.022 if i % 2 else 0.034, min(y + 0.03, house.ground)
            sheet.rectangle(house.left, y, house.left + wide, end - 0.003, house.stone)
            sheet.rectangle(house.right - wide, y, house.right, end - 0.003, house.stone)
            y, i = y + 0.03, i + 1
    sheet.shade(house.left, house.top, house.left + 0.004, house.ground, 0.75)


def draw_floors(sheet: Sheet, house: Building, light: Light, dice: Dice) -> None:
    """Rows of windows; balconies and string courses between the floors."""
    frame = dice.choice(windows.WOOD)
    shutters = varied(dice, dice.choice(windows.SHUTTERS), 8) if dice.chance(0.4) else None
    style = windows.window_style(dice, house.stone, frame, shutters)
    width = house.bay * (dice.uniform(0.34, 0.4) if style.shutters else dice.uniform(0.42, 0.54))
    height = house.storey * dice.uniform(0.56, 0.68)
    continuous = dice.integer(0, house.storeys) if dice.chance(0.5) else -1  # the floor with a balcony along the whole front
    single = dice.chance(0.3)
    string_course = dice.chance(0.6)
    for floor in range(house.storeys):
        base = house.ground - house.ground_floor - floor * house.storey
        if string_course and floor > 0 or floor == 0:
            sheet.rectangle(house.left, base - 0.006, house.right, base + 0.008, toned(house.stone, 1.04))
            sheet.shade(house.left, base + 0.008, house.right, base + 0.018, light.shadow)
        top_floor = floor == house.storeys - 1
        balcony = floor == continuous
        low = base - (0.012 if balcony else house.storey * 0.16)
        row = replace(style, balcony=balcony or single, pediment=style.pediment and not top_floor)
        draw_row(sheet, house, row, (width, height * (0.86 if top_floor else 1.0), low), light, dice)
        if balcony:
            windows.draw_balcony(sheet, house.left + 0.012, house.right - 0.012, base, house.stone, light)


def draw_row(sheet: Sheet, house: Building, style: WindowStyle, size: tuple[float, float, float], light: Light, dice: Dice) -> None:
    """One window a bay; size = (width, height, y of the sill)."""
    width, height, low = size
    for i in range(house.bays):
        middle = house.left + house.bay * (i + 0.5)
        windows.draw_window(sheet, (middle - width / 2, low - height, middle + width / 2, low), style, light, dice)
        if style.balcony and low < house.ground - house.ground_floor - 0.02:
            windows.draw_balcony(sheet, middle - width * 0.7, middle + width * 0.7, low, house.stone, light, height=0.045)


def draw_ground_floor(sheet: Sheet, house: Building, light: Light, dice: Dice) -> None:
    """A door in one bay; the others are a shop or windows over a plinth."""
    top = house.ground - house.ground_floor
    plinth = house.ground - 0.03
    sheet.shade(house.left, plinth, house.right, house.ground, 0.82)
    door = dice.integer(0, 1) * (house.bays - 1)
    middle = house.left + house.bay * (door + 0.5)
    wide = min(0.055, house.bay * 0.3)
    windows.draw_door(sheet, (middle - wide, top + house.ground_floor * 0.24, middle + wide, house.ground), house.stone, light, dice)
    first, last = (1, house.bays) if door == 0 else (0, house.bays - 1)
    if dice.chance(0.55):
        box = (house.left + house.bay * first + 0.012, top + house.ground_floor * 0.1, house.left + house.bay * last - 0.012, house.ground)
        windows.draw_shop(sheet, box, light, dice)
        return
    style = windows.window_style(dice, house.stone, dice.choice(windows.WOOD), None)
    for i in range(first, last):
        middle = house.left + house.bay * (i + 0.5)
        box = (middle - house.bay * 0.22, top + house.ground_floor * 0.28, middle + house.bay * 0.22, plinth - house.ground_floor * 0.12)
        windows.draw_window(sheet, box, style, light, dice)


def draw_cornice(sheet: Sheet, house: Building, light: Light, dice: Dice) -> None:
    """The moulding under the roof, perhaps with dentils, and the shadow it throws."""
    y, over = house.top, 0.012
    sheet.shade(house.left, y + 0.022, house.right, y + 0.05, light.shadow)
    sheet.rectangle(house.left, y, house.right, y + 0.022, toned(house.stone, 0.94))
    sheet.rectangle(house.left - over, y - 0.012, house.right + over, y + 0.004, toned(house.stone, 1.1))
    if dice.chance(0.6):
        count = max(4, int((house.right - house.left) / 0.024))
        for i in range(count):
            x = house.left + (house.right - house.left) * (i + 0.25) / count
            sheet.rectangle(x, y + 0.006, x + 0.011, y + 0.018, toned(house.stone, 0.72))


@paints("roof")
def draw_roof(sheet: Sheet, house: Building, light: Light, dice: Dice) -> None:
    """A mansard with dormers, a low roof, or a parapet, which is wall; chimneys behind it."""
    base = house.top - 0.012
    kind = dice.choice(("mansard", "mansard", "low", "parapet"))
    height = {"mansard": house.storey * dice.uniform(0.6, 0.8), "low": house.storey * 0.35, "parapet": 0.03}[kind]
    slope = {"mansard": 0.025, "low": 0.05, "parapet": 0.0}[kind]
    top = base - height
    for _ in range(dice.integer(1, 3)):
        draw_chimney(sheet, dice.uniform(house.left + 0.03, house.right - 0.09), top + 0.01, house, light, dice)
    if kind == "parapet":
        with sheet.painting("wall"):
            sheet.rectangle(house.left, top, house.right, base, toned(house.colour, 0.96))
            sheet.rectangle(house.left, top - 0.008, house.right, top, house.stone)
        return
    colour, texture = dice.choice(ROOFS)
    corners = [(house.left + slope, top), (house.right - slope, top), (house.right, base), (house.left, base)]
    colour = varied(dice, colour, 10)
    behind, labels_behind = (plane.copy() for plane in sheet.planes(house.left, top, house.right, base))
    sheet.rectangle(house.left, top, house.right, base, colour)
    sheet.texture(house.left, top, house.right, base, texture(dice, behind.shape[:2], sheet.resolution))
    for plane, before in zip(sheet.planes(house.left, top, house.right, base), (behind, labels_behind), strict=True):
        restore_corners(plane, before, sheet.length(slope))
    sheet.polygon([corners[0], corners[1], (house.right - slope, top + 0.006), (house.left + slope, top + 0.006)], toned(colour, 0.8))
    if kind == "mansard":
        for i in range(house.bays):
            if house.bays > 2 or dice.chance(0.8):
                draw_dormer(sheet, house.left + house.bay * (i + 0.5), base, height, house, light)


def restore_corners(area: np.ndarray, behind: np.ndarray, wide: int) -> None:
    """Put back what lies behind the two triangles, `wide` samples wide, that a sloping roof leaves free."""
    rows = len(area)
    for row in range(rows):
        cut = wide * (rows - row) // rows
        area[row, :cut] = behind[row, :cut]
        area[row, area.shape[1] - cut :] = behind[row, area.shape[1] - cut :]


def draw_dormer(sheet: Sheet, middle: float, base: float, height: float, house: Building, light: Light) -> None:
    """A window that stands out of the roof, with a small gable."""
    wide, top = min(house.bay * 0.24, 0.05), base - height * 0.72
    sheet.shade(middle + light.side * 0.02 - wide, top + 0.01, middle + light.side * 0.02 + wide, base, light.shadow)
    sheet.rectangle(middle - wide, top, middle + wide, base, house.stone)
    sheet.polygon([(middle - wide - 0.008, top), (middle, top - height * 0.2), (middle + wide + 0.008, top)], toned(house.stone, 0.86))
    with sheet.painting("window"):
        sheet.gradient(middle - wide * 0.6, top + 0.01, middle + wide * 0.6, base - 0.012, (92, 106, 122), (52, 58, 66))
        sheet.rectangle(middle - 0.003, top + 0.01, middle + 0.003, base - 0.012, (228, 224, 214))


def draw_chimney(sheet: Sheet, left: float, base: float, house: Building, light: Light, dice: Dice) -> None:
    wide, high = dice.uniform(0.035, 0.07), dice.uniform(0.05, 0.09)
    colour = varied(dice, dice.choice(BRICK) if dice.chance(0.6) else house.colour, 8)
    sheet.rectangle(left, base - high, left + wide, base + 0.02, colour)
    area = sheet.region(left, base - high, left + wide, base + 0.02)
    sheet.texture(left, base - high, left + wide, base + 0.02, materials.brick(dice, area.shape[:2], sheet.resolution))
    dark = left + wide * 0.65 if light.side > 0 else left
    sheet.shade(dark, base - high, dark + wide * 0.35, base + 0.02, light.shadow)
    sheet.rectangle(left - 0.004, base - high, left + wide + 0.004, base - high + 0.01, toned(colour, 1.1))
    for i in range(max(1, int(wide / 0.022))):
        x = left + 0.004 + 0.022 * i
        sheet.rectangle(x, base - high - 0.022, x + 0.012, base - high, (176, 102, 74))
