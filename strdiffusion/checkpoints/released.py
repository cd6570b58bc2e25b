"""The names in the released checkpoints, and their translation to ours.

A released file is a bare state dict. `released_names` maps the entries of one of our networks to the released names,
and `detect` finds from the names and shapes of a state dict which network it belongs to.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from strdiffusion.checkpoints.released_dgts import detect_dgts, dgts_names
from strdiffusion.networks import CorrelationDiscriminator, Kind
from strdiffusion.networks.dgts import DGTS, AdversarialPair, Upsampler
from strdiffusion.networks.guided_unet import GuidedEncoder

PARALLEL = "module."  # the prefix that DataParallel adds to names

# (our module path, released module path); the last level of the decoder has no resize before its convolution
UNET_MODULES = [
    (r"stem", r"init_conv"),
    (r"time\.(\d)", r"time_mlp.\1"),
    (r"encoder\.(\d+)\.block1", r"downs.\1.0"),
    (r"encoder\.(\d+)\.block2", r"downs.\1.1"),
    (r"encoder\.(\d+)\.attention", r"downs.\1.2"),
    (r"encoder\.(\d+)\.down", r"downs.\1.3"),
    (r"encoder\.(\d+)\.spade", r"downs.\1.4"),
    (r"middle_block(\d)", r"mid_block\1"),
    (r"middle_attention", r"mid_attn"),
    (r"decoder\.(\d+)\.block1", r"ups.\1.0"),
    (r"decoder\.(\d+)\.block2", r"ups.\1.1"),
    (r"decoder\.(\d+)\.attention", r"ups.\1.2"),
    (r"decoder\.(\d+)\.up", r"ups.\1.3.1"),
    (r"final_block", r"final_res_block"),
    (r"final_conv", r"final_conv"),
]
# (our entry inside a module, released entry inside that module)
UNET_ENTRIES = [
    # residual block
    (r"modulation\.(weight|bias)", r"mlp.1.\1"),
    (r"conv([12])\.weight", r"block\1.proj.weight"),
    (r"skip\.weight", r"res_conv.weight"),
    # attention
    (r"norm\.gain", r"fn.norm.g"),
    (r"qkv\.weight", r"fn.fn.to_qkv.weight"),
    (r"out\.(weight|bias)", r"fn.fn.to_out.0.\1"),
    (r"out_norm\.gain", r"fn.fn.to_out.1.g"),
    # SPADE block; the release counts from 0
    (r"norm1\.shared\.(weight|bias)", r"norm_0.mlp_shared.0.\1"),
    (r"norm2\.shared\.(weight|bias)", r"norm_1.mlp_shared.0.\1"),
    (r"norm1\.(gamma|beta)\.(weight|bias)", r"norm_0.mlp_\1.\2"),
    (r"norm2\.(gamma|beta)\.(weight|bias)", r"norm_1.mlp_\1.\2"),
    (r"conv1\.bias", r"conv_0.bias"),
    (r"conv2\.bias", r"conv_1.bias"),
    (r"conv1\.parametrizations\.weight\.original", r"conv_0.weight_orig"),
    (r"conv2\.parametrizations\.weight\.original", r"conv_1.weight_orig"),
    (r"conv1\.parametrizations\.weight\.0\._(u|v)", r"conv_0.weight_\1"),
    (r"conv2\.parametrizations\.weight\.0\._(u|v)", r"conv_1.weight_\1"),
    # a module that is itself one layer
    (r"weight", r"weight"),
    (r"bias", r"bias"),
]
DISCRIMINATOR_MODULES = [
    (r"embedding\.1", r"t_embed.main.0"),
    (r"embedding\.3", r"t_embed.main.2"),
    (r"stem", r"start_conv"),
    (r"blocks\.0", r"conv1"),
    (r"blocks\.1", r"conv2"),
    (r"blocks\.2", r"conv3"),
    (r"blocks\.3", r"conv4"),
    (r"final_conv", r"final_conv"),
    (r"final_linear", r"end_linear"),
]
DISCRIMINATOR_ENTRIES = [
    (r"conv([12])\.(weight|bias)", r"conv\1.0.\2"),
    (r"time\.(weight|bias)", r"dense_t1.\1"),
    (r"skip\.weight", r"skip.0.weight"),
    (r"weight", r"weight"),
    (r"bias", r"bias"),
]


def released_names(network: nn.Module) -> dict[str, str]:
    """Map every entry of the network's state dict to its released name."""
    if isinstance(network, DGTS | Upsampler | AdversarialPair):
        return dgts_names(network)
    if isinstance(network, GuidedEncoder):
        return {name: name for name in network.state_dict()}
    if isinstance(network, CorrelationDiscriminator):
        modules, entries = DISCRIMINATOR_MODULES, DISCRIMINATOR_ENTRIES
    else:
        modules, entries = UNET_MODULES, UNET_ENTRIES
        outermost = f"ups.{network.depth - 1}.3"
    rules = [(re.compile(rf"{m}\.{e}"), (m, mr), (e, er)) for m, mr in modules for e, er in entries]

    names = {}
    for ours in network.state_dict():
        module, module_released, entry, entry_released = next(
            (m, mr, e, er) for pattern, (m, mr), (e, er) in rules if pattern.fullmatch(ours)
        )
        path = re.match(module, ours)[0]
        path_released = re.sub(module, module_released, path)
        released = f"{path_released}.{re.sub(entry, entry_released, ours[len(path) + 1 :])}"
        if not isinstance(network, CorrelationDiscriminator):
            released = released.replace(f"{outermost}.1.", f"{outermost}.")
        names[ours] = released
    return names


def strip_module(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix PARALLEL from the names."""
    return {name.removeprefix(PARALLEL): value for name, value in state.items()}


def detect(state: Mapping[str, Tensor]) -> tuple[Kind, dict] | None:
    """Find network and architecture from released names (without `module.`); None if too few of them are present."""
    of_dgts = detect_dgts(state)
    if of_dgts is not None:
        return of_dgts
    if "start_conv.weight" in state:
        return "discriminator", {"width": state["start_conv.weight"].shape[0] // 2}
    levels = {int(name.split(".")[1]) for name in state if re.match(r"downs\.\d+\.", name)}
    if not levels or not {"init_conv.weight", "final_conv.weight"} & set(state):
        return None
    if "init_conv.weight" in state:
        width, channels = state["init_conv.weight"].shape[0], state["init_conv.weight"].shape[1] // 2
    else:  # missing, which the later comparison of names reports
        channels, width = state["final_conv.weight"].shape[:2]
    architecture = {
        "channels": channels,
        "width": width,
        "depth": max(levels) + 1,
        "attention": "linear" if any(".to_qkv." in name for name in state) else "none",
        "guided": any(re.match(r"downs\.\d+\.4\.", name) for name in state),
    }
    return ("structure" if channels == 1 else "texture"), architecture
