"""The report of the parts: PART.json, PART.md, and report.md of all parts in the folder."""

import json
from pathlib import Path

from strdiffusion.bench.gpu import budget, checks, networks, samplers, training
from strdiffusion.bench.gpu.record import DONE, Session
from strdiffusion.system.files import write_text

PARTS = {"tests": checks, "networks": networks, "samplers": samplers, "training": training, "benchmark": budget}
TITLES = {
    "tests": "Tests and golden numbers",
    "networks": "Networks",
    "samplers": "Samplers",
    "training": "Training",
    "benchmark": "The benchmark with ten times the budget",
}
NAMED = 12  # of what was left out


def write(session: Session) -> None:
    """Write what was measured so far."""
    part, outcome = session.record.part, session.outcome()
    write_text(session.folder / f"{part}.json", json.dumps(outcome, indent=1) + "\n")
    write_text(session.folder / f"{part}.md", markdown(outcome))
    pages = [session.folder / f"{name}.md" for name in PARTS if (session.folder / f"{name}.md").exists()]
    write_text(session.folder / "report.md", "\n".join(page.read_text(encoding="utf-8") for page in pages))


def markdown(outcome: dict) -> str:
    part = outcome["part"]
    about = ", ".join(str(outcome[name]) for name in ("device", "processor", "torch", "cuda", "python") if outcome.get(name))
    small = "Small networks and images: this shows that the command works, not how fast anything is." if outcome["sizes"] == "quick" else ""
    paragraphs = [f"# {TITLES[part]}", about, small, PARTS[part].table(outcome["rows"]) if outcome["rows"] else "Nothing was measured."]
    if outcome["lacking"]:
        lines = [f"* {what}: needs {', '.join(names)}" for what, names in outcome["lacking"].items()]
        paragraphs.append("Not run, because packages are missing:\n\n" + "\n".join(lines))
    if outcome["left_out"]:
        lines = [f"* {key}: {reason}" for key, reason in outcome["left_out"].items()]
        more = [f"* and {len(lines) - NAMED} more: see {part}.json"] if len(lines) > NAMED else []
        paragraphs.append("Left out for want of time; the same command goes on with them:\n\n" + "\n".join(lines[:NAMED] + more))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def print_summary(session: Session) -> None:
    """One line: what was measured, failed and left out."""
    rows = list(session.record.rows.values())
    failed = [row["key"] for row in rows if row["status"] == "failed"]
    beyond = checks.failed(rows) if session.record.part == "tests" else 0
    measured = sum(row["status"] in DONE for row in rows)
    parts = [f"{measured} measured", f"{len(failed)} failed", f"{len(session.left_out)} left out for want of time"]
    if beyond:
        parts.append(f"{beyond} numbers or tests beyond their tolerance")
    session.say(f"{session.record.part}: {', '.join(parts)}: {Path(session.folder) / (session.record.part + '.md')}")
