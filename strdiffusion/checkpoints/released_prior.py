"""RePaint's prior and classifier, told by the names and shapes of their released files (docs/repaint_spec.md sec. 3).

Our modules have the released names, so nothing is translated. A file does not record how attention divides its channels, nor the
process: `Unrecorded` says what these are if they are not given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from strdiffusion.checkpoints.files import compare_entries
from strdiffusion.ddpm import NoiseSchedule
from strdiffusion.networks import Kind, build_network
from strdiffusion.networks.noise_classifier import pooled_size
from strdiffusion.networks.shapes import shapes_alone
from strdiffusion.system.parser import Positive, Range

LARGEST_BLOCKS, LARGEST_LEVELS = 16, 10


@dataclass
class Unrecorded:
    """What a released file does not record; the defaults are those of RePaint's three priors. Our own files record all of it.

    steps, schedule: of the process it was trained with. head_channels: of attention; null: `heads` says how many heads there are, and
    heads_upsample how many in the decoder (null: as many). new_order: the order of q, k and v of attention.
    """

    steps: Annotated[int, Range(2, 10_000)] = 1000
    schedule: NoiseSchedule = "linear"
    head_channels: Positive | None = 64
    heads: Positive = 4
    heads_upsample: Positive | None = None
    new_order: bool = False

    def process(self) -> dict:
        """The process, as our checkpoints record it."""
        return {"steps": self.steps, "schedule": self.schedule}


def detect_prior(state: Mapping[str, Tensor], unrecorded: Unrecorded) -> tuple[Kind, dict] | None:
    """Find network and architecture from released names; None if the stem is not there. Raises ValueError or IndexError for nonsense.

    R, the residual blocks a level, is not in the names of a classifier: the first R that explains all names and shapes counts.
    """
    if "input_blocks.0.0.weight" not in state or "time_embed.0.weight" not in state:
        return None
    groups = 1 + max(int(name.split(".")[1]) for name in state if re.match(r"input_blocks\.\d+\.", name))
    kind: Kind = "classifier" if "out.2.positional_embedding" in state else "prior"
    candidates = [blocks for blocks in (2, 1, *range(3, LARGEST_BLOCKS + 1)) if groups % (blocks + 1) == 0]
    found = [architecture_of(kind, state, groups, blocks, unrecorded) for blocks in candidates if levels_fit(groups, blocks)]
    return kind, next((architecture for architecture in found if explains(kind, architecture, state)), found[0])


def levels_fit(groups: int, blocks: int) -> bool:
    return groups // (blocks + 1) <= LARGEST_LEVELS


def architecture_of(kind: Kind, state: Mapping[str, Tensor], groups: int, blocks: int, unrecorded: Unrecorded) -> dict:
    """The architecture if there are `blocks` residual blocks a level: of each level's groups, all but the last have one."""
    levels = range(groups // (blocks + 1))
    first = [f"input_blocks.{1 + level * (blocks + 1)}" for level in levels]  # the first residual block of each level
    convolutions = [state.get(f"{group}.0.out_layers.3.weight") for group in first]
    widths = [None if weight is None else weight.shape[0] for weight in convolutions]
    scaled = state[f"{first[0]}.0.emb_layers.1.weight"].shape[0] == 2 * widths[0]
    architecture = {
        "width": state["time_embed.0.weight"].shape[1],
        "channels": [widths[0] if width is None else width for width in widths],
        "blocks": blocks,
        "attention": [2**level for level in levels if f"{first[level]}.1.qkv.weight" in state],
        "heads": unrecorded.heads,
        "head_channels": unrecorded.head_channels,
        "scale_shift": scaled,
        "resblock_updown": not any(re.match(r"input_blocks\.\d+\.0\.op\.", name) for name in state),
        "new_order": unrecorded.new_order,
    }
    if kind == "classifier":
        size = pooled_size(state["out.2.positional_embedding"].shape[1], len(levels))
        return architecture | {"size": size, "classes": state["out.2.c_proj.weight"].shape[0]}
    learned = "out.2.weight" not in state or state["out.2.weight"].shape[0] == 6
    more = {"class_conditional": "label_emb.weight" in state, "learned_sigma": learned}
    return architecture | more | {"heads_upsample": unrecorded.heads_upsample}


def explains(kind: Kind, architecture: dict, state: Mapping[str, Tensor]) -> bool:
    """Whether a network of this architecture has just the names and shapes of the file."""
    try:
        with shapes_alone():
            network = build_network(kind, architecture)
    except (ValueError, RuntimeError):
        return False
    return compare_entries(network.state_dict(), state) is None
