"""How fast the operators are: forward, backward and double backward, against what there is.

    python tools/bench/kernels.py --threads 2 --out tools/results/kernels/cpu.json
    python tools/bench/kernels.py --device cuda --dtype bfloat16 --out ...

Beside ours stand: "plain", the operator composed of PyTorch's and differentiated by PyTorch (for
upfirdn2d that is a depthwise convolution); "fallback", what runs with KERNELS=reference;
"compiled", torch.compile of the plain one (it has no double backward); and the floor: the fewest
bytes that the operator can move, at the bandwidth of a plain copy measured in the same rounds. All
variants run with one setting of the allocator, which the file names.
`--peer FILE` times another project beside them: a Python file that defines any of `bias_act`,
`modulated_bias_act` and `upfirdn2d` with the arguments of ours. Prints a table; writes JSON and,
beside it, a plot.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

# The root in place of this folder, where kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

import kernels
from kernels import native, reference
from stylegan_mix import console
from tools.bench import timing

FILTER = kernels.setup_filter([1, 3, 3, 1])
PASSES = ("forward", "backward", "double backward")
OTHERS = ("fallback", "plain", "compiled")
LAYOUTS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}


@dataclass(frozen=True)
class Operator:
    """An operator to time: how to call it, and the tensors that each pass must read and write.

    `bytes_moved` counts, for each pass, inputs and outputs in multiples of the size of x.
    """

    name: str
    arguments: dict[str, Any]
    small: tuple[str, ...]
    bytes_moved: tuple[float, float, float]


_TUNABLES = "GLIBC_TUNABLES"

OPERATORS = {
    "bias_act": Operator("bias_act", {"act": "lrelu", "clamp": 256.0}, ("b",), (2, 3, 3)),
    "epilogue": Operator(
        "modulated_bias_act",
        {"act": "lrelu", "clamp": 256.0},
        ("d", "b", "noise", "strength"),
        (2, 3, 5),
    ),
    "up2": Operator("upfirdn2d", {"up": 2, "padding": (2, 1, 2, 1), "gain": 4}, (), (5, 5, 5)),
    "down2": Operator("upfirdn2d", {"down": 2, "padding": 1}, (), (1.25, 1.25, 1.25)),
    "blur": Operator("upfirdn2d", {"padding": (2, 1, 2, 1), "gain": 4}, (), (2, 2, 2)),
}


def main() -> None:
    """Measures what the options ask for, prints the table, writes JSON and plot."""
    options = _options()
    _one_block_for_one_output()
    console.set_up_process(options.threads)
    device = torch.device(options.device)
    peer = _peer(options.peer) if options.peer else None
    rows = []
    facts = {
        "schema": "bench-kernels/1",
        "machine": timing.machine(device),
        "allocator": os.environ.get(_TUNABLES),
        "operators": native.identity(device),
    }
    # What is compared with each other is timed one right after the other: forms of one operator.
    for shape, name in itertools.product(options.shape, options.operator):
        for dtype, layout in itertools.product(options.dtype, options.layout):
            case = Case(OPERATORS[name], shape, getattr(torch, dtype), layout, device)
            found = measure(case, peer, options.beside, options.rounds)
            rows += [{"operator": name, **row} for row in found]
            for row in found:
                print(_line(name, row), flush=True)
            if options.out:  # after every one: what is stopped leaves what it has
                timing.write_json(options.out, {**facts, "rows": rows})
    if options.out:
        _plot(rows, options.out.with_suffix(".png"))


def _one_block_for_one_output() -> None:
    """Starts this script again with a setting of glibc, without which outputs change places.

    PyTorch asks for aligned blocks. glibc cuts a little off before each and keeps that in a cache
    of its own, so that a freed block never fits the next request of the same size: two blocks take
    turns for one output, and together they exceed a cache that holds one. The copy that the
    operators are measured against has one target; so has every variant, without that cache.
    """
    if sys.platform.startswith("linux") and _TUNABLES not in os.environ:
        os.environ[_TUNABLES] = "glibc.malloc.tcache_count=0"
        os.execv(sys.executable, [sys.executable, *sys.argv])


@dataclass(frozen=True)
class Case:
    """One operator on one kind of tensor."""

    operator: Operator
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    device: torch.device

    def image(self, shape: tuple[int, ...] | None = None) -> Tensor:
        x = torch.randn(shape or self.shape).to(self.device, self.dtype)
        return x.to(memory_format=LAYOUTS[self.layout])

    def operands(self) -> dict[str, Tensor]:
        n, c, h, w = self.shape
        shapes = {"d": (n, c), "b": (c,), "noise": (n, 1, h, w), "strength": ()}
        found = {}
        for name in self.operator.small:
            one = torch.randn(shapes[name]).to(self.device)
            found[name] = one.requires_grad_(name != "noise")
        return found


def measure(
    case: Case, peer: ModuleType | None, beside: list[str], rounds: int
) -> list[dict[str, Any]]:
    """A row for each pass: milliseconds of every variant, of the floor, and their ratio."""
    rows = []
    elements = case.image().numel()
    for number, name in enumerate(PASSES):
        torch._dynamo.reset()  # else it gives up compiling after eight kinds of tensors
        moved = int(elements * case.operator.bytes_moved[number])
        # A copy reads half of the bytes and writes half: as many as the operator moves at least.
        variants = {"copy": timing.copy_call(moved // 2, case.dtype, case.device)}
        for variant, operator, setting in _variants(case, peer, name):
            if variant not in ("native", "peer", *beside):
                continue
            with _kernels(setting):
                call = _prepared(case, operator, number)
            variants[variant] = _kernels(setting)(call)
        taken = timing.alternate(variants, device=case.device, rounds=rounds)
        floor = taken.pop("copy").seconds
        rows.append(
            {
                "pass": name,
                "shape": list(case.shape),
                "dtype": str(case.dtype).removeprefix("torch."),
                "layout": case.layout,
                "floor_ms": round(floor * 1e3, 4),
                "times": {variant: one.plain() for variant, one in taken.items()},
                "native_over_floor": round(taken["native"].seconds / floor, 2),
            }
        )
    return rows


def _variants(
    case: Case, peer: ModuleType | None, name: str
) -> Iterator[tuple[str, Callable[..., Tensor], str]]:
    """(name, operator, what KERNELS is while its graph is made)."""
    ours = getattr(kernels, case.operator.name)
    yield "native", ours, "native"
    yield "fallback", ours, "reference"
    plain = _plain(case)
    yield "plain", plain, "reference"
    if name != "double backward":
        yield "compiled", torch.compile(plain), "reference"
    if peer is not None and hasattr(peer, case.operator.name):
        yield "peer", getattr(peer, case.operator.name), "reference"


def _plain(case: Case) -> Callable[..., Tensor]:
    twin = getattr(reference, case.operator.name)
    if case.operator.name != "upfirdn2d":

        def cast(x: Tensor, **arguments: Any) -> Tensor:
            small = {
                name: one.to(x.dtype) if isinstance(one, Tensor) else one
                for name, one in arguments.items()
            }
            return twin(x, **small)

        return cast

    def written_out(x: Tensor, f: Tensor, *, padding: Any = 0, **rates: Any) -> Tensor:
        up, down = rates.get("up", 1), rates.get("down", 1)
        padding = (padding,) * 4 if isinstance(padding, int) else padding
        gain = rates.get("gain", 1)
        return twin(x, f, up=(up, up), down=(down, down), padding=padding, gain=gain)

    return written_out


def _prepared(case: Case, operator: Callable[..., Tensor], number: int) -> Callable[[], object]:
    """What to time: the pass alone, its graph made before."""
    x = case.image().requires_grad_(number > 0)
    small = case.operands()
    filters = [FILTER.to(case.device)] if case.operator.name == "upfirdn2d" else []

    def forward() -> Tensor:
        return operator(x, *filters, **small, **case.operator.arguments)

    if number == 0:
        return torch.no_grad()(forward)
    y = forward()
    wanted = [x, *(one for one in small.values() if one.requires_grad)]
    dy = case.image(tuple(y.shape)).requires_grad_(number == 2)
    if number == 1:
        return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)
    first = torch.autograd.grad(y, wanted, dy, create_graph=True)
    cotangents = [torch.ones_like(one) for one in first]
    into = [dy, *wanted]
    return lambda: torch.autograd.grad(
        first, into, cotangents, retain_graph=True, allow_unused=True
    )


@contextmanager
def _kernels(setting: str) -> Iterator[None]:
    before = os.environ.get("KERNELS")
    os.environ["KERNELS"] = setting
    yield
    if before is None:
        del os.environ["KERNELS"]
    else:
        os.environ["KERNELS"] = before


def _line(name: str, row: dict[str, Any]) -> str:
    shape = "x".join(map(str, row["shape"]))
    times = "  ".join(f"{key} {one['ms']:.2f}" for key, one in row["times"].items())
    return (
        f"{name:9} {shape:15} {row['dtype']:9} {row['layout']} {row['pass']:16} "
        f"floor {row['floor_ms']:.2f}  {times}  ({row['native_over_floor']:.2f} of the floor)"
    )


def _peer(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("peer", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"--peer {path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars of every variant over the floor, on a logarithmic axis; a row of plots for each pass."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(PASSES), 1, figsize=(11, 9), layout="constrained")
    variants = list(dict.fromkeys(name for row in rows for name in row["times"]))
    for axis, name in zip(axes, PASSES, strict=True):
        chosen = [row for row in rows if row["pass"] == name]
        for place, variant in enumerate(variants):
            pairs = [
                (x + place / (len(variants) + 1), row["times"][variant]["ms"] / row["floor_ms"])
                for x, row in enumerate(chosen)
                if variant in row["times"]
            ]
            if pairs:
                axis.bar(*zip(*pairs, strict=True), width=1 / (len(variants) + 1), label=variant)
        axis.axhline(1, color="black", linewidth=1)
        axis.set(yscale="log", ylabel="time / floor", title=name)
        labels = [
            f"{row['operator']}\n{'x'.join(map(str, row['shape'][1:3]))}\n{row['dtype']} "
            f"{row['layout']}"
            for row in chosen
        ]
        axis.set_xticks([x + 0.4 for x in range(len(chosen))], labels, fontsize=6)
    axes[0].legend(ncols=len(variants), fontsize=8, loc="lower right", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(one) for one in text.split("x"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu")
    add("--threads", type=int, default=2)
    add("--shape", type=_shape, nargs="+", default=[(32, 128, 32, 32), (32, 512, 16, 16)])
    add("--dtype", nargs="+", default=["float32"])
    add("--layout", nargs="+", choices=LAYOUTS, default=["nhwc"])
    add("--operator", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    add("--beside", nargs="*", choices=OTHERS, default=list(OTHERS), help="timed beside ours")
    add("--rounds", type=int, default=15, help="at most so many of each variant")
    add("--peer", type=Path)
    add("--out", type=Path, help="JSON to write; the plot gets the same name")
    return parser.parse_args()


if __name__ == "__main__":
    main()
