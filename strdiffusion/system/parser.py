"""Turn YAML and `key=value` overrides into a checked tree of dataclasses (style: nanoGPT, OmegaConf).

Fields may be int, float, bool, str, Literal, `X | None`, tuple[X, Y], list[X] or another dataclass; `Annotated[X,
Range(...)]` adds bounds. Every mistake is a UserError that names the key.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from strdiffusion.system.errors import Option, UserError, brief, one_line, some
from strdiffusion.system.files import read_regular, write_atomically

if TYPE_CHECKING:
    import yaml  # functions import it: samplers and trainings can be timed where it is not installed

C = TypeVar("C")
MAX_BYTES = 256 * 1024  # of a YAML file
MAX_VALUES = 10_000
CLOSE = 0.5  # how alike two words are of which one may be meant for the other


@dataclass(frozen=True)
class Range:
    """Bounds of a number: low <= value <= high, or low < value <= high if `open_low`."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low, high = (f"{bound:.12g}" for bound in (self.low, self.high))
        if self.high == math.inf:
            return f"{'above' if self.open_low else 'at least'} {low}"
        return f"{'above' if self.open_low else 'from'} {low} to {high}"


Positive = Annotated[int, Range(1, 10**9)]
Count = Annotated[int, Range(0, 10**9)]
Rate = Annotated[float, Range(0, 1000, open_low=True)]
Weight = Annotated[float, Range(0, 10**6)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Share = Annotated[float, Range(0, 1)]
Momentum = Annotated[float, Range(0, 0.999999)]


def load_config(cls: type[C], path: str | Path, overrides: Iterable[str] = ()) -> C:
    """Read a YAML file, apply `key=value` overrides and build the configuration `cls`."""
    tree = read_yaml(Path(path))
    for override in overrides:
        set_override(tree, override)
    config = build(cls, tree, str(path))
    if hasattr(config, "check"):
        config.check()
    return config


def read_yaml(path: Path, like: Callable[[Path], bool] = lambda file: True) -> dict:
    """Read a YAML file that holds keys and values. Raises UserError, which for a missing file names the nearest one that is `like` it."""
    import yaml

    try:
        tree = parse_yaml(read_regular(path, MAX_BYTES).decode("utf-8"))
    except FileNotFoundError:
        near = next((f"; did you mean {file}?" for file in nearest_files(path) if like(file)), "")
        raise UserError(f"the configuration {path} does not exist: give an existing YAML file{near}") from None
    except IsADirectoryError:
        found = sorted(path.glob("*.yml"))  # not further below: that may be a whole disk
        there = f"; there is {some(found)}" if found else ""
        raise UserError(f"the configuration {path} cannot be read, it is a folder: give a YAML file{there}") from None
    except OSError as error:
        raise UserError(f"the configuration {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date such as 2026-99-99
        raise UserError(f"the configuration {path} is not valid YAML: {spelled(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"the configuration {path} must hold keys and values, not a {type(tree).__name__}")
    return tree


def nearest_files(path: Path) -> list[Path]:
    """The YAML files beside a missing one whose names are near to its name, the nearest first; not many."""
    beside = {file.stem: file for file in path.parent.glob("*.yml")}
    return [beside[name] for name in difflib.get_close_matches(path.stem, beside, cutoff=CLOSE)]


def spelled(error: Exception) -> str:
    """What is wrong with a YAML text, and in which line, as far as its reader knows."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return " ".join(str(error).split())[:300]
    where = f"line {mark.line + 1}, column {mark.column + 1}"
    if "'\\t'" in problem:
        return f"{where}: a tab stands where a key or a value should begin; indent with spaces"
    if "mapping values" in problem or "block mapping" in (getattr(error, "context", None) or ""):
        return f"{where}: {problem}; indent this line as those beside it, and put a value that holds ': ' in quotes"
    return f"{where}: {' '.join(filter(None, (error.context, problem)))}"[:300]


def parse_yaml(text: str) -> Any:
    """Read YAML of plain data. Raises ValueError or YAMLError for anything else, and if anchors expand to too many values."""
    import yaml

    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if root is not None and _expanded_size(root, {}) > MAX_VALUES:
            raise ValueError(f"its anchors and lists expand to more than {MAX_VALUES} values")
        if root is not None:
            _require_single_keys(root, set())
        return yaml.safe_load(text)
    except (RecursionError, OverflowError, TypeError, AttributeError, KeyError) as error:  # PyYAML raises these for some odd scalars
        raise ValueError(f"it cannot be understood ({type(error).__name__})") from None


def _expanded_size(node: "yaml.Node", sizes: dict[int, float]) -> float:
    """The number of values below a YAML node with all aliases expanded; infinite if the node contains itself."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until the sizes of its children are known
        below = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        sizes[id(node)] = 1 + sum(_expanded_size(part, sizes) for part in below)
    return sizes[id(node)]


def _require_single_keys(node: "yaml.Node", seen: set[int]) -> None:
    """Raise ValueError if a mapping gives a key twice: YAML would take the last one and say nothing."""
    import yaml

    if isinstance(node, yaml.ScalarNode) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise ValueError(f"the key {key.value} is given twice, in lines {lines[key.value]} and {line}: keep one of them")
                lines[key.value] = line
    for part in node.value:
        for child in part if isinstance(part, tuple) else (part,):
            _require_single_keys(child, seen)


def set_override(tree: dict, override: str) -> None:
    """Apply one `a.b.c=value` to the tree; the value is read as YAML."""
    import yaml

    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"the override {override!r} is not of the form key=value, for example training.batch_size=8")
    try:
        value = parse_yaml(text)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"the value of the override {override!r} is not valid YAML: put it in quotes") from None
    *parents, leaf = key.split(".")
    for parent in parents:
        child = tree.setdefault(parent, {})
        if child is None:
            child = tree[parent] = {}
        if not isinstance(child, dict):
            raise UserError(f"the override {override!r} goes through {parent}, which is a value and has no keys of its own")
        tree = child
    tree.pop(leaf, None)  # the last key counts if an option has two names
    tree[leaf] = value


def build(cls: type[C], tree: Any, where: str, prefix: str = "") -> C:
    """Build the dataclass `cls` from a mapping; `prefix` is the dotted key of the mapping itself, `where` its source for messages.

    A class whose keys depend on values has its own `from_tree(tree, where)`, and `as_tree()` as the inverse.
    """
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"{where}: {prefix or 'the file'} must hold keys and values, not {brief(tree)}")
    if hasattr(cls, "from_tree"):
        return cls.from_tree(tree, where)
    return fill(cls, tree, where, prefix)


def fill(cls: type[C], tree: dict, where: str, prefix: str = "", given: Mapping[str, Any] = MappingProxyType({})) -> C:
    """`build` for a class without `from_tree`, or as a part of it; `given` holds fields that are already built."""
    tree = with_new_names(cls, tree)
    require_known_keys(tree, [f.name for f in dataclasses.fields(cls)], where, prefix)
    hints = get_type_hints(cls, include_extras=True)
    values = dict(given)
    for field in dataclasses.fields(cls):
        if field.name in given:
            continue
        key = _dotted(prefix, field.name)
        if field.name in tree:
            values[field.name] = convert(hints[field.name], tree[field.name], where, key)
        elif dataclasses.is_dataclass(hints[field.name]):
            values[field.name] = build(hints[field.name], {}, where, key)  # reports its required keys
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: the key {key} is missing and has no default: set it, or give {key}=VALUE")
    return cls(**values)


def with_new_names(cls: type, tree: dict) -> dict:
    """The mapping with old keys replaced by their new names (`renamed_keys` of the class). If both are given, the later one counts."""
    renamed = getattr(cls, "renamed_keys", {})
    return {renamed.get(key, key) if isinstance(key, str) else key: value for key, value in tree.items()}


def require_known_keys(tree: dict, names: list[str], where: str, prefix: str = "") -> None:
    """Raise UserError for a key that is not among `names`; the message suggests the nearest one."""
    for key in tree:
        if key not in names:
            raise UserError(f"{where}: unknown key {_dotted(prefix, key)}{_nearest(_word(key), names, prefix)}")


def convert(hint: Any, value: Any, where: str, key: str) -> Any:
    """Check a YAML value against a type hint and return it in that type."""
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where, key)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _in_range(convert(args[0], value, where, key), args[1], where, key)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = next(a for a in args if a is not type(None))
        return convert(inner, value, where, key)
    if origin is Literal:
        if value not in args or isinstance(value, bool) != isinstance(args[0], bool):
            known = ", ".join(map(str, args))
            raise UserError(Option(key, where=where), f" must be one of {known}, not {brief(value)}{close(_word(value), args)}")
        return value
    if origin in (list, tuple):
        return _sequence(origin, args, value, where, key)
    return _scalar(hint, value, where, key)


def to_dict(config: Any) -> dict:
    """The configuration as plain dictionaries, lists and scalars."""
    import yaml

    return yaml.safe_load(yaml.safe_dump(_plain(_tree(config))))


def save_config(config: Any, path: Path) -> None:
    """Write the full resolved configuration as YAML, whole or not at all. Raises UserError if that fails."""
    save_tree(_tree(config), path)


def save_tree(tree: dict, path: Path) -> None:
    """Write keys and values as YAML, whole or not at all. Raises UserError if that fails."""
    import yaml

    text = yaml.safe_dump(_plain(tree), sort_keys=False)
    try:
        write_atomically(path, text.encode(), durable=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; free some space or change output") from None


def _tree(config: Any) -> dict:
    return config.as_tree() if hasattr(config, "as_tree") else dataclasses.asdict(config)


def _scalar(hint: type, value: Any, where: str, key: str) -> Any:
    if hint is float or hint is int:
        number = _number(value)
        if number is None or hint(number) != number:
            raise UserError(Option(key, where=where), f" must be a {'finite' if hint is float else 'whole'} number, not {brief(value)}")
        return hint(number)
    names = {bool: "true or false", str: "text"}
    if isinstance(value, str) and "\0" in value:
        raise UserError(Option(key, where=where), " must be text without a zero byte")
    if not isinstance(value, hint):
        hint_text = "; put it in quotes" if hint is str and value is not None else ""
        raise UserError(Option(key, where=where), f" must be {names[hint]}, not {brief(value)}{hint_text}")
    return value


def _number(value: Any) -> int | float | None:
    """A YAML value as a finite number, or None. Text is converted too, because YAML 1.1 reads 1e-4 as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    return value if isinstance(value, int) else number


def _sequence(origin: type, args: tuple, value: Any, where: str, key: str) -> list | tuple:
    if not isinstance(value, list | tuple):
        raise UserError(Option(key, where=where), f" must be a list such as [..., ...], not {brief(value)}")
    hints = args if origin is tuple else args * len(value)
    if len(hints) != len(value):
        raise UserError(Option(key, where=where), f" must hold {len(hints)} values, not {len(value)}")
    return origin(convert(h, v, where, f"{key}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))


def _in_range(value: Any, bounds: Range, where: str, key: str) -> Any:
    numbers = value if isinstance(value, list | tuple) else [value]
    for number in numbers:
        if number is not None and number not in bounds:
            raise UserError(Option(key, where=where), f" must be {bounds}, not {number}")
    return value


def _dotted(prefix: str, key: Any) -> str:
    return f"{prefix}.{_word(key)}" if prefix else _word(key)


def _word(value: Any) -> str:
    """A key or value from a file, as text for a message."""
    return one_line(value[:80]) if isinstance(value, str) else brief(value)


def _nearest(word: str, known: Iterable, prefix: str = "") -> str:
    """A hint that names the nearest known word, or all of them."""
    words = [str(k) for k in known]
    all_of_them = f"; known here: {', '.join(words)}" if prefix or len(words) < 15 else ""
    return close(word, words, prefix) or all_of_them


def close(word: str, known: Iterable, prefix: str = "", dot: str = ".") -> str:
    """A hint that names the nearest known word, or nothing if none is close."""
    found = difflib.get_close_matches(word, map(str, known), n=1, cutoff=CLOSE)
    return f"; did you mean {prefix}{dot if prefix else ''}{found[0]}?" if found else ""


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
