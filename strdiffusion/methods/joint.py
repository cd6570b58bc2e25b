"""The joint form: one network denoises texture and structure together, and the structure leads (spec sec. 11)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from strdiffusion.batch import Known
from strdiffusion.data.structure import structure_maps
from strdiffusion.data.tensors import structure_picture
from strdiffusion.methods.finite import Watch
from strdiffusion.methods.irsde import IRSDEMethod, IRSDEOptions
from strdiffusion.methods.method import Door, Step, register


@dataclass
class JointOptions(IRSDEOptions):
    """structure: the pair of the structure's states; edges are those of the known pixels. sampler.ahead: by how many times it leads."""

    joint: ClassVar[bool] = True
    pictures: ClassVar[tuple[str, ...]] = ("structure",)

    def earlier_form(self, tree: dict) -> dict | None:
        return None


@register("joint")
class JointMethod(IRSDEMethod):
    """One network, which the model keeps as its texture network."""

    Options = JointOptions
    joint: ClassVar[bool] = True
    tiles = False  # to begin from an estimate it would need the estimate's structure, too

    def look(self, image: np.ndarray, known: np.ndarray, shown: Mapping[Door, np.ndarray]) -> dict[str, np.ndarray]:
        """The map structure_mean, mu_x, of what is known."""
        structure = self.model.config.structure
        if structure.pair == "labels":
            return {"structure_mean": np.zeros((*known.shape, self.channels), np.float32)}
        return {"structure_mean": structure_maps(image, known, structure.pair, "known", structure.edge_sigma, ground_truth=False)[1]}

    @property
    def channels(self) -> int:
        """The channels of the structure."""
        return self.model.networks.texture.network.structure_channels

    def pictures(self, structure: Tensor | None) -> dict[str, Tensor]:
        return {} if structure is None else {"structure": structure_picture(structure)}

    def true_pictures(self, image: np.ndarray) -> dict[str, np.ndarray]:
        structure, everywhere = self.model.config.structure, np.ones(image.shape[:2], np.float32)
        if structure.pair == "labels":
            return {}
        return {"structure": structure_maps(image, everywhere, structure.pair, "full", structure.edge_sigma)[0]}

    def single_evaluations(self) -> dict[str, Callable[[], Tensor]]:
        network, size = self.predictors().texture, self.size
        y = torch.rand(1, 3, size, size, device=self.device)
        x = torch.rand(1, self.channels, size, size, device=self.device)
        return {"texture": lambda: network.both_x0(y, y, 1, x, x, 1)[0]}

    @torch.inference_mode()
    def predict(self, known: Known, before: Step, after: Step) -> Step:
        """The clean texture and structure that the network predicts from the state `before`; at t = 0 the state itself."""
        if self.channels > 1:
            return super(IRSDEMethod, self).predict(known, before, after)  # pictures of labels are no states
        if before.to == 0:
            return before
        known, grid, watch = known.to(self.device), self.sampler.grid(self.sde), Watch(self.precision)
        t_y, t_x = grid.parts(before.to)
        means = self.sde.texture_mean(known.image, known.mask), known.maps["structure_mean"]
        network = self.predictors(known, watch.around()).texture
        y0, x0 = network.both_x0(before.image, means[0], t_y, before.pictures["structure"], means[1], t_x)
        watch.finish()
        return replace(before, image=y0, pictures={"structure": x0})
