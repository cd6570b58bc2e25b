"""strdiffusion: image inpainting by structure-guided diffusion."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion import __version__
from strdiffusion.system.errors import one_line


class Command(NamedTuple):
    """A command: its module in strdiffusion.commands, what it does, and options of its `main` that its name implies."""

    module: str
    summary: str
    options: Mapping[str, str] = MappingProxyType({})


COMMANDS = {
    ("inpaint",): Command("inpaint", "fill the hole of a photograph, or of a folder of them, at any size"),
    ("adapt",): Command("adapt", "let a model learn from the known part of a photograph, to fill it"),
    ("compose",): Command("compose", "paint a scene around cut-outs that lie on a canvas"),
    ("web",): Command("web", "a page in the browser to paint holes on, and to compose"),
    ("train", "structure"): Command("train", "train the structure network", {"network": "structure"}),
    ("train", "texture"): Command("train", "train the texture network", {"network": "texture"}),
    ("train", "discriminator"): Command("train", "train the discriminator", {"network": "discriminator"}),
    ("train", "judge"): Command("train", "train the judge, which names the class of every pixel", {"network": "judge"}),
    ("train", "prior"): Command("train", "train the prior of RePaint", {"network": "prior"}),
    ("train", "dgts"): Command("train", "train DGTS", {"network": "dgts"}),
    ("train", "upsampler"): Command("train", "train DGTS's enlarging network", {"network": "upsampler"}),
    ("test",): Command("test", "inpaint a test folder as a configuration says, with metrics"),
    ("evaluate",): Command("evaluate", "judge a folder of outputs of any method"),
    ("reproduce",): Command("reproduce", "run a table of configs/tables/"),
    ("masks",): Command("masks", "draw masks"),
    ("check",): Command("check", "say what is wrong with folders of images and masks"),
    ("info",): Command("info", "say what a checkpoint or a model folder is"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name (those of the process, by default); returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return say(usage())
    if arguments[0] == "--version":
        return say(f"strdiffusion {__version__}")
    for words, command in COMMANDS.items():
        if tuple(arguments[: len(words)]) == words:
            module = importlib.import_module(f"strdiffusion.commands.{command.module}")
            return module.main(arguments[len(words) :], prog=f"strdiffusion {' '.join(words)}", **command.options)
    return refuse(arguments)


def say(text: str, wrong: bool = False) -> int:
    """Print a text, to stderr if something is wrong. Returns the exit status."""
    from strdiffusion.system.terminal import BROKEN_PIPE, ReaderGone, enduring_streams

    try:
        with enduring_streams(go_on=False):
            print(text, file=sys.stderr if wrong else sys.stdout)
    except ReaderGone:
        return BROKEN_PIPE
    return 2 if wrong else 0


def usage() -> str:
    """What `--help` prints."""
    width = max(len(" ".join(words)) for words in COMMANDS) + 2
    lines = [f"  {' '.join(words):{width}s}{command.summary}" for words, command in COMMANDS.items()]
    return "\n".join(
        [
            __doc__,
            "",
            "usage: strdiffusion COMMAND ...        (or python -m strdiffusion COMMAND ...)",
            "",
            *lines,
            "",
            "strdiffusion COMMAND --help says more, with examples. Start with",
            "  strdiffusion inpaint photo.jpg mask.png -o out.png --model weights/benchmark",
        ]
    )


def refuse(arguments: list[str]) -> int:
    """Report an unknown command in one line, at once: nothing is imported for it."""
    import difflib

    second = {words[1] for words in COMMANDS if len(words) > 1 and words[0] == arguments[0]}
    known = sorted({words[0] for words in COMMANDS})
    close = difflib.get_close_matches(arguments[0], known, n=1)
    said = f"unknown command {arguments[0]}" + (f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}")
    if second:
        typed = f", not {arguments[1]}" if len(arguments) > 1 else ""
        said = f"{arguments[0]} needs one of {', '.join(sorted(second))} after it{typed}"

    return say(f"error: {one_line(said)} (see strdiffusion --help)", wrong=True)
