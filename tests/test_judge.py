"""The judge of results: its network, its training, its folder, and the metrics that it gives."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import script, single_error
from scipy.ndimage import gaussian_filter

from strdiffusion.checkpoints import read_checkpoint
from strdiffusion.config import TrainJudgeConfig, TrainStructureConfig, load_config
from strdiffusion.data import write_image
from strdiffusion.data.facades import CLASSES, draw_facade, draw_scene
from strdiffusion.data.masks import irregular_mask
from strdiffusion.evaluation.compare import Comparison, Measures
from strdiffusion.evaluation.differences import kernel_of, paired_differences, quick_frechet
from strdiffusion.evaluation.judge import Judge, features_distance, hole_features, hole_shares, measure_accuracy
from strdiffusion.evaluation.metrics import agreement, mean_iou, sharpness
from strdiffusion.evaluation.pairs import Loaded, to_8_bit
from strdiffusion.evaluation.perceptual import frechet_distance, kernel_distance
from strdiffusion.evaluation.reproduce import reproduce
from strdiffusion.evaluation.table import ResultRow, write_rows
from strdiffusion.evaluation.table_options import TableConfig
from strdiffusion.evaluation.tablecells import ImageNumbers
from strdiffusion.networks import Segmenter
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build
from strdiffusion.training import train

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "weights" / "judge"
IMAGES = 24


# ---- metrics by hand ----------------------------------------------------------------------------------


def test_agreement_and_mean_iou():
    truth = np.array([[0, 0, 1, 1], [2, 2, 2, 2]])
    labels = np.array([[0, 1, 1, 1], [2, 2, 2, 3]])
    assert agreement(labels, truth) == 6 / 8
    # class 0: 1 of 2, class 1: 2 of 3, class 2: 3 of 4, class 3: 0 of 1
    assert abs(mean_iou(labels, truth) - (1 / 2 + 2 / 3 + 3 / 4 + 0) / 4) < 1e-12
    hole = np.array([[False, True, True, True], [False] * 4])
    assert agreement(labels, truth, hole) == 2 / 3
    assert mean_iou(labels, truth, hole) == (0 + 2 / 3) / 2  # classes 2 and 3 are not in the hole
    assert agreement(truth, truth, hole) == mean_iou(truth, truth, hole) == 1
    assert math.isnan(agreement(labels, truth, hole & False)) and math.isnan(mean_iou(labels, truth, hole & False))


def test_sharpness():
    ramp = np.linspace(0, 0.5, 11)[None, :, None].repeat(9, 0).repeat(3, 2)
    hole = np.zeros((9, 11), bool)
    hole[2:5, 3:8] = True
    assert abs(sharpness(2 * ramp, ramp, hole) - 2) < 1e-12 and abs(sharpness(ramp.transpose(1, 0, 2), ramp.transpose(1, 0, 2)) - 1) < 1e-12
    assert sharpness(0 * ramp, ramp, hole) == 0
    elsewhere = ramp.copy()
    elsewhere[7:] = 1
    assert sharpness(elsewhere, ramp, hole) == 1
    assert math.isnan(sharpness(ramp, 0 * ramp, hole)) and math.isnan(sharpness(ramp, ramp, hole & False))


def test_shares_of_a_hole_in_cells():
    hole = np.zeros((10, 12), bool)
    hole[:4, :6] = True
    shares = hole_shares(hole, 2, torch.zeros(5, 4, 4))  # of 16 x 16 padded pixels
    assert shares.shape == (4, 4)
    assert shares[0].tolist() == [1, 0.5, 0, 0] and shares[1:].sum() == 0
    assert torch.equal(hole_shares(hole, 0, torch.zeros(1, 10, 12)), torch.from_numpy(hole).float())


# ---- the network and its training ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (9, 8)])
def test_logits_of_any_size(size):
    network = Segmenter(5, width=8, depth=3).eval()
    image = torch.rand(2, 3, *size)
    logits, features = network.logits_and_features(image)
    assert logits.shape == (2, 5, *size) and torch.equal(network(image), logits)
    padded = [-(-side // 8) * 8 for side in size]
    assert [tuple(level.shape) for level in features] == [(2, 8 * 2**i, padded[0] // 2**i, padded[1] // 2**i) for i in range(4)]
    assert torch.allclose(network(image[:1]), logits[:1], atol=1e-5)


def configure(tmp_path, **sections):
    tree = {
        "output": str(tmp_path / "run"),
        "device": "cpu",
        "network": {"classes": list(CLASSES), "width": 8, "depth": 2},
        "data": {"images": "facades:64/train", "labels": "facades:64/train", "size": 64, "augment": False, "workers": 0, "index": None},
        "validation": {
            "images": "facades:64/val",
            "labels": "facades:64/val",
            "loss_images": 4,
            "samples": 4,
            "every": 2,
            "best": "mean_iou",
        },
        "training": {"iterations": 4, "batch_size": 4, "learning_rate": 3e-3, "save_every": 2, "log_every": 1},
    }
    for name, value in sections.items():
        tree[name] = tree[name] | value
    config = build(TrainJudgeConfig, tree, "test")
    config.check()
    return config


def test_a_judge_learns_resumes_and_is_packed(tmp_path, monkeypatch, capsys):
    """In 16 iterations it gets most pixels right: half of them are wall."""
    config = configure(tmp_path, training={"iterations": 16, "save_every": 8}, validation={"every": 8})
    train("judge", config)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    validations = [line for line in lines if line["kind"] == "validation"]
    assert {"loss", "accuracy", "mean_iou"} <= validations[-1].keys() and validations[-1]["accuracy"] > 0.6 > validations[0]["accuracy"]
    whole = read_checkpoint(tmp_path / "run" / "latest.pt")
    again = replace(config, output=str(tmp_path / "again"), resume=str(tmp_path / "run" / "step_000000008.pt"))
    train("judge", again)
    resumed = read_checkpoint(tmp_path / "again" / "latest.pt")
    assert all(torch.equal(value, resumed["ema"][name]) for name, value in whole["ema"].items())

    arguments = ["pack_judge.py", str(tmp_path / "run" / "best.pt"), str(tmp_path / "judge")]
    for n in range(3):
        for kind, plane in zip(("images", "labels"), draw_scene("test", n, 64), strict=True):
            write_image(tmp_path / kind / f"{n}.png", plane / 255)
    arguments += ["--images", str(tmp_path / "images"), "--labels", str(tmp_path / "labels")]
    monkeypatch.setattr("sys.argv", arguments)
    assert script("pack_judge").main() == 0
    said = capsys.readouterr().out
    assert all(f" {name} |" in said for name in CLASSES) and "3 images" in said
    judge = Judge(tmp_path / "judge")
    assert judge.record.images == "facades:64/train" and judge.record.classes == list(CLASSES)
    network = Segmenter(**judge.network.architecture())
    network.load_state_dict(read_checkpoint(tmp_path / "run" / "best.pt")["ema"])
    image = draw_facade("test", 0, 64) / np.float32(255)
    by_hand = network(torch.from_numpy(image).permute(2, 0, 1)[None])[0].argmax(dim=0)
    assert np.array_equal(judge(image).labels, by_hand)
    assert script("pack_judge").main() == 2 and "already holds files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"data": {"labels": None}}, "data.labels is missing"),
        ({"validation": {"labels": None}}, "validation.labels is missing"),
        ({"validation": {"best": "psnr"}}, "choose one of loss, accuracy, mean_iou"),
        ({"network": {"classes": ["sky", "sky"]}}, "none twice"),
        ({"network": {"width": 6}}, "multiple of 4"),
    ],
)
def test_options_that_do_not_fit(tmp_path, sections, said):
    with pytest.raises(UserError, match=said):
        configure(tmp_path, **sections)


def test_labels_beyond_the_classes(tmp_path):
    config = configure(tmp_path, network={"classes": ["sky", "roof", "wall"]})
    with pytest.raises(UserError, match="the labels hold class 6, and network.classes names 3"):
        train("judge", config)


def test_other_trainings_do_not_measure_accuracy():
    with pytest.raises(UserError, match="best=accuracy is not measured"):
        load_config(TrainStructureConfig, ROOT / "configs" / "benchmark" / "structure.yml", ["validation.best=accuracy"])


# ---- the judge that ships -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge():
    return Judge(SHIPPED)


def test_the_judge_has_seen_the_training_images_alone(judge):
    """Its record and its configuration name the training split, and its checkpoint was chosen on the validation split."""
    config = load_config(TrainJudgeConfig, ROOT / "configs" / "benchmark" / "judge.yml", [])
    record = judge.record
    assert (record.images, record.labels, record.chosen_on) == (config.data.images, config.data.labels, config.validation.images)
    assert record.images == "datasets/facades/train" and record.chosen_on == "facades:64/val"
    assert record.classes == list(CLASSES)
    test = {draw_facade("test", n, 64).tobytes() for n in range(IMAGES)}
    assert not test & {draw_facade("train", n, 64).tobytes() for n in range(100)}


def test_the_judge_is_small_and_right(judge):
    assert sum(p.numel() for p in judge.network.parameters()) < 700_000
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 3e6
    found = measure_accuracy(
        judge, ((picture / np.float32(255), labels) for picture, labels in (draw_scene("test", n, 64) for n in range(40)))
    )
    assert found.images == 40 and found.pixels > 0.93
    assert list(found.iou) == list(CLASSES) and min(found.iou.values()) > 0.75


METRICS = ("agreement", "mean_iou", "judge_distance", "judge_fid", "judge_kid", "sharpness")


@pytest.fixture(scope="module")
def judged():
    """judged(change, labels=True) are the metrics of streets whose holes hold change(truth, another street, number)."""
    measures = Measures(METRICS, judge=str(SHIPPED))
    scenes = [draw_scene("test", n, 64) for n in range(IMAGES + 1)]
    pictures, labels = [picture / np.float32(255) for picture, _ in scenes], [plane for _, plane in scenes]
    masks = [irregular_mask(np.random.default_rng(n), 64, 64, (0.2, 0.4)) for n in range(IMAGES)]

    def run(change, labelled=True):
        comparison = Comparison(measures)
        for n, known in enumerate(masks):
            image = np.where(known[..., None] > 0.5, pictures[n], np.clip(change(pictures[n], pictures[n + 1], n), 0, 1))
            comparison.add(Loaded(to_8_bit(image), to_8_bit(pictures[n]), known, (64, 64), labels[n] if labelled else None), str(n))
        return {name: cell.summary.mean for name, cell in comparison.rows()[-1].cells.items()}

    return run


@pytest.fixture(scope="module")
def of_truth(judged):
    return judged(lambda truth, other, n: truth)


def test_the_truth_is_best(judged, of_truth):
    assert of_truth["agreement"] > 0.93 and of_truth["mean_iou"] > 0.8
    assert of_truth["judge_distance"] == 0 and of_truth["sharpness"] == 1
    assert abs(of_truth["judge_fid"]) < 1e-6 and of_truth["judge_kid"] <= 0  # unbiased: equal sets give less than 0
    without = judged(lambda truth, other, n: truth, labelled=False)  # then the judge's own classes of the truth are true
    assert without["agreement"] == without["mean_iou"] == 1


CHANGES = {
    "blur": (lambda truth, other, n, amount: gaussian_filter(truth, (amount, amount, 0)), (1, 2, 4)),
    "noise": (lambda truth, other, n, amount: truth + amount * np.random.default_rng(n).standard_normal(truth.shape), (0.05, 0.15, 0.4)),
    "ghost": (lambda truth, other, n, amount: truth + amount * (np.roll(truth, 6, axis=1) - truth), (0.3, 0.4, 0.5)),
    "another street": (lambda truth, other, n, amount: truth + amount * (other - truth), (0.25, 0.5, 1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_metrics_become_worse_with_more_damage(judged, of_truth, name):
    change, amounts = CHANGES[name]
    steps = [of_truth, *(judged(lambda truth, other, n, a=amount: change(truth, other, n, a)) for amount in amounts)]
    for metric, better in (("agreement", 1), ("mean_iou", 1), ("judge_distance", -1), ("judge_fid", -1)):
        values = [better * step[metric] for step in steps]
        assert values == sorted(values, reverse=True) and values[0] > values[-1], (metric, values)
    assert steps[-1]["judge_kid"] > steps[0]["judge_kid"]
    sharp = [step["sharpness"] for step in steps]
    if name == "blur":
        assert sharp == sorted(sharp, reverse=True) and sharp[-1] < 0.5
    if name == "noise":
        assert sharp == sorted(sharp) and sharp[-1] > 1.5


def test_content_of_a_wrong_class_is_seen(judged, of_truth):
    """Sharp content of another street is worse than a blur for agreement, though not less sharp."""
    wrong, blurred = judged(lambda truth, other, n: other), judged(lambda truth, other, n: gaussian_filter(truth, (2, 2, 0)))
    assert wrong["agreement"] < blurred["agreement"] - 0.1 and wrong["sharpness"] > blurred["sharpness"]
    assert wrong["judge_distance"] > 2 * blurred["judge_distance"]


def test_known_pixels_do_not_count(judge):
    """Features are averaged over the hole alone; two images that differ far from it are almost the same there."""
    image = draw_facade("test", 3, 64) / np.float32(255)
    hole = np.zeros((64, 64), bool)
    hole[:16, :16] = True
    changed = image.copy()
    changed[56:, 56:] = 0
    one, other = judge(image), judge(changed)
    far, near = features_distance(other, one, hole), features_distance(other, one, np.rot90(hole, 2))
    assert far < 0.05 * near
    whole = hole_features(one, np.ones((64, 64), bool))
    assert np.allclose(whole, one.features[-1].mean(dim=(1, 2)), atol=1e-5) and whole.shape == (128,)
    assert math.isnan(features_distance(one, other, hole & False))


# ---- as a user meets it -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """truths, labels, masks (a box) and outputs (gray in it) of three streets."""
    known = np.ones((64, 64), np.float32)
    known[16:48, 20:40] = 0
    for n in range(3):
        picture, labels = draw_scene("test", n, 64)
        planes = {"truths": picture / 255, "labels": labels / 255, "masks": 1 - known}
        planes["outputs"] = np.where(known[..., None] > 0.5, picture / 255, 0.5)
        for kind, plane in planes.items():
            write_image(tmp_path / kind / f"{n}.png", plane)
    return tmp_path


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """command(*overrides) runs scripts/evaluate.py on the folder; returns status, stdout and stderr."""

    def run(*overrides):
        common = [f"outputs={folder}/outputs", f"truths={folder}/truths", f"masks.folder={folder}/masks", f"output={folder}/evaluation"]
        monkeypatch.setattr("sys.argv", ["evaluate.py", *common, "overwrite=true", *map(str, overrides)])
        return script("evaluate").main(), *capsys.readouterr()

    return run


ALL = f"metrics=[{','.join(METRICS)}]"


def test_evaluate_with_a_judge(command, folder, judge):
    status, printed, _ = command(ALL, f"judge={SHIPPED}", f"labels={folder}/labels")
    assert status == 0
    assert judge.digest in printed and "trained on datasets/facades/train" in printed and f"true classes as in {folder}/labels" in printed
    with open(folder / "evaluation" / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert "judge_fid" not in rows[0] and len(rows) == 3
    hole = np.zeros((64, 64), bool)
    hole[16:48, 20:40] = True
    for n, row in enumerate(rows):
        picture, labels = draw_scene("test", n, 64)
        seen = judge(np.rint(255 * np.where(hole[..., None], 0.5, picture / 255)).astype(np.float32) / 255)
        assert abs(float(row["agreement"]) - (seen.labels == labels)[hole].mean()) < 1e-6
    _, without, _ = command(ALL, f"judge={SHIPPED}")
    assert "true classes as the judge sees them in the truths" in without


def test_a_judge_that_was_trained_on_the_truths_is_told(command, folder, caplog):
    command(ALL, f"judge={SHIPPED}")
    assert "was trained on" not in caplog.text
    own = folder / "judge"
    shutil.copytree(SHIPPED, own)
    (own / "judge.yml").write_text((own / "judge.yml").read_text().replace("datasets/facades/train", str(folder / "truths")))
    command(ALL, f"judge={own}")
    assert "was trained on 3 of these truths" in caplog.text


def test_evaluate_without_a_judge_says_so(command):
    status, printed, _ = command("metrics=[sharpness,agreement,judge_fid]")
    assert status == 0 and printed.count("n/a (1)") >= 2
    assert "(1) no judge is given: judge=FOLDER" in printed


def test_metrics_of_a_judge_are_of_holes(command, folder):
    status, printed, _ = command("masks.folder=null", ALL, f"judge={SHIPPED}")
    assert status == 0 and "no mask with a hole" in printed and "at least 2 images" in printed


def test_mistakes(command, folder):
    assert "add one of agreement" in single_error(command(f"judge={SHIPPED}"))
    assert "is not the folder of a judge" in single_error(command(ALL, f"judge={folder}"))
    (folder / "labels" / "1.png").unlink()
    status, printed, error = command(ALL, f"judge={SHIPPED}", f"labels={folder}/labels")
    assert status == 2 and "1 of 3 pairs were left out" in error and "1.png" in error


def test_a_table_with_a_judge(tmp_path):
    tree = {
        "title": "t",
        "base": str(ROOT / "configs" / "benchmark" / "test.yml"),
        "output": str(tmp_path / "table"),
        "options": ["data.limit=4", "method=telea"],
        "metrics": ["hole_psnr", *METRICS],
        "judge": str(SHIPPED),
        "labels": "facades:64/test",
        "buckets": [{"name": "20-30", "options": ["data.masks.hole_share=[0.2, 0.3]"]}],
        "rows": [{"label": "Telea", "options": []}, {"label": "gray", "options": ["method=mean_fill"]}],
    }
    config = build(TableConfig, tree, "test")
    config.check()
    folder = reproduce(config)
    with open(folder / "table.csv", newline="") as file:
        cells = {(row["row"], row["metric"]): row["mean"] for row in csv.DictReader(file)}
    assert all(cells[row, metric] for row in ("Telea", "gray") for metric in METRICS)
    assert float(cells["gray", "sharpness"]) < 1 and 0 < float(cells["Telea", "agreement"]) < 1
    assert "hole sharpness → 1" in (folder / "table.md").read_text(encoding="utf-8")


# ---- differences between rows -------------------------------------------------------------------------


def test_the_kernel_distance_of_a_draw_is_the_kernel_distance():
    rng = np.random.default_rng(0)
    results, truths = rng.normal(size=(40, 6)), rng.normal(0.3, 1, (40, 6))
    of_draw = kernel_of(results, truths)
    for rows in (np.arange(40), rng.integers(0, 40, 40), rng.integers(0, 40, 40)):
        assert of_draw(rows) == pytest.approx(kernel_distance(results[rows], truths[rows]), rel=1e-9)
        a, b = results[rows], truths[rows]
        within = np.mean([(x[i] @ x[j] / 6 + 1) ** 3 for x in (a, b) for i in range(40) for j in range(40) if i != j])
        across = np.mean([(x @ y / 6 + 1) ** 3 for x in a for y in b])
        assert of_draw(rows) == pytest.approx(2 * within - 2 * across, rel=1e-9)


def test_the_quick_frechet_distance_is_the_frechet_distance():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 12)), rng.normal(0.3, 1.2, (50, 12))
    assert quick_frechet(a, b) == pytest.approx(frechet_distance(a, b), rel=1e-6)
    few = rng.normal(size=(5, 12))  # fewer images than features
    assert quick_frechet(few, few + 1) == pytest.approx(12, rel=1e-6)


def test_differences_of_the_judges_numbers_are_of_the_same_images(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"{i:02d}" for i in range(30)]
    truth = rng.normal(size=(30, 6))
    numbers = {}
    for label, worse in (("ours", 0.1), ("theirs", 0.6)):
        folder = tmp_path / label
        folder.mkdir()
        rows = [ResultRow(name, f"{name}.png", "", 0.2, hole_psnr=10.0) for name in names]
        write_rows(rows, folder / "results.csv")
        values = {name: {"agreement": 0.9 - worse * (0.5 + 0.01 * i)} for i, name in enumerate(names)}
        judged = {name: (list(truth[i] * (1 + worse) + worse), list(truth[i])) for i, name in enumerate(names)}
        numbers[folder] = ImageNumbers(values, judged)
    ours, theirs = numbers
    cells = paired_differences(ours, theirs, ["hole_psnr", "agreement", "judge_fid"], numbers)
    assert cells["hole_psnr"].summary.mean == 0
    wanted = [0.5 * (0.5 + 0.01 * i) for i in range(30)]
    assert cells["agreement"].summary.mean == pytest.approx(np.mean(wanted))
    of_sets = [frechet_distance(*(np.array([run.judged[name][side] for name in names]) for side in (0, 1))) for run in numbers.values()]
    summary = cells["judge_fid"].summary
    assert summary.mean == pytest.approx(of_sets[0] - of_sets[1], rel=1e-5) and summary.low < summary.mean < summary.high < 0
