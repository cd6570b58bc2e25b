"""Our checkpoints and the released form: names, shapes, round trips, and what is said about files that do not fit."""

import importlib.util
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from strdiffusion.checkpoints import (
    export_released,
    load_network,
    network_record,
    read_checkpoint,
    require_same_process,
    save_released,
    write_checkpoint,
)
from strdiffusion.checkpoints.released import detect, released_names
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.methods.loading import CheckpointsConfig, require_fit
from strdiffusion.networks import CorrelationDiscriminator, UNet
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError

ROOT = Path(__file__).parents[1]
RELEASED = json.loads((ROOT / "tests" / "golden" / "released_state_dict_keys.json").read_text())
PAIR = {"pair": "gray2edge", "edge_source": "known", "edge_sigma": 2.0}
SMALL = {
    "structure": lambda: UNet(1, 8, 2),
    "structure with attention": lambda: UNet(1, 8, 2, "linear"),
    "texture": lambda: UNet(3, 8, 2, guided=True),
    "texture with attention": lambda: UNet(3, 8, 2, "linear", guided=True),
    "texture, unguided": lambda: UNet(3, 8, 3),
    "discriminator": lambda: CorrelationDiscriminator(4),
}


def small(name, seed=0):
    """A small network with random weights everywhere: also biases, gains and stored vectors differ from their start."""
    torch.manual_seed(seed)
    network = SMALL[name]().train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for _ in range(2):
            evaluate(network)  # moves the vectors of the spectral norm
    return network.eval()


def evaluate(network, seed=1):
    """The network's output on random images of 13x18 (16x16 for the discriminator)."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (16, 16) if isinstance(network, CorrelationDiscriminator) else (13, 18)
    color, gray, other = (torch.randn(2, c, height, width, generator=generator) for c in (3, 1, 1))
    t = torch.tensor([3, 70])
    with torch.no_grad():
        if isinstance(network, CorrelationDiscriminator):
            return network(color, gray, t)
        x = color if network.channels == 3 else gray
        return network(x, 0.3 * x, t, other if network.guided else None)


def write_ours(path, kind, network, ema=None, **record):
    sde = MeanRevertingSDE(**{"T": 20, **record.pop("sde", {})})
    content = network_record(kind, network, sde, PAIR | record.pop("structure", {}))
    write_checkpoint(path, content | {"step": 5, "network": network.state_dict(), "ema": ema and ema.state_dict()} | record)
    return path


def refusal(path, *args):
    """The message with which a file is refused: one line that names the file."""
    with pytest.raises(UserError) as error:
        load_network(path, *args)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


# ---- the released names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "kind", "build", "parameters"),
    [
        ("texture nf=64 depth=4", "texture", lambda: UNet(3, attention="linear", guided=True), 163_333_763),
        ("structure nf=64 depth=4", "structure", lambda: UNet(1, attention="linear"), 137_133_825),
        ("discriminator ngf=64 t_emb_dim=256 nc=4", "discriminator", CorrelationDiscriminator, 12_741_377),
    ],
)
def test_names_and_shapes_of_the_release_at_full_size(listed, kind, build, parameters):
    with torch.device("meta"):
        network = build()
    ours = {released: list(network.state_dict()[name].shape) for name, released in released_names(network).items()}
    assert ours == {name: shape for name, shape in RELEASED[listed]}
    assert len(released_names(network)) == len(network.state_dict()) == len(RELEASED[listed])
    assert sum(p.numel() for p in network.parameters()) == parameters
    state = {name: torch.empty(shape, device="meta") for name, shape in RELEASED[listed]}
    assert detect(state) == (kind, network.architecture())


def test_parameter_counts_without_attention():
    with torch.device("meta"):
        texture, structure, unguided = UNet(3, guided=True), UNet(1), UNet(3)
    texture, structure, unguided = (sum(p.numel() for p in network.parameters()) for network in (texture, structure, unguided))
    assert (round(texture / 1e6, 2), round(structure / 1e6, 2)) == (161.32, 135.12)
    assert texture - unguided == 26_186_240  # the SPADE blocks


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_file_becomes_the_same_network(tmp_path, name, prefix):
    network = small(name)
    torch.save({prefix + key: value for key, value in export_released(network).items()}, tmp_path / "released.pth")
    loaded = load_network(tmp_path / "released.pth")
    assert loaded.kind == name.split()[0].rstrip(",") and loaded.released and loaded.prediction == "noise"
    assert loaded.sde is None and loaded.structure is None and loaded.step is None
    assert loaded.network.architecture() == network.architecture()
    assert not loaded.network.training and not any(p.requires_grad for p in loaded.network.parameters())
    assert torch.equal(evaluate(loaded.network), evaluate(network))
    load_network(tmp_path / "released.pth", loaded.kind)


@pytest.mark.parametrize("name", SMALL)
def test_export_and_load_round_trip(tmp_path, name):
    network = small(name)
    save_released(tmp_path / "one.pth", network)
    save_released(tmp_path / "two.pth", load_network(tmp_path / "one.pth").network)
    one, two = (torch.load(tmp_path / file, weights_only=True) for file in ("one.pth", "two.pth"))
    assert list(one) == list(two) == list(released_names(network).values())
    assert all(torch.equal(one[key], two[key]) and one[key].dtype == torch.float32 for key in one)


def test_old_file_form_and_other_types_load(tmp_path):
    network = small("structure")
    state = {key: value.double() for key, value in export_released(network).items()}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = load_network(tmp_path / "old.pth").network
    assert torch.equal(evaluate(loaded), evaluate(network))
    assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())


def test_everything_that_does_not_fit_is_listed_in_one_error(tmp_path):
    state = export_released(small("texture"))
    del state["time_mlp.1.weight"], state["downs.0.4.conv_0.weight_u"]
    state["extra.weight"] = torch.zeros(2)
    state["final_conv.weight"] = torch.zeros(3, 9, 3, 3)
    torch.save(state, tmp_path / "wrong.pth")
    message = refusal(tmp_path / "wrong.pth")
    assert "2 missing: time_mlp.1.weight, downs.0.4.conv_0.weight_u" in message
    assert "1 unexpected: extra.weight" in message
    assert "1 misshapen: final_conv.weight (3, 9, 3, 3) instead of (3, 8, 3, 3)" in message


def test_many_names_are_cut_short(tmp_path):
    state = {key: value for key, value in export_released(small("discriminator")).items() if "conv1" not in key}
    torch.save(state, tmp_path / "wrong.pth")
    message = refusal(tmp_path / "wrong.pth")
    missing = sum("conv1" in key for key in export_released(small("discriminator")))
    assert f"{missing} missing" in message and f"and {missing - 4} more" in message and len(message) < 400


# ---- our own form -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_our_checkpoint_round_trip(tmp_path, name):
    network, kind = small(name), name.split()[0].rstrip(",")
    path = write_ours(tmp_path / "ours.pt", kind, network, sde={"T": 30, "schedule": "linear", "max_sigma": 20.0}, prediction="x0")
    loaded = load_network(path, kind)
    assert torch.equal(evaluate(loaded.network), evaluate(network))
    assert loaded.sde == {"T": 30, "schedule": "linear", "max_sigma": 20.0, "eps": 0.005, "rounding": "exact", "mean_fill": "black"}
    assert (loaded.kind, loaded.released, loaded.prediction, loaded.structure, loaded.step) == (kind, False, "x0", PAIR, 5)


def test_moving_average_or_raw_weights(tmp_path):
    raw, ema = small("structure", seed=1), small("structure", seed=2)
    path = write_ours(tmp_path / "both.pt", "structure", raw, ema)
    assert torch.equal(evaluate(load_network(path).network), evaluate(ema))
    assert torch.equal(evaluate(load_network(path, weights="raw").network), evaluate(raw))
    alone = write_ours(tmp_path / "raw.pt", "structure", raw)
    assert torch.equal(evaluate(load_network(alone).network), evaluate(raw))


@pytest.mark.parametrize("kind", ["structure", "texture", "discriminator"])
def test_wrong_network(tmp_path, kind):
    for other in {"structure", "texture", "discriminator"} - {kind}:
        network = small(other)
        write_ours(tmp_path / "ours.pt", other, network)
        save_released(tmp_path / "released.pth", network)
        for name in ("ours.pt", "released.pth"):
            assert f"is of the {other} network, not of the {kind} network" in refusal(tmp_path / name, kind)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"kind": "painter"},
        {"kind": None},
        {"architecture": {"width": 8, "colour": 3}},
        {"architecture": None},
        {"architecture": {"channels": 1, "width": -8}},
        {"sde": None},
        {"sde": {"T": "x"}},
        {"sde": {"T": 20, "color": 1}},
        {"structure": None},
        {"structure": {}},
        {"prediction": "v"},
        {"network": None},
        {"network": {"stem.weight": 5}},
        {"network": {}},
    ],
)
def test_damaged_description(tmp_path, change):
    path = tmp_path / "ours.pt"
    content = read_checkpoint(write_ours(path, "structure", small("structure")))
    torch.save(content | change, path)
    refusal(path)
    torch.save({key: value for key, value in content.items() if key != next(iter(change))}, path)
    refusal(path)


# ---- files that are not what they should be -----------------------------------------------------------


class SideEffect:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_code_in_a_file_is_not_run(tmp_path):
    proof, path = tmp_path / "ran", tmp_path / "bad.pt"
    state = export_released(small("discriminator")) | {"extra": SideEffect(proof)}
    for write in (
        lambda: torch.save(state, path),
        lambda: torch.save(state, path, _use_new_zipfile_serialization=False),
        lambda: path.write_bytes(pickle.dumps(state)),
        lambda: path.write_bytes(pickle.dumps(SideEffect(proof), protocol=2)),
    ):
        write()
        message = refusal(path)
        assert "code or objects" in message or "not a checkpoint" in message
        assert not proof.exists()
    pickle.loads(path.read_bytes())  # the file is dangerous indeed
    assert proof.exists()


def test_code_is_named(tmp_path):
    torch.save({"weight": SideEffect(tmp_path / "ran")}, tmp_path / "bad.pt")
    assert "posix.mkdir" in refusal(tmp_path / "bad.pt") and "not loaded" in refusal(tmp_path / "bad.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file(tmp_path, zipped):
    path = tmp_path / "cut.pt"
    torch.save(export_released(small("structure")), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    sizes = [1, 2, 10, 60, 100, 1000, len(whole) // 2, len(whole) - 1000, len(whole) - 20] + list(range(120, 900, 41))
    for size in sizes:
        path.write_bytes(whole[:size])
        refusal(path)


def test_short_binary_junk(tmp_path):
    path = tmp_path / "junk.pt"
    for junk in (b"\x80\x02J", b"\x80\x02X\x01", b"\x80\x02", b"\x00" * 100, b"PK\x03\x04", bytes(range(256))):
        path.write_bytes(junk)
        refusal(path)


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "file.pt"
    path.write_text("these are not weights\n" * 50)
    assert "damaged" in refusal(path)
    path.write_bytes(b"")
    assert "truncated or damaged" in refusal(path)
    assert "is a folder" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "absent.pt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(2)], "holds a list"),
        (torch.zeros(2), "holds a Tensor"),
        ({}, "not of this method"),
        ({"state_dict": {"weight": torch.zeros(2)}}, "not of this method"),
        ({"weight": torch.zeros(2)}, "not of this method"),
        ({1: torch.zeros(2)}, "not of this method"),
        ({"init_conv.weight": torch.zeros(()), "downs.0.x": torch.zeros(2)}, "not of this method"),
        ({"init_conv.weight": torch.zeros(0, 2, 1, 1), "downs.0.0.x": torch.zeros(2)}, "not of this method"),
        ({"start_conv.weight": torch.zeros(())}, "not of this method"),
        ({"start_conv.weight": torch.zeros(8, 4, 1, 1)}, "missing"),
        ({"init_conv.weight": torch.zeros(8, 2, 7, 7), "downs.0.0.x": torch.zeros(2)}, "missing"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_other_contents(tmp_path, content, said):
    torch.save(content, tmp_path / "other.pt")
    assert said in refusal(tmp_path / "other.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    network = small("structure")
    with torch.no_grad():
        network.middle_block1.conv1.weight[0, 0, 0, 0] = value
    save_released(tmp_path / "released.pth", network)
    assert "not finite (in mid_block1.block1.proj.weight)" in refusal(tmp_path / "released.pth")
    assert "not finite (in middle_block1.conv1.weight)" in refusal(write_ours(tmp_path / "ours.pt", "structure", network))


def test_writing_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "kept.pt"
    write_checkpoint(path, {"a": torch.ones(3)})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        write_checkpoint(path, {"a": lambda: None})
    assert torch.equal(read_checkpoint(path)["a"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["kept.pt"]
    for impossible in (tmp_path / "absent" / "x.pt", path / "x.pt"):
        with pytest.raises(UserError, match="cannot be written"):
            write_checkpoint(impossible, {})


# ---- checkpoints and the test's configuration ---------------------------------------------------------


def expectations(sde=None, pair="gray2edge", **expected):
    checkpoints = CheckpointsConfig("texture.pt", "structure.pt", "discriminator.pt", **expected)
    return checkpoints, SDEConfig(**(sde or {"T": 20})), StructureConfig(pair)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("texture", {"sde": {"T": 30}}, "trained with T=20, the configuration has sde.T=30"),
        ("discriminator", {"sde": {"T": 30}}, "trained with T=20"),
        ("texture", {"sde": {"T": 20, "schedule": "linear"}}, "schedule=cosine"),
        ("texture", {"sde": {"T": 20, "max_sigma": 20.0}}, "max_sigma=30"),
        ("texture", {"sde": {"T": 20, "eps": 0.01}}, "eps=0.005"),
        ("structure", {"pair": "gray2gray"}, "structure.pair=gray2edge"),
        ("texture", {"width": 16}, "width 8, but checkpoints.width=16"),
        ("structure", {"depth": 3}, "depth 2, but checkpoints.depth=3"),
        ("discriminator", {"discriminator_width": 8}, "width 4, but checkpoints.discriminator_width=8"),
    ],
)
def test_checkpoints_must_fit_the_test(tmp_path, kind, options, said):
    loaded = load_network(write_ours(tmp_path / "ours.pt", kind, small(kind)), kind)
    require_fit(loaded, *expectations())
    require_fit(loaded, *expectations(width=8, depth=2, discriminator_width=4))
    with pytest.raises(UserError) as error:
        require_fit(loaded, *expectations(**options))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_released_files_fit_any_sde_but_not_any_width(tmp_path):
    save_released(tmp_path / "released.pth", small("structure"))
    loaded = load_network(tmp_path / "released.pth")
    require_fit(loaded, *expectations({"T": 400, "schedule": "linear"}, "edge2edge"))
    require_same_process(loaded, SDEConfig(T=400), StructureConfig("edge2edge"))
    with pytest.raises(UserError, match="checkpoints.width=64"):
        require_fit(loaded, *expectations(width=64))


def test_require_same_process(tmp_path):
    loaded = load_network(write_ours(tmp_path / "ours.pt", "structure", small("structure")))
    require_same_process(loaded, SDEConfig(T=20), StructureConfig())
    for sde, structure, said in [
        (SDEConfig(T=30), StructureConfig(), "set sde.T=20"),
        (SDEConfig(T=20, schedule="constant"), StructureConfig(), "set sde.schedule=cosine"),
        (SDEConfig(T=20), StructureConfig("edge2edge"), "set structure.pair=gray2edge"),
    ]:
        with pytest.raises(UserError, match=said):
            require_same_process(loaded, sde, structure)


# ---- the script ---------------------------------------------------------------------------------------


@pytest.fixture
def convert(monkeypatch, capsys):
    """convert(*arguments) runs scripts/convert_checkpoint.py; returns status, stdout and stderr."""
    spec = importlib.util.spec_from_file_location("convert_checkpoint", ROOT / "scripts" / "convert_checkpoint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["convert_checkpoint.py", *map(str, arguments)])
        status = module.main()
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", ["structure with attention", "texture", "discriminator"])
def test_script_converts_in_both_directions(tmp_path, convert, name):
    network = small(name)
    released, ours, back = tmp_path / "released.pth", tmp_path / "ours.pt", tmp_path / "back.pth"
    save_released(released, network)
    status, out, _ = convert(released, ours, "--T", 100)
    assert status == 0 and name.split()[0] in out
    loaded = load_network(ours)
    assert not loaded.released and loaded.sde["T"] == 100 and loaded.structure["pair"] == "gray2edge"
    assert torch.equal(evaluate(loaded.network), evaluate(network))
    assert convert(ours, back)[0] == 0
    one, two = read_checkpoint(released), read_checkpoint(back)
    assert list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)


def test_script_refusals(tmp_path, convert):
    network = small("structure")
    save_released(tmp_path / "released.pth", network)
    write_ours(tmp_path / "x0.pt", "structure", network, prediction="x0")
    for arguments, said in [
        ((tmp_path / "released.pth", tmp_path / "new.pt"), "--T 100"),
        ((tmp_path / "released.pth", tmp_path / "x0.pt", "--T", 100), "not overwritten"),
        ((tmp_path / "released.pth", tmp_path / "absent" / "new.pt", "--T", 100), "cannot be written"),
        ((tmp_path / "x0.pt", tmp_path / "new.pt"), "x0"),
        ((tmp_path / "absent.pt", tmp_path / "new.pt"), "does not exist"),
        ((tmp_path / "released.pth", tmp_path / "x0.pt" / "new.pt", "--T", 100), "cannot be written"),
    ]:
        status, _, err = convert(*arguments)
        assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not (tmp_path / "new.pt").exists()
    assert not (tmp_path / "absent").exists()


def test_script_takes_the_weights_asked_for(tmp_path, convert):
    raw, ema = small("discriminator", seed=1), small("discriminator", seed=2)
    path = write_ours(tmp_path / "both.pt", "discriminator", raw, ema)
    for weights, network in (("ema", ema), ("raw", raw)):
        convert(path, tmp_path / weights, "--weights", weights)
        assert torch.equal(evaluate(load_network(tmp_path / weights).network), evaluate(network))
