"""Look at the pickle of a checkpoint before it is loaded: it may hold named tensors and plain values, and must not grow when it is read.

torch's loader for weights runs no code, but it calls what a file names from a list of its own; `bytearray` is on it, and one call of
that fills the memory. Here the pickle is followed opcode by opcode with stand-ins: nothing is called and nothing of a tensor is read.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

MOST_OPCODES = 2_000_000  # a training of 5000 tensors has half a million
MOST_DIMENSIONS = 16
MOST_PAIRS = 100_000  # in ordered dictionaries that are made of lists
LARGEST_KEY = 2**53
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2)  # the number that begins a file of torch before 1.6
LEGACY_PICKLES = 5  # this number, the version, the system, the content and the keys of its storages
SIZES = {
    **dict.fromkeys(("Byte", "Char", "Bool"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}  # bytes of an element
STORAGES = {f"torch {name}Storage": size for name, size in SIZES.items()}
PARAMETER = "torch.nn.parameter Parameter"
REBUILD = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
NUMBERS_AND_TEXT = {"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1"}


class Named(NamedTuple):
    """What a pickle names by module and name."""

    name: str


class Storage(NamedTuple):
    """The numbers of a tensor. bytes: how many the file must hold."""

    key: str
    bytes: int


class Tensor(NamedTuple):
    """A tensor or parameter."""


def require_plain(data: io.IOBase, held: int, pickles: int = 1) -> None:
    """Follow `pickles` pickles of a file of `held` bytes. Raises UnpicklingError, naming what is no part of named tensors.

    Other errors are raised for what is no pickle.
    """
    storages: dict[str, int] = {}
    for _ in range(pickles):
        _Follower(storages, held).follow(data)
    if sum(storages.values()) > held:
        raise pickle.UnpicklingError("it declares more numbers than the file holds")


class _Follower:
    """The state of one pickle: a stack, the marks in it, and what was kept for later use."""

    def __init__(self, storages: dict[str, int], held: int):
        self.storages, self.held, self.pairs = storages, held, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def follow(self, data: io.IOBase) -> None:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > MOST_OPCODES:
                raise pickle.UnpicklingError("it is too long")
            name = opcode.name
            if name in NUMBERS_AND_TEXT:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in ("BINPUT", "LONG_BINPUT"):
                self.memo[argument] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[argument])
            elif name == "GLOBAL":
                self.stack.append(Named(argument))
            elif name not in ("PROTO", "STOP"):
                step = ACTIONS.get(name)
                if step is None:
                    raise pickle.UnpicklingError(f"it uses {name}")
                step(self)

    def pop_mark(self) -> list[Any]:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def tuple_of(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def append(self) -> None:
        item = self.stack.pop()
        self.expect(list).append(item)

    def appends(self) -> None:
        items = self.pop_mark()
        self.expect(list).extend(items)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.expect(dict)[plain_key(key)] = value

    def set_items(self) -> None:
        items = self.pop_mark()
        self.expect(dict).update(zip(map(plain_key, items[::2]), items[1::2], strict=True))

    def expect(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise pickle.UnpicklingError(f"it puts items into what is no {kind.__name__}")
        return self.stack[-1]

    def storage(self) -> None:
        """A persistent identity: always that of a storage."""
        match self.stack.pop():
            case ("storage", Named(name), str(key), str(), int(count), *rest) if name in STORAGES and rest in ([], [None]) and count >= 0:
                found = Storage(key, count * STORAGES[name])
            case other:
                raise pickle.UnpicklingError(f"it has an unknown storage, {culprit(other)}")
        if found.bytes > self.held:
            raise pickle.UnpicklingError("it declares more numbers than the file holds")
        self.storages[key] = max(found.bytes, self.storages.get(key, 0))
        self.stack.append(found)

    def reduce(self) -> None:
        """A call: of a dictionary, or of what makes a tensor of a storage."""
        arguments, function = self.stack.pop(), self.stack.pop()
        match function, arguments:
            case Named("collections OrderedDict"), ():
                made = {}
            case Named("collections OrderedDict"), (list(pairs),):  # of Python 2
                self.pairs += len(pairs)
                if self.pairs > MOST_PAIRS or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
                    raise pickle.UnpicklingError(f"it calls {culprit(function)}")
                made = {plain_key(key): value for key, value in pairs}
            case Named("torch._utils _rebuild_tensor_v2" | "torch._utils _rebuild_tensor"), (
                Storage(),
                int(),
                tuple(size),
                tuple(stride),
                *_,
            ):
                if max(len(size), len(stride)) > MOST_DIMENSIONS or not all(type(number) is int for number in (*size, *stride)):
                    raise pickle.UnpicklingError("it has a tensor of no usual shape")
                made = Tensor()
            case Named("torch._utils _rebuild_parameter"), (Tensor(), *_):
                made = Tensor()
            case _:
                raise pickle.UnpicklingError(f"GLOBAL {culprit(function)}")
        self.stack.append(made)

    def new_object(self) -> None:
        arguments, cls = self.stack.pop(), self.stack.pop()
        if cls != Named(PARAMETER) or arguments not in ((), (Tensor(),)):
            raise pickle.UnpicklingError(f"GLOBAL {culprit(cls)}")
        self.stack.append(Tensor())

    def build(self) -> None:
        """The state of an object: of a state dict its `_metadata`, of a parameter its tensor."""
        state = self.stack.pop()
        inside = isinstance(self.stack[-1], dict) and isinstance(state, dict) and state.keys() <= {"_metadata"}
        if not inside and not (isinstance(self.stack[-1], Tensor) and isinstance(state, tuple)):
            raise pickle.UnpicklingError("it changes an object")


ACTIONS: dict[str, Callable[[_Follower], Any]] = {
    "MARK": _Follower.mark,
    "TUPLE": lambda on: on.stack.append(tuple(on.pop_mark())),
    "TUPLE1": lambda on: on.tuple_of(1),
    "TUPLE2": lambda on: on.tuple_of(2),
    "TUPLE3": lambda on: on.tuple_of(3),
    "EMPTY_LIST": lambda on: on.stack.append([]),
    "EMPTY_DICT": lambda on: on.stack.append({}),
    "APPEND": _Follower.append,
    "APPENDS": _Follower.appends,
    "SETITEM": _Follower.set_item,
    "SETITEMS": _Follower.set_items,
    "BINPERSID": _Follower.storage,
    "REDUCE": _Follower.reduce,
    "NEWOBJ": _Follower.new_object,
    "BUILD": _Follower.build,
}


def plain_key(key: Any) -> str | int | float | None:
    """A key of a dictionary. Raises UnpicklingError for others: the hash of nested tuples can take years."""
    if not isinstance(key, str | int | float | None) or isinstance(key, int) and abs(key) > LARGEST_KEY:
        raise pickle.UnpicklingError("it has a key that is no name")
    return key


def culprit(value: Any) -> str:
    return value.name.replace(" ", ".") if isinstance(value, Named) else type(value).__name__
