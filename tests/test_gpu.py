"""What needs a CUDA GPU; skipped where there is none. Results on the GPU are those of the CPU."""

import copy

import pytest
import torch
from golden_checks import golden_weights
from test_samplers import DISCRIMINATOR, RELEASED, STRUCTURE, TEXTURE, known, sde

from strdiffusion import StrDiffusion
from strdiffusion.config import TrainTextureConfig
from strdiffusion.data import write_image
from strdiffusion.denoiser import Denoiser
from strdiffusion.networks import UNet
from strdiffusion.networks.inference import for_inference
from strdiffusion.samplers import Networks, Released, Sampling, SeededNoise, Stepping, sample
from strdiffusion.system.device import set_float32_precision
from strdiffusion.system.parser import build
from strdiffusion.training import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")]


def on(device: str, precision: str = "fp32") -> Networks:
    """The networks of test_samplers on a device."""
    texture, structure, discriminator = (copy.deepcopy(n).to(device) for n in (TEXTURE, STRUCTURE, DISCRIMINATOR))
    denoisers = Denoiser(texture, sde, precision=precision), Denoiser(structure, sde, precision=precision)
    return Networks(*denoisers, discriminator)


def sample_released(device: str):
    run = Sampling(on(device), known().to(torch.device(device)), SeededNoise([7, 8, 9]), Stepping())
    return sample(Released(**RELEASED), run)


def test_networks_agree_with_the_cpu():
    set_float32_precision("fp32")
    batch = known()
    for t in (1, 7, 15):
        args = (batch.image, 0.5 * batch.image, t, batch.maps["structure"])
        here = on("cpu").texture.noise(*args)
        there = on("cuda").texture.noise(*(v.cuda() if isinstance(v, torch.Tensor) else v for v in args)).cpu()
        assert (here - there).abs().max() < 1e-4 * here.abs().max()


def test_the_released_sampler_decides_as_on_the_cpu():
    set_float32_precision("fp32")
    here, there = sample_released("cpu"), sample_released("cuda")
    for a, b in zip(here.traces, there.traces, strict=True):
        assert [step.decisions for step in a.steps] == [step.decisions for step in b.steps]
    assert (here.texture - there.texture.cpu()).abs().max() < 1e-3 * here.texture.abs().max()


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_lower_precision_runs_and_stays_close(precision):
    batch = known().to(torch.device("cuda"))
    args = (batch.image, 0.5 * batch.image, 7, batch.maps["structure"])
    exact, rough = on("cuda").texture.noise(*args), on("cuda", precision).texture.noise(*args)
    assert rough.dtype == torch.float32 and (exact - rough).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("tf32", 0.01), ("bf16", 0.05), ("fp16", 0.01)])
def test_the_inference_form(precision, tolerance, compile):
    set_float32_precision("fp32")
    network = golden_weights(UNet(3, 8, 3, "linear", guided=True), 1).cuda()
    batch = known().to(torch.device("cuda"))
    args, structure = (batch.image, 0.5 * batch.image), batch.maps["structure"]
    with torch.no_grad():
        expected = {t: network(*args, t, structure) for t in (3, 7)}
    set_float32_precision(precision)
    form = for_inference(network, precision, compile)
    found = {t: form(*args, t, structure) for t in (3, 7)}
    for t, value in expected.items():
        assert (found[t] - value).abs().max() < tolerance * value.abs().max()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_on_the_gpu(tmp_path, precision):
    for i in range(2):
        write_image(tmp_path / "photos" / f"{i}.png", torch.rand(40, 40, 3).numpy())
    tree = {
        "output": str(tmp_path / "run"),
        "device": "cuda",
        "precision": precision,
        "sde": {"T": 10},
        "network": {"width": 4, "depth": 2},
        "data": {"images": str(tmp_path / "photos"), "size": 32, "workers": 0, "index": None},
        "training": {"iterations": 3, "batch_size": 2, "log_every": 1},
    }
    assert train("texture", build(TrainTextureConfig, tree, "test")).exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_pipeline_on_the_gpu(runs, precision):
    """Windows and tiles in batches: known pixels stay, and in float32 the hole is what the CPU makes of it, but for rounding."""
    image = (torch.rand(3, 8, 10).repeat_interleave(12, 1).repeat_interleave(12, 2) * 255).byte()
    mask = torch.zeros(96, 120, dtype=torch.bool)
    mask[10:20, 10:20] = mask[40:90, 30:100] = True
    options = {"num_samples": 2, "sampler": "mars_ode", "steps": 4, "resampling": "none"}
    here = StrDiffusion.load(runs, device="cpu")(image, mask, **options).images
    there = StrDiffusion.load(runs, device="cuda", precision=precision)(image, mask, batch_size=5, **options).images
    for a, b in zip(here, there, strict=True):
        assert (b.levels[~mask.numpy()] == image.permute(1, 2, 0).numpy()[~mask.numpy()]).all()
        assert precision != "fp32" or abs(a.levels.astype(int) - b.levels).max() <= 1
