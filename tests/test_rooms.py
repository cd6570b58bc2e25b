"""The rooms of the package: imports lead downwards only, and no modules import each other in a circle."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "strdiffusion"
FLOORS = [  # from the outside in; rooms of one floor do not import each other
    ["__main__"],
    ["commands"],
    ["__init__"],
    ["app", "bench"],
    ["figures", "training"],
    ["evaluation"],
    ["methods"],
    ["config", "checkpoints"],
    ["samplers", "networks", "objectives"],
    ["data", "denoiser"],
    ["sde", "ddpm", "batch"],
    ["system"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def module_of(path: Path) -> str:
    """A file's dotted name below the package: samplers.adaptive; a package is known by its own name."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, inside of functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")[1:]
            if name.split(".")[0] == "strdiffusion" and parts:
                found.add(next((".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in MODULES), "__init__"))
    return found


ARROWS = {module: imports(path) for module, path in MODULES.items()}


def test_every_room_has_a_floor():
    assert {module.split(".")[0] for module in MODULES} == set(FLOOR)


@pytest.mark.parametrize("room", FLOOR)
def test_imports_lead_downwards(room):
    mine = {module: found for module, found in ARROWS.items() if module.split(".")[0] == room}
    climbs = [
        f"{module} -> {other}"
        for module, found in mine.items()
        for other in found
        if other.split(".")[0] != room and FLOOR[other.split(".")[0]] <= FLOOR[room]
    ]
    assert not climbs


def test_no_circle_of_modules():
    """Modules whose imports are all resolved are taken away until none is left; those of a circle never are."""
    left = {module: found - {module} for module, found in ARROWS.items()}
    # a package's __init__ only gathers what its modules define
    left = {module: found for module, found in left.items() if MODULES[module].name != "__init__.py"}
    while True:
        resolved = {module for module, found in left.items() if not found & left.keys()}
        if not resolved:
            break
        left = {module: found for module, found in left.items() if module not in resolved}
    assert not left


def test_a_climbing_import_is_seen(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from strdiffusion.app.model import StrDiffusion\nimport strdiffusion.methods.irsde\n")
    assert imports(path) == {"app.model", "methods.irsde"}
