"""The seam between methods and the rest: a method of ten lines does everywhere, and no method sees what is in a hole."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import SIZE, T, script, single_error

import strdiffusion
from strdiffusion import figures
from strdiffusion.batch import Known
from strdiffusion.commands.main import main
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.data import collate, read_image
from strdiffusion.data.images import opencv, write_image
from strdiffusion.evaluation.folder import look_at, test_dataset
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.methods import METHODS, Method, Options, Result, Step, method_class, register, run
from strdiffusion.methods.dgts_loading import DGTSCheckpoints, FillingOptions
from strdiffusion.methods.loading import CheckpointsConfig
from strdiffusion.methods.prior_loading import PriorCheckpointsConfig
from strdiffusion.methods.strdiffusion import StrDiffusionOptions
from strdiffusion.samplers import Paper, Released, Repaint, SamplerConfig
from strdiffusion.samplers.prior import RepaintConfig
from strdiffusion.system.files import Together
from strdiffusion.system.parser import build, load_config

MARKER = 188  # a level that nothing else in the pictures has
WHITE = 255


@pytest.fixture
def gray():
    """A method of ten lines, as somebody else may write it."""

    @register("gray")
    class Gray(Method):
        """Fills holes with gray, in two steps."""

        def inpaint(self, known, seeds, **_):
            for t in (2, 1):
                yield Step(t, t - 1, 2, t, 2, known.put_back(torch.full_like(known.image, 0.5 / t)))
            yield Result(known.put_back(torch.full_like(known.image, 0.5)), evaluations=[{"brush": 2}] * len(seeds))

    yield Gray
    del METHODS["gray"]


@pytest.fixture
def test_yml(tmp_path, photos, weights):
    """A test configuration of StrDiffusion, with all of its options."""
    path = tmp_path / "test.yml"
    path.write_text(
        f"output: {tmp_path / 'out'}\ndevice: cpu\nsde: {{T: {T}}}\nstructure: {{edge_source: known, edge_sigma: 1}}\n"
        f"checkpoints: {{texture: {weights}/texture.pt, structure: {weights}/structure.pt, discriminator: {weights}/discriminator.pt}}\n"
        f"data: {{images: {photos}, masks: {{folder: {photos.parent / 'masks'}}}, size: {SIZE}, index: null}}\n"
        "sampler: {resampling: none}\n"
    )
    return path


def test_a_method_of_ten_lines_is_tested_judged_tabled_and_drawn(gray, test_yml, tmp_path, monkeypatch, capsys, photos):
    out, masks = tmp_path / "out", photos.parent / "masks"
    # test: it takes the configuration of another method, whose options it leaves aside
    assert main(["test", "-opt", str(test_yml), "method=gray", "process=1"]) == 0
    rows = list(csv.DictReader(open(out / "results.csv")))
    assert [row["brush_evaluations"] for row in rows] == ["2"] * 3 and "shown" not in rows[0] and float(rows[0]["psnr"]) > 5
    assert "evaluations B" in capsys.readouterr().out
    assert yaml.safe_load((out / "config.yml").read_text()).keys().isdisjoint({"sampler", "sde", "checkpoints", "structure"})
    image, hole = read_image(out / "inpainted" / "a.png"), read_image(masks / "a.png")[..., 0] > 0.5
    np.testing.assert_allclose(image[hole], 0.5, atol=0.5 / 255)
    np.testing.assert_array_equal(image[~hole], read_image(photos / "a.png")[~hole])
    assert sorted(path.name for path in (out / "process" / "a").iterdir()) == ["t0001.png", "t0002.png"]
    # evaluate
    judged = [f"outputs={out / 'inpainted'}", f"csv={out / 'results.csv'}", f"output={tmp_path / 'judged'}", "metrics=[psnr]"]
    assert main(["evaluate", *judged]) == 0
    assert f"{np.mean([float(row['hole_psnr']) for row in rows]):.2f} [" in (tmp_path / "judged" / "table.md").read_text()
    # a table, beside another method
    (tmp_path / "table.yml").write_text(
        f"title: Gray\nbase: {test_yml}\noutput: {tmp_path / 'table'}\nmetrics: [hole_psnr, brush_evaluations, texture_evaluations]\n"
        "buckets: [{name: all, options: []}]\nrows: [{label: gray, method: gray}, {label: Telea, baseline: telea}, {label: ours}]\n"
    )
    assert main(["reproduce", str(tmp_path / "table.yml")]) == 0
    table = list(csv.DictReader(open(tmp_path / "table" / "table.csv")))
    cost = {(row["row"], row["metric"]): row["mean"] for row in table if row["metric"].endswith("_evaluations")}
    assert (
        cost["gray", "brush_evaluations"] == "2"
        and cost["ours", "texture_evaluations"] == str(T)
        and cost["Telea", "brush_evaluations"] == "0"
    )
    assert main(["reproduce", str(tmp_path / "table.yml")]) == 0  # nothing is done again
    # figures: of results, and of its states
    column = figures.open_column("gray", out)
    with Together() as files:
        figures.save_figure(figures.grid_figure([column], ["a", "b"]), figures.figure_files(tmp_path / "grid"), files)
    config = build(figures.FiguresConfig, {"methods": [{"label": "gray", "opt": str(test_yml), "options": ["method=gray"]}]}, "here")
    (process,) = figures.record_process(config)
    assert process.texture and not process.structure
    with Together() as files:
        figures.save_figure(figures.process_figure([process]), figures.figure_files(tmp_path / "process"), files)
    # a photograph of any size
    arguments = [str(photos / "a.png"), str(masks / "a.png"), "-o", str(tmp_path / "a.png")]
    assert main(["inpaint", *arguments, "--method", "gray"]) == 0
    # the curves of its steps
    (curve,) = figures.measure_discrepancy(config)
    assert curve.t.tolist() == [1, 0]
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[hole], 0.5, atol=0.5 / 255)
    assert "gray has no --steps" in single_error(
        (main(["inpaint", *arguments, "--method", "gray", "--steps", "3", "--overwrite"]), *capsys.readouterr())
    )


def test_an_unknown_method_is_one_line(test_yml, capsys):
    line = single_error((main(["test", "-opt", str(test_yml), "method=telia"]), *capsys.readouterr()))
    assert all(name in line for name in METHODS) and "'telia'" in line


# ---- the truth stays outside --------------------------------------------------------------------------

SAMPLERS = {
    "none": SamplerConfig(resampling="none"),
    "released": SamplerConfig(resampling="released", released=Released(3, 1, 2, 1)),
    "paper": SamplerConfig(resampling="paper", paper=Paper(threshold=1e9, u_max=2)),
    "fixed": SamplerConfig(resampling="fixed"),
    "repaint": SamplerConfig(resampling="repaint", repaint=Repaint(2, 2)),
    "mars": SamplerConfig(resampling="none", solver="mars_sde", steps=4),
}


def options_of(name, weights, **more):
    """Options of a registered method with the small networks."""
    cls = METHODS[name].Options
    if name == "dgts":
        return cls(DGTSCheckpoints(None, f"{weights}/dgts.pt", f"{weights}/upsampler.pt"), **more)
    if name == "repaint":
        return cls(PriorCheckpointsConfig(prior=f"{weights}/prior.pt"), repaint=RepaintConfig(2, 2, steps=5))
    if not hasattr(cls, "guided"):
        return cls()
    texture = "texture.pt" if cls.guided else "joint.pt" if cls.joint else "unguided.pt"
    files = CheckpointsConfig(None, f"{weights}/{texture}", f"{weights}/structure.pt", f"{weights}/discriminator.pt")
    structure = more.pop("structure", StructureConfig(edge_source="known", edge_sigma=1))
    return cls(files, sde=SDEConfig(T=T), structure=structure, **more)


def every_method(weights):
    for name in METHODS:
        options = METHODS[name].Options
        if name == "dgts":
            for order in ("raster", "known", "confidence"):
                yield f"dgts {order}", name, options_of(name, weights, dgts=FillingOptions(order))
            yield "dgts released", name, options_of(name, weights, dgts=FillingOptions(released=True))
            continue
        samplers = SAMPLERS if hasattr(options, "guided") else {"": None}
        for label, sampler in samplers.items():
            if sampler is None or options.guided or label in (("none", "mars") if options.joint else ("none", "repaint", "mars")):
                yield f"{name} {label}", name, options_of(name, weights, **({} if sampler is None else {"sampler": sampler}))
    for pair in ("gray2gray", "edge2edge", "edge2gray"):
        structure = StructureConfig(pair, "known", 1)
        yield pair, "strdiffusion", options_of("strdiffusion", weights, sampler=SAMPLERS["none"], structure=structure)


def plant(folder, masks, level):
    """Put one level into every hole of the photographs."""
    import cv2

    for path in folder.iterdir():
        pixels, mask = cv2.imread(str(path)), cv2.imread(str(masks / path.name), 0)
        pixels[pixels == MARKER] += 1
        pixels[mask > 127] = level
        cv2.imwrite(str(path), pixels)


def arrays_in(value):
    """Every array and tensor that can be reached from a value."""
    if isinstance(value, torch.Tensor):
        yield value.numpy()
    elif isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Known):
        yield from arrays_in(vars(value))
    elif isinstance(value, dict):
        yield from (array for part in value.values() for array in arrays_in(part))
    elif isinstance(value, list | tuple):
        yield from (array for part in value for array in arrays_in(part))
    else:
        assert value is None or isinstance(value, int | float | str), f"a method was given a {type(value).__name__}"


def result_of(config, name, options, spy):
    """The first image inpainted; `spy` gets all that the method was given."""
    config.method, config.options = name, options
    method = method_class(name).open(options, torch.device("cpu"))
    look, inpaint = method.look, method.inpaint

    def spied_look(*given):
        spy.extend(arrays_in(given))
        return look(*given)

    def spied_inpaint(*given, **more):
        spy.extend(arrays_in((given, more)))
        return inpaint(*given, **more)

    method.look, method.inpaint = spied_look, spied_inpaint
    items = [look_at(test_dataset(config), i, method) for i in range(3)]
    return run(method, collate(items), [1, 2, 3])


def test_a_marker_in_every_hole_is_seen_by_no_method(test_yml, photos, weights, monkeypatch):
    monkeypatch.setattr("strdiffusion.methods.loading.require_same_process", lambda *_: None)  # weights of one pair do for all
    config = load_config(TestConfig, test_yml)
    names = set()
    for label, name, options in every_method(weights):
        names.add(name)
        if name == "shift_map" and not hasattr(opencv(), "xphoto"):
            continue
        results = []
        for level in (MARKER, WHITE):
            plant(photos, photos.parent / "masks", level)
            given: list[np.ndarray] = []
            results.append((result_of(config, name, options, given), given))
        (one, shown), (two, shown_two) = results
        assert len(shown) >= 4 and not any((np.abs(array - MARKER / 255) < 1e-6).any() for array in shown), label
        assert all(np.array_equal(a, b) for a, b in zip(shown, shown_two, strict=True)), label
        assert torch.equal(one.image, two.image) and one.shown == two.shown == (), label
        for kind in one.pictures:
            assert torch.equal(one.pictures[kind], two.pictures[kind]), label
    assert names == set(METHODS)


@pytest.mark.parametrize("asked", ["structure.edge_source=full", "guide=ground_truth", "guide=other_image"])
def test_what_a_door_shows_is_recorded(test_yml, photos, weights, tmp_path, asked):
    """The test above would see it; and so does whoever reads the results."""
    config = load_config(TestConfig, test_yml, [asked])
    plant(photos, photos.parent / "masks", MARKER)
    given: list[np.ndarray] = []
    result = result_of(config, "strdiffusion", config.options, given)
    door = "other_image" if asked == "guide=other_image" else "truth"
    assert any((np.abs(array - MARKER / 255) < 1e-6).any() for array in given) and result.shown == (f"{door} ({asked})",)
    assert main(["test", "-opt", str(test_yml), asked, f"output={tmp_path / 'shown'}"]) == 0
    assert [row["shown"] for row in csv.DictReader(open(tmp_path / "shown" / "results.csv"))] == [f"{door} ({asked})"] * 3


def test_known_cuts_the_hole_out():
    image = torch.rand(2, 3, 4, 4)
    image[:, :, :2] = torch.nan
    mask = torch.ones(2, 1, 4, 4)
    mask[:, :, :2] = 0
    known = Known(image, mask)
    assert not known.image[:, :, :2].any() and torch.equal(known.image[:, :, 2:], image[:, :, 2:])
    assert known.take([1]).put_back(torch.full((1, 3, 4, 4), 0.5))[:, :, :2].unique().tolist() == [0.5]


def test_options_of_doors_need_a_truth(test_yml, capsys, photos):
    for asked in ("structure.edge_source=full", "guide=other_image"):
        line = single_error((main(["test", "-opt", str(test_yml), asked, "data.ground_truth=false"]), *capsys.readouterr()))
        assert f"{asked} needs the truth" in line


def test_photographs_open_no_door(test_yml, tmp_path, photos):
    """Even for a method whose options always ask for one."""

    class Curious(Options):
        @property
        def doors(self):
            return {"truth": "always"}

    class Peek(Method):
        Options = Curious

        def look(self, image, known, shown):
            assert not shown
            return {}

        def inpaint(self, known, seeds, **_):
            yield Result(known.put_back(torch.full_like(known.image, 0.5)))

    register("peek")(Peek)
    try:
        arguments = ["inpaint", str(photos / "a.png"), str(photos.parent / "masks" / "a.png"), "-o"]
        assert main([*arguments, str(tmp_path / "1.png"), "--method", "peek"]) == 0
        (tmp_path / "peek.yml").write_text(test_yml.read_text() + "method: peek\n")
        assert main([*arguments, str(tmp_path / "2.png"), "--model", str(tmp_path / "peek.yml")]) == 0
    finally:
        del METHODS["peek"]


def test_the_method_in_the_documents_works_as_written(tmp_path):
    """docs/methods.md says: save it in the package, and add its name to the imports."""
    package, name = tmp_path / "strdiffusion", Path(strdiffusion.__file__).parent
    shutil.copytree(name, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (name.parent / "docs" / "methods.md").read_text().split("```python\n")[1].split("```")[0]
    (package / "methods" / "heat.py").write_text(code)
    imports = package / "methods" / "__init__.py"
    imports.write_text(imports.read_text().replace("import baselines, dgts", "import baselines, heat, dgts"))
    for file, level in (("image.png", 200), ("mask.png", 0)):
        pixels = np.full((16, 16, 3), level / 255, np.float32)
        pixels[4:8, 4:8] = 1  # the hole
        write_image(tmp_path / file, pixels)
    command = [sys.executable, "-m", "strdiffusion", "inpaint", "image.png", "mask.png", "-o", "out.png", "--method", "heat"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(read_image(tmp_path / "out.png"), 200 / 255, atol=1.1 / 255)


def test_default_options_open_the_released_door_alone():
    assert StrDiffusionOptions(CheckpointsConfig()).doors == {"truth": "structure.edge_source=full"}
    assert all(not cls.Options().doors for name, cls in METHODS.items() if not hasattr(cls.Options, "guided"))


def test_every_method_says_what_it_is():
    for name, cls in METHODS.items():
        assert cls.name == name and cls.__doc__ and json.dumps(sorted(vars(build(cls.Options, {}, "here")), key=str))


def test_the_script_takes_a_method_too(test_yml, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["test.py", "-opt", str(test_yml), "method=navier_stokes"])
    assert script("test").main() == 0 and "hole PSNR" in capsys.readouterr().out
