"""Training steps repeated on a CPU as lists of operators, without autograd, modules and Python.

A step of StyleGAN2 runs some 2,000 operators. While a step is played, the operators below autograd
are recorded, with the tensors that each takes and gives. Later they are called again in that order.
The same operators on the same memory, or on memory that aliases in the same way, give the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import getitem, itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from kernels.registration import short_way
from stylegan_mix.training.step import Facts

__all__ = ["OperatorLists"]

# Operators that only give another tensor of the same memory. Nothing recorded changes the shape of
# a tensor in place, and no gradient flows, so the one tensor can stand for the other.
_SAME = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
_REFUSED = {
    torch.Tag.nondeterministic_seeded: "draws numbers that nothing draws anew",
    torch.Tag.inplace_view: "changes the shape of a tensor in place",
}


class OperatorLists:
    """The `Recorder` of a CPU: `capture` runs the operators that it records."""

    def warm(self, run: Callable[[], Facts]) -> Facts:
        """Runs as usual."""
        return run()

    def capture(self, run: Callable[[], Facts]) -> Callable[[], Facts]:
        """Returns a function that calls the operators of `run` again, on the tensors before it.

        RuntimeError if calling them again would not have the effect of `run`.
        """
        recording = _Recording()
        with recording:
            facts = run()
        if recording.refusal is not None:
            raise RuntimeError(recording.refusal)
        results = {name: recording.place(fact) for name, fact in facts.items()}
        template = recording.slots
        steps = _steps(recording, frozenset(results.values()))

        @torch.no_grad()
        def replay() -> Facts:
            slots = template.copy()
            for function, arguments, result, dead in steps:
                slots[result] = function(*arguments(slots))
                for slot in dead:
                    slots[slot] = None
            return {name: slots[slot] for name, slot in results.items()}

        return replay

    def agree(self, name: str, replayed: Tensor, played: Tensor) -> bool:
        """Compares a fact, or a size, bit by bit."""
        return bool(replayed.equal(played) or (replayed.isnan() & played.isnan()).all())


@dataclass(frozen=True)
class _Call:
    """A function, the slots of its arguments, the slot of its result, and a flag.

    The flag tells if the function has an effect besides that result.
    """

    function: Callable[..., Any]
    arguments: tuple[int, ...]
    result: int
    acts: bool = False


class _Recording(TorchDispatchMode):
    """A record of operators in `calls`; they take arguments from `slots` and put results there.

    The slots of constants are filled: numbers, and tensors from before the recording. Those in
    `computed` are empty at first. Computed tensors are held weakly: autograd reuses a gradient that
    nobody else holds, and copies others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slots: list[Any] = [None]
        self.computed: set[int] = set()
        self.calls: list[_Call] = []
        self.refusal: str | None = None
        self._places = WeakIdKeyDictionary()
        self._constant: set[StorageWeakRef] = set()
        self._written: set[StorageWeakRef] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not any(isinstance(one, Tensor) for one in tree_leaves((args, kwargs, result))):
            return result  # types, or names for a profiler
        arguments = tuple(self.place(argument) for argument in args)
        self._check(func, kwargs, result)
        if func in _SAME:
            self._places[result] = arguments[0]
            return result
        function = short_way(func)
        if kwargs:
            function = partial(function, **kwargs)
        gives = 0 if result is None else self._give(result)
        acts = func._schema.is_mutable or result is None
        self.calls.append(_Call(function, arguments, gives, acts))
        if isinstance(result, (tuple, list)):
            for number, one in enumerate(result):
                if one is not None:
                    self.calls.append(_Call(getitem, (gives, self.place(number)), self._give(one)))
        return result

    def place(self, value: Any) -> int:
        """Returns the slot of a value; makes one for a list of tensors."""
        if isinstance(value, Tensor):
            return self._places[value] if value in self._places else self._hold(value)
        if isinstance(value, (tuple, list)) and any(isinstance(one, Tensor) for one in value):
            gathered = _Call(_listed, tuple(map(self.place, value)), self._new())
            self.calls.append(gathered)
            return gathered.result
        self.slots.append(value)
        return len(self.slots) - 1

    def _hold(self, tensor: Tensor) -> int:
        """Makes the slot of a tensor from before the recording."""
        storage = StorageWeakRef(tensor.untyped_storage())
        if storage in self._written:
            self._refuse("a tensor shares memory with a computed one, but no operator gave it")
        self._constant.add(storage)
        self.slots.append(tensor)
        self._places[tensor] = len(self.slots) - 1
        return len(self.slots) - 1

    def _give(self, result: Any) -> int:
        """Returns the slot of a result; an operator in place may give the same tensor again."""
        if not isinstance(result, Tensor):
            return self._new()
        if result not in self._places:
            self._places[result] = self._new()
            storage = StorageWeakRef(result.untyped_storage())
            if storage not in self._constant:
                self._written.add(storage)
        slot: int = self._places[result]
        return slot

    def _new(self) -> int:
        self.slots.append(None)
        self.computed.add(len(self.slots) - 1)
        return len(self.slots) - 1

    def _check(self, func: Any, kwargs: dict[str, Any], result: Any) -> None:
        """Notes the reason if an operator cannot be called again with the same effect.

        Reads by Python that bypass the dispatcher, by `tolist` or `numpy`, are not seen here. A
        step must not use them, as on a GPU.
        """
        for tag, reason in _REFUSED.items():
            if tag in func.tags:
                self._refuse(f"{func} {reason}")
        results = result if isinstance(result, (tuple, list)) else [result]
        if any(not isinstance(one, Tensor | None) for one in results):
            self._refuse(f"{func} reads a number")
        if any(isinstance(value, Tensor) for value in kwargs.values()):
            self._refuse(f"{func} takes a tensor by name")

    def _refuse(self, reason: str) -> None:
        self.refusal = self.refusal or reason


# A function, a getter of its arguments from the slots, the slot of its result, and the slots that
# nothing reads any more.
_Step = tuple[Callable[..., Any], Callable[[list[Any]], Any], int, tuple[int, ...]]


def _steps(recording: _Recording, results: frozenset[int]) -> list[_Step]:
    """Selects the calls of a recording that change tensors or are needed for `results`.

    Each step lists the slots that are empty after it, so a replay needs no more memory than the
    step.
    """
    needed, calls = set(results), []
    for call in reversed(recording.calls):
        if call.acts or call.result in needed:
            needed.update(call.arguments)
            calls.append(call)
    steps: list[_Step] = []
    kept = set(results)
    for call in calls:  # from the last to the first
        touched = {*call.arguments, call.result} & recording.computed
        dead = tuple(touched - kept)
        kept |= touched
        steps.append((call.function, _taking(call.arguments), call.result, dead))
    return steps[::-1]


def _taking(slots: tuple[int, ...]) -> Callable[[list[Any]], Any]:
    """Makes a getter of the values of `slots` from a list: a sequence, without a Python loop."""
    if len(slots) > 1:
        return itemgetter(*slots)
    first = slots[0] if slots else 0
    return itemgetter(slice(first, first + len(slots)))


def _listed(*values: Any) -> list[Any]:
    return list(values)
