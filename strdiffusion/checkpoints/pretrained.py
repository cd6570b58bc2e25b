"""Weights that others have trained, from files that the user gives: the ResNet-50 and VGG-19 of DGTS's trainings."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from strdiffusion.checkpoints.files import compare_entries, read_checkpoint
from strdiffusion.checkpoints.networks import are_weights
from strdiffusion.networks.dgts.vgg import VGG19
from strdiffusion.system.errors import UserError

UNUSED = ("fc.", "classifier.")  # what classifies
COUNTERS = "num_batches_tracked"


def load_resnet(path: str | Path, backbone: nn.Module) -> None:
    """Fill the backbone with the weights of torchvision's ResNet-50. Raises UserError if the file is not of that."""
    _fill(path, backbone, {name: name for name in backbone.state_dict()}, "torchvision's ResNet-50")


def load_vgg(path: str | Path, caffe: bool = False) -> VGG19:
    """VGG-19 with the weights of torchvision's file, or (`caffe`) of BAT-Fill's. Raises UserError if the file is not of that."""
    network = VGG19(caffe)
    _fill(path, network, network.names_in_file(), "BAT-Fill's VGG-19" if caffe else "torchvision's VGG-19")
    return network.eval()


def _fill(path: str | Path, network: nn.Module, names: Mapping[str, str], what: str) -> None:
    content = read_checkpoint(Path(path).expanduser())
    found: dict[str, Tensor] = {
        str(name): value for name, value in content.items() if not str(name).startswith(UNUSED) and not str(name).endswith(COUNTERS)
    }
    expected = {names[ours]: value for ours, value in network.state_dict().items()}
    if not are_weights(found):
        raise UserError(f"the weights {path} are not tensors of numbers: give {what}")
    difference = compare_entries(expected, found)
    if difference:
        raise UserError(f"the weights {path} are not of {what}: {difference}")
    network.load_state_dict({ours: found[name].float() for ours, name in names.items()})
