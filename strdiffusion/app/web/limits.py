"""The limits of a visitor's requests."""

from dataclasses import dataclass

from strdiffusion.system.errors import UserError


@dataclass(frozen=True)
class Limits:
    """megabytes: of an uploaded file, or any request. megapixels: of a picture. samples: of one inpainting.

    queue: how many inpaintings may wait for their turn. sessions: how many pages may be open. cutouts: in a visitor's pool.
    """

    megabytes: int = 64
    megapixels: int = 50
    samples: int = 8
    queue: int = 8
    sessions: int = 32
    cutouts: int = 24

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 1:
                raise UserError(f"the limit {name} must be at least 1, not {value}")

    @property
    def bytes(self) -> int:
        return self.megabytes * 10**6

    def require_pixels(self, width: int, height: int, name: str) -> None:
        """Raise UserError for a picture with too many pixels."""
        if width * height > self.megapixels * 10**6:
            raise UserError(f"{name} has {width}x{height} pixels, and at most {self.megapixels} megapixels are allowed: make it smaller")
