"""The result of an inpainting as files of the session."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from strdiffusion.app import Composition, Output, Picture
from strdiffusion.app.composition import Composed
from strdiffusion.app.web.composing import write_bundle
from strdiffusion.app.web.photo import Photo, as_png, preview_of
from strdiffusion.figures.style import PNG_DPI, styled
from strdiffusion.figures.trace import summarise, trace_figure
from strdiffusion.samplers import ImageTrace


@dataclass(frozen=True)
class SampleFiles:
    """File names of a sample: preview, full size (in the picture's format, and without loss), structure and trace."""

    preview: str
    files: tuple[str, ...]
    structure: str | None
    trace: str | None


@dataclass(frozen=True)
class Results:
    """All samples of one inpainting, and a description of its settings.

    before: of a composition, the file that shows it; None: the open picture's preview. bundle: its ZIP file.
    """

    folder: Path
    photo: Photo
    samples: tuple[SampleFiles, ...]
    settings: str
    seconds: float
    before: str | None = None
    bundle: str | None = None

    def remove(self) -> None:
        names = [name for sample in self.samples for name in (sample.preview, sample.structure, sample.trace, *sample.files)]
        for name in (*names, self.before, self.bundle):
            if name is not None:
                (self.folder / name).unlink(missing_ok=True)


def write_composed(composition: Composition, composed: Composed, folder: Path, tag: str) -> tuple[Photo, str, str]:
    """Write what shows a composition before it is painted, and its ZIP file: the composition as a picture, and the two files' names."""
    before, bundle = f"{tag}_before.png", f"{tag}_composition.zip"
    preview = preview_of(Picture(composed.rgba))
    (folder / before).write_bytes(as_png(preview))
    write_bundle(composition, composed, folder, bundle)
    return Photo(folder / before, f"{composition.name}.png", composed.picture.size, preview.size, 0), before, bundle


def write_results(output: Output, photo: Photo, folder: Path, tag: str, settings: str, seconds: float) -> Results:
    """Write the files of an output. tag: makes their names different from earlier ones."""
    suffix = Path(photo.name).suffix
    suffixes = [suffix, ".png"] if suffix == ".jpg" else [suffix]  # JPEG changes known pixels, so add a PNG
    samples = []
    for i, picture in enumerate(output.images):
        stem = f"{tag}_{i}"
        files = tuple(f"{stem}_full{suffix}" for suffix in suffixes)
        for name in files:
            picture.save(folder / name)
        (folder / f"{stem}.png").write_bytes(as_png(preview_of(picture)))
        structure = trace = None
        if output.structure is not None:
            structure = f"{stem}_structure.png"
            (folder / structure).write_bytes(as_png(preview_of(cropped(output.structure[i]))))
        if any(step.scores or step.decisions for part in output.trace[i] for step in part.steps):  # otherwise there were no decisions
            trace = f"{stem}_trace.png"
            (folder / trace).write_bytes(trace_plot(output.trace[i], photo.name))
        samples.append(SampleFiles(f"{stem}.png", files, structure, trace))
    return Results(folder, photo, tuple(samples), settings, seconds)


def cropped(structure: Picture) -> Picture:
    """A structure without its black surroundings: it exists only in the windows."""
    rows, columns = (np.flatnonzero(structure.levels.any(axis=(axis, 2))) for axis in (1, 0))
    if not rows.size:
        return structure
    return replace(structure, levels=structure.levels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


@styled
def trace_plot(traces: list[ImageTrace], name: str) -> bytes:
    """The resampling trace of a picture's windows as a PNG file."""
    windows = f", {len(traces)} windows" if len(traces) > 1 else ""
    out = io.BytesIO()
    trace_figure(summarise([trace for trace in traces if trace.steps]), f"{name}{windows}").savefig(out, format="png", dpi=PNG_DPI)
    return out.getvalue()
