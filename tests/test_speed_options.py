"""Options that make training faster or smaller leave it what it is."""

import copy
import sys
import threading
import types

import pytest
import torch

from strdiffusion.config.training import TrainingConfig
from strdiffusion.networks import CorrelationDiscriminator, UNet
from strdiffusion.networks.discriminator import DownBlock
from strdiffusion.networks.unet import ResidualBlock
from strdiffusion.system import compiling
from strdiffusion.system.errors import UserError
from strdiffusion.training.preparation import prepare_network

CPU = torch.device("cpu")


def gradients(network, inputs):
    network.zero_grad()
    (network(*inputs) ** 2).mean().backward()
    return [p.grad.clone() for p in network.parameters()]


@pytest.mark.parametrize("kind", ["texture", "discriminator"])
def test_recomputed_blocks_give_the_same_gradients(kind):
    torch.manual_seed(0)
    x, mu, S = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    if kind == "texture":
        network, block, inputs = UNet(3, 4, 2, "linear", guided=True), ResidualBlock, (x, mu, 5, S)
    else:
        network, block, inputs = CorrelationDiscriminator(4), DownBlock, (x, S, torch.tensor([3, 7]))
    other = copy.deepcopy(network)
    prepare_network(network, TrainingConfig(), "fp32", CPU)
    prepare_network(other, TrainingConfig(checkpoint=True), "fp32", CPU)
    calls = []
    for net in (network, other):
        for module in net.modules():
            if isinstance(module, block):
                module.conv1.register_forward_hook(lambda *_, net=net: calls.append(net))
    expected, found = gradients(network, inputs), gradients(other, inputs)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    blocks = sum(isinstance(module, block) for module in network.modules())
    assert (calls.count(network), calls.count(other)) == (blocks, 2 * blocks)
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), other.buffers(), strict=True))  # of spectral norm
    with torch.no_grad():
        other(*inputs)
    assert calls.count(other) == 3 * blocks


def test_what_the_device_cannot_do_is_refused(monkeypatch):
    with pytest.raises(UserError, match="precision=fp16 needs a GPU"):
        prepare_network(UNet(1, 4, 1), TrainingConfig(), "fp16", CPU)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="compile=true needs"):
        prepare_network(UNet(1, 4, 1), TrainingConfig(compile=True), "fp32", CPU)


def test_compile_is_of_the_network_in_place(monkeypatch):
    compiled = []
    monkeypatch.setattr(UNet, "compile", lambda self: compiled.append(self))
    monkeypatch.setattr("strdiffusion.training.preparation.require_compiler", lambda device: None)
    network = UNet(1, 4, 1)
    prepare_network(network, TrainingConfig(), "fp32", CPU)
    assert compiled == []
    prepare_network(network, TrainingConfig(compile=True), "fp32", CPU)
    assert compiled == [network]


def test_cuda_graphs_are_kept_for_all_threads(monkeypatch):
    """As torch's own module: what keeps the graphs is there only in the thread that imported it."""
    local = threading.local()
    local.tree_manager_containers, local.tree_manager_locks = {}, {}
    monkeypatch.setitem(sys.modules, "torch._inductor.cudagraph_trees", types.SimpleNamespace(local=local))
    monkeypatch.setattr(compiling, "GRAPHS", {})
    found = []

    def job():
        compiling.share_graphs()
        found.append(local.tree_manager_containers)

    compiling.share_graphs()
    for _ in range(2):
        thread = threading.Thread(target=job)
        thread.start()
        thread.join()
    assert len(found) == 2 and all(containers is local.tree_manager_containers for containers in found)
