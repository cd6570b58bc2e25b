"""Write the table of the licences of all packages that requirements.txt and requirements-web.txt install here.

python scripts/licences.py docs/licences.md
"""

import argparse
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError, some
from strdiffusion.system.files import write_text
from strdiffusion.system.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 60  # characters of a licence's name; some packages give its whole text instead
HEAD = """# Licences

What `requirements.txt` and `requirements-web.txt` install, with the licence that each package states. `make licences` writes this page
from what is installed: {count} packages on {system}. Packages of other systems are left out. The program itself is under the Apache-2.0
licence.

"""


def locked(path: Path) -> list[str]:
    """The names of the packages of a file of requirements."""
    return list(dict.fromkeys(re.findall(r"^([A-Za-z0-9][\w.-]*)==", path.read_text(encoding="utf-8"), re.MULTILINE)))


def licence(package: Distribution) -> str:
    """The licence that a package states: an expression, its classifiers, or its name; "not stated" if there is none of these."""
    about = package.metadata
    if about.get("License-Expression"):
        return about["License-Expression"]
    classifiers = [text.split(" :: ")[-1] for text in about.get_all("Classifier") or [] if text.startswith("License :: ")]
    classifiers = [text for text in classifiers if text != "OSI Approved"]
    name = (about.get("License") or "").strip().split("\n")[0]
    if classifiers and (len(name) > LONGEST or not name or name.upper() == "UNKNOWN" or name.startswith("Copyright")):
        return ", ".join(classifiers)
    return name[:LONGEST] if name and name.upper() != "UNKNOWN" else "not stated"


def table(names: list[str], page: set[str]) -> tuple[str, list[str]]:
    """The Markdown table of the packages that are installed, and the names of those that are not. page: those that only the page needs."""
    lines, missing = [["package", "version", "licence", "for"]], []
    for name in names:
        try:
            found = distribution(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        lines.append([name, found.version, licence(found).replace("|", "/"), "the page" if name in page else "the program"])
    return markdown_table(lines), missing


@exit_on_user_error(go_on=True)
def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the file to write")
    output = parser.parse_args().output
    program, everything = (locked(ROOT / name) for name in ("requirements.txt", "requirements-web.txt"))
    text, missing = table(sorted({*program, *everything}), set(everything) - set(program))
    count = text.count("\n") - 1
    if count < len(program) / 2:
        raise UserError(f"most packages are not installed here ({some(missing)}): make licences installs them first")
    write_text(
        output, HEAD.format(count=count, system=f"{sys.platform}, Python {sys.version_info.major}.{sys.version_info.minor}") + text + "\n"
    )
    print(f"{count} packages in {output}; not installed here: {', '.join(missing) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
