"""Several results of each image: they differ in noise alone, and a table measures how much and which is best."""

import csv
from pathlib import Path

import numpy as np
import pytest

from strdiffusion.config import load_config
from strdiffusion.data import read_image
from strdiffusion.evaluation.folder import image_seed, test_dataset
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.reproduce import plan, reproduce
from strdiffusion.evaluation.table import read_rows
from strdiffusion.evaluation.table_options import TableConfig
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build

ROOT = Path(__file__).parents[1]
BASE = ROOT / "configs" / "benchmark" / "test.yml"
METRICS = ("diversity", "judge_diversity", "best_hole_psnr", "best_agreement")


def configure(tmp_path, **changes):
    tree = {
        "title": "t",
        "base": str(BASE),
        "output": str(tmp_path / "table"),
        "options": ["data.limit=2", "sampler.steps=2", f"checkpoints.folder={ROOT}/weights/benchmark", "device=cpu"],
        "metrics": ["hole_psnr", "agreement", *METRICS],
        "samples": 3,
        "judge": str(ROOT / "weights" / "judge"),
        "labels": "facades:64/test",
        "buckets": [{"name": "30-40", "options": ["data.masks.hole_share=[0.3, 0.4]"]}],
        "rows": [{"label": "ours", "options": ["sampler.solver=ancestral"]}, {"label": "Telea", "method": "telea"}],
    }
    config = build(TableConfig, tree | changes, "test")
    config.check()
    return config


def test_samples_have_the_same_masks_and_other_noise():
    configs = [load_config(TestConfig, BASE, [f"sample={n}"]) for n in range(3)]
    items = [test_dataset(config)[0] for config in configs]
    assert all(np.array_equal(item.known(), items[0].known()) for item in items)
    seeds = [image_seed(config, item) for config, item in zip(configs, items, strict=True)]
    assert len(set(seeds)) == 3 and seeds[0] == image_seed(load_config(TestConfig, BASE, []), items[0])


def test_the_first_sample_is_the_run_of_a_table_without_samples(tmp_path):
    config, alone = configure(tmp_path), configure(tmp_path, samples=1, metrics=["hole_psnr"])
    first = [plan(c, c.rows[0], c.buckets[0]) for c in (config, alone)]
    assert first[0].folder == first[1].folder and first[0].fingerprint == first[1].fingerprint
    second = plan(config, config.rows[0], config.buckets[0], 1)
    assert second.folder != first[0].folder and second.fingerprint != first[0].fingerprint


def test_a_table_of_several_samples(tmp_path):
    config = configure(tmp_path)
    folder = reproduce(config)
    with open(folder / "table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    cells = {(line["row"], line["metric"]): float(line["mean"]) for line in lines}
    assert len(lines) == 12 and not any(line["reason"] for line in lines)

    runs = [folder / "runs" / "ours" / name for name in ("30-40", "30-40_sample_1", "30-40_sample_2")]
    rows = [{row.name: row for row in read_rows(run / "results.csv")} for run in runs]
    best = [max(found[name].hole_psnr for found in rows) for name in rows[0]]
    assert cells["ours", "best_hole_psnr"] == pytest.approx(np.mean(best), rel=1e-4)
    assert cells["ours", "hole_psnr"] == pytest.approx(np.mean([row.hole_psnr for row in rows[0].values()]), rel=1e-4)

    data = test_dataset(plan(config, config.rows[0], config.buckets[0]).config)
    distances = []
    for i, name in enumerate(data.names):
        hole = data[i].known() < 0.5
        a, b, c = (read_image(run / "inpainted" / f"{name}.png")[hole] for run in runs)
        distances.append(np.mean([np.abs(a - b).mean(), np.abs(a - c).mean(), np.abs(b - c).mean()]))
    assert cells["ours", "diversity"] == pytest.approx(np.mean(distances), rel=1e-4) and min(distances) > 0
    assert cells["ours", "judge_diversity"] > 0 and cells["ours", "best_agreement"] >= cells["ours", "agreement"]

    # a method without chance gives the same result every time
    assert cells["Telea", "diversity"] == cells["Telea", "judge_diversity"] == 0
    assert cells["Telea", "best_hole_psnr"] == cells["Telea", "hole_psnr"]
    assert "3 samples of each image" in (folder / "table.md").read_text(encoding="utf-8")


def test_without_a_judge_there_is_still_diversity(tmp_path):
    folder = reproduce(configure(tmp_path, judge=None, labels=None, metrics=list(METRICS), rows=[{"label": "Telea", "method": "telea"}]))
    with open(folder / "table.csv", newline="") as file:
        lines = {line["metric"]: line for line in csv.DictReader(file)}
    assert lines["diversity"]["mean"] == "0" and lines["judge_diversity"]["reason"].startswith("no judge is given")


@pytest.mark.parametrize("changes", [{"samples": 1}, {"metrics": ["hole_psnr"]}])
def test_samples_and_their_metrics_are_given_together(tmp_path, changes):
    with pytest.raises(UserError, match="set samples=4"):
        configure(tmp_path, **changes)
