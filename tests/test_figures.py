"""scripts/figures.py: what each figure shows, checked against its data, and one line for each mistake."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import script
from matplotlib.colors import to_hex
from skimage.metrics import peak_signal_noise_ratio

from strdiffusion import figures
from strdiffusion.checkpoints import network_record, write_checkpoint
from strdiffusion.config import load_config
from strdiffusion.data import TestDataset, collate, gray_map
from strdiffusion.evaluation.folder import image_seed, look_at, open_method
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.table import read_rows
from strdiffusion.figures.grid import choose_images, disagreements, fit_of, grid_figure
from strdiffusion.figures.histogram import count_buckets
from strdiffusion.figures.methods import DiscrepancyConfig, chosen_item, load_entries
from strdiffusion.figures.process import chosen_times
from strdiffusion.figures.states import visit_states
from strdiffusion.figures.style import COLOURS, fit_text, text_width
from strdiffusion.methods import run
from strdiffusion.networks import CorrelationDiscriminator, UNet
from strdiffusion.samplers import SeededNoise
from strdiffusion.samplers.grid import early_end
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError

ROOT = Path(__file__).parents[1]
SIZE, T = 16, 6
SAMPLERS = {  # overrides of the test configuration
    "released": ["sampler.resampling=released"],
    "paper": ["sampler.resampling=paper", "sampler.paper.threshold=1000", "sampler.paper.u_max=1"],
    "plain": ["sampler.resampling=none"],
    "repaint": ["sampler.resampling=repaint", "sampler.repaint.jump_length=1", "sampler.repaint.resamplings=2"],
    "few steps": ["sampler.solver=mars_ode", "sampler.steps=4"],  # 6, 5, 3, 2, 0
    "true guide": ["sampler.resampling=none", "guide=ground_truth"],
    "IR-SDE": ["sampler.resampling=none", "method=irsde", "checkpoints.texture={folder}/unguided.pt"],
    "telea": ["method=telea"],
}
DIFFUSION = [name for name in SAMPLERS if name != "telea"]


def write_network(path, kind, network):
    structure = {"pair": "gray2edge", "edge_source": "known", "edge_sigma": 1.0}
    record = network_record(kind, network, MeanRevertingSDE(T=T), structure)
    write_checkpoint(path, record | {"step": 0, "network": network.state_dict(), "ema": None})


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs a, b, c with masks, random networks, test.yml, and `results`, which scripts/test.py made of them."""
    folder = tmp_path_factory.mktemp("figures")
    torch.manual_seed(0)
    write_network(folder / "texture.pt", "texture", UNet(3, 4, 1, guided=True))
    write_network(folder / "unguided.pt", "texture", UNet(3, 4, 1))
    write_network(folder / "structure.pt", "structure", UNet(1, 4, 1))
    write_network(folder / "discriminator.pt", "discriminator", CorrelationDiscriminator(4))
    rng = np.random.default_rng(0)
    masks = np.zeros((3, SIZE, SIZE), np.uint8)
    masks[0, 4:12, 4:12] = masks[1, 6:10] = masks[2, :8, :8] = 255
    for name, mask in zip("abc", masks, strict=True):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        save(folder / "photos" / f"{name}.png", cv2.resize(coarse, (2 * SIZE, 2 * SIZE), interpolation=cv2.INTER_CUBIC))
        save(folder / "masks" / f"{name}.png", mask)
    (folder / "test.yml").write_text(
        f"output: {folder}/results\ndevice: cpu\nsde: {{T: {T}}}\nstructure: {{edge_source: known, edge_sigma: 1}}\nbatch_size: 2\n"
        f"checkpoints: {{texture: {folder}/texture.pt, structure: {folder}/structure.pt, discriminator: {folder}/discriminator.pt}}\n"
        f"data: {{images: {folder}/photos, masks: {{folder: {folder}/masks}}, size: {SIZE}, index: null}}\n"
        "sampler: {released: {u_max: 3, u_min: 2, jump: 2, re: 1}}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["test.py", "-opt", str(folder / "test.yml")])
        assert script("test").main() == 0
    return folder


@pytest.fixture
def methods(folder, tmp_path):
    """methods(name, ...) writes a YAML that compares these samplers; returns its path."""

    def write(*names, **more):
        entries = [
            {"label": name, "opt": str(folder / "test.yml"), "options": [text.format(folder=folder) for text in SAMPLERS[name]]}
            for name in names
        ]
        (tmp_path / "figures.yml").write_text(json.dumps({"methods": entries, **more}))
        return tmp_path / "figures.yml"

    return write


@pytest.fixture
def command(monkeypatch, capsys, caplog):
    """command(*arguments) runs scripts/figures.py; returns status and what it wrote to stderr and the log."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["figures.py", *map(str, arguments)])
        caplog.clear()
        status = script("figures").main()
        return status, capsys.readouterr().err, caplog.messages

    return run


def refusal(result):
    """The one line of a run that failed."""
    status, err, _ = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(lines) == 1 and err.endswith(lines[0] + "\n") and "Traceback" not in err, err
    return lines[0]


def require_figure(stem):
    """Both files are there and are what their names say; the PDF has its fonts in it, and no date."""
    png = cv2.imread(f"{stem}.png")
    pdf = Path(f"{stem}.pdf").read_bytes()
    assert png is not None and png.min() < 128 and pdf.startswith(b"%PDF") and b"/FontFile2" in pdf
    assert b"CreationDate" not in pdf
    return png.shape


def load(path, *overrides):
    return load_config(figures.FiguresConfig, path, overrides)


def texts(figure):
    return [text.get_text() for text in figure.texts] + [text.get_text() for axes in figure.axes for text in axes.texts]


# ---- states -------------------------------------------------------------------------------------------


def opened(config, image):
    """The first method of a figure, and what it is given of an image: entry, method, items, known, seeds."""
    entry = load_entries(config)[0]
    method = entry.open()
    item = chosen_item(entry, method, image)
    return entry, method, item, collate([item]), [image_seed(entry.config, item)]


@pytest.mark.parametrize("name", DIFFUSION)
def test_states_belong_to_their_t(methods, name):
    """From T to 0, beginning with the sampler's own start, and ending with what it returns."""
    entry, method, item, known, seeds = opened(load(methods(name)), "b")
    visited, following, calls = [], [], []

    def visit(state, after):
        visited.append(state)
        following.append(after)

    result = visit_states(entry, method, [item], visit)
    states = {state.to: state for state in visited}  # of several visits the last
    grid = entry.config.options.grid()
    assert sorted(states) == list(grid.times)
    draw = SeededNoise(seeds)([0], known.image)
    assert visited[0].to == T and torch.equal(visited[0].image, known.image + method.sde.lambda_ * draw)
    pasted = torch.where(known.mask > 0.5, item.texture, states[0].image)
    assert torch.equal(result.image, pasted)
    alone = run(method, known, seeds, calls.append)
    assert torch.equal(alone.image, result.image)  # looking on changes nothing
    # every step ends where the next one begins
    assert [step.to for step in calls] == [state.to for state in visited] and calls[0].t == T
    assert [step.t for step in calls[1:]] == [state.to for state in visited[:-1]]
    assert all(torch.equal(step.image, state.image) for step, state in zip(calls, visited, strict=True))
    assert [after.to for after in following[:-1]] == [state.to for state in visited[1:]] and following[-1] is None
    guided = name != "IR-SDE"
    ended = grid[grid.early_end - 1]  # the structure's last state
    networks = method.predictors(known)
    for state, after in zip(visited, following, strict=True):
        assert ("structure" in state.pictures) == (guided and state.to >= ended)
        if state.to == 0:
            assert method.predict(known, state, after) is state
        elif after.to < state.to:
            guide = state.image.mean(dim=1, keepdim=True) if guided else None
            if guided and state.to > ended:
                guide = after.guide
            with torch.inference_mode():
                expected = networks.texture.x0(state.image, known.image, state.to, guide)
            assert torch.equal(method.predict(known, state, after).image, expected)


def test_estimates_are_what_the_networks_predict(methods):
    entry, method, item, known, _ = opened(load(methods("plain")), None)
    states = {}
    visit_states(entry, method, [item], lambda state, after: states.update({state.to: (state, after)}))
    state, after = states[4]
    predicted = method.predict(known, state, after)
    with torch.inference_mode():
        network = method.model.networks.texture.for_inference("fp32", False)
        noise = network(state.image, known.image, 4, after.guide)
        expected = method.sde.predict_x0(state.image, known.image, noise, 4)
    assert torch.allclose(predicted.image, expected) and predicted.pictures["structure"].shape == known.mask.shape
    assert "structure" not in method.predict(known, *states[1]).pictures or early_end(T) - 1 <= 1
    assert method.predict(known, *states[0]).image is states[0][0].image


# ---- discrepancy --------------------------------------------------------------------------------------


def plain_dataset(folder):
    """The images of test.yml, opened by hand."""
    return TestDataset(
        images=folder / "photos",
        masks=folder / "masks",
        pairing="name",
        polarity="white_hole",
        seed=0,
        size=SIZE,
        fit="resize",
        hole_share=(0.1, 0.5),
    )


def test_discrepancy_curves_are_psnr(folder, methods):
    """Against scikit-image, on the states of a run without resampling that this test makes itself."""
    config = load(methods("plain", "IR-SDE"), "discrepancy.images=2")
    curves = figures.measure_discrepancy(config)
    assert [curve.label for curve in curves] == ["plain", "IR-SDE"] and all(curve.images == 2 for curve in curves)
    config = load_config(TestConfig, folder / "test.yml", ["sampler.resampling=none"])
    method = open_method(config)
    expected = np.zeros((T, 2))
    for item in (look_at(plain_dataset(folder), i, method) for i in range(2)):
        steps = []
        run(method, collate([item]), [image_seed(config, item)], steps.append)
        truth, hole = item.texture.numpy(), np.broadcast_to(item.mask.numpy() < 0.5, item.texture.shape)
        for step in steps[1:]:
            state = step.image[0].numpy()
            expected[step.to] += [peak_signal_noise_ratio(truth[region], state[region], data_range=1) / 2 for region in (~hole, hole)]
    assert curves[0].t.tolist() == list(range(T, -1, -1))
    assert np.abs(curves[0].known[1:] - expected[::-1, 0]).max() < 1e-4 and np.abs(curves[0].hole[1:] - expected[::-1, 1]).max() < 1e-4
    # at T the known region is the truth plus noise of lambda, the hole black plus that noise
    assert abs(curves[0].known[0] + 20 * np.log10(30 / 255)) < 1 and curves[0].hole[0] < curves[0].known[0]


def test_discrepancy_figure(methods):
    t = np.arange(3, -1, -1)
    known, hole = np.array([18.0, 22.0, 30.0, np.inf]), np.array([8.0, 9.0, 12.0, 15.0])
    curves = [figures.Discrepancy("one", t, known, hole, 4), figures.Discrepancy("two $x$", t, hole + 1, hole, 4)]
    figure = figures.discrepancy_figure(curves, DiscrepancyConfig())
    one, two, below = figure.axes
    assert all(len(axes.lines) == 2 and len(axes.collections) == 1 for axes in (one, two)) and len(below.lines) == 2 + 1
    assert np.array_equal(one.lines[0].get_ydata()[:3], known[:3]) and np.isnan(one.lines[0].get_ydata()[3])
    assert np.array_equal(two.lines[1].get_ydata(), hole) and np.array_equal(below.lines[1].get_ydata(), np.ones(4))
    assert [to_hex(line.get_color()) for line in below.lines[:2]] == [colour.lower() for colour in COLOURS[:2]]
    for axes in figure.axes:
        assert axes.get_xlim()[0] > axes.get_xlim()[1] and "t" in axes.get_xlabel()
    assert "dB" in one.get_ylabel() and "dB" in below.get_ylabel() and one.get_ylim() == two.get_ylim()
    assert [one.get_title(), two.get_title()] == ["one", "two $x$"] == [text.get_text() for text in below.get_legend().get_texts()]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["known region", "hole region", "gap"]
    title = figure.legends[0].get_title().get_text()
    assert "texture state" in title and "4 images" in title


def test_discrepancy_command(command, methods, tmp_path):
    out = tmp_path / "new" / "discrepancy"
    status, _, messages = command("discrepancy", "--out", out, "-opt", methods("released", "repaint"), "discrepancy.images=1")
    assert status == 0
    _, width, _ = require_figure(out)
    assert abs(width - 8.5 / 2.54 * 200) < 2  # its width on paper
    assert any("repaint: the known region is exact at t = 0" in message for message in messages)
    structure = figures.measure_discrepancy(load(methods("plain"), "discrepancy.network=structure", "discrepancy.of=estimate"))[0]
    assert structure.t.tolist() == list(range(T, early_end(T) - 2, -1)) and np.isfinite(structure.hole).all() and structure.images == 3


def test_structure_that_guides_against_the_denoised_one(methods):
    """Both start from the same noise; the true structure's prediction is the truth, so only its state differs from it."""
    config = load(methods("plain", "true guide"), "discrepancy.network=structure")
    denoised, true = figures.measure_discrepancy(config)
    assert np.array_equal(denoised.t, true.t) and np.isclose(denoised.hole[0], true.hole[0]) and true.hole[-1] > denoised.hole[-1] + 3


# ---- process ------------------------------------------------------------------------------------------


def test_times_that_methods_visit(methods):
    everything, few = tuple(range(7)), (0, 2, 3, 5, 6)
    assert chosen_times([], {"a": everything}) == [6, 5, 4, 2, 1, 0]
    assert chosen_times([], {"a": everything, "b": few}) == [6, 5, 3, 2, 0]
    assert chosen_times([3, 6], {"a": everything, "b": few}) == [6, 3]
    with pytest.raises(UserError, match=r"process\.t holds 4, but the times of b are only 6, 5, 3, 2, 0"):
        chosen_times([3, 4], {"a": everything, "b": few})
    few_steps = figures.record_process(load(methods("few steps", "IR-SDE")))[0]
    assert sorted(few_steps.texture) == [0, 2, 3, 5, 6] and few_steps.structure_end == 0


def test_process(command, folder, methods, tmp_path):
    path = methods("released", "IR-SDE", process={"image": "c", "t": [0, 3, 6]})
    released, unguided = processes = figures.record_process(load(path))
    assert sorted(released.texture) == [0, 3, 6] and sorted(released.structure) == [3, 6] and not unguided.structure
    item = plain_dataset(folder)[2]
    written = cv2.imread(str(folder / "results" / "inpainted" / "c.png"))[..., ::-1] / 255
    hole = item.mask[0].numpy() < 0.5
    # the last state is what scripts/test.py made of this image
    assert np.abs(np.clip(released.texture[0], 0, 1)[hole] - written[hole]).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(released.truth[0], item.texture.permute(1, 2, 0).numpy())

    figure = figures.process_figure(processes)
    shown = texts(figure)
    assert len(figure.axes) == 3 * 4  # two strips of the one, one of the other; three t and the truth
    assert [text for text in shown if text.startswith("t =")] == ["t = 6", "t = 3", "t = 0"]
    assert [text.split() for text in shown].count(["ended", "at", "t", "=", "1"]) == 1
    assert {"released", "IR-SDE", "truth", "structure"} <= set(shown) and shown.count("texture") == 2
    assert np.array_equal(figure.axes[0].images[0].get_array(), np.clip(released.texture[6], 0, 1))
    assert np.array_equal(figure.axes[4 + 1].images[0].get_array(), np.clip(released.structure[3], 0, 1))
    assert np.array_equal(figure.axes[8 + 2].images[0].get_array(), np.clip(unguided.texture[0], 0, 1))
    assert command("process", "--out", tmp_path / "strip.png", "-opt", path)[0] == 0
    require_figure(tmp_path / "strip")


def test_a_process_with_methods_without_steps(command, methods, tmp_path):
    """Such a method has its result in the last column, and nothing before it."""
    path = methods("telea", "few steps", "IR-SDE")
    assert sorted(figures.record_process(load(path, "process.t=[6, 3]"))[0].texture) == [3]
    telea, few, _ = processes = figures.record_process(load(path))
    assert sorted(telea.texture) == [0] and not telea.structure and telea.structure_end is None
    assert sorted(few.texture) == [0, 2, 3, 5, 6]
    truth, structure = telea.truth
    assert structure is None and telea.texture[0].shape == truth.shape and np.abs(telea.texture[0] - truth).max() > 0.05
    figure = figures.process_figure(processes)
    assert len(figure.axes) == 4 * 6 and texts(figure).count("t = 6") == 1
    assert np.array_equal(figure.axes[4].images[0].get_array(), telea.texture[0]) and not figure.axes[3].images
    assert [" ".join(text.split()) for text in texts(figure)].count("no such step") == 4
    assert command("process", "--out", tmp_path / "strip", "-opt", path, "process.t=[6, 3]")[0] == 0
    require_figure(tmp_path / "strip")
    alone = figures.record_process(load(methods("telea")))
    assert len(figures.process_figure(alone).axes) == 2  # the result and the truth


def test_a_method_without_steps_has_no_curves(command, methods, tmp_path):
    error = refusal(command("discrepancy", "--out", tmp_path / "out", "-opt", methods("plain", "telea")))
    assert "telea has no steps (method=telea): leave it out" in error
    error = refusal(command("discrepancy", "--out", tmp_path / "out", "-opt", methods("telea"), "discrepancy.network=structure"))
    assert "telea has no structure" in error and not list(tmp_path.glob("out.*"))


# ---- grid ---------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(folder, tmp_path):
    """Results of somebody else: a of another size, b damaged, c missing."""
    save(tmp_path / "theirs" / "a.jpg", np.full((SIZE, 2 * SIZE, 3), 99, np.uint8))
    (tmp_path / "theirs" / "b.png").write_text("no picture")
    return tmp_path / "theirs"


def test_grid(command, folder, elsewhere, tmp_path):
    results = folder / "results"
    out = tmp_path / "grid"
    arguments = ["grid", "--out", out, f"Ours={results}", f"Theirs={elsewhere}", "--truth", folder / "photos", "--masked", results]
    status, _, messages = command(*arguments)
    assert status == 0
    require_figure(out)
    blank = [message for message in messages if message.startswith("left blank")]
    assert blank == ["left blank: b of Theirs (unreadable), c of Theirs (missing)"]
    assert sum("a of Theirs is shown scaled: it has 16x32" in message for message in messages) == 1
    assert not any("of truth" in message for message in messages)  # brought to the size of the results, as config.yml says

    status, error, _ = command("grid", "--out", tmp_path / "wrong", f"Ours={results}", "--truth", results)
    assert status == 2 and "holds results of a test" in error

    columns = [figures.open_column("Ours", results), figures.open_column("Theirs", elsewhere)]
    figure = grid_figure(columns, ["c", "a"])
    assert len(figure.axes) == 4 and texts(figure).count("missing") == 1 and {"Ours", "Theirs", "a", "c"} <= set(texts(figure))
    picture = cv2.imread(str(results / "inpainted" / "c.png"))[..., ::-1] / np.float32(255)
    assert np.abs(figure.axes[0].images[0].get_array() - picture).max() < 1e-6
    assert choose_images(columns, [], 2) == ["a", "b"] and choose_images(columns, ["c", "b"], 2) == ["c", "b"]


def test_grid_of_the_largest_disagreements(command, folder, tmp_path):
    for name, numbers in (("one", {"a": 0.5, "b": 0.9, "c": 0.7}), ("two", {"a": 0.6, "b": 0.2, "c": 0.4})):
        shutil.copytree(folder / "results", tmp_path / name)
        values = {image: {"agreement": number} for image, number in numbers.items()}
        (tmp_path / name / "images.json").write_text(json.dumps({"values": values, "judged": {}}))
    folders = [tmp_path / "one", tmp_path / "two"]
    assert disagreements(folders, "agreement", 2) == {"b": [0.9, 0.2], "c": [0.7, 0.4]}
    of_csv = disagreements([*folders, folder / "results"], "hole_psnr", 9)  # not stored by a table: of results.csv
    expected = {row.name: row.hole_psnr for row in read_rows(folder / "results" / "results.csv")}
    assert of_csv == {name: pytest.approx([value] * 3) for name, value in expected.items()}

    results = [f"{path.name}={path}" for path in folders]
    status, _, _ = command("grid", "--out", tmp_path / "out", *results, "--disagree", "agreement", "--first", "2")
    assert status == 0
    require_figure(tmp_path / "out")
    columns = [figures.open_column(path.name, path) for path in folders]
    shown = texts(grid_figure(columns, ["b", "c"], {"one": ["0.900", "0.700"], "two": ["0.200", "0.400"]}))
    assert sorted(shown) == sorted(["one", "two", "b", "c", "0.900", "0.700", "0.200", "0.400"])
    for arguments, said in (
        ([results[0], "--disagree", "agreement"], "at least two result folders"),
        ([*results, "--disagree", "agreement", "--images", "a"], "leave --images out"),
        ([*results, "--disagree", "judge_distance"], "has no judge_distance of its images"),
        ([*results, "--disagree", "fid"], "invalid choice: 'fid'"),
    ):
        assert said in refusal(command("grid", "--out", tmp_path / "wrong", *arguments))


def test_results_of_an_earlier_version_tell_their_fit(tmp_path):
    (tmp_path / "config.yml").write_text("data: {images: photos, size: 48, fit: center_crop}\nsampler: {step: posterior}\n")
    assert fit_of(tmp_path) == (48, "center_crop") and fit_of(tmp_path / "elsewhere") is None


def test_cells_have_the_shape_of_their_pictures(folder, tmp_path):
    save(tmp_path / "wide" / "a.png", np.full((10, 30, 3), 7, np.uint8))
    save(tmp_path / "wide" / "b.png", np.full((30, 10, 3), 7, np.uint8))
    figure = grid_figure([figures.open_column("x" * 100, tmp_path / "wide")], ["a", "b"])
    width, height = figure.get_size_inches()
    boxes = [axes.get_position() for axes in figure.axes]
    assert [round(box.width * width / (box.height * height), 3) for box in boxes] == [3, 0.333]
    assert boxes[0].y0 > boxes[1].y1 and boxes[1].y0 >= -1e-9 and boxes[0].y1 < 1
    assert 0.8 * 3 < text_width(fit_text("x" * 100, 3.0)) <= 3 and fit_text("a b c", 3.0) == "a b c"


# ---- trace --------------------------------------------------------------------------------------------


def test_trace(command, folder, tmp_path):
    results = folder / "results"
    assert command("trace", "--out", tmp_path / "sum", results)[0] == 0
    assert command("trace", "--out", tmp_path / "one", results, "--image", "b")[0] == 0
    require_figure(tmp_path / "sum")
    require_figure(tmp_path / "one")

    stored = json.loads((results / "traces" / "b.json").read_text())["steps"]
    traces = figures.read_traces(results, "b")
    summary = figures.summarise(list(traces.values()))
    assert summary.t.tolist() == [step["t"] for step in stored] == list(range(T, 0, -1))
    for i, step in enumerate(stored):
        for network, counts in summary.evaluations.items():
            assert counts[i] == step[f"{network}_evaluations"]
        for decision, counts in summary.decisions.items():
            assert counts[i] == step["decisions"].count(decision)
        assert summary.first[step["t"]] == step["scores"][:1] and [s for s, _ in summary.resampled[step["t"]]] == step["scores"][1:]

    scores, decisions, evaluations = figures.trace_figure(summary, "b").axes
    assert scores.lines[0].get_ydata().tolist() == [step["scores"][0] for step in stored if step["scores"]]
    assert sum(len(line.get_xdata()) for line in scores.lines[1:]) == sum(len(step["decisions"]) for step in stored) > 0
    top = evaluations.patches[-1].get_data()
    total = {step["t"]: sum(step[f"{n}_evaluations"] for n in summary.evaluations) for step in stored}
    assert {int(edge + 0.5): value for edge, value in zip(top.edges, top.values)} == total
    assert decisions.get_ylabel() and evaluations.get_xlabel() and evaluations.get_xlim()[0] > evaluations.get_xlim()[1]

    everything = figures.summarise(list(figures.read_traces(results).values()))
    assert everything.images == 3 and everything.evaluations["texture"].sum() > summary.evaluations["texture"].sum()
    assert len(figures.trace_figure(everything, "all").axes[0].lines) == 2  # means of first and resampled


def test_trace_without_scores(tmp_path):
    step = {"scores": [], "decisions": [], "texture_evaluations": 1, "structure_evaluations": 0, "discriminator_evaluations": 0}
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "x.json").write_text(json.dumps({"steps": [{"t": t} | step for t in (2, 1, 2, 1)]}))
    summary = figures.summarise(list(figures.read_traces(tmp_path).values()))
    assert summary.evaluations["texture"].tolist() == [2, 2]
    figure = figures.trace_figure(summary, "x")
    assert any("no scores" in text for text in texts(figure)) and "no resampling" in texts(figure)


# ---- histogram ----------------------------------------------------------------------------------------


def test_buckets_hold_their_upper_bounds():
    assert count_buckets([0, 0.1, 0.1000001, 0.3, 0.7, 60 / 100, 1]).tolist() == [2, 1, 1, 0, 0, 1, 1, 0, 0, 1]


def test_histogram(command, tmp_path):
    pixels = np.zeros((20, 10), np.uint8)
    for name, share in {"a": 10, "sub/b": 15, "c": 20, "d": 95}.items():
        pixels[:] = 0
        pixels.flat[: 2 * share] = 255
        save(tmp_path / "masks" / f"{name}.png", pixels)
    (tmp_path / "masks" / "bad.png").write_text("no mask")
    status, _, messages = command("histogram", "--out", tmp_path / "h", tmp_path / "masks")
    assert status == 0 and sum("bad.png" in message for message in messages) == 1
    require_figure(tmp_path / "h")
    for polarity, expected in (("white_hole", [1, 2, 0, 0, 0, 0, 0, 0, 0, 1]), ("white_known", [1, 0, 0, 0, 0, 0, 0, 1, 2, 0])):
        axes = figures.histogram_figure(figures.hole_shares(tmp_path / "masks", polarity), "title").axes[0]
        assert [round(bar.get_height()) for bar in axes.patches] == expected
        assert [text.get_text() for text in axes.texts] == [str(count) if count else "" for count in expected]
        assert "%" in axes.get_xlabel()
    _, _, messages = command("histogram", "--out", tmp_path / "i", tmp_path / "masks", "--polarity", "white_known")
    assert any("--polarity white_hole" in message for message in messages)


# ---- guide --------------------------------------------------------------------------------------------


def test_guide(command, folder, tmp_path):
    """With the true structure as what another image has, and the same noise, only the denoised structure differs."""
    config = load_config(TestConfig, folder / "test.yml", ["sampler.resampling=none", "sampler.solver=posterior"])
    distance = figures.measure_guide(config, 3)
    assert distance.images == 3 and distance.t.tolist() == list(range(T, early_end(T) - 2, -1))
    # all start from the same noise; what is known differs by the network's errors alone
    assert distance.hole[0] == distance.known[0] == distance.wrong[0] == 0 and (distance.hole[1:] > 0).all()
    sde = MeanRevertingSDE(T=T)
    assert distance.noise == pytest.approx(sde.sigma_bar[distance.t.copy()].numpy())
    dataset = plain_dataset(folder)
    # the posterior's mean is linear in x0: the states are apart by a share of the x0s, the same for all pixels
    last = int(distance.t[-1])
    weight = 1.0
    for t in range(T, last, -1):
        weight = float(sde.optimum_x[t]) * (0.0 if t == T else weight) + float(sde.optimum_x0[t])
    squares = []
    for i, item in enumerate(dataset[i] for i in range(3)):
        difference = gray_map(dataset.other_image(i, item)) - gray_map(item.image())
        squares.append((difference[item.known() < 0.5] ** 2).mean())
    expected = np.sqrt(np.mean(squares))
    assert distance.wrong[-1] == pytest.approx(weight * expected, rel=1e-4)
    assert command("guide", "--out", tmp_path / "fig", "-opt", folder / "test.yml", "--first", 1, "sampler.resampling=none")[0] == 0
    require_figure(tmp_path / "fig")
    assert "sampler.resampling=none" in refusal(command("guide", "--out", tmp_path / "other", "-opt", folder / "test.yml"))
    for method in ("telea", "irsde"):
        error = refusal(
            command("guide", "--out", tmp_path / "other", "-opt", folder / "test.yml", f"method={method}", "sampler.resampling=none")
        )
        assert "set method=strdiffusion" in error


# ---- curves and tradeoff ------------------------------------------------------------------------------


def write_metrics(path, losses, validation):
    path.parent.mkdir(parents=True, exist_ok=True)
    events = [{"step": 10 * i, "kind": "train", "loss": loss, "seconds": i} for i, loss in enumerate(losses)]
    path.write_text("".join(json.dumps(event) + "\n" for event in events + validation))


def test_curves(command, tmp_path):
    validation = [{"step": s, "kind": "validation", "loss": v, "hole_psnr": 10 + v, "seconds": 1} for s, v in ((20, 2.0), (0, 3.0))]
    write_metrics(tmp_path / "a" / "metrics.jsonl", [4.0, None, 2.0, *[1.0] * 77], validation)
    write_metrics(tmp_path / "b.jsonl", [1.0] * 3, [])
    a, b = (figures.read_curves(name, tmp_path / name) for name in ("a", "b.jsonl"))
    assert a.loss[0][:3].tolist() == [0, 20, 30] and len(a.loss[1]) == 79
    assert a.validation["hole_psnr"][0].tolist() == [0, 20] and a.validation["hole_psnr"][1].tolist() == [13, 12]
    figure = figures.curves_figure([a, b])
    loss, psnr = figure.axes  # no hole SSIM was logged
    assert len(loss.lines) == 3 and len(psnr.lines) == 1 and "PSNR" in psnr.get_ylabel() and psnr.lines[0].get_ydata().tolist() == [12]
    assert loss.lines[0].get_ydata()[[0, 1, 40]] == pytest.approx([(4 + 2) / 2, (4 + 2 + 1) / 3, 1])  # the mean with its neighbours
    assert command("curves", "--out", tmp_path / "fig", f"a={tmp_path / 'a'}", f"b={tmp_path / 'b.jsonl'}")[0] == 0
    require_figure(tmp_path / "fig")


def write_table(path, lines):
    rows = [f"{row},ours,{bucket},{metric},{mean},{low},{high},8," for row, bucket, metric, mean, low, high in lines]
    path.write_text("row,source,bucket,metric,mean,low,high,images,reason\n" + "\n".join(rows) + "\n")


def test_tradeoff(command, tmp_path):
    lines = []
    labels = {"telea": (0, 15), '"posterior, 5 steps"': (5, 16), '"posterior, 10 steps"': (10, 17), "adaptive": (40, 18)}
    for label, (evaluations, psnr) in labels.items():
        for bucket, mean in (("10-20", psnr), ("40-50", psnr - 2)):
            lines += [(label, bucket, f"{network}_evaluations", evaluations, "", "") for network in ("texture", "structure")]
            lines += [(label, bucket, "hole_psnr", mean, mean - 1, mean + 1), (label, bucket, "seconds", evaluations / 8, "", "")]
    write_table(tmp_path / "table.csv", lines)
    points = figures.read_points(tmp_path, "40-50")
    assert list(points) == ["posterior", "adaptive"]  # baselines evaluate no network
    figure = figures.tradeoff_figure(points, ["hole_psnr"])
    assert len(figure.axes) == 2 and [axes.get_xscale() for axes in figure.axes] == ["log", "log"]
    evaluations, seconds = figure.axes
    assert evaluations.lines[0].get_xdata().tolist() == [10, 20] and evaluations.lines[0].get_ydata().tolist() == [14, 15]
    assert seconds.lines[0].get_xdata().tolist() == [5 / 8, 10 / 8] and seconds.lines[1].get_ydata().tolist() == [16]
    assert command("tradeoff", "--out", tmp_path / "fig", tmp_path, "--bucket", "10-20", "--metrics", "hole_psnr")[0] == 0
    require_figure(tmp_path / "fig")
    mistakes = {"10-20, 40-50": ["--metrics", "hole_psnr"], "no bucket x": ["--bucket", "x"], "hole_ssim": ["--bucket", "10-20"]}
    for said, arguments in mistakes.items():
        assert said in refusal(command("tradeoff", "--out", tmp_path / "other", tmp_path, *arguments))


# ---- schedules ----------------------------------------------------------------------------------------


def test_schedules(command, tmp_path):
    schedules = figures.read_schedules([])
    assert [(one.evaluations, one.jumps, one.moves) for one in schedules] == [  # the published counts
        (1510, 126, 2770),
        (2410, 216, 4570),
        (1600, 135, 2950),
        (250, 0, 250),
    ]
    assert min(schedules[0].times[:2660]) == 100 and schedules[0].times[-1] == -1  # the last jump is made from there
    given = "ours={steps: 20, jump_length: 3, jump_n_sample: 3, stop_resampling: 6}"
    figure = figures.schedules_figure(figures.read_schedules([given]))
    (axes,) = figure.axes
    assert axes.get_title("left") == "ours: 44 evaluations, 8 jumps, 68 moves" and len(axes.lines[0].get_ydata()) == 69
    assert command("schedules", "--out", tmp_path / "fig", given)[0] == 0
    require_figure(tmp_path / "fig")


# ---- files --------------------------------------------------------------------------------------------


def test_same_input_same_bytes_and_nothing_is_overwritten(command, folder, tmp_path):
    """In another process too."""
    out = tmp_path / "fig"
    assert command("histogram", "--out", out, folder / "masks")[0] == 0
    first = {suffix: Path(f"{out}{suffix}").read_bytes() for suffix in (".png", ".pdf")}
    error = refusal(command("histogram", "--out", out, folder / "masks"))
    assert "fig.png exists" in error and "--overwrite" in error
    arguments = [sys.executable, ROOT / "scripts" / "figures.py", "histogram", "--out", f"{out}.pdf", folder / "masks", "--overwrite"]
    done = subprocess.run(
        arguments, check=False, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)}
    )
    assert done.returncode == 0 and f"{out}.png" in done.stdout, done.stderr
    assert {suffix: Path(f"{out}{suffix}").read_bytes() for suffix in (".png", ".pdf")} == first


MISTAKES = [
    (["grid", "Ours=absent"], "absent does not exist"),
    (["grid", "=x"], "LABEL=FOLDER"),
    (["grid", "Ours={folder}/results", "--images", "aa"], "did you mean a?"),
    (["grid", "Ours={folder}/results", "--first", "0"], "--first"),
    (["grid"], "LABEL=FOLDER"),
    (["process", "-opt", "absent.yml"], "absent.yml does not exist"),
    (["process", "-opt", "{yml}", "process.t=[7]"], "only the steps 6 to 0"),
    (["process", "-opt", "{yml}", "process.t=[1, 1]"], "twice"),
    (["process", "-opt", "{yml}", "process.image=z"], "no image z"),
    (["process", "-opt", "{yml}", "process.imag=z"], "did you mean process.image?"),
    (["process", "-opt", "{yml}", "methods=[]"], "1 to 8 methods"),
    (["process", "-opt", "{yml}", "methods=[{{label: x}}]"], "methods[0].opt is missing"),
    (["process", "-opt", "{yml}", "methods=[{{label: x, opt: {folder}/test.yml, options: [sde.TT=3]}}]"], "sde.TT"),
    (
        ["process", "-opt", "{yml}", "methods=[{{label: x, opt: {folder}/test.yml}}, {{label: x, opt: {folder}/test.yml}}]"],
        "several methods",
    ),
    (["discrepancy", "-opt", "{yml}", "discrepancy.network=structure"], "has no structure"),
    (["discrepancy", "-opt", "{yml}", "discrepancy.of=x0"], "discrepancy.of must be one of state, estimate"),
    (["trace", "absent"], "absent does not exist"),
    (["trace", "{folder}/photos"], "no trace in"),
    (["trace", "{folder}/results", "--image", "z"], "no trace of the image z"),
    (["histogram", "absent"], "absent does not exist"),
    (["histogram", "{folder}/masks", "--polarity", "black"], "--polarity"),
    (["curves", "a=absent"], "absent cannot be read"),
    (["curves", "a={folder}/test.yml"], "not the metrics.jsonl"),
    (["tradeoff", "absent"], "absent cannot be read"),
    (["tradeoff", "{folder}/test.yml"], "not a table.csv"),
    (["schedules", "a={{steps: 20, stop: 3}}"], "the schedule a: unknown key stop"),
    (["schedules", "a={{steps"], "the schedule a is not of the form"),
    (["schedules", "a={{steps: 20, stop_resampling: 30}}"], "a.stop_resampling=30 must be below 19"),
    (["pie"], "pie"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=lambda value: value if isinstance(value, str) else None)
def test_mistakes(command, folder, methods, tmp_path, arguments, said):
    yml = methods("plain", "IR-SDE")
    kind, *rest = [text.format(folder=folder, yml=yml) for text in arguments]
    assert said in refusal(command(kind, "--out", tmp_path / "out", *rest))
    assert not list(tmp_path.glob("out.*"))


def test_methods_must_see_the_same_pixels(command, folder, methods, tmp_path):
    tree = json.loads(methods("plain", "IR-SDE").read_text())
    for option, said in (("data.masks.polarity=white_known", "differ in the mask of a"), ("data.size=24", "differ in the mask")):
        changed = json.loads(json.dumps(tree))
        changed["methods"][1]["options"].append(option)
        (tmp_path / "other.yml").write_text(json.dumps(changed))
        for kind in ("process", "discrepancy"):
            assert said in refusal(command(kind, "--out", tmp_path / "out", "-opt", tmp_path / "other.yml"))


def test_damaged_traces(command, folder, tmp_path):
    (tmp_path / "traces").mkdir()
    for content in ("{", "[]", '{"steps": []}', '{"steps": [{"t": 1, "scores": [1], "decisions": ["accepted"]}]}', '{"steps": [{"a": 1}]}'):
        (tmp_path / "traces" / "x.json").write_text(content)
        assert "x.json is not a trace" in refusal(command("trace", "--out", tmp_path / "out", tmp_path))
    (tmp_path / "traces" / "b.json").write_text((folder / "results" / "traces" / "b.json").read_text())
    status, _, messages = command("trace", "--out", tmp_path / "out", tmp_path)
    assert status == 0 and sum("left out" in message for message in messages) == 1
