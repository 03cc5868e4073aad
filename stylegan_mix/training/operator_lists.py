"""Steps that a CPU repeats as lists of operators: without autograd, modules and their Python.

A step of StyleGAN2 runs some 2,000 operators. What runs below autograd is noted while a step is
played, with the tensors that each operator takes and gives, and later called again in that order:
the same operators on the same memory, or on memory that aliases in the same way, give the same
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

# What gives another tensor of the same memory, and nothing else. As nothing recorded changes the
# shape of a tensor in place, and no gradient flows, the one does for the other.
_SAME = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
_REFUSED = {
    torch.Tag.nondeterministic_seeded: "draws numbers that nothing draws anew",
    torch.Tag.inplace_view: "changes the shape of a tensor in place",
}


class OperatorLists:
    """Records operators as a `Recorder` of a CPU: `capture` runs what it records."""

    def warm(self, run: Callable[[], Facts]) -> Facts:
        """Just runs."""
        return run()

    def capture(self, run: Callable[[], Facts]) -> Callable[[], Facts]:
        """What calls the operators of `run` again, on the tensors that were there before it.

        RuntimeError where calling them again would not be what `run` does.
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
        """Whether a fact, or a size, is the same bits."""
        return bool(replayed.equal(played) or (replayed.isnan() & played.isnan()).all())


@dataclass(frozen=True)
class _Call:
    """A function, the slots of its arguments, that of its result; whether it does more than give
    that result.
    """

    function: Callable[..., Any]
    arguments: tuple[int, ...]
    result: int
    acts: bool = False


class _Recording(TorchDispatchMode):
    """Notes operators in `calls`, which take from and give to places in a list, `slots`.

    In `slots` lie the constants: numbers, and tensors that were there before. Those in `computed`
    are empty to begin with. Computed tensors are held weakly: autograd takes a gradient that
    nobody else holds for its own, and copies others.
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
            return result  # of types, or names for a profiler
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
        """The slot where a value lies, or, of a list of tensors, will lie."""
        if isinstance(value, Tensor):
            return self._places[value] if value in self._places else self._hold(value)
        if isinstance(value, (tuple, list)) and any(isinstance(one, Tensor) for one in value):
            gathered = _Call(_listed, tuple(map(self.place, value)), self._new())
            self.calls.append(gathered)
            return gathered.result
        self.slots.append(value)
        return len(self.slots) - 1

    def _hold(self, tensor: Tensor) -> int:
        """The new slot of a tensor that was there before."""
        storage = StorageWeakRef(tensor.untyped_storage())
        if storage in self._written:
            self._refuse("a tensor shares memory with a computed one, but no operator gave it")
        self._constant.add(storage)
        self.slots.append(tensor)
        self._places[tensor] = len(self.slots) - 1
        return len(self.slots) - 1

    def _give(self, result: Any) -> int:
        """The slot of what an operator gave; what changes a tensor in place may give it again."""
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
        """Notes why an operator cannot be called again with the same effect.

        What Python reads past the dispatcher, by `tolist` or `numpy`, is not seen here: a step
        must not, as on a GPU.
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


# A function, what takes its arguments from the slots, the slot of its result, and the slots that
# nothing reads any more.
_Step = tuple[Callable[..., Any], Callable[[list[Any]], Any], int, tuple[int, ...]]


def _steps(recording: _Recording, results: frozenset[int]) -> list[_Step]:
    """What is needed of a recording to change what it changes and to give `results`.

    Each step tells which slots are empty after it: a replay needs no more memory than the step.
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
    """What gives the values of `slots` in a list: a sequence, without a loop of Python."""
    if len(slots) > 1:
        return itemgetter(*slots)
    first = slots[0] if slots else 0
    return itemgetter(slice(first, first + len(slots)))


def _listed(*values: Any) -> list[Any]:
    return list(values)
