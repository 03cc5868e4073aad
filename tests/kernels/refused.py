"""Calls that every library of the operators must refuse, and good ones beside them that none may.

What computes them, a CPU, a GPU or its emulator, makes no difference (csrc/valid.h), but that a
GPU convolves nothing. A call is a good one with some fields changed: of the operation, or of the
tensors that go with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from kernels import abi

# All tensors of all calls; a filter of 16x16x3x3 floats is the largest.
MEMORY = torch.zeros(4096)
HERE = MEMORY.data_ptr()

EPILOGUE = (
    {"dtype": 1, "layout": 0, "act": abi.ACTS["lrelu"], "from_output": 0, "n": 2, "c": 3, "p": 4}
    | {"noise_n": 2, "alpha": 0.2, "gain": 1.5, "clamp": 1.0}
    | dict.fromkeys(("d", "noise", "strength", "b"), HERE)
)
UPFIRDN2D = (
    {"dtype": 1, "layout": 0, "gain": 1.0, "f": HERE}
    | dict.fromkeys(("n", "c", "h", "w", "out_h", "out_w"), 2)
    | dict.fromkeys(("fh", "fw", "up_y", "up_x", "down_y", "down_x"), 1)
)
CONV3X3 = {"dtype": 1, "filter_layout": 0, "turned": 0, "n": 2, "h": 2, "w": 2, "c": 16, "o": 16}
BATCH_NORM = {"dtype": 1, "fixed": 0, "m": 3, "c": 16, "eps": 1e-5} | dict.fromkeys(
    ("mean", "variance", "weight", "bias"), HERE
)
# Of each function: its operation, the fields of a good one, the structure and names of its tensors.
GOOD: dict[str, tuple[type, dict[str, Any], type | None, tuple[str, ...]]] = {
    "epilogue": (abi.Epilogue, EPILOGUE, None, ("x", "y")),
    "epilogue_backward": (
        *(abi.Epilogue, EPILOGUE, abi.EpilogueBackward),
        ("x", "dy", "dx", "dd", "dstrength", "db"),
    ),
    "epilogue_double_backward": (
        *(abi.Epilogue, EPILOGUE, abi.EpilogueDoubleBackward),
        ("x", "dy", "gdx", "gdd", "gdstrength", "gdb", "gdy", "gx", "gd", "gstrength", "gb"),
    ),
    "upfirdn2d": (abi.Upfirdn2d, UPFIRDN2D, None, ("x", "y")),
    "conv3x3": (abi.Conv3x3, CONV3X3, None, ("x", "filter", "y")),
    "conv3x3_gradient": (abi.Conv3x3, CONV3X3, None, ("x", "dy", "dfilter")),
    "batch_moments": (abi.BatchNorm, BATCH_NORM, None, ("x", "mean", "variance")),
    "batch_norm": (abi.BatchNorm, BATCH_NORM, None, ("x", "residual", "y")),
    "batch_norm_backward": (
        *(abi.BatchNorm, BATCH_NORM, abi.BatchNormBackward),
        ("x", "y", "dy", "dx", "dresidual", "dweight", "dbias"),
    ),
}
EPILOGUES = ("epilogue", "epilogue_backward", "epilogue_double_backward")
DERIVATIVES = EPILOGUES[1:]
CONVOLUTIONS = ("conv3x3", "conv3x3_gradient")
NORMS = ("batch_moments", "batch_norm", "batch_norm_backward")


@dataclass(frozen=True)
class Call:
    """A call of `function`: what differs from a good one, and whether it is to be refused."""

    function: str
    operation: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, None] = field(default_factory=dict)
    refused: bool = True

    def answers(self, library: Any, stream: int | None) -> Iterator[int]:
        """The status of the function; before it that of the one that sizes its scratch memory."""
        kind, fields, pointers, names = GOOD[self.function]
        operation = kind(**{**fields, **self.operation})
        placed = {**dict.fromkeys(names, HERE), **self.tensors}
        scratch = torch.zeros(1 << 16)
        run = abi.Run(threads=1, stream=stream, workspace=scratch.data_ptr())
        tensors: tuple[Any, ...] = tuple(placed.values())
        if pointers is not None:
            tensors = (pointers(**placed),)
            if self.function not in NORMS:
                yield _answer(library, f"{self.function}_workspace", operation, *tensors)
        elif self.function == "upfirdn2d" and not self.tensors:
            yield _answer(library, "upfirdn2d_workspace", operation)
        elif self.function in CONVOLUTIONS and not self.tensors:
            size = _answer(library, f"{self.function}_workspace", operation, run)
            assert size <= scratch.nbytes
            yield size
        if self.function in NORMS and not self.tensors:
            yield _answer(library, f"{self.function}_workspace", operation)
        yield _answer(library, self.function, operation, *tensors, run)


def _answer(library: Any, name: str, *arguments: Any) -> int:
    """The status of a function that answers it, or raises as those of `native.Library`."""
    passed = [ctypes.byref(one) if isinstance(one, ctypes.Structure) else one for one in arguments]
    try:
        return int(getattr(library, f"kernels_{name}")(*passed))
    except NotImplementedError as error:
        assert "unsupported" in str(error)
        return abi.UNSUPPORTED


def wrong(library: Any, call: Call, stream: int | None = None) -> str | None:
    """What is wrong with the library's answers to a call."""
    found = list(call.answers(library, stream))
    good = all((one == abi.UNSUPPORTED) if call.refused else (one >= 0) for one in found)
    return None if good else f"answers {found}"


def calls(device: str = "cpu") -> dict[str, Call]:
    """Every call of the table, by what it is about, and whether libraries of `device` refuse it."""
    read = {"from_output": 1, "d": None}
    told = {"epilogue_backward": ["dd"], "epilogue_double_backward": ["gdd", "gd"]}
    every = {
        "unknown dtype": {"dtype": 4},
        "negative dtype": {"dtype": -1},
        "unknown layout": {"layout": 2},
        "unknown activation": {"act": 9},
        "negative activation": {"act": -1},
        **{f"negative {name}": {name: -1} for name in ("n", "c", "p")},
        "more than there are addresses": {"c": 1 << 40, "p": 1 << 40},
        "noise of another batch": {"noise_n": 3},
        "noise of no sample": {"noise_n": 0},
    }
    unread = {
        "a smooth activation": {"act": abi.ACTS["tanh"]},
        "a negative slope": {"alpha": -0.1},
        "a negative gain": {"gain": -1.0},
        "no gain": {"gain": 0.0},
        "a modulated input": {"d": HERE},
    }
    linear = {"act": abi.ACTS["linear"], "clamp": -1.0}
    found = {}
    for name in EPILOGUES:
        found |= {f"{name}: {what}": Call(name, fields) for what, fields in every.items()}
        found |= {f"{name}: no {one}": Call(name, {}, {one: None}) for one in GOOD[name][3][:2]}
        found[f"{name}: good"] = Call(name, refused=False)
        found[f"{name}: empty"] = Call(
            name, {"n": 0, "noise_n": 0}, dict.fromkeys(GOOD[name][3]), refused=False
        )
    found["epilogue: read off its output"] = Call("epilogue", read)
    for name in DERIVATIVES:
        off = dict.fromkeys(told[name])
        for what, fields in unread.items():
            found[f"{name}: output of {what}"] = Call(name, {**read, **fields}, off)
        for one in told[name]:
            others = {other: None for other in told[name] if other != one}
            found[f"{name}: {one} of an output"] = Call(name, read, others)
        found[f"{name}: from output"] = Call(name, read, off, refused=False)
        found[f"{name}: linear without x"] = Call(name, linear, {**off, "x": None}, refused=False)
        clamped = {**linear, "clamp": 1.0}
        found[f"{name}: clamped without x"] = Call(name, clamped, {**off, "x": None})
        found[f"{name}: {told[name][0]} without x"] = Call(name, linear, {"x": None})
    computed = device == "cpu"
    return found | _resampling() | _convolving(computed=computed) | _norming(computed=computed)


def _resampling() -> dict[str, Call]:
    sizes = ("n", "c", "h", "w", "out_h", "out_w")
    rates = ("fh", "fw", "up_y", "up_x", "down_y", "down_x")
    pair = {"f": None, "fy": HERE, "fx": HERE}
    changes = {
        "unknown dtype": {"dtype": 17},
        "negative dtype": {"dtype": -1},
        "unknown layout": {"layout": -1},
        **{f"negative {name}": {name: -1} for name in (*sizes, *rates)},
        **{f"{name} of 0": {name: 0} for name in rates},
        "more inputs than there are addresses": {"h": 1 << 40, "w": 1 << 40},
        "more outputs than there are addresses": {"out_h": 1 << 40, "out_w": 1 << 40},
        "no filter": {"f": None},
        **{f"no {name}": {**pair, name: None} for name in ("fy", "fx")},
    }
    name = "upfirdn2d"
    found = {f"{name}: {what}": Call(name, fields) for what, fields in changes.items()}
    found |= {f"{name}: no {one}": Call(name, {}, {one: None}) for one in ("x", "y")}
    empty, nothing = {"h": 0, "w": 0}, {"n": 0}
    return {
        **found,
        f"{name}: good": Call(name, refused=False),
        f"{name}: two filters": Call(name, pair, refused=False),
        f"{name}: of no pixels": Call(name, empty, {"x": None}, refused=False),
        f"{name}: of nothing": Call(name, nothing, {"x": None, "y": None}, refused=False),
        f"{name}: nothing by no filter": Call(name, {**nothing, "f": None}),
    }


def _convolving(*, computed: bool) -> dict[str, Call]:
    sizes = ("n", "h", "w", "c", "o")
    large = {"h": 1 << 15, "w": 1 << 15}
    changes: dict[str, dict[str, int]] = {
        "unknown dtype": {"dtype": 4},
        "negative dtype": {"dtype": -1},
        "float64": {"dtype": abi.DTYPES[torch.float64]},
        "float16": {"dtype": abi.DTYPES[torch.float16]},
        "unknown layout of its filter": {"filter_layout": 2},
        "negative layout of its filter": {"filter_layout": -1},
        **{f"{name} of 0": {name: 0} for name in sizes},
        **{f"negative {name}": {name: -16} for name in sizes},
        **{f"odd {name}": {name: 3} for name in ("h", "w")},
        **{f"{name} of a vector and a half": {name: 24} for name in ("c", "o")},
        "more inputs than there are addresses": {**large, "c": 1 << 30},
        "more outputs than there are addresses": {**large, "o": 1 << 30},
        "a filter of more than there are addresses": {"c": 1 << 27, "o": 1 << 27},
    }
    good: dict[str, dict[str, int]] = {
        "good": {},
        "turned": {"turned": 1},
        "channels last": {"filter_layout": 1},
        "turned, channels last": {"turned": 1, "filter_layout": 1},
        "an image that is no square": {"n": 1, "w": 4},
    }
    found = {}
    for name in CONVOLUTIONS:
        found |= {f"{name}: {what}": Call(name, fields) for what, fields in changes.items()}
        found |= {f"{name}: no {one}": Call(name, {}, {one: None}) for one in GOOD[name][3]}
        for what, fields in good.items():
            if name == "conv3x3" or "turned" not in fields:
                found[f"{name}: {what}"] = Call(name, fields, refused=not computed)
    return found


def _norming(*, computed: bool) -> dict[str, Call]:
    changes: dict[str, dict[str, int]] = {
        "unknown dtype": {"dtype": 4},
        "negative dtype": {"dtype": -1},
        "float16": {"dtype": abi.DTYPES[torch.float16]},
        **{f"{name} of 0": {name: 0} for name in ("m", "c")},
        **{f"negative {name}": {name: -16} for name in ("m", "c")},
        "c of a vector and a half": {"c": 24},
        "more than there are addresses": {"m": 1 << 40, "c": 1 << 40},
    }
    needed = {
        "batch_moments": ("x", "mean", "variance"),
        "batch_norm": ("x", "y"),
        "batch_norm_backward": ("x", "dy", "dx", "dweight", "dbias"),
    }
    left_out: dict[str, dict[str, None]] = {
        "batch_norm": {"residual": None},
        "batch_norm_backward": {"y": None, "dresidual": None},
    }
    found = {}
    for name in NORMS:
        found |= {f"{name}: {what}": Call(name, fields) for what, fields in changes.items()}
        found |= {f"{name}: no {one}": Call(name, {}, {one: None}) for one in needed[name]}
        found[f"{name}: good"] = Call(name, refused=not computed)
        found[f"{name}: float64"] = Call(name, {"dtype": 0}, refused=not computed)
    for name, tensors in left_out.items():
        found[f"{name}: without residual"] = Call(name, {}, tensors, refused=not computed)
        for one in ("mean", "variance", "weight", "bias"):
            found[f"{name}: no {one}"] = Call(name, {one: None})
    found["batch_norm_backward: a residual without y"] = Call(
        "batch_norm_backward", {}, {"y": None}
    )
    return found
