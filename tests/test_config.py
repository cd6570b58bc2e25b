"""YAML and overrides to a checked configuration, and what is said about each mistake."""

import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from strdiffusion.app.model import whole
from strdiffusion.config import (
    TrainDGTSConfig,
    TrainDiscriminatorConfig,
    TrainPriorConfig,
    TrainStructureConfig,
    TrainTextureConfig,
    TrainUpsamplerConfig,
    load_config,
    save_config,
    to_dict,
)
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.methods import METHODS
from strdiffusion.methods.baselines import OpenCVOptions
from strdiffusion.methods.irsde import IRSDEOptions
from strdiffusion.methods.strdiffusion import StrDiffusionOptions
from strdiffusion.system.device import require_precision
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build, parse_yaml

CONFIGS = Path(__file__).parents[1] / "configs"
TRAIN = "data: {images: photos}\noutput: run\n"
TEST = "data: {images: photos}\ncheckpoints: {texture: t.pt, structure: s.pt, discriminator: d.pt}\noutput: run\n"
CLASSES = {"structure": TrainStructureConfig, "texture": TrainTextureConfig, "discriminator": TrainDiscriminatorConfig}


@pytest.fixture
def load(tmp_path):
    """load(text, *overrides, cls=...) writes the text to a file and loads it."""

    def loader(text=TRAIN, *overrides, cls=TrainStructureConfig):
        path = tmp_path / "config.yml"
        path.write_text(text, encoding="utf-8")
        return load_config(cls, path, overrides)

    return loader


def refusal(load, *args, **options):
    """The message of the UserError, which is one line and not long."""
    with pytest.raises(UserError) as error:
        load(*args, **options)
    message = str(error.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_defaults_and_file_and_overrides(load):
    config = load(TRAIN + "training: {batch_size: 4, betas: [0.5, 0.9]}\n", "training.batch_size=8", "sde.T=400", "network.width=8")
    assert (config.training.batch_size, config.training.betas, config.sde.T, config.network.width) == (8, (0.5, 0.9), 400, 8)
    assert config.training.learning_rate == 1e-4 and config.data.images == "photos" and config.resume == "none"
    assert (config.sde.schedule, config.sde.max_sigma, config.sde.eps) == ("cosine", 30.0, 0.005)


def test_defaults_are_the_published_settings(load):
    training = load().training
    assert (training.batch_size, training.learning_rate, training.betas) == (16, 1e-4, (0.9, 0.99))
    discriminator = load(cls=TrainDiscriminatorConfig)
    assert (discriminator.network.width, discriminator.training.betas) == (64, (0.5, 0.99))
    network = load().network
    assert (network.width, network.depth, network.attention, network.prediction) == (64, 4, "none", "noise")
    assert vars(load(TEST, cls=TestConfig).options.sampler.released) == {"u_max": 25, "u_min": 4, "jump": 2, "re": 2, "accept": "lower"}


def test_overrides_create_nested_keys(load):
    config = load("output: run\n", "data.images=photos", "data.masks.folder=holes", "data.masks.hole_share=[0.2, 0.3]")
    assert (config.data.images, config.data.masks.folder, config.data.masks.hole_share) == ("photos", "holes", (0.2, 0.3))
    assert load(TRAIN + "training:\n", "training.batch_size=2").training.batch_size == 2
    assert load("", "data.images=photos", "output=run").output == "run"


def test_null_is_a_value_only_where_it_may_be(load):
    assert load(TRAIN, "data.index=null", "training.clip_gradient=null").data.index is None
    assert "training.batch_size" in refusal(load, TRAIN, "training.batch_size=null")
    assert "output" in refusal(load, TRAIN, "output=null")


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", "'1e-4'"])
def test_small_numbers_are_numbers(load, text):
    assert load(TRAIN + f"training: {{learning_rate: {text}}}\n").training.learning_rate == 1e-4
    value = load(TRAIN, f"training.learning_rate={text}").training.learning_rate
    assert value == 1e-4 and type(value) is float


def test_whole_numbers(load):
    value = load(TRAIN, "training.iterations=7e5").training.iterations
    assert value == 700_000 and type(value) is int
    value = load(TRAIN, "sde.max_sigma=30").sde.max_sigma
    assert value == 30 and type(value) is float


@pytest.mark.parametrize(
    ("text", "override", "key", "nearest"),
    [
        ("outptu: run\n", None, "outptu", "output"),
        ("", "sede.T=100", "sede", "sde"),
        ("network: {widht: 8}\n", None, "network.widht", "network.width"),
        ("", "training.batchsize=8", "training.batchsize", "training.batch_size"),
        ("", "data.masks.polarty=white_hole", "data.masks.polarty", "data.masks.polarity"),
        ("", "training.learning_rte=1", "training.learning_rte", "training.learning_rate"),
    ],
)
def test_unknown_key_names_the_nearest(load, text, override, key, nearest):
    message = refusal(load, TRAIN + text, *([override] if override else []))
    assert f"unknown key {key};" in message and f"did you mean {nearest}?" in message


def test_unknown_key_without_a_near_one_names_all(load):
    message = refusal(load, TRAIN, "sde.zzzzzz=1")
    assert all(name in message for name in ("sde.zzzzzz", "T", "schedule", "max_sigma", "eps"))
    assert "unknown key 7" in refusal(load, TRAIN + "7: x\n")


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("training.batch_size=many", "training.batch_size", "whole number"),
        ("training.batch_size=8.5", "training.batch_size", "whole number"),
        ("training.batch_size=true", "training.batch_size", "whole number"),
        ("training.learning_rate=fast", "training.learning_rate", "finite number"),
        ("training.learning_rate=true", "training.learning_rate", "finite number"),
        ("training.learning_rate=.nan", "training.learning_rate", "finite number"),
        ("training.learning_rate=.inf", "training.learning_rate", "finite number"),
        (f"training.learning_rate=1{330 * '0'}", "training.learning_rate", "finite number"),
        ("training.learning_rate=[1e-4]", "training.learning_rate", "finite number"),
        ("data.augment=1", "data.augment", "true or false"),
        ("data.augment=maybe", "data.augment", "true or false"),
        ("output=5", "output", "quotes"),
        ("output=2026-11-20", "output", "quotes"),
        ("output=2026-99-99", "output", "quotes"),
        ("data.images=[a, b]", "data.images", "text"),
        ("training.milestones=5", "training.milestones", "list"),
        ("training.milestones=[5, x]", "training.milestones[1]", "number"),
        ("sde=5", "sde", "keys and values"),
        ("sde=[1]", "sde", "keys and values"),
    ],
)
def test_wrong_type(load, override, key, expected):
    message = refusal(load, TRAIN, override)
    assert key in message and expected in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sde.T=1", "from 2"),
        ("sde.T=0", "from 2"),
        ("sde.eps=0.9", "0.5"),
        ("sde.max_sigma=0", "from 0.001 to 1000"),
        ("training.batch_size=0", "from 1 to 65536"),
        ("training.learning_rate=-1e-4", "above 0"),
        ("training.learning_rate=0", "above 0"),
        ("training.lr_decay=1.5", "1"),
        ("training.ema_decay=1", "0.99"),
        ("training.clip_gradient=0", "above 0"),
        ("data.workers=-1", "from 0 to 256"),
        ("data.size=4", "from 8 to 2048"),
        ("network.width=2", "from 4 to 4096"),
        ("network.depth=0", "from 1 to 8"),
        ("training.milestones=[10, 0]", "from 1 to 1000000000"),
        ("training.betas=[0.9, 1]", "from 0 to 0.999999"),
        ("seed=-1", "from 0"),
        ("seed=1180591620717411303424", "from 0"),
    ],
)
def test_ranges(load, override, expected):
    message = refusal(load, TRAIN, override)
    assert override.split("=")[0] in message and "must be" in message and expected in message


@pytest.mark.parametrize(
    "override", ["sde.T=2", "training.lr_decay=1", "training.ema_decay=0", "network.depth=8", "sde.max_sigma=0.1", "data.workers=0"]
)
def test_bounds_belong_to_the_range(load, override):
    load(TRAIN, override)


def test_choices_come_with_a_hint(load):
    message = refusal(load, TRAIN, "sde.schedule=cosin")
    assert "cosine, linear, constant" in message and "did you mean cosine?" in message
    message = refusal(load, TRAIN, "device=gpu")
    assert all(name in message for name in ("auto", "cuda", "mps", "cpu"))
    for override in ("structure.pair=[gray2edge]", "network.attention=true", "precision=null", "sde.schedule=1"):
        assert override.split("=")[0] in refusal(load, TRAIN, override)
    assert load(TRAIN, "network.attention=linear").network.attention == "linear"


def test_missing_required_keys(load):
    assert "output is missing" in refusal(load, "data: {images: photos}\n")
    assert "data.images is missing" in refusal(load, "output: run\n")
    assert "data.images is missing" in refusal(load, "data:\noutput: run\n")
    assert "checkpoints.texture is missing" in refusal(load, "data: {images: p}\noutput: run\n", cls=TestConfig)


def test_lengths(load):
    assert "must hold 2 values, not 3" in refusal(load, TRAIN, "training.betas=[0.1, 0.2, 0.3]")
    assert "must hold 2 values, not 1" in refusal(load, TRAIN, "data.masks.hole_share=[0.1]")
    assert load(TRAIN, "training.milestones=[]").training.milestones == []
    assert load(TRAIN, "training.milestones=[1, 2, 3]").training.milestones == [1, 2, 3]


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "\tx: 1", "a: 'open", "data: {images: 2026-99-99}", "x: !!int word"])
def test_invalid_yaml(load, text):
    assert "config.yml is not valid YAML" in refusal(load, text)


@pytest.mark.parametrize(
    "text, said",
    [
        ("data:\n  images: p\n   size: 64\n", "line 3, column 8: mapping values are not allowed here; indent this line as those beside it"),
        ("data:\n  images: p\n size: 64\n", "line 3, column 2: did not find expected|line 3, column 2: expected <block end>"),
        ("data:\n\timages: p\n", "line 2, column 1: a tab stands where .* indent with spaces"),
        ("a: 'open", "line 1, column 9: while scanning a quoted scalar"),
    ],
)
def test_invalid_yaml_is_told_by_its_line(load, text, said):
    assert re.search(f"config.yml is not valid YAML: ({said})", refusal(load, text))


def test_files_that_hold_no_keys(load, tmp_path):
    assert "must hold keys and values, not a list" in refusal(load, "- a\n- b\n")
    assert "must hold keys and values, not a str" in refusal(load, "just text\n")
    (tmp_path / "bytes.yml").write_bytes(b"\xff\xfe\x00\x81")
    for name, said in [
        ("absent.yml", "does not exist"),
        (".", "cannot be read, it is a folder: give a YAML file"),
        ("bytes.yml", "not valid YAML"),
    ]:
        with pytest.raises(UserError, match=said):
            load_config(TrainStructureConfig, tmp_path / name)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "deep.yml").touch()
    with pytest.raises(UserError, match="give a YAML file$"):  # no whole disk is searched for one
        load_config(TrainStructureConfig, tmp_path / "a")


def test_yaml_tags_run_nothing(load, tmp_path):
    proof = tmp_path / "ran"
    for tag in (f'!!python/object/apply:os.mkdir ["{proof}"]', f'!!python/object/new:os.mkdir ["{proof}"]', "!!python/name:os.system"):
        assert "not valid YAML" in refusal(load, f"data: {{images: p}}\noutput: {tag}\n")
        assert "not valid YAML" in refusal(load, TRAIN, f"output={tag}")
    assert not proof.exists()


@pytest.mark.parametrize("override", ["training.batch_size", "=8", "training.batch_size:8", ""])
def test_bad_form_of_override(load, override):
    assert "not of the form key=value" in refusal(load, TRAIN, override)


def test_override_through_a_value(load):
    assert "through output" in refusal(load, TRAIN, "output.name=x")
    assert "through T" in refusal(load, TRAIN + "sde: {T: 100}\n", "sde.T.x=1")
    assert "not valid YAML" in refusal(load, TRAIN, "training.betas=[0.9, 0.99")
    for override in (".=1", "training.=1", "training..batch_size=1"):
        assert "unknown key" in refusal(load, TRAIN, override)


def test_an_override_may_hold_an_equals_sign(load):
    assert load(TRAIN, "output=run=7").output == "run=7"


@pytest.mark.parametrize(
    ("cls", "override", "expected"),
    [
        (TrainStructureConfig, "data.masks.hole_share=[0.5, 0.2]", "data.masks.hole_share"),
        (TrainStructureConfig, "validation.masks.hole_share=[0, 0.2]", "validation.masks.hole_share"),
        (TrainStructureConfig, "data.crop_from=128", "data.crop_from"),
        (TrainStructureConfig, "training.warmup=700000", "training.warmup"),
        (TrainStructureConfig, "network.width=9", "network.width"),
        (TrainTextureConfig, "objective.guidance=denoised", "objective.structure_checkpoint"),
        (TrainTextureConfig, "objective.structure_checkpoint=s.pt", "objective.structure_checkpoint"),
        (TestConfig, "method=irsde", "but IR-SDE has none: set sampler.resampling=none"),
        (TestConfig, "checkpoints.structure=null", "checkpoints.structure is missing"),
        (TestConfig, "checkpoints.discriminator=null", "checkpoints.discriminator is missing"),
        (TestConfig, "data.ground_truth=false", "data.masks.folder is missing"),
        (TestConfig, ("sampler.resampling=repaint", "sampler.repaint.start=101"), "sampler.repaint"),
        (TestConfig, ("sampler.resampling=repaint", "sampler.repaint.stop=101"), "sampler.repaint"),
        (TestConfig, ("sampler.resampling=repaint", "sampler.steps=10"), "jump_length=10 steps (there are 7)"),
        (TestConfig, "sampler.steps=101", "sampler.steps must be from 2 to sde.T=100, not 101"),
    ],
)
def test_keys_that_do_not_go_together(load, cls, override, expected):
    overrides = (override,) if isinstance(override, str) else override
    assert expected in refusal(load, TEST if cls is TestConfig else TRAIN, *overrides, cls=cls)


def test_the_steps_of_a_sampler(load):
    assert load(TEST, cls=TestConfig).options.grid().times == tuple(range(101))  # as released
    assert load(TEST, "sampler.steps=4", "sampler.solver=mars_ode", cls=TestConfig).options.grid().times == (0, 25, 50, 75, 100)
    assert load(TEST, "sampler.steps=2", "sampler.spacing=log_snr", cls=TestConfig).options.grid().times == (0, 1, 100)
    load(TEST, "sampler.resampling=repaint", "sampler.steps=10", "sampler.repaint.jump_length=7", cls=TestConfig)
    assert "sampler.steps must be from 2 to 10000, not 1" in refusal(load, TEST, "sampler.steps=1", cls=TestConfig)
    assert "sampler.order must be one of 1, 2, not 3" in refusal(load, TEST, "sampler.order=3", cls=TestConfig)
    assert "sampler.solver must be one of ancestral, ode, posterior, mars_ode, mars_sde" in refusal(
        load, TEST, "sampler.solver=mars", cls=TestConfig
    )


@pytest.mark.parametrize("earlier", ["step", "method"])
def test_earlier_names_of_the_solver_are_accepted(load, earlier):
    """In a file and as an override, on a file with the other name too; the last that is given counts."""
    file = TEST + f"sampler: {{{earlier}: posterior, resampling: none}}\n"
    for text, overrides, solver in [
        (file, (), "posterior"),
        (file, ("sampler.solver=mars_ode",), "mars_ode"),
        (file, (f"sampler.{earlier}=mars_ode",), "mars_ode"),
        (file, ("sampler.solver=mars_ode", f"sampler.{earlier}=mars_sde"), "mars_sde"),
        (TEST, (f"sampler.{earlier}=mars_ode",), "mars_ode"),
        (TEST + "sampler: {solver: posterior}\n", (f"sampler.{earlier}=mars_ode",), "mars_ode"),
        (TEST + "sampler: {solver: posterior}\n", (f"sampler.{earlier}=mars_ode", "sampler.solver=mars_sde"), "mars_sde"),
    ]:
        assert load(text, *overrides, cls=TestConfig).options.sampler.solver == solver
    assert "sampler.solver must be one of" in refusal(load, TEST, f"sampler.{earlier}=mars", cls=TestConfig)


# ---- methods ------------------------------------------------------------------------------------------


def test_guidance_is_the_earlier_name_of_two_methods(load):
    """Files of earlier versions name no method."""
    unguided = TEST + "sampler: {guidance: false, resampling: none}\n"
    assert load(TEST, cls=TestConfig).method == "strdiffusion"
    assert load(TEST + "sampler: {guidance: true}\n", cls=TestConfig).method == "strdiffusion"
    for config in (
        load(unguided, cls=TestConfig),
        load(TEST, "sampler.guidance=false", "sampler.resampling=none", cls=TestConfig),
        load(unguided, "method=irsde", cls=TestConfig),
    ):
        assert config.method == "irsde" and type(config.options) is IRSDEOptions
    assert load(unguided, "sampler.guidance=true", cls=TestConfig).method == "strdiffusion"
    assert load(unguided, "method=telea", cls=TestConfig).method == "telea"
    for text, override in ((unguided, "method=strdiffusion"), (TEST + "method: strdiffusion\n", "sampler.guidance=false")):
        message = refusal(load, text, override, cls=TestConfig)
        assert "sampler.guidance=false" in message and "method=irsde" in message and "method=strdiffusion" in message
    message = refusal(load, TEST + "method: irsde\n", "sampler.guidance=true", "sampler.resampling=none", cls=TestConfig)
    assert "sampler.guidance=true" in message and "method=irsde" in message
    assert "sampler.guidance must be true or false, not" in refusal(load, TEST, "sampler.guidance=maybe", cls=TestConfig)


@pytest.mark.parametrize("given", ["photoshop", "null", "[telea]", "{a: b}", "3", "true"])
def test_an_unknown_method_is_one_line_that_names_them_all(load, given):
    message = refusal(load, TEST, f"method={given}", cls=TestConfig)
    assert "config.yml: method must be one of " in message and all(name in message for name in METHODS)
    assert "did you mean telea?" in refusal(load, TEST, "method=tela", cls=TestConfig)


@pytest.mark.parametrize(
    ("overrides", "key", "nearest"),
    [
        (("metod=telea",), "metod", "method"),
        (("raduis=3",), "raduis", "radius"),
        (("sampler.solvr=posterior",), "sampler.solvr", "sampler.solver"),
        (("method=telea", "batchsize=3"), "batchsize", "batch_size"),
        (("method=telea", "checkpoint.texture=x"), "checkpoint", "checkpoints"),
        (("method=irsde", "sampler.resampling=none", "checkpoints.textur=x"), "checkpoints.textur", "checkpoints.texture"),
    ],
)
def test_unknown_keys_of_a_test_name_the_nearest(load, overrides, key, nearest):
    message = refusal(load, TEST, *overrides, cls=TestConfig)
    assert f"unknown key {key};" in message and f"did you mean {nearest}?" in message


def test_options_are_not_a_key(load):
    assert "unknown key options" in refusal(load, TEST, "options={}", cls=TestConfig)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/test*.yml")), ids=lambda path: path.parent.name)
def test_a_method_without_networks_runs_on_any_file(path, tmp_path):
    """It needs no checkpoints, and its resolved configuration holds its own options alone."""
    config = load_config(TestConfig, path, ["method=telea", "radius=3"])
    assert type(config.options) is OpenCVOptions and config.options.radius == 3 and config.options.files() == []
    save_config(config, tmp_path / "config.yml")
    tree = yaml.safe_load((tmp_path / "config.yml").read_text())
    of_test = {"data", "output", "method", "overwrite", "seed", "device", "batch_size", "process", "sample", "crop_border"}
    assert set(tree) == of_test | {"radius"}
    assert load_config(TestConfig, tmp_path / "config.yml") == config
    assert load_config(TestConfig, path, ["method=mean_fill"]).as_tree().keys() == set(tree) - {"radius"}


def test_a_file_of_strdiffusion_has_its_options_at_the_top(load):
    config = load(TEST, "method=strdiffusion", "guide=denoised", cls=TestConfig)
    assert type(config.options) is StrDiffusionOptions
    tree = to_dict(config)
    assert tree["method"] == "strdiffusion" and tree["guide"] == "denoised" and tree["sampler"]["solver"] == "ancestral"
    assert "guidance" not in tree["sampler"] and "options" not in tree and "radius" not in tree


def test_real_holes_need_known_edges(load):
    real = ("data.ground_truth=false", "data.masks.folder=holes")
    assert "structure.edge_source=known" in refusal(load, TEST, *real, "structure.edge_source=full", cls=TestConfig)
    load(TEST, *real, "structure.edge_source=known", cls=TestConfig)


def config_class(path: Path):
    """The class for a name such as structure.yml or test_T400.yml, or None."""
    kind = path.stem.split("_")[0]
    if path.parent.name == "tables":
        return None
    if path.parent.name == "dgts" and kind not in ("test", "upsampler"):  # named after the data
        return TrainDGTSConfig
    tests = dict.fromkeys(("test", "repaint", "face", "intelligent"), TestConfig)
    return (tests | {"prior": TrainPriorConfig, "dgts": TrainDGTSConfig, "upsampler": TrainUpsamplerConfig} | CLASSES).get(kind)


FILES = [path for path in sorted(CONFIGS.glob("**/*.yml")) if config_class(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_configuration_of_the_project_loads_and_survives_saving(path, tmp_path):
    cls = config_class(path)
    required = [f"{key}=x" for key in ("data.images", "output") if _lacks(path, key)]  # a file may leave its paths to the user
    if cls is TestConfig and all(_lacks(path, f"checkpoints.{key}") for key in ("folder", "prior", "dgts")):
        required += [f"checkpoints.{k}=x" for k in CLASSES if _lacks(path, f"checkpoints.{k}")]
    config = load_config(cls, path, required)
    save_config(config, tmp_path / "resolved.yml")
    again = load_config(cls, tmp_path / "resolved.yml")
    assert again == config and asdict(again) == asdict(config)
    assert yaml.safe_load((tmp_path / "resolved.yml").read_text()) == to_dict(config)


def _lacks(path: Path, key: str) -> bool:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for part in key.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return True
        tree = tree[part]
    return False


def test_the_demo_is_among_them():
    assert {path.stem for path in FILES if path.parent.name == "demo"} >= {"structure", "texture", "discriminator", "test"}


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda folder: folder.name)
def test_configurations_of_one_folder_agree(folder):
    """What is trained with one SDE and structure pair is tested with them (test_X.yml with structure_X.yml, ...)."""
    for test in folder.glob("test*.yml"):
        suffix = test.stem.removeprefix("test")
        trees = [yaml.safe_load(test.read_text())]
        trees += [yaml.safe_load(path.read_text()) for kind in CLASSES if (path := folder / f"{kind}{suffix}.yml").exists()]
        sdes = [build(SDEConfig, tree.get("sde"), str(test)) for tree in trees]
        pairs = [build(StructureConfig, tree.get("structure"), str(test)).pair for tree in trees]
        assert all(sde == sdes[0] for sde in sdes) and len(set(pairs)) == 1


def test_saved_values_keep_their_types(load, tmp_path):
    config = load(TRAIN, "training.learning_rate=1e-5", "output='007'", "data.images='yes'", "training.betas=[0, 0.5]", "data.index=null")
    save_config(config, tmp_path / "saved.yml")
    again = load_config(TrainStructureConfig, tmp_path / "saved.yml")
    assert again == config and again.output == "007" and again.data.images == "yes" and again.training.learning_rate == 1e-5
    assert isinstance(again.training.betas, tuple)


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: 2\na: 3\n", "a is given twice, in lines 1 and 3"), ("a: {b: 1, b: 1}\n", "b is given twice, in lines 1 and 1")],
)
def test_a_key_that_is_given_twice_is_refused(text, line):
    with pytest.raises(ValueError, match=line):
        parse_yaml(text)


def test_a_key_may_stand_in_several_places():
    assert parse_yaml("a: &x {k: 1}\nb: *x\nc: {<<: *x, k: 2}\nd: [{k: 1}, {k: 2}]\n")["c"] == {"k": 2}


def test_tf32_is_of_gpus_alone():
    for name in ("tf32", "fp16"):
        with pytest.raises(UserError, match=f"precision={name}"):
            require_precision(name, torch.device("cpu"))
    require_precision("tf32", torch.device("cuda"))


@pytest.mark.parametrize("seed", ["abc", 1.5, None, "7"])
def test_a_seed_is_a_whole_number(seed):
    assert whole(np.int64(7)) == 7
    with pytest.raises(UserError, match="seed must be a whole number"):
        whole(seed)
