"""Tables as data: from nothing to CSV, Markdown and LaTeX; continued where interrupted; idle where nothing changed."""

import csv
import hashlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import SIZE, T, script

from strdiffusion.batch import Known
from strdiffusion.commands import reproduce as command
from strdiffusion.config import load_config
from strdiffusion.evaluation import folder as folder_module
from strdiffusion.evaluation.compare import Cell
from strdiffusion.evaluation.equal import differences_at_equal
from strdiffusion.evaluation.render import Table, TableRow, as_csv, as_latex, as_markdown
from strdiffusion.evaluation.reproduce import reproduce
from strdiffusion.evaluation.run import without_later
from strdiffusion.evaluation.statistics import Summary
from strdiffusion.evaluation.table import ResultRow, read_rows, write_rows
from strdiffusion.evaluation.table_options import TableConfig
from strdiffusion.evaluation.tablecells import ImageNumbers
from strdiffusion.evaluation.winners import winners
from strdiffusion.methods import run as run_method
from strdiffusion.methods.folders import open_by_name
from strdiffusion.system.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def table(tmp_path, photos, weights):
    """A table over three photographs: a baseline, and the sampler with and without resampling, in two buckets."""
    base = tmp_path / "test.yml"
    base.write_text(
        f"output: unused\ndevice: cpu\nsde: {{T: {T}}}\nstructure: {{edge_source: known, edge_sigma: 1}}\n"
        f"checkpoints: {{texture: {weights}/texture.pt, structure: {weights}/structure.pt, discriminator: {weights}/discriminator.pt}}\n"
        f"data: {{images: {photos}, size: {SIZE}, index: null}}\nbatch_size: 1\n"
        "sampler: {released: {u_max: 3, u_min: 2, jump: 2, re: 1}}\n"
    )
    path = tmp_path / "table.yml"
    path.write_text(
        f"title: A small table\nbase: {base}\noutput: {tmp_path / 'tables'}\nmetrics: [psnr, hole_psnr, l1, texture_evaluations]\n"
        "buckets:\n  - {name: 10-20, options: ['data.masks.hole_share=[0.1, 0.2]']}\n"
        "  - {name: 30-40, options: ['data.masks.hole_share=[0.3, 0.4]']}\n"
        "rows:\n  - {label: Telea, method: telea}\n  - {label: none, options: [sampler.resampling=none]}\n"
        "  - {label: 'adaptive (released)', published: psv_strdiffusion}\n"
        "  - {label: IR-SDE, published: psv_asy_irsde, published_only: true}\n"
        "notes: [small networks]\n"
    )
    return path


def run(table: Path, *overrides: str) -> Path:
    return reproduce(load_config(TableConfig, table, overrides))


class Calls:
    """Counts the batches that are inpainted."""

    def __init__(self, monkeypatch):
        self.count, self.stop_after = 0, None
        original = folder_module.inpaint_batch

        def counted(*args):
            if self.count == self.stop_after:
                raise KeyboardInterrupt
            self.count += 1
            return original(*args)

        monkeypatch.setattr(folder_module, "inpaint_batch", counted)


def test_differences_are_of_the_same_image(table):
    folder = run(table, "reference=none")
    lines = {(line["row"], line["bucket"], line["metric"]): line for line in csv.DictReader((folder / "differences.csv").open())}
    assert {key[0] for key in lines} == {"Telea", "adaptive (released)"} and {key[2] for key in lines} == {"psnr", "hole_psnr", "l1"}
    for (_, bucket, metric), line in ((key, line) for key, line in lines.items() if key[0] == "Telea" and key[2] != "l1"):
        telea, none = (
            {row.name: getattr(row, metric) for row in read_rows(folder / "runs" / slug / bucket / "results.csv")}
            for slug in ("telea", "none")
        )
        differences = [telea[name] - none[name] for name in none]
        assert float(line["mean"]) == pytest.approx(np.mean(differences), abs=1e-4) and line["images"] == "3"
        assert min(differences) - 1e-4 <= float(line["low"]) <= float(line["mean"]) <= float(line["high"]) <= max(differences) + 1e-4
    text = (folder / "differences.md").read_text()
    assert "differences to 'none'" in text and "| none |" not in text and (folder / "differences.tex").exists()
    for wrong, said in (("reference=non", "not the label"), ("reference=IR-SDE", "not the label")):
        with pytest.raises(UserError, match=said):
            run(table, wrong)
    with pytest.raises(UserError, match="reference compares rows image by image"):
        run(table, "reference=none", "metrics=[texture_evaluations]")


def results(folder: Path, sharpness: np.ndarray, psnr: np.ndarray, share: float = 0.2) -> tuple[Path, ImageNumbers]:
    folder.mkdir()
    names = [f"{i:02d}" for i in range(len(psnr))]
    write_rows([ResultRow(name, f"{name}.png", "drawn", share, 1.0) for name in names], folder / "results.csv")
    values = {name: {"sharpness": a, "hole_psnr": b} for name, a, b in zip(names, sharpness.tolist(), psnr.tolist(), strict=True)}
    return folder, ImageNumbers(values, {})


def test_differences_at_equal_sharpness(tmp_path):
    rng = np.random.default_rng(0)
    settings = [rng.normal(mean, 0.1, (2, 50)) for mean in (0.7, 0.8, 0.95)]
    mixed = 0.3 * settings[1] + 0.7 * settings[2] + np.array([[0.0], [0.5]])  # so it is 0.5 above the curve, for any draw of images
    given = [results(tmp_path / str(i), *numbers) for i, numbers in enumerate([mixed, *settings])]
    numbers, (ours, *curve) = dict(given), [folder for folder, _ in given]

    cell = differences_at_equal(ours, curve[::-1], "sharpness", ["hole_psnr"], numbers)["hole_psnr"]
    assert cell.summary.count == 50
    assert [cell.summary.mean, cell.summary.low, cell.summary.high] == pytest.approx([0.5] * 3, abs=1e-9)
    for moved, reason in ((-1, "below every"), (1, "above every")):
        numbers[ours] = ImageNumbers({name: v | {"sharpness": v["sharpness"] + moved} for name, v in numbers[ours].values.items()}, {})
        cell = differences_at_equal(ours, curve, "sharpness", ["hole_psnr"], numbers)["hole_psnr"]
        assert cell.summary is None and cell.reason.startswith(reason)
        numbers[ours] = given[0][1]
    noisy = numbers | {ours: ImageNumbers({n: v | {"hole_psnr": rng.normal()} for n, v in numbers[ours].values.items()}, {})}
    summary = differences_at_equal(ours, curve, "sharpness", ["hole_psnr"], noisy)["hole_psnr"].summary
    width = 2 * 1.96 * math.sqrt((1 + 0.01 * (0.3**2 + 0.7**2)) / 50)  # of a mean of 50 independent differences, to a first approximation
    assert summary.high - summary.low == pytest.approx(width, rel=0.2)
    line = {  # PSNR falls with sharpness alone, in every run: no draw of images may show a difference
        folder: ImageNumbers({n: {"sharpness": s, "hole_psnr": 20 - 10 * s} for n, s in zip(v.values, rng.normal(mean, 0.1, 50))}, {})
        for (folder, v), mean in zip(numbers.items(), (0.85, 0.7, 0.8, 0.95), strict=True)
    }
    summary = differences_at_equal(ours, curve, "sharpness", ["hole_psnr"], line)["hole_psnr"].summary
    assert [summary.mean, summary.low, summary.high] == pytest.approx([0] * 3, abs=1e-9)
    other, _ = results(tmp_path / "other", *mixed, share=0.3)
    with pytest.raises(UserError, match="differ in the file or the mask of 00"):
        differences_at_equal(other, curve, "sharpness", ["hole_psnr"], numbers | {other: given[0][1]})


def test_what_wins_a_column(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.normal(20, 3, 50)
    psnr = {"best": base, "level": base - 0.02 + rng.normal(0, 0.5, 50), "below": base - 0.3 + rng.normal(0, 0.5, 50), "few": base[:30] + 5}
    folders = {label: results(tmp_path / label, np.full(len(values), 0.9), values)[0] for label, values in psnr.items()}
    kept = {}
    for label, values in psnr.items():
        numbers = {f"{i:02d}": {"l1": value, "sharpness": 0.9} for i, value in enumerate(values.tolist())}
        kept[folders[label]] = ImageNumbers(numbers, {})

    def cells(values: dict) -> dict[str, Cell]:
        return {label: Cell(Summary(float(np.mean(v)), 0, 0, len(v))) for label, v in values.items()}

    assert winners("l1", cells({label: -v for label, v in psnr.items()}), folders, kept) == {
        "best",
        "level",
    }  # fewer images do not take part
    assert winners("l1", cells(psnr), folders, kept) == {"below"}  # here smaller is better
    sharp = cells({"best": [0.9] * 50, "level": [1.2] * 50, "below": [0.7] * 50})
    assert winners("fid", sharp, folders, kept) == {"below"} and "best" in winners("sharpness", sharp, folders, kept)  # nearest to one
    assert winners("texture_evaluations", sharp, folders, kept) == winners("seconds", sharp, folders, kept) == set()
    assert winners("l1", {"best": sharp["best"], "level": Cell(None, "no weights")}, folders, kept) == set()

    table = Table("t", ["10-20"], ["l1"], [TableRow(label, {("10-20", "l1"): cell}) for label, cell in cells(psnr).items()], [])
    bold = replace(table, best=frozenset({("below", "10-20", "l1")}))
    assert as_markdown(table).count("**") == 0 and as_markdown(bold).count("**") == 2
    (line,) = [line for line in as_latex(bold).splitlines() if r"\textbf" in line]
    assert line.startswith("{below}")


def test_a_table_at_equal_psnr(table):
    folder = run(table, "equal={metric: psnr, rows: [Telea, none]}")
    lines = [*csv.DictReader((folder / "equal.csv").open())]
    assert {line["row"] for line in lines} == {"adaptive (released)"} and {line["metric"] for line in lines} == {"hole_psnr", "l1"}
    assert "mixture of two of 'Telea', 'none'" in (folder / "equal.md").read_text()
    for wrong, said in (
        ("{metric: texture_evaluations, rows: [Telea, none]}", "equal.metric must be a number of each image among metrics"),
        ("{metric: psnr, rows: [Telea, non]}", "names 'non', which is not the label"),
        ("{metric: psnr, rows: [Telea]}", "at least two rows"),
    ):
        with pytest.raises(UserError, match=said):
            run(table, f"equal={wrong}")


def test_from_nothing_to_three_files_and_then_nothing_more(table, tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    folder = run(table)
    assert calls.count == 3 * 2 * 3  # rows, buckets, images
    lines = list(csv.DictReader((folder / "table.csv").open()))
    assert len(lines) == (3 + 2) * 2 * 4
    for line in lines:
        if line["source"] == "ours" and line["metric"] in ("psnr", "hole_psnr"):
            slug = {"Telea": "telea", "none": "none", "adaptive (released)": "adaptive-released"}[line["row"]]
            rows = read_rows(folder / "runs" / slug / line["bucket"] / "results.csv")
            assert float(line["mean"]) == pytest.approx(np.mean([getattr(row, line["metric"]) for row in rows]), rel=1e-4)
            assert float(line["low"]) <= float(line["mean"]) <= float(line["high"])
            assert int(line["images"]) == 3
    published = {(r["row"], r["bucket"], r["metric"]): r["mean"] for r in lines if r["source"] != "ours"}
    assert published["StrDiffusion", "30-40", "psnr"] == "27.63" and published["IR-SDE", "30-40", "psnr"] == "25.134"
    markdown, latex = ((folder / f"table.{kind}").read_text() for kind in ("md", "tex"))
    assert "27.63" in markdown and "small networks" in markdown and "AsyDiffusion" in markdown
    assert r"\toprule" in latex and latex.count(r" \\") == 2 + 5

    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")}
    run(table)
    assert calls.count == 18
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")} == before


def test_the_notes_are_of_the_base_and_not_of_the_last_row(table):
    folder = run(table, "rows=[{label: a, method: telea}, {label: b, options: [seed=77, sampler.resampling=none]}]")
    notes = (folder / "table.md").read_text()
    assert "seed 0, unless a row says" in notes and "seed 77" not in notes
    assert "**" not in notes  # masks of another seed: neither row is better


def test_an_interrupted_table_continues_with_the_image_it_was_at(table, monkeypatch):
    calls = Calls(monkeypatch)
    calls.stop_after = 8  # in the third run
    with pytest.raises(KeyboardInterrupt):
        run(table)
    calls.stop_after = None
    interrupted = run(table)
    assert calls.count == 18
    whole = run(table, f"output={interrupted.parent / 'whole'}")
    a, b = (list(csv.DictReader((f / "table.csv").open())) for f in (interrupted, whole))
    assert a == b


def test_what_is_changed_and_only_that_is_done_again(table, monkeypatch, weights, tmp_path):
    calls = Calls(monkeypatch)
    run(table)
    run(table, "options=[sampler.solver=posterior]")
    assert calls.count == 18 + 12  # the baseline has no sampler
    run(table, "options=[sampler.solver=posterior, batch_size=2]")
    assert calls.count == 30  # the batch size changes no result


def test_results_of_the_time_before_methods_had_names_are_kept(table, monkeypatch):
    """Their fingerprint is a hash of the configuration as it was then: sampler.guidance and sampler.method, and no `method`."""
    folder = run(table)
    mark = folder / "runs" / "none" / "10-20" / "fingerprint.txt"
    now = mark.read_text()
    tree = yaml.safe_load((mark.parent / "config.yml").read_text())
    files = [Path(tree["checkpoints"][kind]) for kind in ("texture", "structure", "discriminator")]
    assert tree.pop("method") == "strdiffusion" and "guide" in tree
    tree["sampler"] |= {"guidance": True, "method": tree["sampler"].pop("solver")}
    old = {key: value for key, value in without_later(tree).items() if key not in ("output", "overwrite", "process", "batch_size")}
    old["content"] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    mark.write_text(hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest())
    calls = Calls(monkeypatch)
    run(table)
    assert calls.count == 0 and mark.read_text() == now
    mark.write_text("0" * 64)  # of any other time
    run(table)
    assert calls.count == 3


@pytest.mark.parametrize(("options", "again"), [("steps=5", 3), ("steps=null", 0), (f"steps={T}", 0)])
def test_results_of_few_guided_steps_of_earlier_versions_are_made_again(table, monkeypatch, options, again):
    """Known structure and guide had other times (spec sec. 7, "Fewer steps"); on the full grid nothing changed."""
    options = f"options=[sampler.resampling=none,sampler.{options}]"
    folder = run(table, options)
    mark = folder / "runs" / "none" / "10-20" / "fingerprint.txt"
    tree = yaml.safe_load((mark.parent / "config.yml").read_text())
    old = {key: value for key, value in without_later(tree).items() if key not in ("output", "overwrite", "process", "batch_size")}
    kinds = ("texture", "structure", "discriminator")
    paths = [tree["checkpoints"][kind] for kind in kinds]
    old["content"] = [None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    mark.write_text(hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest())
    calls = Calls(monkeypatch)
    run(table, options)
    assert calls.count == again


def test_images_that_cannot_be_read_are_said_and_the_table_is_still_written(table, photos):
    for name in "abc":
        (photos / f"{name}.png").write_text("text")
    with pytest.raises(UserError, match="images were left out in 6 of 6 runs"):
        run(table)
    assert "could be inpainted" in (table.parent / "tables" / "table.md").read_text()


def test_a_run_that_left_an_image_out_is_not_finished(table, photos, monkeypatch):
    good = (photos / "b.png").read_bytes()
    (photos / "b.png").write_text("text")
    for _ in range(2):  # the second start says so too
        with pytest.raises(UserError, match="left out in 6 of 6 runs"):
            run(table)
    assert "1 of 3 images were left out" in (table.parent / "tables" / "table.md").read_text()
    (photos / "b.png").write_bytes(good)
    calls = Calls(monkeypatch)
    folder = run(table)
    assert calls.count == 6  # the one image that was left, in each run
    assert {line["images"] for line in csv.DictReader((folder / "table.csv").open()) if line["source"] == "ours"} == {"3"}


def test_results_that_are_not_whole_are_made_again_and_not_averaged(table, monkeypatch):
    """In a finished table: a picture that is missing, one that is empty, one cut off; and tables of numbers that are empty."""
    folder = run(table)
    runs = [folder / "runs" / row / bucket for row in ("none", "adaptive-released") for bucket in ("10-20", "30-40")]
    before = {path: path.read_bytes() for path in folder.rglob("*.png")} | {folder / "table.csv": (folder / "table.csv").read_bytes()}
    calls = Calls(monkeypatch)
    (runs[0] / "inpainted" / "a.png").unlink()
    (runs[1] / "masked" / "b.png").write_bytes(b"")
    (runs[1] / "structure" / "c.png").write_bytes((runs[1] / "structure" / "c.png").read_bytes()[:-5])
    (runs[2] / "traces" / "b.json").write_bytes(b"")
    (runs[3] / "results.csv").write_bytes(b"")
    for name in ("numbers.json", "images.json", "summary.md"):
        (runs[0] / name).write_bytes(b"")
    run(table)
    assert calls.count == 1 + 2 + 1 + 3
    assert {path: path.read_bytes() for path in before} == before


def test_where_seconds_are_shown_the_batch_size_decides(table, monkeypatch):
    calls = Calls(monkeypatch)
    run(table, "metrics=[seconds]")
    before = calls.count
    run(table, "metrics=[seconds]", "options=[batch_size=3]")
    assert calls.count == before + 6
    assert "a batch of 3" in (table.parent / "tables" / "table.md").read_text()


def test_a_folder_of_someone_else_is_left_alone(table, tmp_path):
    mine = tmp_path / "tables" / "runs" / "telea" / "10-20"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not of this table"):
        run(table)
    assert (mine / "thesis.txt").read_text() == "x"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rows=[{label: a, published: nobody}]", "nobody"),
        ("rows=[{label: a}, {label: a}]", "twice"),
        ("rows=[{label: a, published_only: true}]", "needs published"),
        ("rows=[{label: a, method: photoshop}]", "telea"),
        ("rows=[{label: a, options: [sampler.resampling=often]}]", "sampler.resampling"),
        ("metrics=[beauty]", "metrics"),
        ("metrics=[]", "at least one"),
        ("rows=[{label: a, published: psv_asy_none, published_only: true}]", "a row that is run"),
        ("metrics=[psnr, psnr]", "twice"),
        ("rows=[{label: a, method: telea, published: psv_asy_none, published_only: true}]", "neither method"),
        ("rows=[{label: a, method: telea, options: [method=mean_fill]}]", "another method in its options"),
        ("base=absent.yml", "absent.yml does not exist"),
    ],
)
def test_mistakes_in_a_table_are_found_before_anything_runs(table, change, said, monkeypatch):
    calls = Calls(monkeypatch)
    with pytest.raises(UserError) as error:
        run(table, change)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert calls.count == 0


def test_the_script(table, monkeypatch, capsys):
    table_script = script("reproduce")
    monkeypatch.setattr("sys.argv", ["reproduce.py", str(table), "rows=[{label: mean, method: mean_fill}]"])
    assert table_script.main() == 0
    assert "# A small table" in capsys.readouterr().out


def test_the_command_rehearses_and_keeps_what_is_there(table, capsys, monkeypatch):
    """--dry-run writes nothing and counts; an option of the tests is taken as one; it replaces no results unless --overwrite says so."""
    calls, folder = Calls(monkeypatch), table.parent / "tables"

    def said(*arguments, status=0):
        assert command.main([str(table), "data.limit=2", *arguments]) == status
        return "".join(capsys.readouterr())

    text = said("--dry-run")
    assert "runs: 6 to do" in text and "Telea: 4 images, no network" in text and not folder.exists()
    each = T + 7  # evaluations of texture and structure
    assert f"none: 4 images, {4 * each} evaluations" in text and "nothing was written" in text
    small = ("rows=[{label: mean, method: mean_fill}]", "buckets=[{name: 10-20, options: []}]")
    said(*small)
    assert calls.count == 2 and "2 images" not in said(*small, "--dry-run") and "runs: 1 finished" in said(*small, "--dry-run")
    assert "holds 1 runs of other options" in said(*small, "seed=1", status=2) and calls.count == 2
    assert "in place of results" in said(*small, "seed=1", "--dry-run")
    calls.stop_after = 3
    said(*small, "seed=1", "--overwrite", status=130)  # after the first of two images
    text = said(*small, "seed=1", "--dry-run")
    assert "runs: 1 begun" in text and "mean: 1 images" in text
    assert "did you mean metrics?" in said("metircs=[psnr]", status=2)


def test_mistakes_name_the_row_or_the_option(table, tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    (tmp_path / "empty").mkdir()
    (tmp_path / "holes").mkdir()
    second = "rows=[{{label: Telea, method: telea}}, {{label: b, options: ['{}']}}]"
    for change, words in (
        (second.format("sampler.stepps=3"), "row 'b', bucket '10-20': .*did you mean sampler.steps"),
        (second.format("checkpoints.texture=absent.pt"), "row 'b', bucket '10-20': .*absent.pt"),
        (second.format(f"data.images={tmp_path / 'empty'}"), "data.images: no image in .*empty"),
        (second.format(f"data.masks.folder={tmp_path / 'hole'}"), "data.masks.folder=.*did you mean .*holes"),
        ("metrics=[hole_psn]", "did you mean hole_psnr"),
        ("rows=[{label: a, method: tela}]", "row 'a'.* did you mean telea"),
    ):
        with pytest.raises(UserError, match=words):
            run(table, change)
    assert calls.count == 0 and not (tmp_path / "tables").exists()


def test_rows_of_different_methods(table, weights):
    """Each by its own method, with evaluations of any network; a network that a method does not have costs it nothing."""
    rows = (
        "rows=[{label: Telea, method: telea, options: [radius=2]}, {label: old, baseline: telea}, "
        f"{{label: IR-SDE, method: irsde, options: [sampler.resampling=none, checkpoints.texture={weights}/unguided.pt]}}, "
        f"{{label: option, options: [method=irsde, sampler.resampling=none, checkpoints.texture={weights}/unguided.pt]}}, "
        f"{{label: guidance, options: [sampler.guidance=false, sampler.resampling=none, checkpoints.texture={weights}/unguided.pt]}}, "
        "{label: none, options: [sampler.resampling=none]}]"
    )
    metrics = "metrics=[psnr, texture_evaluations, structure_evaluations, painter_evaluations]"
    folder = run(table, rows, metrics, "buckets=[{name: 10-20, options: []}]", "reference=none")
    means = {(line["row"], line["metric"]): float(line["mean"]) for line in csv.DictReader((folder / "table.csv").open())}
    evaluations = {label: [means[label, f"{n}_evaluations"] for n in ("texture", "structure", "painter")] for label, _ in means}
    assert evaluations["Telea"] == evaluations["old"] == [0, 0, 0] and evaluations["none"] == [T, 7, 0]
    assert evaluations["IR-SDE"] == evaluations["option"] == evaluations["guidance"] == [T, 0, 0]
    assert means["IR-SDE", "psnr"] == means["option", "psnr"] == means["guidance", "psnr"] != means["none", "psnr"]
    assert means["Telea", "psnr"] != means["old", "psnr"]
    methods = {
        label: yaml.safe_load((folder / "runs" / label / "10-20" / "config.yml").read_text()) for label in ("telea", "old", "ir-sde")
    }
    assert methods["telea"]["method"] == methods["old"]["method"] == "telea" and methods["ir-sde"]["method"] == "irsde"
    assert (methods["telea"]["radius"], methods["old"]["radius"]) == (2, 5) and "sampler" not in methods["old"]
    assert "10-20 % painter evaluations" in (folder / "table.md").read_text()
    saved = load_config(TableConfig, folder / "config.yml")
    assert [row.method for row in saved.rows] == ["telea", "telea", "irsde", None, None, None]


def test_metrics_that_are_no_evaluations_are_refused(table):
    for wrong in ("_evaluations", "texture_evaluation"):
        with pytest.raises(UserError, match="NETWORK_evaluations"):
            run(table, f"metrics=[{wrong}]")


@pytest.mark.parametrize("option", ["method=photoshop", "method=[telea]"])
def test_an_unknown_method_of_a_row_is_found_before_anything_runs(table, monkeypatch, option):
    calls = Calls(monkeypatch)
    with pytest.raises(UserError, match="method must be one of .*telea"):
        run(table, f"rows=[{{label: a, method: telea}}, {{label: b, options: ['{option}']}}]")
    assert calls.count == 0


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "tables").glob("*.yml")), ids=lambda p: p.stem)
def test_the_tables_that_ship_are_valid(path, monkeypatch):
    from strdiffusion.evaluation.reproduce import plan

    monkeypatch.chdir(ROOT)
    config = load_config(TableConfig, path)
    for row in config.rows:
        for bucket in config.buckets:
            plan(config, row, bucket)


def test_baselines_fill_the_hole_alone():
    image = torch.rand(2, 3, 16, 16)
    image[:, :, 4:9, 4:9] = 9.0
    mask = torch.ones(2, 1, 16, 16)
    mask[:, :, 4:9, 4:9] = 0
    known = Known(image, mask)

    def fill(name, known):
        return run_method(open_by_name(name, torch.device("cpu")), known, [0] * len(known)).image

    for name in ("masked_input", "mean_fill", "telea", "navier_stokes"):
        out = fill(name, known)
        assert torch.equal(out * mask, image * mask)
        assert out.max() <= 1
    filled = fill("mean_fill", known)
    expected = (image * mask).sum((2, 3)) / mask.sum((2, 3))
    assert (filled[:, :, 6, 6] - expected).abs().max() < 1e-5
    flat = Known(torch.full((1, 3, 16, 16), 0.4), mask[:1])
    for name in ("telea", "navier_stokes"):
        assert (fill(name, flat) - 0.4).abs().max() < 3 / 255  # OpenCV rounds in between


def test_rendering_escapes_and_names_what_is_missing():
    cells = {("10-20", "psnr"): Cell(Summary(20.123, 19.0, 21.0, 7)), ("10-20", "fid"): Cell(None, "no weights_file")}
    table = Table("50 % & more", ["10-20"], ["psnr", "fid"], [TableRow("a_b", cells)], ["note"])
    markdown = as_markdown(table)
    assert "20.12 [19.00, 21.00] (n=7)" in markdown and "| n/a |" in markdown and "n/a: no weights_file" in markdown
    latex = as_latex(table)
    assert r"50 \% \& more" in latex and r"{a\_b} & 20.12 & n/a \\" in latex and r"{10-20 \%}" in latex and r"no weights\_file" in latex
    assert list(csv.DictReader(io.StringIO(as_csv(table))))[1]["reason"] == "no weights_file"
