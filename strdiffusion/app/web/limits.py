"""The limits of a visitor's requests."""

from dataclasses import dataclass

from strdiffusion.system.errors import UserError


@dataclass(frozen=True)
class Limits:
    """megabytes: of an uploaded file, or any request. megapixels: of a picture. samples: of one inpainting.

    minutes: for which a model may learn from a picture before it fills it.
    queue: how many inpaintings may wait for their turn. sessions: how many pages may be open. cutouts: in a visitor's pool.
    away: seconds for which a page's files are kept after it was closed or lost. patience: seconds without a byte of a request.
    head_time, call_time, upload_time: seconds in which a request's head, a call, a file must have come.
    decodings: how many pictures may wait to be decoded.
    """

    megabytes: int = 64
    megapixels: int = 50
    samples: int = 8
    minutes: int = 10
    queue: int = 8
    sessions: int = 32
    cutouts: int = 24
    away: int = 300
    patience: int = 20
    head_time: int = 20
    call_time: int = 60
    upload_time: int = 600
    decodings: int = 16

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
