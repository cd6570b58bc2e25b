"""README and docs/ say what is so: links resolve, names exist, commands and their options are accepted, counts are exact."""

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from conftest import script
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.version import Version

from strdiffusion.commands.main import COMMANDS
from strdiffusion.commands.main import main as strdiffusion
from strdiffusion.commands.reproduce import load_table
from strdiffusion.config import (
    TrainDGTSConfig,
    TrainDiscriminatorConfig,
    TrainJudgeConfig,
    TrainPriorConfig,
    TrainStructureConfig,
    TrainTextureConfig,
    TrainUpsamplerConfig,
    load_config,
)
from strdiffusion.evaluation.judging_options import EvaluateConfig, load_evaluation
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.table_options import TableConfig
from strdiffusion.figures import FiguresConfig
from strdiffusion.methods import METHODS
from strdiffusion.methods.counting import count_evaluations
from strdiffusion.networks import KINDS
from strdiffusion.samplers import Released, SamplerConfig
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import convert

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGURATIONS = {
    "train_structure": TrainStructureConfig,
    "train_texture": TrainTextureConfig,
    "train_discriminator": TrainDiscriminatorConfig,
    "train_judge": TrainJudgeConfig,
    "train_prior": TrainPriorConfig,
    "train_dgts": TrainDGTSConfig,
    "train_upsampler": TrainUpsamplerConfig,
    "train structure": TrainStructureConfig,
    "train texture": TrainTextureConfig,
    "train discriminator": TrainDiscriminatorConfig,
    "train judge": TrainJudgeConfig,
    "train prior": TrainPriorConfig,
    "train dgts": TrainDGTSConfig,
    "train upsampler": TrainUpsamplerConfig,
    "test": TestConfig,
    "figures": FiguresConfig,
}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def text(page):
    """A page's text; of a notebook, that of its Markdown cells."""
    content = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return content
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(content)["cells"] if cell["cell_type"] == "markdown")


def prose(page):
    return FENCE.sub("", text(page))


def name(page):
    return page.relative_to(ROOT).as_posix()


# ---- links --------------------------------------------------------------------------------------------


def anchors(page):
    """What headings of a page can be linked to, as GitHub makes it of them."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs").glob("*.ipynb")), ROOT / "tests" / "golden" / "README.md"], ids=name)
def test_links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{name(page)}: {target}"
        assert linked.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(linked), f"{name(page)}: {target}; there are {sorted(anchors(linked))}"


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\((docs/[\w.-]+)", text(ROOT / "README.md")))
    assert linked >= {name(page) for page in PAGES[1:]} | {name(page) for page in (ROOT / "docs").glob("*.ipynb")}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_in_the_text(page):
    """`scripts/x.py`, `configs/*/test.yml` and the like, in the text."""
    for path in re.findall(r"`((?:scripts|configs|strdiffusion|docs|tests)/[^`\s{]*)`", prose(page)):
        assert any(ROOT.glob(path.rstrip("/"))), f"{name(page)}: {path}"


# ---- docs/code.md -------------------------------------------------------------------------------------


def code_rows(part=0):
    """The rows of the table of names (part 0), or of that of RePaint (part 1)."""
    table = text(ROOT / "docs" / "code.md").split("## ")[part]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]
    return [row for row in rows[2:]]


def test_the_table_of_names_is_read():
    assert len(code_rows()) > 40 and {len(row) for row in code_rows()} == {4}
    sections, of_repaint = (
        set(re.findall(r"^## (\d+)\.", text(ROOT / "docs" / page), re.MULTILINE)) for page in ("spec.md", "repaint_spec.md")
    )
    mentioned, more = ({section.strip() for row in code_rows(part) for section in row[0].split(",")} - {"-"} for part in (0, 1))
    assert mentioned == sections and {"4", "5", "6", "9"} <= more <= of_repaint


@pytest.mark.parametrize("row", [*code_rows(), *code_rows(1)], ids=lambda row: row[1])
def test_names_of_the_table_exist(row):
    file = row[2].strip("`")
    names = re.findall(r"`([^`]+)`", row[3])
    assert names
    if file.startswith("tests/"):
        source = (ROOT / file).read_text(encoding="utf-8")
        assert all(f"\ndef {found}(" in source for found in names)
        return
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    assert Path(module.__file__) == ROOT / file
    for dotted in names:
        here = module
        for part in dotted.split("."):
            here = getattr(here, part)
        home = getattr(here, "__module__", module.__name__)
        assert home in (module.__name__, "typing"), f"{dotted} is of {home}"


# ---- commands -----------------------------------------------------------------------------------------


class Parsed(BaseException):
    """The options that a command understood; it goes no further."""

    def __init__(self, options):
        self.options = options


@pytest.fixture
def parsed(monkeypatch):
    """parsed(program, *arguments): what a script or `strdiffusion` makes of its arguments. Raises UserError."""
    for method in ("parse_args", "parse_intermixed_args"):
        original = getattr(argparse.ArgumentParser, method)

        def stop(self, *arguments, original=original, **options):
            raise Parsed(original(self, *arguments, **options))

        monkeypatch.setattr(argparse.ArgumentParser, method, stop)

    def run(program, *arguments):
        monkeypatch.setattr("sys.argv", [program, *arguments])
        with pytest.raises(Parsed) as stopped:
            (strdiffusion if program == "strdiffusion" else script(program).main)()
        return stopped.value.options

    return run


def shell_words(block):
    """The simple commands of a shell script, as lists of words; those with $network once for each that the loop around them names."""
    networks = []
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                if words[:3] == ["for", "network", "in"]:
                    networks = words[3:]
                    assert set(networks) <= set(KINDS)
                looped = "$network" in " ".join(words)
                yield from ([w.replace("$network", kind) for w in words] for kind in (networks if looped else [""]))
                words = []
            else:
                words.append(word)


def commands(page):
    """(program, arguments) of every command of ours in the page: a script's name, or strdiffusion."""
    for language, block in FENCE.findall(text(page)):
        if language not in ("bash", "sh"):
            continue
        for words in shell_words(block):
            programs = [i for i, word in enumerate(words) if re.fullmatch(r"(\./)?scripts/\S+\.py", word)]
            if programs and any(word in ("python", "torchrun") or word.endswith("/python") for word in words[: programs[0]]):
                yield Path(words[programs[0]]).stem, words[programs[0] + 1 :]
            start = 1 if words[:1] == ["do"] else 0
            if words[start : start + 1] == ["strdiffusion"]:
                yield "strdiffusion", words[start + 1 :]
            if words[start : start + 3] == ["python", "-m", "strdiffusion"]:
                yield "strdiffusion", words[start + 3 :]


ALL_COMMANDS = [(page, *command) for page in PAGES for command in commands(page)]


def test_commands_are_found():
    found = {(name(page), program) for page, program, _ in ALL_COMMANDS}
    assert len(ALL_COMMANDS) > 60
    assert {
        ("README.md", "test"),
        ("README.md", "strdiffusion"),
        ("docs/training.md", "train_texture"),
        ("docs/data.md", "strdiffusion"),
        ("docs/evaluation.md", "figures"),
        ("docs/questions.md", "convert_checkpoint"),
    } <= found
    kinds = [program for page, program, _ in ALL_COMMANDS if name(page) == "README.md" and program.startswith("train_")]
    assert kinds == ["train_structure", "train_texture", "train_discriminator", "train_texture"]  # the last on photographs of one's own
    said = " ".join(" ".join(arguments) for _, program, arguments in ALL_COMMANDS if program == "strdiffusion")
    assert "inpaint photo.jpg mask.png -o out.png" in said and "check photos --masks masks" in said


@pytest.mark.parametrize(("page", "program", "arguments"), ALL_COMMANDS, ids=lambda value: str(value) if isinstance(value, str) else None)
def test_commands_are_accepted(parsed, monkeypatch, page, program, arguments):
    monkeypatch.chdir(ROOT)
    where = f"{name(page)}: {program} {' '.join(arguments)}"
    assert program == "strdiffusion" or (ROOT / "scripts" / f"{program}.py").is_file(), where
    try:
        options = parsed(program, *arguments)
        which = program
        if program == "strdiffusion":
            which = next(" ".join(words) for words in COMMANDS if tuple(arguments[: len(words)]) == words)
        if which == "evaluate":
            load_evaluation(options.opt, options.overrides)
        elif which == "reproduce":
            load_table(options.table, options.overrides)
        elif which in CONFIGURATIONS and getattr(options, "opt", None) is not None:
            of_a_test = which == "figures" and options.command in ("guide", "filling")
            load_config(TestConfig if of_a_test else CONFIGURATIONS[which], options.opt, options.overrides)
    except (UserError, SystemExit) as error:
        pytest.fail(f"{where}\n{error}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_in_the_text_compiles(page):
    for language, block in FENCE.findall(text(page)):
        if language == "python":
            compile(block, name(page), "exec")
        elif language in ("yaml", "yml"):
            assert yaml.safe_load(block)


def test_make_targets_in_the_readme_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)", text(ROOT / "README.md"), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_alone_lists_what_each_target_does_and_costs():
    """It starts nothing; and each target says its cost before its first command."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    alone = subprocess.run(["make", "-s"], cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60)
    assert alone.returncode == 0 and alone.stderr == ""
    listed = re.findall(r"^make ([\w-]+)", alone.stdout, re.MULTILINE)
    assert sorted([*listed, "help"]) == sorted(targets)
    for target in set(targets) - {"help", "install", "clean-demo"}:
        assert re.search(rf'^{target}:.*\n\t@echo "make {target}: .*(second|minute|hour)', makefile, re.MULTILINE), target


# ---- options in the text ------------------------------------------------------------------------------

TRAININGS = [TrainStructureConfig, TrainTextureConfig, TrainDiscriminatorConfig, TrainJudgeConfig, TrainPriorConfig]
TRAININGS += [TrainDGTSConfig, TrainUpsamplerConfig]
CLASSES = [*TRAININGS, TestConfig, *(method.Options for method in METHODS.values()), EvaluateConfig, FiguresConfig, TableConfig]


def hint_of(cls, key):
    """The type of a dotted option of a configuration class; None where there is no such option."""
    for part in key.split("."):
        hints = get_type_hints(cls, include_extras=True) if dataclasses.is_dataclass(cls) else {}
        if part not in hints:
            return None
        cls = hints[part]
    return cls


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_in_the_text_exist(page):
    """`sampler.steps=20`: some configuration has that option, and takes that value. CAPITALS stand for something of the user's."""
    quoted = [word for span in re.findall(r"`([^`\n]+)`", prose(page)) if span.count("'") % 2 == 0 for word in shlex.split(span)]
    options = [word for word in quoted if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+=\S.*", word)]
    for option in options:
        key, _, value = option.partition("=")
        hints = [hint for cls in CLASSES if (hint := hint_of(cls, key)) is not None]
        assert hints, f"{name(page)}: {option} is no option"
        if re.fullmatch(r"[A-Z]+", value):
            continue
        for hint in hints:
            try:
                convert(hint, yaml.safe_load(value), name(page), key)
                break
            except UserError as error:
                said = error
        else:
            pytest.fail(f"{name(page)}: {option}: {said}")


# ---- docs/choosing.md ---------------------------------------------------------------------------------


def cell(sampler, T):
    counts = count_evaluations(sampler, MeanRevertingSDE(T=T), guided=True)
    spans = [counts[kind] for kind in ("texture", "structure", "discriminator")]
    return " / ".join(f"{n.least}" if n.least == n.most else f"{n.least}-{n.most}" for n in spans)


def test_the_evaluations_in_the_tables_are_what_samplers_take():
    settings = {"none": None, "(25,4,2,2)": (25, 4, 2, 2), "(10,2,1,2)": (10, 2, 1, 2), "(6,3,5,5)": (6, 3, 5, 5)}
    cells = 0
    columns = None
    for line in text(ROOT / "docs" / "choosing.md").splitlines():
        row = [part.strip() for part in line.strip("|").split("|")]
        if re.match(r"\| `(sampler.steps|sde.T)` \| `resampling=none`", line):
            by, columns = row[0].strip("`"), [next(setting for word, setting in settings.items() if word in title) for title in row[1:]]
        elif columns and line.startswith("| ") and " / " in line:
            number = int(row[0].split()[-1])
            T, steps = (100, number) if by == "sampler.steps" else (number, None)
            for released, found in zip(columns, row[1:], strict=True):
                resampling = {"resampling": "none"} if released is None else {"released": Released(*released)}
                assert found == cell(SamplerConfig(steps=steps, **resampling), T), line
                cells += 1
        elif not line.startswith("|"):
            columns = None
    assert cells == 24


# ---- what is installed --------------------------------------------------------------------------------


def requirements(file):
    """Name and pinned version of each line of a lock, with its marker."""
    found = re.findall(
        r"^([\w.-]+)==([^\s;]+)(?: ; (.*?))? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text(ROOT / file), re.MULTILINE
    )
    lines = [line for line in text(ROOT / file).splitlines() if line and not line.startswith(("#", " "))]
    assert len(found) == len(lines), "a line without a version or a hash"
    return [(name, Version(version), marker) for name, version, marker, _ in found]


@pytest.mark.parametrize(
    ("lock", "sources"), [("requirements.txt", ["requirements.in"]), ("requirements-web.txt", ["requirements.in", "requirements-web.in"])]
)
def test_the_lock_has_all_that_is_asked_for(lock, sources):
    found = requirements(lock)
    asked = [
        Requirement(line.split("#")[0]) for source in sources for line in text(ROOT / source).splitlines() if line.split("#")[0].strip()
    ]
    ranges = re.search(r"install_requires=\[(.*?)\]", text(ROOT / "setup.py"), re.DOTALL)[1]
    asked += [Requirement(line) for line in re.findall(r'"([^"]+)"', ranges)]
    assert len(asked) > 25
    for wanted in asked:
        versions = [version for name, version, _ in found if name == wanted.name]
        assert versions and all(version in wanted.specifier for version in versions), wanted
    assert not re.search(r"https?:|--(extra-)?index-url|--find-links", text(ROOT / lock))
    assert {entry[:2] for entry in requirements("requirements.txt")} <= {entry[:2] for entry in requirements("requirements-web.txt")}


def test_the_table_of_licences_has_every_package_of_linux():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text(ROOT / "docs" / "licences.md").splitlines()
        if line.startswith("| ")
    ]
    listed = {(name, Version(version)) for name, version, _, _ in rows[1:]}
    system = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux", "platform_system": "Linux"}
    system |= {"platform_machine": "x86_64", "platform_python_implementation": "CPython", "implementation_name": "cpython"}
    locked = requirements("requirements-web.txt")
    assert listed == {(name, version) for name, version, marker in locked if not marker or Marker(marker).evaluate(system)}
    assert all(licence for _, _, licence, _ in rows)
