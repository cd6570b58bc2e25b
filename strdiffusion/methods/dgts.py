"""DGTS: patches are filled one after the other from global texture references (docs/dgts.md; arXiv 2209.08217)."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from strdiffusion.batch import Known
from strdiffusion.denoiser import Precision, autocast
from strdiffusion.methods.dgts_loading import DGTSCheckpoints, DGTSModel, FillingOptions, load_dgts
from strdiffusion.methods.dgts_released import enlarge_as_released
from strdiffusion.methods.finite import Watch
from strdiffusion.methods.method import LARGEST, Door, Evaluations, Method, Options, Result, register
from strdiffusion.networks.dgts.filling import Filled
from strdiffusion.networks.dgts.structure import cut, known_counts
from strdiffusion.networks.dgts.upsampler import reduced
from strdiffusion.system.device import float32_precision, require_precision
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import convert

WHOLLY = 0.999  # a pixel of a resized image is known if all the pixels that it covers are known


@dataclass
class DGTSOptions(Options):
    """Networks, and how they fill."""

    checkpoints: DGTSCheckpoints = field(default_factory=DGTSCheckpoints)
    precision: Precision = "fp32"
    dgts: FillingOptions = field(default_factory=FillingOptions)

    def check(self) -> None:
        self.checkpoints.check()
        self.dgts.check()

    def files(self) -> list[Path | None]:
        return self.checkpoints.files()

    def describe(self) -> str:
        bridge = "" if self.dgts.bridge is None else f", lambda {self.dgts.bridge:g}"
        released = ", as released: known pixels changed" if self.dgts.released else ""
        return f"order {self.dgts.order}{bridge}{released}, {self.checkpoints.weights} weights, {self.precision}, "


@register("dgts")
class DGTSMethod(Method):
    """DGTS's network and, if there is one, the network that enlarges its result."""

    Options = DGTSOptions
    draws = False

    def __init__(self, model: DGTSModel, device: torch.device, settings: FillingOptions | None = None, precision: Precision = "fp32"):
        self.model, self.precision, self.settings = model, precision, settings or model.settings
        self.upsampler = model.upsampler if self.settings.enlarge else None
        if self.settings.bridge is not None:
            model.core.set_bridge(self.settings.bridge)
        if self.settings.released and self.upsampler is None:
            raise UserError("dgts.released=true needs the enlarging network: give checkpoints.upsampler")
        if self.upsampler is not None:
            require_enlargeable(model)
        self.settings.order_for(torch.zeros(1, model.core.grid**2, dtype=torch.bool))  # a given order is refused now, not at an image
        self.size = model.core.size
        require_precision(precision, device)
        self.to(device)

    @classmethod
    def open(cls, options: DGTSOptions, device: torch.device) -> "DGTSMethod":
        return cls(load_dgts(options.checkpoints), device, options.dgts, options.precision)

    @property
    def doors(self) -> dict[Door, str]:
        return {}

    @torch.inference_mode()
    def inpaint(self, known: Known, seeds: Sequence[int], **_) -> Iterator[Result]:
        known = known.to(self.device)
        yield Result(self.images(known), evaluations=[dict.fromkeys(self.cost(), 1) for _ in seeds])

    def images(self, known: Known) -> Tensor:
        """The inpainted images (B,3,H,W) of a batch, in [0,1]."""
        sized, watch = self.sized(known), Watch(self.precision)
        filled = self.fill(sized)
        watch.look("dgts", filled.image, where=partial(self.broken_patch, filled))
        with float32_precision(self.precision, self.device), autocast(self.device, self.precision):
            if self.settings.released:
                image = enlarge_as_released(partial(self.enlarge, watch), self.upsampler.factor, filled.image, sized)
            else:
                image = (self.enlarged(filled.image, sized, watch).float().clamp(-1, 1) + 1) / 2
        watch.finish()
        if image.shape[2:] != known.image.shape[2:]:
            image = F.interpolate(image, size=known.image.shape[2:], mode="bicubic", antialias=True).clamp(0, 1)
        return image if self.settings.released else known.put_back(image)

    def fill(self, known: Known) -> Filled:
        """The small images of a batch of images of the network's size, filled."""
        core, x, m = self.model.core, 2 * known.image - 1, known.mask
        missing = known_counts(core.reduced(m), core.patch) < core.patch**2
        with float32_precision(self.precision, self.device), autocast(self.device, self.precision):
            filled = core(x, m, self.settings.order_for(missing), self.settings.one_by_one)
        return replace(filled, image=filled.image.float(), attention=filled.attention.float())

    def broken_patch(self, filled: Filled) -> str:
        """Which patch is the first that is not finite, or absurdly large, in words."""
        largest = cut(filled.image, self.model.core.patch).abs().amax(dim=(2, 3, 4))  # (B,G)
        for step, positions in enumerate(filled.order.T.tolist()):
            for found, position in zip(largest, positions, strict=True):
                if position >= 0 and not found[position] <= LARGEST:  # true for NaN
                    row, column = divmod(position, filled.image.shape[-1] // self.model.core.patch)
                    return f" in the patch in row {row + 1} and column {column + 1}, number {step + 1} in the order of filling"
        return ""

    def enlarge(self, watch: Watch, y: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        """What the enlarging network gives, under watch."""
        return watch.look("upsampler", self.upsampler.unlimited(y, image, mask)).tanh()

    def enlarged(self, small: Tensor, known: Known, watch: Watch) -> Tensor:
        """A filled small image (B,3,S,S) in [-1,1] at the size of the known pixels."""
        if self.upsampler is not None:
            return self.enlarge(watch, reduced(small, self.size // self.upsampler.factor), 2 * known.image - 1, known.mask)
        return small if small.shape[-1] == self.size else F.interpolate(small, size=(self.size, self.size), mode="bicubic")

    def sized(self, known: Known) -> Known:
        """The known pixels at the network's size; the aspect is ignored, as in the released test."""
        if known.image.shape[2:] == (self.size, self.size):
            return known

        def resized(values: Tensor) -> Tensor:
            return F.interpolate(values, size=(self.size, self.size), mode="bilinear", antialias=True)

        return Known(resized(known.image).clamp(0, 1), (resized(known.mask) > WHOLLY).to(known.mask.dtype))

    def require_size(self, height: int, width: int) -> None:
        if (height, width) != (self.size, self.size):
            raise UserError(
                f"is not of {self.size}x{self.size} pixels, which the patches divide: set data.fit=resize data.size={self.size}"
            )

    def cost(self, late: bool = False) -> dict[str, Evaluations]:
        once = Evaluations(1, 1)
        return {"dgts": once} if self.upsampler is None else {"dgts": once, "upsampler": once}

    def single_evaluations(self) -> dict[str, Callable[[], Tensor]]:
        image = torch.rand(1, 3, self.size, self.size, device=self.device)
        known = Known(image, (image[:, :1] > 0.5).float())
        calls = {"dgts": lambda: self.fill(known).image}
        if self.upsampler is not None:
            calls["upsampler"] = lambda: self.enlarged(self.model.core.reduced(image), known, Watch(self.precision))
        return calls

    def varied(self, precision: Precision | None = None, **settings: Any) -> "DGTSMethod":
        """The same weights at another precision. Raises UserError for other settings."""
        other = copy.copy(super().varied(**settings))
        other.precision = convert(Precision, precision or self.precision, "the call", "precision")
        require_precision(other.precision, self.device)
        return other

    def close_doors(self) -> None:
        """It has none to close."""

    def to(self, device: torch.device) -> None:
        self.device = device
        for network in (self.model.core, self.model.upsampler):
            if network is not None:
                network.to(device)

    def describe(self) -> str:
        enlarged = "" if self.upsampler is None else ", enlarged by a network"
        return f"DGTS, {self.size}x{self.size}, order {self.settings.order}{enlarged}"


def require_enlargeable(model: DGTSModel) -> None:
    """Raise UserError if the enlarging network cannot take images of DGTS's size."""
    size, most = model.core.size, max(model.upsampler.dilations, default=0)
    if size % 8 or size // 4 <= most:
        raise UserError(f"the enlarging network needs images above {4 * most} pixels, and DGTS has {size}: set dgts.enlarge=false")
