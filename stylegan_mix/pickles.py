"""Pickles of other projects read as data: nothing that a file names is imported or called.

A pickle is a program for a stack machine whose instructions import and call. `read` is that machine
without those powers. Python's own tokenizer splits the program. A name that it refers to must be in
a table of the caller's; it stands for a function of ours that takes the arguments as plain data.
The state of an object is dropped, unless its stand-in takes one. Steps, depth and numbers are
bounded, and so are the bytes of all that is made or copied: a short program could otherwise fill
the memory, by encoding one long text again and again. No torch.
"""

from __future__ import annotations

import pickletools
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from stylegan_mix.errors import InvalidInput
from stylegan_mix.showing import shown

__all__ = [
    "NUMPY",
    "Budget",
    "Left",
    "Maker",
    "Names",
    "OddArguments",
    "Stateful",
    "Symbol",
    "called_with_nothing",
    "instead_of",
    "read",
    "taken",
]

MOST_STEPS = 1_000_000
MOST_MARKS = 200
MOST_OPEN = 10_000
MOST_BITS = 128
# Whole numbers beyond this can be chosen to share one hash: a dict of them takes hours.
MOST_KEY_BITS = 64
# Bytes that a program may make: so many, and a multiple of its file's size. A text may take four
# times its bytes in the file; all else that a sound file holds is small.
FREE_BYTES = 64 << 20
BYTES_EACH = 4
# Bytes that one value takes inside a container, about: a dict takes more of them than a list.
_ITEM = 100

Maker = Callable[[tuple[Any, ...]], Any]
Names = Mapping[tuple[str, str], Maker]


@dataclass(slots=True)
class Budget:
    """The instructions and the bytes left to a file, over all the pickles that lie in it."""

    steps: int = MOST_STEPS
    bytes: int = FREE_BYTES

    @classmethod
    def of_file(cls, size: int) -> Budget:
        """Makes the budget of a file of `size` bytes."""
        return cls(bytes=FREE_BYTES + BYTES_EACH * size)

    def step(self) -> None:
        """Takes one step; raises `InvalidInput` if none is left."""
        self.steps -= 1
        if self.steps < 0:
            raise InvalidInput(f"it takes more than {MOST_STEPS:,} steps to read")

    def spend(self, size: int) -> None:
        """Takes `size` bytes; raises `InvalidInput` if fewer are left."""
        self.bytes -= size
        if self.bytes < 0:
            raise InvalidInput("it makes far more than its own size in memory")


@dataclass(frozen=True, slots=True)
class Left:
    """A stand-in for an object that is not taken over; `what` describes the object."""

    what: str


class Stateful:
    """A stand-in for an object that a pickle gives a state to after the call."""

    def take(self, state: Any) -> None:
        """Takes the state, which is plain data; ValueError if it cannot be one."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name that a pickle refers to, with the function that stands in for its call."""

    name: str
    make: Maker


def read(
    file: IO[bytes],
    names: Names,
    *,
    persistent: Maker | None = None,
    budget: Budget,
) -> Any:
    """Reads the pickle that begins at the position of `file`, and leaves `file` behind its end.

    `names` are the (module, name) that may be called. `persistent` resolves references to objects
    outside of the pickle. Raises `InvalidInput`, which names the refused or damaged part.
    """
    machine = _Machine(names, persistent, budget)
    try:
        with warnings.catch_warnings():
            # An odd escape in a text of Python 2 is no concern of the user's.
            warnings.simplefilter("ignore")
            for instruction, argument, _ in pickletools.genops(file):
                machine.step(instruction.name, argument)
        return machine.result
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise InvalidInput(f"it is a damaged pickle: {shown(str(error), 120)}") from error


def instead_of(root: Any, name: str) -> str:
    """Describes, for a message, the content of a foreign file that lacks `name`."""
    if type(root) is not dict:
        return shown(root)
    if name in root:
        there = root[name]
        return "nothing" if type(there) is dict and not there else f"there {shown(there)}"
    return ", ".join(map(shown, list(root)[:8])) or "nothing"


# --------------------------------------------------------------------- the machine

# Instructions that push their argument, a constant, or an empty container.
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_ARGUMENTS = {*_NUMBERS, *_TEXTS, *_BYTES}
# Bytes in another form: a text of Python 2, and bytes that could be changed.
_TEXTS_OF_PYTHON_2 = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_CHANGEABLE = "BYTEARRAY8"
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset(["PROTO", "FRAME"])


@dataclass(slots=True)
class _Machine:
    """The stack machine; `result` is the value left by STOP."""

    names: Names
    persistent: Maker | None
    budget: Budget
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    result: Any = None

    def step(self, name: str, argument: Any) -> None:
        """Executes one instruction."""
        self.budget.step()
        if name in _ARGUMENTS:
            self.add(_bounded(argument))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            self.add(_CONTAINERS[name]())
        elif name in _TUPLES:
            items = [self.stack.pop() for _ in range(_TUPLES[name])]
            self.add(tuple(reversed(items)))
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name in _TEXTS_OF_PYTHON_2:
            self.add(argument.encode("latin-1"))
        elif name == _CHANGEABLE:
            self.add(bytes(argument))
        elif name not in _IGNORED:
            raise InvalidInput(f"it has an instruction {name}, which is not admitted")
        if len(self.stack) > MOST_OPEN:
            raise InvalidInput(f"it nests more than {MOST_OPEN:,} values inside one another")

    def add(self, made: Any) -> None:
        """Puts a new value on the stack; its bytes are spent."""
        self.budget.spend(sys.getsizeof(made))
        self.stack.append(made)

    def mark(self, _: Any) -> None:
        if len(self.below) >= MOST_MARKS:
            raise InvalidInput(f"it nests more than {MOST_MARKS} containers inside one another")
        self.below.append(self.stack)
        self.stack = []

    def items(self) -> list[Any]:
        """Takes off the values above the last mark."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def pack(self, make: Callable[[list[Any]], Any]) -> None:
        """Puts one container in the place of the values above the last mark."""
        items = self.items()
        self.add(make(items))

    def stop(self, _: Any) -> None:
        self.result = self.stack.pop()
        if self.stack or self.below:
            raise ValueError("values are left over at its end")

    # References

    def put(self, index: Any) -> None:
        number = int(index)
        if not 0 <= number < MOST_STEPS:
            raise InvalidInput(f"it numbers a value {number:,}: no such file has so many")
        self.memo[number] = self.stack[-1]

    def get(self, index: Any) -> None:
        number = int(index)
        if number not in self.memo:
            raise ValueError(f"value {number} is used before it is there")
        self.stack.append(self.memo[number])

    # Containers

    def append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def extend(self, _: Any) -> None:
        self._extend(self.items())

    def _extend(self, values: list[Any]) -> None:
        self.budget.spend(_ITEM * len(values))
        _of(list, self.stack[-1], "values are appended").extend(values)

    def set_one(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def set_all(self, _: Any) -> None:
        self._update(self.items())

    def _update(self, flat: list[Any]) -> None:
        _of(dict, self.stack[-1], "entries are set").update(self.pairs(flat))

    def add_all(self, _: Any) -> None:
        values = self.items()
        _of(set, self.stack[-1], "members are added").update(map(self.key, values))

    def pairs(self, flat: list[Any]) -> dict[Any, Any]:
        """Makes a dict of keys and values in turn."""
        if len(flat) % 2:
            raise ValueError("a key without a value")
        return {self.key(flat[index]): flat[index + 1] for index in range(0, len(flat), 2)}

    def key(self, value: Any) -> Any:
        """Checks a key of a dict or a member of a set: its hash and comparison must be cheap.

        Comparing a long key reads all of it, so its bytes are spent each time.
        """
        if type(value) not in (str, int, bool, float, bytes, type(None)):
            raise ValueError("a key that is neither text nor a number")
        if type(value) is int and value.bit_length() > MOST_KEY_BITS:
            raise ValueError(f"a key that is a number of {value.bit_length()} bits")
        self.budget.spend(_ITEM + sys.getsizeof(value))
        return value

    # Instructions that would import, call or alter objects

    def refer(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self._refer(module, name)

    def refer_on_stack(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError("a name that is no text")
        self._refer(module, name)

    def _refer(self, module: str, name: str) -> None:
        make = self.names.get((module, name))
        full = f"{shown(module)}.{shown(name)}"
        if make is None:
            raise InvalidInput(f"it refers to {full}, which is not admitted")
        self.add(Symbol(full, make))

    def call(self, _: Any) -> None:
        arguments, symbol = self.stack.pop(), self.stack.pop()
        if type(symbol) is not Symbol or type(arguments) is not tuple:
            raise InvalidInput("it calls something that is no function, or with no arguments")
        try:
            self.add(symbol.make(arguments))
        except OddArguments as error:
            raise InvalidInput(f"it calls {symbol.name} with {error}") from error

    def build(self, _: Any) -> None:
        """Gives a state to a stand-in that takes one; drops that of others."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Stateful):
            self.stack[-1].take(state)
            return
        if type(self.stack[-1]) not in (dict, Left):
            raise InvalidInput("it sets the state of something that has none")
        if type(self.stack[-1]) is Left and type(state) is tuple and state[1:2] == (">",):
            raise InvalidInput("it has big-endian numbers of NumPy")

    def resolve(self, _: Any) -> None:
        reference = self.stack.pop()
        if self.persistent is None or type(reference) is not tuple:
            raise InvalidInput("it refers to an object outside of it")
        try:
            self.add(self.persistent(reference))
        except OddArguments as error:
            raise InvalidInput(f"it refers to {error}") from error


_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": _Machine.mark,
    "STOP": _Machine.stop,
    "POP": lambda machine, _: machine.stack.pop() if machine.stack else machine.items(),
    "POP_MARK": lambda machine, _: machine.items(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": lambda machine, _: machine.pack(tuple),
    "LIST": lambda machine, _: machine.pack(list),
    "DICT": lambda machine, _: machine.pack(machine.pairs),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "SETITEM": _Machine.set_one,
    "SETITEMS": _Machine.set_all,
    "ADDITEMS": _Machine.add_all,
    "GLOBAL": _Machine.refer,
    "STACK_GLOBAL": _Machine.refer_on_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.resolve,
}


def _bounded(value: Any) -> Any:
    if type(value) is int and value.bit_length() > MOST_BITS:
        raise InvalidInput(f"it has a whole number of {value.bit_length():,} bits")
    return value


def _of(kind: type, value: Any, what: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{what} to something that is no {kind.__name__}")
    return value


# --------------------------------------------------------------------- admitted calls


class OddArguments(Exception):
    """Arguments that the function cannot have been called with; the text names them."""


def taken(arguments: tuple[Any, ...], *kinds: type) -> tuple[Any, ...]:
    """Returns the leading arguments of an admitted call, if they have exactly these types."""
    found = arguments[: len(kinds)]
    if len(found) < len(kinds) or any(
        type(one) is not kind for one, kind in zip(found, kinds, strict=True)
    ):
        wanted = ", ".join(kind.__name__ for kind in kinds) or "nothing"
        names = ", ".join(type(one).__name__ for one in arguments[:8]) or "nothing"
        raise OddArguments(f"odd arguments: {names} instead of {wanted}")
    return found


def called_with_nothing(make: Callable[[], Any]) -> Maker:
    """Makes the stand-in for a class that is called without arguments and filled afterwards."""

    def empty(arguments: tuple[Any, ...]) -> Any:
        if arguments:
            raise OddArguments(f"{len(arguments)} odd arguments instead of none")
        return make()

    return empty


def _scalar(arguments: tuple[Any, ...]) -> Any:
    """Turns a NumPy number into a Python number; `Left` if its kind is unknown."""
    if len(arguments) == 2 and type(arguments[1]) is bytes and type(arguments[0]) is Left:
        kind = _SCALARS.get(arguments[0].what)
        if kind is not None and kind.itemsize == len(arguments[1]):
            return np.frombuffer(arguments[1], kind)[0].item()
    return Left("NumPy number")


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    """Turns text into bytes: protocol 2 spells bytes so."""
    text, encoding = taken(arguments, str, str)
    if encoding != "latin1":
        raise OddArguments(f"encoding {shown(encoding)}")
    return bytes(text.encode("latin-1"))


_SCALARS = {
    name: np.dtype(f"<{name}") for name in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1")
}

NUMPY: Names = {
    ("numpy", "dtype"): lambda arguments: Left(taken(arguments, str)[0]),
    ("numpy", "ndarray"): lambda _: Left("NumPy array"),
    **{
        (f"numpy.{core}.multiarray", name): make
        for core in ("core", "_core")
        for name, make in (("scalar", _scalar), ("_reconstruct", lambda _: Left("NumPy array")))
    },
    ("_codecs", "encode"): _encoded,
}
"""Numbers and arrays of NumPy among the settings of a network: numbers are taken, arrays left."""
