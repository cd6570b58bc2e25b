"""Windows, doors, balconies and shops: what a facade is set with. Lengths are shares of the picture's side."""

from dataclasses import dataclass

from strdiffusion.data.facades.dice import Dice
from strdiffusion.data.facades.sheet import Colour, Sheet, mixed, paints, toned, varied

GLASS = ((70, 85, 100), (48, 55, 66), (95, 110, 125), (60, 62, 64))
WOOD = ((238, 236, 228), (225, 220, 205), (92, 66, 48), (60, 62, 66), (205, 200, 190))
SHUTTERS = ((70, 104, 84), (82, 106, 134), (142, 152, 158), (222, 222, 214), (110, 72, 52), (46, 62, 84), (150, 70, 60))
DOORS = ((48, 66, 56), (40, 50, 74), (96, 62, 42), (124, 48, 42), (58, 56, 54), (150, 120, 80))
AWNINGS = ((176, 48, 44), (40, 92, 70), (44, 62, 110), (206, 124, 44), (122, 40, 60), (208, 186, 120))
IRON = (44, 44, 48)
BLIND = (214, 204, 184)


@dataclass(frozen=True)
class Light:
    """Where the sun stands: side 1 casts shadows to the right, -1 to the left. shadow: the tone of a shadow, below 1."""

    side: int
    shadow: float


@dataclass(frozen=True)
class WindowStyle:
    """One floor's windows. muntins: panes across and down. surround: width of the stone frame, 0 for none."""

    frame: Colour
    glass: Colour
    stone: Colour
    muntins: tuple[int, int]
    surround: float
    shutters: Colour | None
    closed: float  # share of windows with closed shutters
    curtains: float  # share of windows with curtains or blinds
    pediment: bool
    arched: bool
    balcony: bool


def window_style(dice: Dice, stone: Colour, frame: Colour, shutters: Colour | None) -> WindowStyle:
    arched = dice.chance(0.15)
    return WindowStyle(
        frame=frame,
        glass=dice.choice(GLASS),
        stone=stone,
        muntins=(2, dice.choice((1, 2, 3, 3))),
        surround=dice.choice((0.0, 0.008, 0.012, 0.016)),
        shutters=None if arched else shutters,
        closed=dice.choice((0.0, 0.0, 0.15, 0.3)),
        curtains=dice.uniform(0, 0.6),
        pediment=not arched and dice.chance(0.3),
        arched=arched,
        balcony=False,
    )


def draw_window(sheet: Sheet, box: tuple[float, float, float, float], style: WindowStyle, light: Light, dice: Dice) -> None:
    """A window in the opening `box` = (left, top, right, bottom)."""
    left, top, right, bottom = box
    width, s = right - left, style.surround
    if s:
        sheet.rectangle(left - s, top - s, right + s, bottom, style.stone)
    if style.arched:
        sheet.ellipse((left + right) / 2, top, width / 2 + s, width / 3 + s, style.stone)
        with sheet.painting("window"):
            sheet.ellipse((left + right) / 2, top, width / 2, width / 3, toned(style.glass, 0.9))
    sheet.rectangle(left - s * 1.5, bottom, right + s * 1.5, bottom + 0.008, toned(style.stone, 1.05))
    sheet.shade(left - s * 1.5, bottom + 0.008, right + s * 1.5, bottom + 0.016, light.shadow)
    if style.pediment:
        sheet.rectangle(left - s - 0.008, top - s - 0.014, right + s + 0.008, top - s - 0.004, toned(style.stone, 1.06))
        sheet.shade(left - s, top - s - 0.004, right + s, top - s + 0.006, light.shadow)
    if style.shutters is not None and dice.chance(style.closed):
        draw_shutter(sheet, (left, top, (left + right) / 2 - 0.002, bottom), style.shutters)
        draw_shutter(sheet, ((left + right) / 2 + 0.002, top, right, bottom), style.shutters)
        return
    draw_glass(sheet, box, style, light, dice)
    if style.shutters is not None:
        wing = width * 0.46
        draw_shutter(sheet, (left - s - wing, top, left - s, bottom), style.shutters)
        draw_shutter(sheet, (right + s, top, right + s + wing, bottom), style.shutters)
        edge = right + s + wing if light.side > 0 else left - s - wing - 0.008
        sheet.shade(edge, top + 0.008, edge + 0.008, bottom + 0.006, light.shadow)


@paints("window")
def draw_glass(sheet: Sheet, box: tuple[float, float, float, float], style: WindowStyle, light: Light, dice: Dice) -> None:
    """The frame, the panes with what is behind them, and the shadow of the reveal."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    bar = 0.007
    sheet.rectangle(left, top, right, bottom, style.frame)
    tone = dice.uniform(0.85, 1.15)
    sheet.gradient(left + bar, top + bar, right - bar, bottom - bar, toned(style.glass, 1.25 * tone), toned(style.glass, 0.8 * tone))
    if dice.chance(style.curtains):
        if dice.chance(0.5):  # a blind, let down some way
            sheet.rectangle(left + bar, top + bar, right - bar, top + height * dice.choice((0.25, 0.4, 0.6)), BLIND)
        else:
            for a, b in ((left + bar, left + width * 0.3), (right - width * 0.3, right - bar)):
                sheet.rectangle(a, top + bar, b, bottom - bar, mixed(style.glass, (225, 222, 214), 0.6))
    across, down = style.muntins
    for i in range(1, across):
        x = left + width * i / across
        sheet.rectangle(x - bar / 2, top, x + bar / 2, bottom, style.frame)
    for j in range(1, down):
        y = top + height * j / down
        sheet.rectangle(left, y - bar / 3, right, y + bar / 3, style.frame)
    sheet.shade(left, top, right, top + 0.012, light.shadow)
    edge = left if light.side > 0 else right - 0.007
    sheet.shade(edge, top + 0.012, edge + 0.007, bottom, light.shadow)


@paints("window")
def draw_shutter(sheet: Sheet, box: tuple[float, float, float, float], colour: Colour) -> None:
    left, top, right, bottom = box
    sheet.rectangle(left, top, right, bottom, colour)
    inset = (right - left) * 0.15
    slats = max(4, int((bottom - top) / 0.014))
    for i in range(slats):
        y = top + inset + (bottom - top - 2 * inset) * i / slats
        sheet.shade(left + inset, y, right - inset, y + (bottom - top) / slats * 0.4, 0.72)


def draw_balcony(sheet: Sheet, left: float, right: float, floor: float, stone: Colour, light: Light, height: float = 0.055) -> None:
    """A slab at y = floor with iron railings above it and its shadow below."""
    sheet.rectangle(left, floor, right, floor + 0.014, toned(stone, 1.08))
    sheet.shade(left + 0.01 * light.side, floor + 0.014, right + 0.01 * light.side, floor + 0.04, light.shadow)
    with sheet.painting(None):
        sheet.rectangle(left, floor - height, right, floor - height + 0.006, IRON)
        sheet.rectangle(left, floor - 0.008, right, floor - 0.003, IRON)
        bars = max(3, int((right - left) / 0.016))
        for i in range(bars + 1):
            x = left + (right - left - 0.004) * i / bars
            sheet.rectangle(x, floor - height, x + 0.004, floor, IRON)


def draw_door(sheet: Sheet, box: tuple[float, float, float, float], stone: Colour, light: Light, dice: Dice) -> None:
    """A panelled double door under a light, in a stone frame with steps, which is wall."""
    left, top, right, bottom = box
    colour, width, height = varied(dice, dice.choice(DOORS), 8), right - left, bottom - top
    sheet.rectangle(left - 0.016, top - 0.018, right + 0.016, bottom, stone)
    sheet.shade(left - 0.016, top - 0.018, right + 0.016, top - 0.012, 1.08)
    with sheet.painting("door"):
        sheet.rectangle(left, top, right, bottom, colour)
        sheet.rectangle(left + 0.008, top + 0.01, right - 0.008, top + height * 0.18, dice.choice(GLASS))
        for i in range(2):
            a = left + width * (0.08 + 0.5 * i)
            for upper, lower in ((0.26, 0.55), (0.62, 0.94)):
                sheet.rectangle(a, top + height * upper, a + width * 0.34, top + height * lower, toned(colour, 1.25))
                sheet.shade(a + width * 0.05, top + height * (upper + 0.03), a + width * 0.34, top + height * lower, 0.85)
        sheet.rectangle((left + right) / 2 - 0.003, top + height * 0.2, (left + right) / 2 + 0.003, bottom, toned(colour, 0.6))
    sheet.shade(left, top, right, top + 0.014, light.shadow)
    for step in range(2):
        y = bottom - 0.008 * (step + 1)
        sheet.rectangle(left - 0.02 + 0.008 * step, y, right + 0.02 - 0.008 * step, y + 0.008, toned(stone, 1.05 - 0.12 * step))


def draw_shop(sheet: Sheet, box: tuple[float, float, float, float], light: Light, dice: Dice) -> None:
    """A shop front: sign, large panes over a plinth, and perhaps an awning. The panes are windows, the rest is wall."""
    left, top, right, bottom = box
    colour, height = varied(dice, dice.choice(AWNINGS + DOORS), 12), bottom - top
    sheet.rectangle(left, top, right, bottom, colour)
    letters = mixed(colour, (245, 240, 225), 0.85)
    x, end = left + (right - left) * dice.uniform(0.15, 0.3), right - (right - left) * 0.2
    while x < end:  # a sign of strokes, as letters look from afar
        wide = dice.uniform(0.006, 0.014)
        sheet.rectangle(x, top + height * 0.05, x + wide, top + height * 0.13, letters)
        x += wide + 0.006
    panes = max(2, round((right - left) / 0.13))
    wide = (right - left) / panes
    goods = dice.choice(GLASS)
    for i in range(panes):
        a, b = left + wide * i + 0.01, left + wide * (i + 1) - 0.01
        with sheet.painting("window"):
            sheet.gradient(a, top + height * 0.2, b, bottom - height * 0.14, toned(goods, 1.3), toned(goods, 0.75))
            for _ in range(3):  # things on show
                u, v = dice.uniform(a, max(a, b - 0.03)), dice.uniform(0.45, 0.7)
                bright = varied(dice, (170, 150, 120), 40)
                sheet.rectangle(u, top + height * v, min(b, u + 0.03), bottom - height * 0.16, mixed(bright, goods, 0.4))
    sheet.rectangle(left, top + height * 0.17, right, top + height * 0.19, toned(colour, 0.7))
    if dice.chance(0.6):
        draw_awning(sheet, (left, top + height * 0.16, right, top + height * 0.42), varied(dice, dice.choice(AWNINGS), 10), light, dice)


def draw_awning(sheet: Sheet, box: tuple[float, float, float, float], colour: Colour, light: Light, dice: Dice) -> None:
    """Striped or plain cloth that widens downwards, with a scalloped edge and the shadow below it."""
    left, top, right, bottom = box
    stripes = max(4, round((right - left) / 0.035)) | 1
    other = (240, 234, 220) if dice.chance(0.6) else toned(colour, 0.9)
    flare = 0.012
    step, low = (right - left) / stripes, (right - left + 2 * flare) / stripes
    for i in range(stripes):
        cloth = colour if i % 2 == 0 else other
        x, u = left + step * i, left - flare + low * i
        sheet.polygon([(x, top), (x + step, top), (u + low, bottom), (u, bottom)], cloth)
        sheet.ellipse(u + low / 2, bottom, low / 2, 0.012, toned(cloth, 0.85))
    sheet.shade(left - flare + 0.01 * light.side, bottom + 0.012, right + flare + 0.01 * light.side, bottom + 0.055, light.shadow)
