"""Which output belongs to which truth and mask: by file name, or as recorded in our results.csv."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from strdiffusion.data.images import read_image, resize_image
from strdiffusion.data.labels import read_labels_of
from strdiffusion.data.listing import find_images, require_folders
from strdiffusion.data.mask_rules import PREFIX, MaskRule
from strdiffusion.data.masks import Polarity, hole_share, read_mask
from strdiffusion.data.pairing import pair_masks
from strdiffusion.data.testset import SIZED, Fit, fit_image, fit_labels, fit_mask, item_names
from strdiffusion.evaluation.judging_options import EvaluateConfig
from strdiffusion.evaluation.table import ResultRow, read_rows
from strdiffusion.system.errors import UserError, some
from strdiffusion.system.parser import read_yaml

SHARE_TOLERANCE = 1e-5  # results.csv holds six digits


@dataclass(frozen=True)
class Pair:
    """The files of one image. mask: a file, or the rule by which it was generated; hole_share: None if not recorded."""

    name: str
    output: Path
    truth: Path
    mask: Path | str | None = None
    hole_share: float | None = None


@dataclass(frozen=True)
class Pairs:
    """All pairs, sorted by name; the names of outputs without truth; and the truths (or rows of the csv) without output."""

    pairs: list[Pair]
    outputs_alone: list[str]
    truths_alone: list[str]


@dataclass(frozen=True)
class Reading:
    """How truths and masks are brought to the outputs' size, and where the truths' labels are, if there are any."""

    fit: Fit
    size: int | None
    polarity: Polarity
    resize: bool  # outputs of another size than their truth
    labels: Path | None = None


@dataclass(frozen=True)
class Loaded:
    """A pair as arrays: image and truth (H,W,3) float32 in [0,1] at 8-bit levels; known (H,W), 1 = known, or None; the output's size.

    labels: the class of every pixel of the truth, (H,W) uint8, or None.
    """

    image: np.ndarray
    truth: np.ndarray
    known: np.ndarray | None
    output_size: tuple[int, int]
    labels: np.ndarray | None = None


def find_pairs(config: EvaluateConfig) -> Pairs:
    """Pair outputs with truths and masks. Raises UserError if a folder is unusable, names are ambiguous, or there is no pair."""
    require_folders({name: getattr(config, name) for name in ("outputs", "truths")})
    outputs = _named_outputs(Path(config.outputs).expanduser())
    truths = {} if config.truths is None else _named_truths(Path(config.truths).expanduser())
    found = _by_name(outputs, truths) if config.csv is None else _by_rows(outputs, truths, config)
    if not found.pairs:
        source = config.truths if config.csv is None else config.csv
        raise UserError(
            f"no output has the name of a truth: {config.outputs} holds {some(found.outputs_alone)}, "
            f"{source} has {some(found.truths_alone)}; give the outputs their truths' names"
        )
    return _with_masks(found, truths, config) if config.masks.folder is not None else found


def reading(config: EvaluateConfig) -> Reading:
    """How to read the pairs: by the configuration, and for keys that it leaves open by the config.yml beside the csv."""
    fit, size, polarity = config.fit, config.size, config.masks.polarity
    recorded = Path(config.csv).expanduser().parent / "config.yml" if config.csv is not None else None
    if recorded is not None and recorded.is_file():
        data = read_yaml(recorded).get("data")
        data = data if isinstance(data, dict) else {}
        if fit is None and data.get("fit") in SIZED and isinstance(data.get("size"), int):
            fit, size = data["fit"], data["size"]
        masks = data.get("masks")
        if polarity is None and config.masks.folder is None and isinstance(masks, dict) and masks.get("polarity") == "white_known":
            polarity = "white_known"
    labels = None if config.labels is None else Path(config.labels).expanduser()
    return Reading(fit or "none", size, polarity or "white_hole", config.resize, labels)


def load_pair(pair: Pair, how: Reading) -> Loaded:
    """Read the files of a pair. Raises UserError for damaged files and for sizes that differ."""
    image, truth = read_image(pair.output), read_image(pair.truth)
    native, output_size = truth.shape[:2], image.shape[:2]
    truth = fit_image(truth, how.size, how.fit)
    if output_size != truth.shape[:2]:
        if not how.resize:
            mend = "set resize=true to resize outputs"
            if how.fit == "none":
                mend = f"state how truths were brought to size (for example fit=resize size=256), or {mend}"
            sizes = f"{size_text(output_size)} pixels and its truth {pair.truth} {size_text(truth.shape[:2])}"
            raise UserError(f"the output {pair.output} has {sizes}: {mend}")
        image = resize_image(image, *truth.shape[:2])
    known = _known(pair, how, native, truth.shape[:2])
    return Loaded(to_8_bit(image), to_8_bit(truth), known, output_size, _labels(pair, how, native))


def to_8_bit(image: np.ndarray) -> np.ndarray:
    """image in [0,1] rounded to 8-bit levels, float32, as in a written file."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.float32) / 255


def size_text(size: tuple[int, int]) -> str:
    """(height, width) as the text WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


def _known(pair: Pair, how: Reading, native: tuple[int, int], size: tuple[int, int]) -> np.ndarray | None:
    """The mask (H,W) of a truth of `native` size brought to `size`; None if there is none, or a generated one cannot be drawn again."""
    if isinstance(pair.mask, Path):
        return fit_mask(read_mask(pair.mask, how.polarity), native, how.size, how.fit)
    rule = MaskRule.parse(pair.mask or "", pair.name)
    if rule is None:
        return None
    known = rule.draw(*size)
    same = pair.hole_share is not None and abs(hole_share(known) - pair.hole_share) < SHARE_TOLERANCE
    return known if same else None


def _labels(pair: Pair, how: Reading, native: tuple[int, int]) -> np.ndarray | None:
    """The labels of a truth of `native` size, fitted like it; their file has the truth's name and the suffix .png."""
    if how.labels is None:
        return None
    path = (how.labels / pair.name).with_name(f"{pair.truth.stem}.png")
    return fit_labels(read_labels_of(pair.truth, path, native), how.size, how.fit)


def _named_outputs(folder: Path) -> dict[str, Path]:
    """Output files by their relative path without suffix."""
    if (folder / "results.csv").is_file() and (folder / "inpainted").is_dir():
        inside, csv = folder / "inpainted", folder / "results.csv"
        raise UserError(f"{folder} is the whole folder of a test: give outputs={inside}, and csv={csv} for its masks")
    files = find_images(folder)
    names = [os.path.splitext(path.relative_to(folder).as_posix())[0] for path in files]
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        same = [path for path, name in zip(files, names, strict=True) if name == twice]
        raise UserError(f"several outputs have the same name: {some(same)}; keep one of them")
    return dict(zip(names, files, strict=True))


def _named_truths(folder: Path) -> dict[str, Path]:
    """Truth files by the names that scripts/test.py gives their outputs."""
    files = find_images(folder)
    return dict(zip(item_names(files, folder), files, strict=True))


def _by_name(outputs: dict[str, Path], truths: dict[str, Path]) -> Pairs:
    """Pair by relative path, then the rest by file name alone if that is unambiguous."""
    partner = {name: name for name in outputs if name in truths}
    left = [name for name in truths if name not in partner]
    by_stem = _unique_stems(left)
    for stem, output in _unique_stems([name for name in outputs if name not in partner]).items():
        if stem in by_stem:
            partner[output] = by_stem[stem]
    pairs = [Pair(truth, outputs[output], truths[truth]) for output, truth in partner.items()]
    paired = set(partner.values())
    return Pairs(
        sorted(pairs, key=lambda pair: pair.name),
        [outputs[name].name for name in outputs if name not in partner],
        [truths[name].name for name in truths if name not in paired],
    )


def _by_rows(outputs: dict[str, Path], truths: dict[str, Path], config: EvaluateConfig) -> Pairs:
    """Pair by the rows of a results.csv. The truths are the recorded ones, or, if a folder of truths is given, those of the same name."""
    path = Path(config.csv).expanduser()
    if not path.is_file():
        raise UserError(f"csv={config.csv} does not exist: give a results.csv of scripts/test.py")
    try:
        rows = read_rows(path)
    except UserError:
        raise UserError(f"csv={config.csv} is not a results.csv of scripts/test.py: give another, or truths and masks.folder") from None
    pairs: list[Pair] = []
    alone: list[str] = []
    for row in rows:
        truth = truths.get(row.name) if config.truths is not None else Path(row.image).expanduser()
        if row.name in outputs and truth is not None:
            pairs.append(Pair(row.name, outputs[row.name], truth, _recorded_mask(row), row.hole_share))
        else:
            alone.append(row.name)
    taken = {pair.name for pair in pairs}
    return Pairs(sorted(pairs, key=lambda pair: pair.name), [outputs[name].name for name in outputs if name not in taken], alone)


def _recorded_mask(row: ResultRow) -> Path | str | None:
    if not row.mask or row.mask.startswith(PREFIX):
        return row.mask or None
    return Path(row.mask).expanduser()


def _with_masks(found: Pairs, truths: dict[str, Path], config: EvaluateConfig) -> Pairs:
    """The pairs with mask files from a folder, paired as in a test: order and seeded draws depend on the whole folder of truths."""
    folder = Path(config.masks.folder).expanduser()
    files = list(truths.values()) if config.masks.pairing == "order" and truths else [pair.truth for pair in found.pairs]
    root = None if config.truths is None else Path(config.truths).expanduser()
    try:
        masks = dict(zip(files, pair_masks(files, find_images(folder), config.masks.pairing, config.seed, root, folder), strict=True))
    except UserError as error:
        raise UserError(str(error).replace("data.masks.", "masks.")) from None
    return replace(found, pairs=[replace(pair, mask=masks[pair.truth], hole_share=None) for pair in found.pairs])


def _unique_stems(names: Sequence[str]) -> dict[str, str]:
    """Names by their last part, for the parts that only one name has."""
    stems = [name.rpartition("/")[2] for name in names]
    times = Counter(stems)
    return {stem: name for stem, name in zip(stems, names, strict=True) if times[stem] == 1}
