"""scripts/evaluate.py as a user meets it: any folder of outputs against its truths, and one line for each mistake."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import script, single_error
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from strdiffusion.config import load_config
from strdiffusion.evaluation.compare import Measures, compare_arrays, compare_folders
from strdiffusion.evaluation.folder import inpaint_folder
from strdiffusion.evaluation.judging_options import EvaluateConfig, load_evaluation
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.table import ResultRow, read_rows, summary_table, write_rows
from strdiffusion.system.errors import UserError

ROOT = Path(__file__).parents[1]
SIZE = 32
HOLES = {"a": np.s_[4:12, 4:12], "b": np.s_[0:8, :], "c": np.s_[0:16, 0:24], "d": np.s_[8:16, 8:17]}  # 6.25, 25, 37.5, 7.03 %
PIXELS = "metrics=[psnr,ssim,l1]"


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))


@pytest.fixture
def work(tmp_path):
    """A folder with truths/, masks/ (white = hole) and outputs/, in which the hole differs from the truth."""
    rng = np.random.default_rng(0)
    for name, where in HOLES.items():
        truth = cv2.resize(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        hole = np.zeros((SIZE, SIZE), np.uint8)
        hole[where] = 255
        noise = rng.integers(-40, 40, truth.shape)
        output = np.where(hole[..., None] > 0, np.clip(truth + noise, 0, 255), truth).astype(np.uint8)
        for kind, pixels in (("truths", truth), ("masks", hole), ("outputs", output)):
            save(tmp_path / kind / f"{name}.png", pixels)
    return tmp_path


@pytest.fixture
def command(work, monkeypatch, capsys):
    """command(*overrides) runs scripts/evaluate.py on the work folder; returns status, stdout and stderr."""

    def run(*overrides, common=("outputs={}/outputs", "truths={}/truths", "masks.folder={}/masks", "output={}/evaluation", PIXELS)):
        arguments = [text.replace("{}", str(work)) for text in (*common, *overrides)]
        monkeypatch.setattr("sys.argv", ["evaluate.py", *arguments])
        return script("evaluate").main(), *capsys.readouterr()

    return run


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def table(folder):
    """table.csv as {(holes, metric): row}."""
    return {(row["holes"], row["metric"]): row for row in read(folder / "table.csv")}


# ---- what comes out -----------------------------------------------------------------------------------


def test_a_folder_of_outputs(command, work):
    status, printed, err = command()
    assert status == 0 and "error" not in err
    lines = read(work / "evaluation" / "per_image.csv")
    assert [line["name"] for line in lines] == list(HOLES)
    options = {"channel_axis": 2, "data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for line in lines:
        name = line["name"]
        truth, output = (cv2.imread(str(work / kind / f"{name}.png")) for kind in ("truths", "outputs"))
        hole = cv2.imread(str(work / "masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE) > 127
        mean, values = structural_similarity(truth, output, full=True, **options)
        error = np.abs(truth.astype(float) - output) / 255
        expected = {
            "hole_share": hole.mean(),
            "psnr": peak_signal_noise_ratio(truth, output),
            "ssim": mean,
            "l1": error.mean(),
            "hole_psnr": peak_signal_noise_ratio(truth[hole], output[hole]),
            "hole_ssim": values[hole].mean(),
            "hole_l1": error[hole].mean(),
        }
        for metric, value in expected.items():
            assert abs(float(line[metric]) - value) < 1e-6 * max(1, value), (name, metric)
        assert line["truth"] == str(work / "truths" / f"{name}.png") and line["mask"] == str(work / "masks" / f"{name}.png")
    check_buckets(table(work / "evaluation"), lines)
    text = (work / "evaluation" / "table.md").read_text()
    assert text in printed and "| 20-30 % |" in text and "| 10-20 % |" not in text
    for said in ("data range 1", "sigma 1.5", "11x11", "4 images", "32x32 (4)", "2000 resamples", "scikit-image 0.", "white_hole"):
        assert said in text, said


def check_buckets(cells, lines):
    members = {"0-10 %": "ad", "20-30 %": "b", "30-40 %": "c", "all": "abcd"}
    assert {holes for holes, _ in cells} == set(members)
    for holes, names in members.items():
        values = [float(line["psnr"]) for line in lines if line["name"] in names]
        cell = cells[holes, "psnr"]
        assert abs(float(cell["mean"]) - np.mean(values)) < 1e-6 and int(cell["images"]) == len(values)
        if len(values) > 1:
            assert min(values) - 1e-6 <= float(cell["low"]) <= float(cell["mean"]) <= float(cell["high"]) <= max(values) + 1e-6
        else:
            assert cell["low"] == cell["high"] == ""


def test_twice_the_same(command, work):
    assert command()[0] == command("output={}/again")[0] == 0
    assert (work / "evaluation" / "table.csv").read_bytes() == (work / "again" / "table.csv").read_bytes()


def test_without_masks_there_are_no_buckets_and_no_holes(command, work):
    assert command("masks.folder=null")[0] == 0
    assert set(table(work / "evaluation")) == {("all", "psnr"), ("all", "ssim"), ("all", "l1")}


def test_metrics_without_weights_say_why(command, work):
    status, printed, _ = command("metrics=[psnr,lpips_alex,lpips_vgg,fid,kid]")
    assert status == 0
    cells = table(work / "evaluation")
    files = {"lpips_alex": "alexnet-owt", "lpips_vgg": "vgg16", "fid": "weights-inception", "kid": "weights-inception"}
    for metric, file in files.items():
        assert cells["all", metric]["mean"] == "n/a" and file in cells["all", metric]["reason"]
    assert "n/a (3)" in printed and "(3) no pretrained weights" in printed and "n/a (4)" not in printed
    assert "hole_lpips_alex" not in (work / "evaluation" / "per_image.csv").read_text()


def test_results_from_elsewhere(command, work):
    """One file missing, one corrupt, one of another size, one too many."""
    outputs = work / "outputs"
    (outputs / "a.png").unlink()
    (outputs / "b.png").write_text("no image")
    save(outputs / "c.png", np.zeros((16, 16, 3), np.uint8))
    save(outputs / "extra.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    result = command()
    error = single_error(result)
    assert "2 of 3 pairs were left out" in error
    assert "truths without output: 1 (a.png)" in error and "outputs without truth: 1 (extra.png)" in error
    text = (work / "evaluation" / "table.md").read_text()
    assert "Left out: 2 of 3 pairs" in text and "extra.png" in text
    assert [line["name"] for line in read(work / "evaluation" / "per_image.csv")] == ["d"]


def test_each_file_that_is_left_out_is_named(command, work, caplog):
    (work / "outputs" / "b.png").write_text("no image")
    save(work / "outputs" / "c.png", np.zeros((16, 24, 3), np.uint8))
    assert "2 of 4 pairs" in single_error(command())
    notices = [record.getMessage() for record in caplog.records]
    assert len(notices) == 2 and "outputs/b.png is damaged" in notices[0]
    assert "c.png has 24x16 pixels" in notices[1] and "32x32" in notices[1] and "resize=true" in notices[1]


def test_sizes_that_differ_are_resized_only_when_told(command, work):
    for name in HOLES:
        output = cv2.imread(str(work / "outputs" / f"{name}.png"))
        save(work / "outputs" / f"{name}.png", cv2.resize(output, (2 * SIZE, 2 * SIZE), interpolation=cv2.INTER_NEAREST))
    assert "none of 4 pairs could be compared" in single_error(command("output={}/refused"))
    status, printed, _ = command("resize=true")
    assert status == 0 and "4 outputs of another size were RESIZED" in printed
    assert abs(float(read(work / "evaluation" / "per_image.csv")[0]["hole_psnr"]) - 20.9) < 1.5  # areas of 2x2 give the pixels back
    assert command("output={}/enlarged", "fit=resize", f"size={2 * SIZE}")[0] == 0  # or the truths and masks are


def test_names_in_subfolders_and_with_other_suffixes(command, work):
    save(work / "truths" / "deep" / "e.jpg", np.full((SIZE, SIZE, 3), 100, np.uint8))
    save(work / "outputs" / "e.png", np.full((SIZE, SIZE, 3), 110, np.uint8))
    assert command("masks.folder=null")[0] == 0
    line = read(work / "evaluation" / "per_image.csv")[-1]
    assert line["name"] == "deep/e" and abs(float(line["psnr"]) - 20 * math.log10(25.5)) < 0.2


def test_pairing_and_polarity_of_masks(command, work):
    shares = {line["name"]: line["hole_share"] for line in (command(), read(work / "evaluation" / "per_image.csv"))[1]}
    (work / "outputs" / "a.png").unlink()  # masks in order belong to the truths, whichever outputs there are
    for i, name in enumerate(HOLES):
        mask = cv2.imread(str(work / "masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        save(work / "inverted" / f"{i}.png", 255 - mask)
    inverted = ("masks.folder={}/inverted", "masks.polarity=white_known")
    assert "without output: 1 (a.png)" in single_error(command(*inverted, "masks.pairing=order", "output={}/order"))
    assert {line["name"]: line["hole_share"] for line in read(work / "order" / "per_image.csv")} == {n: shares[n] for n in "bcd"}
    single_error(command(*inverted, "masks.pairing=seeded", "output={}/seeded"))
    assert {line["hole_share"] for line in read(work / "seeded" / "per_image.csv")} <= set(shares.values())


def test_masks_that_look_inverted(command, caplog):
    assert command("masks.polarity=white_known")[0] == 0
    assert "set masks.polarity=white_hole" in caplog.text


def test_perfect_outputs(command, work):
    status, printed, _ = command("outputs={}/truths")
    assert status == 0 and float(table(work / "evaluation")["all", "psnr"]["mean"]) == math.inf and "inf [inf, inf]" in printed


def test_a_configuration_file(command, work):
    (work / "evaluate.yml").write_text(
        f"outputs: {work}/outputs\ntruths: {work}/truths\nmasks: {{folder: {work}/masks}}\noutput: {work}/evaluation\nbuckets: [[5, 30]]\n"
    )
    assert command("-opt", "{}/evaluate.yml", "metrics=[psnr]", common=())[0] == 0
    counts = {holes: row["images"] for (holes, metric), row in table(work / "evaluation").items() if metric == "psnr"}
    assert counts == {"5-30 %": "3", "all": "4"}
    config = load_config(EvaluateConfig, work / "evaluation" / "config.yml")
    assert config.metrics == ["psnr"] and config.buckets == [(5, 30)]


# ---- the results of scripts/test.py -------------------------------------------------------------------


def inpaint(work, *overrides):
    """What scripts/test.py leaves, without networks: holes filled with the mean colour."""
    (work / "test.yml").write_text(
        f"output: {work}/results\ndata: {{images: {work}/truths, masks: {{folder: {work}/masks}}, size: {SIZE}, index: null}}\n"
        "method: mean_fill\n"
    )
    inpaint_folder(load_config(TestConfig, work / "test.yml", overrides))
    return read(work / "results" / "results.csv")


FROM_TEST = ("outputs={}/results/inpainted", "csv={}/results/results.csv", "output={}/evaluation", PIXELS)


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.size=32",),
        ("data.size=24",),  # photographs and masks are shrunk
        ("data.size=48", "data.fit=center_crop"),
        ("data.masks.folder=null", "data.masks.hole_share=[0.2, 0.4]"),
        ("data.masks.folder=null", "data.masks.family=random_box", "data.masks.hole_share=[0.2, 0.2]"),
        ("data.masks.folder=null", "data.masks.family=wide"),
        ("data.masks.polarity=white_known",),
    ],
)
def test_the_same_numbers_as_at_test(command, work, overrides):
    """Up to the six digits of results.csv: 5e-5 dB of PSNR, 5e-7 of SSIM."""
    expected = inpaint(work, *overrides)
    assert command(common=FROM_TEST)[0] == 0
    found = read(work / "evaluation" / "per_image.csv")
    assert [line["name"] for line in found] == [row["name"] for row in expected] == list(HOLES)
    for line, row in zip(found, expected, strict=True):
        assert line["mask"] == row["mask"] and line["truth"] == row["image"]
        for metric, tolerance in [("psnr", 5.1e-5), ("hole_psnr", 5.1e-5), ("ssim", 5.1e-7), ("hole_ssim", 5.1e-7), ("hole_share", 5.1e-7)]:
            assert abs(float(line[metric]) - float(row[metric])) < tolerance, (line["name"], metric)


def test_the_same_numbers_with_folders_instead_of_the_csv(command, work):
    inpaint(work, "data.size=24", "data.masks.pairing=seeded", "seed=3")
    assert command(common=FROM_TEST)[0] == 0
    options = ("outputs={}/results/inpainted", "fit=resize", "size=24", "masks.pairing=seeded", "seed=3", "output={}/folders")
    assert command(*options)[0] == 0
    for one, two in zip(*(read(work / name / "per_image.csv") for name in ("evaluation", "folders")), strict=True):
        assert one == two


EARLIER = """name,image,mask,hole_share,psnr,ssim,hole_psnr,hole_ssim,masked_hole_psnr,masked_hole_ssim,seconds,\
texture_evaluations,structure_evaluations,discriminator_evaluations
a,photos/a.png,masks/a.png,0.0625,30.1,0.95,18.2,0.5,5.1,0.05,0.0024,117,58,41
b,photos/b.png,masks/b.png,0.25,,,,,,,0.0024,0,0,0
"""


def test_results_of_an_earlier_version_are_read(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(EARLIER)
    a, b = rows = read_rows(path)
    assert a.evaluations == {"texture": 117, "structure": 58, "discriminator": 41} and a.number("structure_evaluations") == 58
    assert (a.psnr, a.hole_ssim, a.seconds, a.number("painter_evaluations"), a.shown) == (30.1, 0.5, 0.0024, 0, "")
    assert b.psnr is None and b.evaluations == {"texture": 0, "structure": 0, "discriminator": 0}
    write_rows(rows, path)
    assert read_rows(path) == rows and path.read_text().splitlines() == EARLIER.splitlines()
    assert "| evaluations T/S/D |" in summary_table(rows) and "58/29/20" in summary_table(rows)


def test_results_name_what_a_method_was_shown(tmp_path):
    """Only then is there such a column; and rows may have evaluated different networks."""
    plain = ResultRow("a", "a.png", "m.png", 0.25, evaluations={"painter": 3})
    shown = replace(plain, name="b", evaluations={"texture": 2}, shown="truth (guide=ground_truth)")
    write_rows([plain], tmp_path / "plain.csv")
    write_rows([plain, shown], tmp_path / "both.csv")
    assert "shown" not in read(tmp_path / "plain.csv")[0] and read(tmp_path / "plain.csv")[0]["painter_evaluations"] == "3"
    assert [line["shown"] for line in read(tmp_path / "both.csv")] == ["", "truth (guide=ground_truth)"]
    assert read_rows(tmp_path / "both.csv") == [plain, shown]


def test_rows_without_output_and_outputs_without_row(command, work):
    inpaint(work)
    (work / "results" / "inpainted" / "a.png").rename(work / "results" / "inpainted" / "z.png")
    error = single_error(command(common=FROM_TEST))
    assert "truths without output: 1 (a)" in error and "outputs without truth: 1 (z.png)" in error


def test_generated_masks_that_cannot_be_drawn_again(command, work):
    inpaint(work, "data.masks.folder=null")
    path = work / "results" / "results.csv"
    path.write_text(path.read_text().replace("generated:seed=0", "generated:seed=1"))
    status, printed, _ = command(common=FROM_TEST)
    assert status == 0 and "4 generated masks could not be drawn again" in printed
    lines = read(work / "evaluation" / "per_image.csv")
    assert all(line["hole_share"] for line in lines) and "hole_psnr" not in lines[0]


# ---- as a library -------------------------------------------------------------------------------------


def test_arrays_give_what_folders_give(work):
    folders = [f"outputs={work}/outputs", f"truths={work}/truths", f"masks.folder={work}/masks", "output=unused"]
    config = load_evaluation(None, [*folders, PIXELS])
    measures = Measures(config.metrics)
    folders = compare_folders(config, measures)
    images = []
    for name in HOLES:
        output, truth = (cv2.imread(str(work / kind / f"{name}.png"))[..., ::-1] / np.float32(255) for kind in ("outputs", "truths"))
        images.append((output, truth, 1.0 * (cv2.imread(str(work / "masks" / f"{name}.png"), 0) < 128)))
    arrays = compare_arrays(images, measures)
    assert [image.values for image in arrays.images] == [image.values for image in folders.images]
    assert arrays.rows(config.buckets) == folders.rows(config.buckets)
    with pytest.raises(ValueError, match="image 0"):
        compare_arrays([(images[0][0][:16], images[0][1], None)], measures)


# ---- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("outputs=absent",), "absent does not exist"),
        (("outputs={}/truths/a.png",), "is a file"),
        (("outputs={}/empty",), "no image in"),
        (("truths=absent",), "absent does not exist"),
        (("truths=null",), "the key truths is missing"),
        (("masks.folder=absent",), "absent does not exist"),
        (("masks.folder={}/others",), "set masks.pairing=order"),
        (("truths={}/others",), "no output has the name of a truth"),
        (("csv=absent.csv",), "csv=absent.csv does not exist"),
        (("csv={}/truths/a.png",), "is not a results.csv"),
        (("csv={}/other.csv",), "is not a results.csv"),
        (("outputs={}/double",), "several outputs have the same name"),
        (("outputs={}/run",), "give outputs="),
        (("metrics=[]",), "at least one metric"),
        (("metrics=[psnr,psnr]",), "none twice"),
        (("metrics=[lpips]",), "metrics[0] must be one of"),
        (("fit=resize",), "give size=256"),
        (("size=64",), "give fit=resize"),
        (("buckets=[[20,10]]",), "must be below its second"),
        (("output={}/truths",), "already holds files"),
        (("weights.alex=absent.pth", "metrics=[lpips_alex]"), "weights.alex=absent.pth cannot be read"),
        (("weights.inception={}/other.csv", "metrics=[fid]"), "pretrained weights"),
        (("truth=x",), "did you mean truths?"),
        (("-opt", "absent.yml"), "absent.yml does not exist"),
        (("outputs",), "not of the form key=value"),
    ],
)
def test_mistakes(command, work, overrides, said):
    (work / "empty").mkdir()
    save(work / "others" / "x.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    for name in ("a.png", "a.jpg"):
        save(work / "double" / name, np.zeros((SIZE, SIZE, 3), np.uint8))
    save(work / "run" / "inpainted" / "a.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    for path in (work / "other.csv", work / "run" / "results.csv"):
        path.write_text("x,y\n1,2\n")
    error = single_error(command(*overrides))
    assert said in error
    assert not (work / "evaluation").exists()


@pytest.mark.parametrize("overrides", [[], ["outputs=x"], ["outputs=x", "truths=y"]])
def test_keys_that_are_needed(overrides):
    with pytest.raises(UserError, match="the command line: the key out"):
        load_evaluation(None, overrides)
