"""The inputs of inpainting: the picture, its known pixels, and hints, which count as known."""

import logging
import os
from dataclasses import dataclass, replace

import numpy as np

from strdiffusion.app.picture import Picture
from strdiffusion.app.reading import Source, open_picture
from strdiffusion.data.decoding import opencv
from strdiffusion.data.images import filled_from, resize_image
from strdiffusion.data.masks import GRAY_SHARE, LUMA, SUSPICIOUS_SHARE, Polarity, gray_share, other_polarity, require_levels, resize_mask
from strdiffusion.system.errors import Option, UserError

log = logging.getLogger(__name__)

ASPECT_TOLERANCE = 0.02
HALF, BARELY = 0.5, 0.01  # of the pixels of a photograph, and of a mask, are gray


@dataclass(frozen=True)
class Inputs:
    """picture: with the hints in it. known (H, W) bool: the known pixels. seen (H, W) bool: the known pixels that are given to the
    networks. With feather, a margin around the hole is not given to them, and is blended afterwards.
    """

    picture: Picture
    known: np.ndarray
    seen: np.ndarray
    feather: int


def read_inputs(image: Source, mask: Source, hints: Source | None, polarity: Polarity, feather: int) -> Inputs:
    """Read and check all inputs. Raises UserError if one is unusable, or if there is no hole or no known pixel."""
    picture = open_picture(image, "the image")
    known = read_known(mask, picture, polarity)
    named = f"the mask {mask}" if isinstance(mask, str | os.PathLike) else f"the mask of {picture.name}"
    if hints is not None:
        picture, known = with_hints(picture, known, hints)
    if known.all() and hints is None:
        raise UserError(
            f"{named} has no hole (nothing in it is {'white' if polarity == 'white_hole' else 'black'}), so there is nothing to inpaint"
        )
    alpha = picture.alpha
    if alpha is not None and not known.all() and not alpha[~known].any():
        log.warning("%s is fully transparent in the hole and stays so: what is painted there cannot be seen", picture.name)
    seen = known
    if feather:
        cv2 = opencv()
        seen = cv2.distanceTransform(known.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > feather
    if not seen.any():
        raise UserError(
            f"{named} leaves no known pixel; replace it, lower ",
            *(Option("feather"), ", or if it is inverted: ", Option("polarity", other_polarity(polarity))),
        )
    made = isinstance(mask, np.ndarray) and mask.dtype == bool  # by a program, which does not confuse white and black
    if not made and (share := 1 - known.mean()) > SUSPICIOUS_SHARE:
        log.warning(
            "the hole covers %.0f %% of %s; if %s is inverted: polarity %s (--polarity)",
            100 * share,
            picture.name,
            named,
            other_polarity(polarity),
        )
    return Inputs(picture, known, seen, feather)


def read_known(mask: Source, picture: Picture, polarity: Polarity) -> np.ndarray:
    """The mask as known pixels, bool (H, W) of the picture's size; gray values of at least one half are white."""
    if isinstance(mask, np.ndarray) and mask.ndim == 3 and mask.shape[0] == 1 < mask.shape[2]:
        mask = mask[0]
    if isinstance(mask, np.ndarray) and mask.dtype == bool and mask.shape == picture.size:
        return mask == (polarity == "white_known")  # as it is: without large copies
    given = open_picture(mask, "the mask")
    gray = given.levels[..., 0] / np.float32(given.scale) if given.colours == 1 else given.rgb() @ LUMA
    require_levels(gray, given.name)
    require_not_exchanged(gray, given, picture)
    white = gray >= 0.5
    known = (white == (polarity == "white_known")).astype(np.float32)
    if given.size != picture.size:
        require_same_aspect(given, picture)
        log.warning(
            "%s has %dx%d pixels but %s has %dx%d (height x width): it is resized", given.name, *given.size, picture.name, *picture.size
        )
        known = resize_mask(known, *picture.size)
    return known > 0.5


def require_not_exchanged(gray: np.ndarray, given: Picture, picture: Picture) -> None:
    """Raise UserError if the mask looks like a photograph and the picture like a mask; warn if only the mask does. gray (H, W)."""
    share = gray_share(gray)
    if share <= GRAY_SHARE:
        return
    if share > HALF and gray_share(picture.rgb() @ LUMA) < BARELY:
        raise UserError(f"{given.name} looks like a photograph, and {picture.name} like a mask: give the photograph first, then the mask")
    log.warning("the mask %s is gray in %.0f %% of its pixels: from half on they count as white", given.name, 100 * share)


def with_hints(picture: Picture, known: np.ndarray, hints: Source) -> tuple[Picture, np.ndarray]:
    """The picture with the opaque pixels of the hints put into its hole, and the known pixels with them.

    Pixels of at least half opacity count as opaque. Hints outside of the hole are ignored.
    """
    given = open_picture(hints, "the hints")
    if given.alpha is None:
        raise UserError(f"{given.name} has no alpha, so it would cover all of the hole: give RGBA, transparent except for the hints")
    colours, opaque = given.rgb(), given.alpha.astype(np.float32) / given.scale >= 0.5
    if given.size != picture.size and opaque.any():
        require_same_aspect(given, picture)
        colours = resize_image(filled_from(colours, opaque), *picture.size)  # without the colours of transparent pixels
        opaque = resize_mask(opaque, *picture.size) > 0.5
    elif given.size != picture.size:
        opaque = np.zeros_like(known)
    opaque &= ~known
    if not opaque.any():
        log.warning("%s has no opaque pixel in the hole, so there is no hint", given.name)
    levels = picture.levels.copy()
    levels[opaque, : picture.colours] = picture.as_levels(colours[opaque])
    return replace(picture, levels=levels), known | opaque


def require_same_aspect(given: Picture, picture: Picture) -> None:
    """Raise UserError if the two pictures have different aspect ratios."""
    (h, w), (H, W) = given.size, picture.size
    if abs(h * W / (w * H) - 1) > ASPECT_TOLERANCE and abs(h - H * w / W) > 1:
        turned = "; it seems to be turned" if abs(h * H / (w * W) - 1) <= ASPECT_TOLERANCE else ""
        raise UserError(
            f"{given.name} has {w}x{h} pixels and {picture.name}, upright, {W}x{H} (width x height): "
            f"both need the same aspect ratio{turned}"
        )
