"""The names in the released files of DGTS and of its enlarging network, and their translation to ours (docs/dgts.md, sec. 12)."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from strdiffusion.networks import Kind
from strdiffusion.networks.dgts import DGTS, AdversarialPair, Critic, Upsampler

Rules = list[tuple[str, str]]

# (the beginning of our name, of the released one): the first rule that fits decides
DGTS_RULES: Rules = [
    (r"structure\.embed", r"embeddings.patch_embeddings"),
    (r"structure\.query", r"aq"),
    (r"structure\.key", r"ak"),
    (r"structure\.norm", r"anorm"),
    (r"references\.backbone", r"backbone.0.body"),
    (r"references\.project", r"input_proj"),
    (r"references\.layers\.(\d+)\.attention", r"encoder.layers.\1.self_attn"),
    (r"references\.layers", r"encoder.layers"),
    (r"decoder\.layers\.(\d+)\.(known|unknown|query|key|value)", r"decoder.layers.\1.en_de_attn.\2"),
    (r"decoder", r"decoder"),
    (r"pixels\.expand", r"value1"),
    (r"pixels\.mix", r"deconv.0"),
]
GATED = [(r"(.*)\.features", r"\1.conv2d"), (r"(.*)\.gate", r"\1.mask_conv2d")]
ATTENTION = [
    (r"(.*)\.query\.", r"\1.theta."),
    (r"(.*)\.key\.", r"\1.phi."),
    (r"(.*)\.value\.", r"\1.g."),
    (r"(.*)\.out\.", r"\1.o."),
    (r"(.*)\.gain$", r"\1.gamma"),
]
UPSAMPLER_RULES: Rules = [
    (r"small\.0", r"fc"),
    (r"small\.1", r"fc2"),
    *((rf"encoder\.{i}", rf"encoder.{i + 1}") for i in range(3)),
    (r"fuse", r"fuse_conv"),
    (r"residual\.(\d+)\.first", r"res_blocks.\1.conv_block.1"),
    (r"residual\.(\d+)\.second", r"res_blocks.\1.conv_block.3"),
    (r"attention", r"attn"),
    (r"refine\.(\d)\.convs\.(\d)", r"sp\1.conv_\2"),
    (r"refine\.(\d)\.norms\.(\d)\.shared", r"sp\1.norm_\2.mlp_shared.0"),
    (r"refine\.(\d)\.norms\.(\d)\.(gamma|beta)", r"sp\1.norm_\2.mlp_\3"),
    (r"refine\.(\d)\.skip_norm\.shared", r"sp\1.norm_s.mlp_shared.0"),
    (r"refine\.(\d)\.skip_norm\.(gamma|beta)", r"sp\1.norm_s.mlp_\2"),
    (r"refine\.(\d)\.skip", r"sp\1.conv_s"),
    (r"out", r"conv_img"),
]
CRITIC_RULES: Rules = [
    (r"scales\.(\d)\.attention", r"discriminator_\1.attn"),
    (r"scales\.(\d)\.stages\.([123])\.0", r"discriminator_\1.model\2.0.0"),
    (r"scales\.(\d)\.stages\.(\d)", r"discriminator_\1.model\2"),
]


def dgts_names(network: nn.Module) -> dict[str, str]:
    """Map every entry of the network's state dict to its released name, without the prefix `module.`. Of a pair the upsampler has one."""
    if isinstance(network, AdversarialPair):
        return {f"upsampler.{ours}": released for ours, released in dgts_names(network.upsampler).items()}
    rules, inner = {DGTS: (DGTS_RULES, []), Upsampler: (UPSAMPLER_RULES, GATED), Critic: (CRITIC_RULES, [])}[type(network)]
    names = {}
    for ours in network.state_dict():
        name = next(re.sub(f"^{pattern}", released, ours) for pattern, released in rules if re.match(pattern, ours))
        for pattern, released in inner + (ATTENTION if ".attn." in f".{name}" else []):
            name = re.sub(f"^{pattern}", released, name)
        names[ours] = re.sub(r"model4\.(weight|bias)", r"model4.0.\1", name)
    return names


def detect_dgts(state: Mapping[str, Tensor]) -> tuple[Kind, dict] | None:
    """Find network and sizes from released names (without `module.`); None if they are of neither network.

    A file of DGTS does not record lambda: the network gets the default.
    """
    if "embeddings.patch_embeddings.weight" in state:
        width, _, patch, _ = state["embeddings.patch_embeddings.weight"].shape
        sizes = {"width": width, "patch": patch, "reference_width": state["input_proj.bias"].shape[0]}
        for part in ("encoder", "decoder"):
            sizes[f"{part}_layers"] = len({name.split(".")[2] for name in state if name.startswith(f"{part}.layers.")})
        return "dgts", sizes
    if "fuse_conv.conv2d.0.weight_orig" in state:
        return "upsampler", {"width": state["fuse_conv.conv2d.0.weight_orig"].shape[0] // 4}
    return None


def unrecorded_sizes(network: nn.Module) -> dict:
    """The sizes of a network of ours that a released file would not tell: those that are not the released ones, nor read off the names.

    Lambda and dropout are not among them: they change no shape, and are given at a test or a training.
    """
    if isinstance(network, AdversarialPair):
        network = network.upsampler
    architecture = network.architecture()
    with torch.device("meta"):
        ours = network.state_dict()
        _, sizes = detect_dgts({released: ours[name] for name, released in dgts_names(network).items()})
        found = type(network)(**sizes).architecture()
    return {name: value for name, value in architecture.items() if name not in ("bridge", "dropout") and value != found[name]}
