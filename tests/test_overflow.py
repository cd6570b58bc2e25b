"""Finite weights that overflow: an error names the network, where it happened and the precision, in Python, `test` and `inpaint`; nothing
is written. Networks of StrDiffusion and IR-SDE: test_fuzz.py.
"""

import re
import shutil
from typing import NamedTuple

import pytest
import yaml
from conftest import SIZE, T, single_error
from test_repaint import HEADS, random_weights, write_prior

from strdiffusion.app import StrDiffusion
from strdiffusion.checkpoints import load_network, read_checkpoint, write_checkpoint
from strdiffusion.commands.main import main
from strdiffusion.networks import GuidedUNet, NoiseClassifier
from strdiffusion.system.errors import UserError


class Case(NamedTuple):
    """method: of the test. files: of its networks. broken: whose weights overflow. where: as the error says it. options: of the test."""

    method: str
    files: tuple[str, ...]
    broken: str
    where: str
    options: dict | None = None


TIME, PATCH = r" at t=\d+", r" in the patch in row \d and column \d, number \d+ in the order of filling"
STEPS = {"repaint": {"steps": 20, "jump_n_sample": 1}}
CASES = {
    "prior": Case("repaint", ("prior",), "prior", TIME, STEPS),
    "classifier": Case("repaint", ("prior", "classifier"), "classifier", TIME, STEPS),
    "joint": Case(
        "joint", ("texture",), "texture", TIME, {"sde": {"T": T}, "structure": {"edge_source": "known"}, "sampler": {"resampling": "none"}}
    ),
    "dgts": Case("dgts", ("dgts", "upsampler"), "dgts", PATCH),
    "upsampler": Case("dgts", ("dgts", "upsampler"), "upsampler", ""),
    "upsampler as released": Case("dgts", ("dgts", "upsampler"), "upsampler", "", {"dgts": {"released": True}}),
}


@pytest.fixture(scope="module")
def sound(weights, tmp_path_factory):
    """Networks whose every layer counts: prior.pt, classifier.pt, texture.pt (joint), dgts.pt, upsampler.pt."""
    folder = tmp_path_factory.mktemp("sound")
    write_prior(folder / "prior.pt", "prior", random_weights(GuidedUNet(32, [32, 32], 1, [], **HEADS)))
    write_prior(folder / "classifier.pt", "classifier", random_weights(NoiseClassifier(SIZE, 32, [32, 32], 1, [2], **HEADS)))
    shutil.copy(weights / "joint.pt", folder / "texture.pt")
    for name in ("dgts.pt", "upsampler.pt"):
        shutil.copy(weights / name, folder / name)
    return folder


def overflow(path, factor):
    """Multiply the weights of a file; they are finite all the same. What belongs to the norm of a weight stays."""
    content, weights = read_checkpoint(path), dict(load_network(path).network.named_parameters())
    content["network"] = {name: value * (factor if name in weights else 1) for name, value in content["network"].items()}
    write_checkpoint(path, content)
    load_network(path)  # refuses what is not finite


@pytest.mark.parametrize("name", CASES)
def test_weights_that_overflow_are_named_and_nothing_is_written(sound, photos, tmp_path, capsys, name):
    case, model = CASES[name], tmp_path / "model"
    model.mkdir()
    (model / "config.yml").write_text(f"data: {{images: x, size: {SIZE}}}\n")  # as a training leaves it: else 256
    for file in case.files:
        shutil.copy(sound / f"{file}.pt", model)
    said = rf"the {case.broken} network predicts values .*{case.where}, with precision fp32: the weights are damaged or do not fit"
    masks = photos.parent / "masks"
    for other in "bc":
        (photos / f"{other}.png").unlink()
        (masks / f"{other}.png").unlink()
    tree = {
        "method": case.method,
        "output": str(tmp_path / "out"),
        "device": "cpu",
        "checkpoints": {kind: str(model / f"{kind}.pt") for kind in case.files},
        "data": {"images": str(photos), "masks": {"folder": str(masks)}, "size": SIZE, "index": None},
        **(case.options or {}),
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tree))
    overflow(model / f"{case.broken}.pt", 1000)
    error = single_error((main(["test", "-opt", str(tmp_path / "test.yml")]), *capsys.readouterr()))
    assert re.search(said, error), error
    assert not list((tmp_path / "out").rglob("*.png"))
    if "as released" in name:
        return
    steps = ["--steps", "20"] if case.method == "repaint" else []
    arguments = ["inpaint", str(photos / "a.png"), str(masks / "a.png"), "-o", str(tmp_path / "out.png"), "--model", str(model), *steps]
    error = single_error((main(arguments), *capsys.readouterr()))
    assert re.search(said, error), error
    assert not (tmp_path / "out.png").exists()
    with pytest.raises(UserError, match=said):
        StrDiffusion.load(model)(photos / "a.png", masks / "a.png", **({"steps": 20} if steps else {}))
