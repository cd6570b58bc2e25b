"""Settings of the whole suite, and what several files test with: small random networks, small photographs."""

import contextlib
import importlib.util
import multiprocessing
import signal
from collections import Counter
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from strdiffusion.checkpoints import network_record, save_released, write_checkpoint
from strdiffusion.ddpm import DDPM
from strdiffusion.networks import CorrelationDiscriminator, GuidedUNet, UNet
from strdiffusion.networks.dgts import DGTS, Upsampler
from strdiffusion.sde import MeanRevertingSDE

# the networks here are tiny: a second thread costs more than it brings
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
SIZE, T = 24, 10
SMALL_DGTS = dict(  # of SIZE x SIZE pixels
    reduction=2, patch=3, grid=4, width=16, reference_width=8, heads=2, encoder_layers=1, decoder_layers=2, backbone="small"
)


CASES: Counter[str] = Counter()  # of the fuzz, by what was broken


def pytest_addoption(parser):
    parser.addoption("--fuzz-cases", type=int, default=0, help="random cases of each property in test_fuzz*.py (default: 8 fixed ones)")
    said = "kills of each kind of training in test_survival.py, and of each command in test_interrupted.py (default: a few of one kind)"
    parser.addoption("--kills", type=int, default=0, help=said)


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a CUDA GPU")
    if importlib.util.find_spec("hypothesis") is None:  # a machine on which only test_gpu.py runs: scripts/gpu.py
        return
    from hypothesis import HealthCheck, settings

    cases = config.getoption("--fuzz-cases")
    settings.register_profile(
        "fuzz",
        max_examples=cases or 8,
        derandomize=not cases,
        deadline=timedelta(seconds=60),
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    settings.load_profile("fuzz")


def count_case(kind):
    CASES[kind] += 1


def pytest_terminal_summary(terminalreporter):
    if CASES:
        terminalreporter.write_line(f"fuzz: {CASES.total()} cases ({', '.join(f'{n} of {kind}' for kind, n in sorted(CASES.items()))})")


@pytest.fixture(autouse=True)
def no_process_left():
    """Every test ends the processes it starts: Python waits for those that are left when it exits."""
    yield
    assert multiprocessing.active_children() == []


@contextlib.contextmanager
def heeding(number):
    """Signals of this number act as usual in this context, also if the tests run under nohup."""
    before = signal.getsignal(number)
    if before == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)


def script(name):
    """The module of a script."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def single_error(result):
    """The one line that starts with "error: ", after which nothing follows, of a run that failed with status 2."""
    status, _, err = result
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1, err
    assert "Traceback" not in err and err.endswith(errors[0] + "\n")
    return errors[0]


def write_network(path, kind, network, pair="gray2edge", **sde):
    structure = {"pair": pair, "edge_source": "known", "edge_sigma": 1.0}
    record = network_record(kind, network, MeanRevertingSDE(**{"T": T, **sde}), structure)
    write_checkpoint(path, record | {"step": 0, "network": network.state_dict(), "ema": None})


def write_dgts(path, kind, network):
    record = network_record(kind, network, prediction="x0")
    write_checkpoint(path, record | {"step": 0, "network": network.state_dict(), "ema": None})


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A folder with small random networks: texture.pt, unguided.pt, joint.pt, structure.pt, discriminator.pt, prior.pt, dgts.pt,
    upsampler.pt and misfits.
    """
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    texture = UNet(3, 4, 1, guided=True)
    structure = UNet(1, 4, 1)
    write_network(folder / "texture.pt", "texture", texture)
    write_network(folder / "unguided.pt", "texture", UNet(3, 4, 1))
    write_network(folder / "joint.pt", "texture", UNet(3, 4, 1, structure_channels=1))
    write_network(folder / "structure.pt", "structure", structure)
    write_network(folder / "discriminator.pt", "discriminator", CorrelationDiscriminator(4))
    torch.manual_seed(0)
    write_dgts(folder / "dgts.pt", "dgts", DGTS(**SMALL_DGTS))
    torch.manual_seed(0)
    write_dgts(folder / "upsampler.pt", "upsampler", Upsampler(4, 4, (1, 2)))
    prior = GuidedUNet(32, [32, 32], 1, [], head_channels=32)
    record = network_record("prior", prior, DDPM())
    write_checkpoint(folder / "prior.pt", record | {"step": 0, "network": prior.state_dict(), "ema": None})
    write_network(folder / "other_T.pt", "texture", texture, T=20)
    write_network(folder / "wide.pt", "texture", UNet(3, 8, 2, guided=True))
    save_released(folder / "released.pth", structure)
    (folder / "cut.pt").write_bytes((folder / "texture.pt").read_bytes()[:4000])
    (folder / "text.pt").write_text("no weights")
    return folder


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def photos(tmp_path):
    """Three photographs of 24x24 with masks of the same name, white = hole: a square, a band and a corner."""
    rng = np.random.default_rng(0)
    masks = np.zeros((3, SIZE, SIZE), np.uint8)
    masks[0, 8:16, 8:16] = masks[1, 10:15] = masks[2, :12, :12] = 255
    for name, mask in zip("abc", masks, strict=True):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        save(tmp_path / "photos" / f"{name}.png", cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC))
        save(tmp_path / "masks" / f"{name}.png", mask)
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder as three trainings leave it: small random networks, trained at 24x24."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(1)
    networks = {"texture": UNet(3, 4, 1, guided=True), "structure": UNet(1, 4, 2), "discriminator": CorrelationDiscriminator(4)}
    for kind, network in networks.items():
        (folder / kind).mkdir()
        write_network(folder / kind / "latest.pt", kind, network)
        (folder / kind / "config.yml").write_text(f"data: {{images: x, size: {SIZE}}}\n")
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """What commands are given that are killed or meddled with: photographs, networks, a test configuration and a table."""
    from kill_commands import prepare

    folder = tmp_path_factory.mktemp("work")
    prepare(folder, 3)
    return folder


@pytest.fixture(scope="session")
def quick(work):
    """quick(kind, output): the words of a command that writes a folder, by a method that needs no network."""
    from kill_commands import command_line

    return lambda kind, output: command_line(kind, work, output, 3, quick=True)


@pytest.fixture
def web_service(runs, tmp_path):
    """Makes a service of the page, without the page: `web_service(megapixels=1)`; everything it keeps is in its `sessions.root`."""
    from strdiffusion.app.web.limits import Limits
    from strdiffusion.app.web.offers import Offers
    from strdiffusion.app.web.photo import Example
    from strdiffusion.app.web.service import Service
    from strdiffusion.app.web.session import Sessions

    services = []

    def make(**limits):
        root = tmp_path / f"visits_{len(services)}"
        root.mkdir()
        limits = Limits(**limits)
        example = np.random.default_rng(5).integers(0, 256, (40, 56, 3), dtype=np.uint8)
        services.append(Service(Sessions(root, limits), Offers({"tiny": runs}, "cpu"), [Example("noise.png", example)], limits))
        return services[-1]

    yield make
    for service in services:
        service.sessions.close_all()
