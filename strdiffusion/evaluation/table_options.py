"""The options of a table (configs/tables/*.yml): rows are runs, columns are buckets and metrics."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from strdiffusion.evaluation.columns import TABLE_METRICS, is_compared, is_evaluations, is_of_image, of_samples
from strdiffusion.evaluation.judging_options import PretrainedConfig
from strdiffusion.evaluation.published import PUBLISHED
from strdiffusion.methods import METHODS
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Range, close


@dataclass
class BucketConfig:
    """A group of columns: its name, such as 10-20, and the overrides of the test configuration that give its masks."""

    name: str
    options: list[str]


@dataclass
class RowConfig:
    """A row: the base configuration with overrides, and another `method` if one is given. `published` names published results that are
    shown below it, or alone (published_only).
    """

    renamed_keys: ClassVar[dict[str, str]] = {"baseline": "method"}

    label: str
    options: list[str] = field(default_factory=list)
    method: str | None = None
    published: str | None = None
    published_only: bool = False


@dataclass
class EqualConfig:
    """Rows are compared at equal `metric`, such as sharpness, with the rows of a curve: one method with several settings."""

    metric: str
    rows: list[str]


@dataclass
class TableConfig:
    """configs/tables/*.yml. `base` is a test configuration, `options` are overrides of it for all rows.

    notes: what differs from the protocol of the published numbers. weights, judge, labels: as in scripts/evaluate.py.
    reference: the label of a row that all others are compared with, image by image, in differences.md.
    equal: a curve that all other rows are compared with at equal sharpness, for example, in equal.md.
    samples: how many results of each image every row makes. All metrics are of the first, but for those that need several.
    """

    title: str
    base: str
    output: str
    buckets: list[BucketConfig]
    rows: list[RowConfig]
    metrics: list[str]
    options: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    weights: PretrainedConfig = field(default_factory=PretrainedConfig)
    judge: str | None = None
    labels: str | None = None
    reference: str | None = None
    equal: EqualConfig | None = None
    samples: Annotated[int, Range(1, 64)] = 1

    def check(self) -> None:
        """Check the keys that depend on each other. Raises UserError."""
        for kind, names in (("row", [row.label for row in self.rows]), ("bucket", [bucket.name for bucket in self.buckets])):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice or not names:
                raise UserError(f"a table needs {kind}s with different names" + (f": {twice!r} is given twice" if twice else ""))
        unknown = next((metric for metric in self.metrics if metric not in TABLE_METRICS and not is_evaluations(metric)), None)
        if unknown is not None:
            raise UserError(
                f"metrics must be among {', '.join(TABLE_METRICS)} and NETWORK_evaluations, not {unknown}{close(unknown, TABLE_METRICS)}"
            )
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise UserError("metrics must name at least one metric, and none twice")
        several = next((metric for metric in self.metrics if of_samples(metric)), None)
        if (several is not None) != (self.samples > 1):
            said = f"{several} compares several results of an image" if several else f"no metric needs samples={self.samples}"
            raise UserError(f"{said}: set samples=4, for example, with a metric such as diversity, or neither")
        for row in self.rows:
            if row.published is not None and row.published not in PUBLISHED:
                raise UserError(f"row {row.label!r}: published={row.published} is not known; known: {', '.join(PUBLISHED)}")
            if row.published_only and (row.published is None or row.method is not None or row.options):
                raise UserError(f"row {row.label!r}: published_only needs published, and neither method nor options")
            if row.method is not None and any(option.startswith("method=") for option in row.options):
                raise UserError(f"row {row.label!r}: method={row.method} is given, and another method in its options: remove one of them")
            if row.method is not None and row.method not in METHODS:
                raise UserError(
                    f"row {row.label!r}: method must be one of {', '.join(METHODS)}, not {row.method}{close(row.method, METHODS)}"
                )
        if self.reference is not None:
            if self.reference not in (row.label for row in self.rows if not row.published_only):
                raise UserError(f"reference={self.reference!r} is not the label of a row that is run")
            if not any(map(is_compared, self.metrics)):
                raise UserError("reference compares rows image by image: add a metric such as hole_psnr to metrics")
        if self.equal is not None:
            self._check_equal([row.label for row in self.rows if not row.published_only])
        if all(row.published_only for row in self.rows):
            raise UserError("a table needs a row that is run: all of its rows are published_only")

    def _check_equal(self, labels: list[str]) -> None:
        """Check `equal`. labels: of the rows that are run. Raises UserError."""
        of_images = [metric for metric in self.metrics if is_of_image(metric)]
        if self.equal.metric not in of_images:
            raise UserError(f"equal.metric must be a number of each image among metrics ({', '.join(of_images)}), not {self.equal.metric}")
        unknown = next((label for label in self.equal.rows if label not in labels), None)
        if unknown is not None:
            raise UserError(f"equal.rows names {unknown!r}, which is not the label of a row that is run")
        if len(set(self.equal.rows)) < 2 or len(set(self.equal.rows)) < len(self.equal.rows):
            raise UserError("equal.rows must name at least two rows, and none twice")
