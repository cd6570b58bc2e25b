"""Fine texture, kept apart from strong edges: tones around 1 that a wall, roof or pavement is multiplied by."""

import numpy as np

from strdiffusion.data.facades.dice import Dice

TABLE = 64  # tones repeat after so many stones


def courses(dice: Dice, shape: tuple[int, int], height: int, width: int, joint: int, jitter: float, depth: float) -> np.ndarray:
    """Rows of stones, every other row set off by half: each stone has a tone of its own, the joints are darker or lighter.

    shape, height, width, joint: of the area, a stone and a joint, in samples. jitter: of the stones' tones. depth: of the joints.
    """
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    course = rows // height
    shifted = columns[None, :] + ((course & 1) * (width // 2))[:, None]
    tones = 1 + np.float32(jitter) * dice.noise(TABLE, TABLE)[course[:, None] % TABLE, shifted // width % TABLE]
    joints = (rows % height < joint)[:, None] | (shifted % width < joint)
    return np.where(joints, tones * np.float32(1 - depth), tones)


def grain(dice: Dice, shape: tuple[int, int], block: int, amplitude: float) -> np.ndarray:
    """Speckle of square grains."""
    rough = dice.noise(-(-shape[0] // block), -(-shape[1] // block))
    return 1 + np.float32(amplitude) * np.repeat(np.repeat(rough, block, 0), block, 1)[: shape[0], : shape[1]]


def weather(dice: Dice, shape: tuple[int, int], block: int, amplitude: float) -> np.ndarray:
    """Streaks of rain that fade downwards."""
    streaks = np.repeat(dice.noise(-(-shape[1] // block)), block)[: shape[1]]
    fade = 1 - np.arange(shape[0], dtype=np.float32) / np.float32(max(shape[0], 1))
    return 1 + np.float32(amplitude) * np.minimum(streaks, 0)[None, :] * fade[:, None]


def brick(dice: Dice, shape: tuple[int, int], unit: int) -> np.ndarray:
    height = max(2, round(unit * 0.016))
    return courses(dice, shape, height, height * 5 // 2, max(1, height // 5), 0.13, dice.uniform(0.1, 0.25))


def ashlar(dice: Dice, shape: tuple[int, int], unit: int) -> np.ndarray:
    height = max(3, round(unit * dice.uniform(0.04, 0.06)))
    return courses(dice, shape, height, height * 2, max(1, height // 10), 0.035, dice.uniform(0.12, 0.22)) * grain(dice, shape, 2, 0.02)


def stucco(dice: Dice, shape: tuple[int, int], unit: int) -> np.ndarray:
    coarse = grain(dice, shape, max(1, unit // 50), 0.02)
    return coarse * grain(dice, shape, 1, 0.05) * weather(dice, shape, max(1, unit // 80), dice.uniform(0, 0.12))


def slate(dice: Dice, shape: tuple[int, int], unit: int) -> np.ndarray:
    height = max(2, round(unit * 0.018))
    return courses(dice, shape, height, height, 1, 0.08, 0.18)


def tiles(dice: Dice, shape: tuple[int, int], unit: int) -> np.ndarray:
    height = max(2, round(unit * 0.022))
    return courses(dice, shape, height, max(2, height * 3 // 4), max(1, height // 3), 0.1, 0.3)


def zinc(dice: Dice, shape: tuple[int, int], unit: int) -> np.ndarray:
    width = max(3, round(unit * 0.035))
    seams = np.where(np.arange(shape[1]) % width < max(1, width // 8), np.float32(0.82), np.float32(1))
    return seams[None, :] * grain(dice, shape, 2, 0.02)


def slabs(dice: Dice, shape: tuple[int, int], unit: int) -> np.ndarray:
    height = max(2, round(unit * 0.022))
    return courses(dice, shape, height, height * 3, 1, 0.05, 0.15) * grain(dice, shape, 1, 0.03)


def asphalt(dice: Dice, shape: tuple[int, int], unit: int) -> np.ndarray:
    return grain(dice, shape, max(1, unit // 200), 0.1) * grain(dice, shape, max(1, unit // 30), 0.03)
