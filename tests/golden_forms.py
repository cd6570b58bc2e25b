"""The forms of folders of golden numbers, told by a key of their meta.json, and how each is recomputed."""

import json
from collections.abc import Iterator
from pathlib import Path

import golden_checks
import golden_dgts_checks
import golden_repaint_checks

from strdiffusion.system.errors import UserError

DISAGREES = (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, ArithmeticError)
FORMS = {"unets": golden_repaint_checks.check_folder, "lambda": golden_dgts_checks.check_folder}  # StrDiffusion's has none of these keys


def check_folder(folder: Path, fast: bool = False, **options) -> Iterator[golden_checks.Comparison]:
    """Recompute every item of a folder of any form. options: `call` and `files`, but for DGTS. Raises UserError if it is of none, or if its
    meta.json does not fit itself or its files.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
    except (OSError, ValueError):
        meta = {}  # which StrDiffusion's form reports
    form = next((form for key, form in FORMS.items() if key in meta), golden_checks.check_folder)
    last = "any item"
    try:
        for item in form(folder, fast, **options):
            last = item.name
            yield item
    except DISAGREES as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{folder / 'meta.json'} does not fit together, or not with the files beside it, after {last}: {problem}"
        ) from error
