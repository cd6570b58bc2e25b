"""The tables of a benchmark."""

from collections.abc import Sequence

from strdiffusion.system.markdown import markdown_table


def network_table(rows: Sequence[dict]) -> str:
    cells = [
        [
            row["network"],
            row["form"],
            row["precision"],
            milliseconds(row),
            f"{row['gflop']:.1f}",
            f"{row['rate']:.0f}",
            percent(row["of_convolution"]),
            percent(row["of_matrix"]),
            f"{row['difference']:.0e}",
        ]
        for row in rows
    ]
    names = ["network", "form", "precision", "ms", "GFLOP", "GFLOP/s", "of best convolution", "of best matrix product", "difference"]
    peaks = {row["precision"]: row["peak"] for row in rows}
    notes = [
        f"{name}: best 3x3 convolution {peak['convolution']:.0f} GFLOP/s ({peak['convolution_shape']}), "
        f"best matrix product {peak['matrix']:.0f} GFLOP/s ({peak['matrix_shape']})"
        for name, peak in peaks.items()
    ]
    return "\n\n".join([markdown_table([names, *cells], "left"), *notes])


def sampler_table(rows: Sequence[dict]) -> str:
    kinds = ("texture", "structure", "discriminator")
    cells = [
        [
            row["sampler"],
            str(row["T"]),
            row["precision"],
            str(row["batch"]),
            f"{row['seconds_per_image']:.3g}",
            f"{row['images_per_hour']:.0f}",
            *(f"{row['evaluations'][kind]:g}" for kind in kinds),
            percent(row["outside"], 1),
        ]
        for row in rows
    ]
    evaluations = [f"{kind} evaluations" for kind in kinds]
    names = ["sampler", "T", "precision", "batch", "s/image", "images/hour", *evaluations, "outside of networks"]
    return markdown_table([names, *cells], "left")


def training_table(rows: Sequence[dict]) -> str:
    cells = [
        [
            row["network"],
            row["precision"],
            str(row["batch"]),
            yes(row["checkpoint"]),
            yes(row["compile"]),
            milliseconds(row),
            f"{row['iterations_per_second']:.3g}",
            f"{row['iterations_per_second'] * row['batch']:.3g}",
            f"{row['memory_gib']:.2f}",
            percent(row["waiting"], 1),
        ]
        for row in rows
    ]
    names = ["network", "precision", "batch", "checkpoint", "compile", "ms", "iterations/s", "images/s", "peak GiB", "waiting for data"]
    return markdown_table([names, *cells], "left")


def milliseconds(row: dict) -> str:
    """Median, and from fastest to slowest."""
    m = row["milliseconds"]
    return f"{m['median']:.4g} ({m['fastest']:.4g}-{m['slowest']:.4g})"


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def yes(value: bool) -> str:
    return "yes" if value else "no"
