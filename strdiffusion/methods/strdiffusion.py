"""StrDiffusion: the texture is denoised under the guidance of a structure, denoised at the same time (CVPR 2024, arXiv 2403.19898)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch

from strdiffusion.batch import Known
from strdiffusion.config.common import StructureConfig
from strdiffusion.data.structure import structure_maps
from strdiffusion.denoiser import GivenX0
from strdiffusion.methods.irsde import IRSDEMethod, IRSDEOptions
from strdiffusion.methods.method import Door, Evaluate, register
from strdiffusion.samplers import Networks
from strdiffusion.system.errors import UserError


@dataclass
class StrDiffusionOptions(IRSDEOptions):
    """structure: the structure maps, see `strdiffusion/data/structure.py`.

    guide: "denoised" is the method. To measure the value of the guide: the true structure ("ground_truth"), or that of another image
        in the hole ("other_image").
    """

    guided: ClassVar[bool] = True
    pictures: ClassVar[tuple[str, ...]] = ("structure",)
    no_doors: ClassVar[str] = "structure.edge_source=known and guide=denoised"

    guide: Literal["denoised", "ground_truth", "other_image"] = "denoised"
    structure: StructureConfig = field(default_factory=StructureConfig)

    @property
    def doors(self) -> dict[Door, str]:
        asked: dict[Door, list[str]] = {}
        if self.structure.edge_source == "full" and "edge" in self.structure.pair:
            asked.setdefault("truth", []).append("structure.edge_source=full")
        if self.guide != "denoised":
            asked.setdefault("truth" if self.guide == "ground_truth" else "other_image", []).append(f"guide={self.guide}")
        return {door: " and ".join(options) for door, options in asked.items()}

    def check(self) -> None:
        super().check()
        if self.guide != "denoised" and self.sampler.resampling != "none":
            raise UserError(f"guide={self.guide} needs method=strdiffusion and sampler.resampling=none")


@register("strdiffusion")
class StrDiffusionMethod(IRSDEMethod):
    """Texture, structure and, if the sampler needs it, discriminator.

    Without options (built from a model) it computes edges from the known pixels alone, even if training used the whole image. The
    options of a test can open the doors.
    """

    Options = StrDiffusionOptions
    guided: ClassVar[bool] = True

    options: StrDiffusionOptions | None = None

    @classmethod
    def open(cls, options: StrDiffusionOptions, device: torch.device) -> "StrDiffusionMethod":
        method = super().open(options, device)
        method.options = options
        return method

    @property
    def doors(self) -> Mapping[Door, str]:
        return {} if self.options is None else self.options.doors

    def close_doors(self) -> None:
        self.options = None

    def look(self, image: np.ndarray, known: np.ndarray, shown: Mapping[Door, np.ndarray]) -> dict[str, np.ndarray]:
        """The maps structure, the known part of x0; structure_mean, mu_x (spec sec. 1); and, for `guide`, true_structure, x0 of the
        image that a door shows.
        """
        pair, sigma = self.model.config.structure.pair, self.model.config.structure.edge_sigma
        x0, mean = structure_maps(image, known, pair, "known", sigma, ground_truth=False)
        maps = {"structure": x0 * known, "structure_mean": mean}
        if self.options is None:
            return maps
        if self.options.structure.edge_source == "full" and "truth" in shown:
            x0, mean = structure_maps(shown["truth"], known, pair, "full", sigma)
            maps |= {"structure": x0 * known, "structure_mean": mean}
        if self.options.guide != "denoised":
            behind = shown["truth" if self.options.guide == "ground_truth" else "other_image"]
            maps["true_structure"] = self.true_pictures(behind)["structure"]
        return maps

    def predictors(self, known: Known | None = None, evaluate: Evaluate | None = None) -> Networks:
        structure = self.denoiser("structure", evaluate)
        if known is not None and "true_structure" in known.maps:
            structure = GivenX0(self.sde, known.maps["true_structure"])
        discriminator = self.network("discriminator", evaluate) if self.sampler.scored else None
        return Networks(self.denoiser("texture", evaluate), structure, discriminator)

    def true_pictures(self, image: np.ndarray) -> dict[str, np.ndarray]:
        everywhere = np.ones(image.shape[:2], np.float32)
        structure = self.model.config.structure
        x0, _ = structure_maps(image, everywhere, structure.pair, "full", structure.edge_sigma)
        return {"structure": x0}
