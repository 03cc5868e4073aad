"""Benchmark of the operators: forward, backward and double backward, against alternatives.

    python tools/bench/kernels.py --threads 2 --out tools/results/kernels/cpu.json
    python tools/bench/kernels.py --device cuda --dtype bfloat16 --minutes 2 --out ...

The alternatives beside ours are: "plain", the operator composed of PyTorch's and differentiated by
PyTorch (for upfirdn2d a depthwise convolution); "fallback", the code of KERNELS=reference;
"compiled", torch.compile of the plain one (it has no double backward). The floor is the time of the
fewest bytes that the operator can move, at the bandwidth of a plain copy in the same rounds. All
variants run with one setting of the allocator, which the file names. Addresses in memory differ
from process to process, and can double the time of a pass. So on a CPU each case is timed in
`--processes` of its own, and the medians count.
On a GPU each variant has two times: that of a loop in Python (`ms`) and that of its kernels
(`device_ms`). `native_over_floor` is the ratio of the kernels' time to the copy's; it is missing if
the profiler saw no kernel. A case that raises is noted in the file, and the others are measured.
After `--minutes` no further case begins, and the file lists those left out.
`--peer FILE` times another project beside them: a Python file that defines any of `bias_act`,
`modulated_bias_act` and `upfirdn2d` with our arguments. Prints a table; writes JSON and, beside it,
a plot.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

# The root replaces this folder, whose kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

import kernels
from kernels import dispatch, reference
from stylegan_mix import process
from tools.bench import timing

FILTER = kernels.setup_filter([1, 3, 3, 1])
# As many taps as the wavelet of the augmentation pipe; their values do not change the time.
TWELVE = kernels.setup_filter([math.comb(11, k) for k in range(12)])
PASSES = ("forward", "backward", "double backward")
OTHERS = ("fallback", "plain", "compiled")
SEED = 0
LAYOUTS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}


@dataclass(frozen=True)
class Operator:
    """An operator to time: its call, and the tensors that each pass must read and write.

    `moved` counts, for each pass, inputs and outputs in multiples of the size of x. A filter has no
    `moved`: each of its passes reads one image and writes one.
    """

    name: str
    arguments: dict[str, Any]
    small: tuple[str, ...] = ()
    moved: tuple[int, int, int] | None = None
    filter: Tensor | None = None

    def elements(self, shape: tuple[int, ...], number: int) -> int:
        """Counts the fewest elements that a pass moves, for x of this shape."""
        if self.moved is not None:
            return self.moved[number] * math.prod(shape)
        return math.prod(shape) + math.prod(self.filtered(shape))

    def filtered(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Computes the shape of a filtered image."""
        up, down = self.arguments.get("up", 1), self.arguments.get("down", 1)
        left, right, top, bottom = _four(self.arguments.get("padding", 0))
        n, c, h, w = shape
        h, w = up * h + top + bottom, up * w + left + right
        assert self.filter is not None, f"{self.name} has no filter"
        taps = len(self.filter)
        return n, c, (h - taps) // down + 1, (w - taps) // down + 1


def _four(padding: Any) -> tuple[int, int, int, int]:
    return (padding,) * 4 if isinstance(padding, int) else padding


def _filter(f: Tensor, **arguments: Any) -> Operator:
    return Operator("upfirdn2d", arguments, filter=f)


_TUNABLES = "GLIBC_TUNABLES"

OPERATORS = {
    "bias_act": Operator("bias_act", {"act": "lrelu", "clamp": 256.0}, ("b",), (2, 3, 3)),
    "epilogue": Operator(
        "modulated_bias_act",
        {"act": "lrelu", "clamp": 256.0},
        ("d", "b", "noise", "strength"),
        (2, 3, 5),
    ),
    "up2": _filter(FILTER, up=2, padding=(2, 1, 2, 1), gain=4),
    "down2": _filter(FILTER, down=2, padding=1),
    "blur": _filter(FILTER, padding=(2, 1, 2, 1), gain=4),
    # The two filters of training/augmentation/geometry.py, for images: few channels, NCHW.
    "ada_up2": _filter(TWELVE, up=2, padding=(0, -1, 0, -1), gain=4),
    "ada_down2": _filter(TWELVE, down=2, flip_filter=True),
}
NETWORKS = [name for name in OPERATORS if not name.startswith("ada")]


def main() -> int:
    """Measures the cases of the options, prints the table, writes JSON and plot.

    Returns 1 if a case raised.
    """
    options, began = _options(), time.monotonic()
    _one_block_for_one_output()
    process.set_up_process(options.threads)
    device = torch.device(options.device)
    if options.peer:
        _peer(options.peer)
    facts = {
        "schema": "bench-kernels/1",
        "machine": timing.machine(device),
        "allocator": os.environ.get(_TUNABLES),
        "seed": SEED,
        "processes": options.processes if device.type == "cpu" else 1,
        "operators": dispatch.identity(device),
    }
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    cases = list(_cases(options, device))
    while cases and time.monotonic() - began < 60 * options.minutes:
        name, case = cases.pop(0)
        try:
            found = _alone(case, options)
        except RuntimeError as error:
            failed[f"{name} {case}"] = f"{type(error).__name__}: {error}"
            print(f"{name} {case} FAILED: {error}", flush=True)
            found = []
        rows += [{"operator": name, **row} for row in found]
        for row in found:
            print(_line(name, row), flush=True)
        if options.out:  # after every case: a run that is stopped leaves those it has
            left_out = [f"{name} {case}" for name, case in cases]
            told = {"rows": rows, "failed": failed, "left_out": left_out}
            timing.write_json(options.out, {**facts, **told})
    for name, case in cases:
        print(f"{name} {case} left out: {options.minutes} minutes are over")
    if options.out and rows:
        _plot(rows, options.out.with_suffix(".png"))
    return 1 if failed else 0


def _cases(options: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Case]]:
    """Lists the cases; forms of one operator follow each other, to be compared."""
    for shape, name in itertools.product(options.shape, options.operator):
        for dtype, layout in itertools.product(options.dtype, options.layout):
            yield name, Case(OPERATORS[name], shape, getattr(torch, dtype), layout, device)


def _one_block_for_one_output() -> None:
    """Starts this script again with a setting of glibc that keeps outputs in their place.

    PyTorch asks for aligned blocks. glibc cuts a little off before each and keeps that in a cache,
    so that a freed block never fits the next request of the same size. Two blocks then take turns
    for one output, and together they exceed a processor cache that holds one. The copy that the
    operators are measured against has one target. Without glibc's cache, so has every variant.
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

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{'x'.join(map(str, self.shape))} {dtype} {self.layout}"

    def image(self, shape: tuple[int, ...] | None = None) -> Tensor:
        x = torch.randn(shape or self.shape, device=self.device).to(self.dtype)
        return x.to(memory_format=LAYOUTS[self.layout])

    def operands(self) -> dict[str, Tensor]:
        n, c, h, w = self.shape
        shapes = {"d": (n, c), "b": (c,), "noise": (n, 1, h, w), "strength": ()}
        found = {}
        for name in self.operator.small:
            one = torch.randn(shapes[name], device=self.device)
            found[name] = one.requires_grad_(name != "noise")
        return found


def _alone(case: Case, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs `measure`; on a CPU in several processes, of which the medians count.

    A GPU has its own memory, and takes seconds to set up.
    """
    if case.device.type != "cpu":
        return _measured(case, options)
    found = []
    for _ in range(options.processes):
        with ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=process.set_up_process,
            initargs=(options.threads,),
        ) as fresh:
            found.append(fresh.submit(_measured, case, options).result())
    return [_median(rows) for rows in zip(*found, strict=True)]


def _median(rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Joins rows of the same pass: the median time of every variant, and of the floor."""

    def middle(times: list[dict[str, Any]]) -> dict[str, Any]:
        return sorted(times, key=lambda one: one["ms"])[len(times) // 2]

    names = rows[0]["times"]
    times = {name: middle([row["times"][name] for row in rows]) for name in names}
    floor = statistics.median(row["floor_ms"] for row in rows)
    ratio = round(times["native"]["ms"] / floor, 2)
    return {**rows[0], "floor_ms": floor, "times": times, "native_over_floor": ratio}


def _measured(case: Case, options: argparse.Namespace) -> list[dict[str, Any]]:
    torch.manual_seed(SEED)
    peer = _peer(options.peer) if options.peer else None
    return measure(case, peer, options.beside, options.rounds, options.round_seconds)


def measure(
    case: Case, peer: ModuleType | None, beside: list[str], rounds: int, round_seconds: float = 0.1
) -> list[dict[str, Any]]:
    """Measures a row for each pass: milliseconds of every variant and the floor, their ratio."""
    rows = []
    for number, name in enumerate(PASSES):
        moved = case.operator.elements(case.shape, number)
        # A copy reads half of the bytes and writes half: as many as the operator must move.
        variants = {"copy": timing.copy_call(moved // 2, case.dtype, case.device)}
        for variant, operator, setting in _variants(case, peer, beside, name):
            with _kernels(setting):
                call = _prepared(case, operator, number)
            variants[variant] = _kernels(setting)(call)
        taken = timing.alternate(
            variants, device=case.device, rounds=rounds, round_seconds=round_seconds
        )
        rows.append(
            {
                "pass": name,
                "shape": list(case.shape),
                "dtype": str(case.dtype).removeprefix("torch."),
                "layout": case.layout,
                **_times(taken, timing.on_device(variants, taken, device=case.device), case.device),
            }
        )
    return rows


def _times(
    taken: dict[str, timing.Measured], busy: dict[str, float], device: torch.device
) -> dict[str, Any]:
    """Composes the times of a row; the ratio is that of the times on the GPU, if there is one."""
    times = {variant: one.plain() for variant, one in taken.items()}
    seconds = {variant: one.seconds for variant, one in taken.items()}
    if device.type == "cuda":
        for variant, one in times.items():
            one["device_ms"] = round(busy[variant] * 1e3, 5) if variant in busy else None
        seconds = busy
    floor = times.pop("copy")
    judged = {"floor_device_ms": floor["device_ms"]} if "device_ms" in floor else {}
    known = {"native", "copy"} <= seconds.keys()
    return {
        "floor_ms": floor["ms"],
        **judged,
        "times": times,
        "native_over_floor": round(seconds["native"] / seconds["copy"], 2) if known else None,
    }


def _variants(
    case: Case, peer: ModuleType | None, beside: list[str], name: str
) -> Iterator[tuple[str, Callable[..., Tensor], str]]:
    """Lists (name, operator, the value of KERNELS while its graph is made)."""
    ours, plain = getattr(kernels, case.operator.name), _plain(case)
    yield "native", ours, "native"
    if "fallback" in beside:
        yield "fallback", ours, "reference"
    if "plain" in beside:
        yield "plain", plain, "reference"
    if "compiled" in beside and name != "double backward":
        torch._dynamo.reset()  # it stops compiling after eight kinds of tensors otherwise
        yield "compiled", torch.compile(plain), "reference"
    if peer is not None and hasattr(peer, case.operator.name):
        yield "peer", getattr(peer, case.operator.name), "reference"


def _plain(case: Case) -> Callable[..., Tensor]:
    if case.operator.name == "upfirdn2d":
        return _written_out
    twin = getattr(reference, case.operator.name)

    def cast(x: Tensor, **arguments: Any) -> Tensor:
        small = {
            name: one.to(x.dtype) if isinstance(one, Tensor) else one
            for name, one in arguments.items()
        }
        return twin(x, **small)

    return cast


def _written_out(x: Tensor, f: Tensor, *, padding: Any = 0, **arguments: Any) -> Tensor:
    """Calls the slow twin of the filter, with the arguments of the operator."""
    up, down = arguments.pop("up", 1), arguments.pop("down", 1)
    f = f[:, None] * f[None, :] if f.ndim == 1 else f
    twin = reference.upfirdn2d
    return twin(x, f, up=(up, up), down=(down, down), padding=_four(padding), **arguments)


def _prepared(case: Case, operator: Callable[..., Tensor], number: int) -> Callable[[], object]:
    """Prepares the timed call: the pass alone, its graph made before."""
    x = case.image().requires_grad_(number > 0)
    small = case.operands()
    filters = [] if case.operator.filter is None else [case.operator.filter.to(case.device)]

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
    kind, floor = _judged(row)
    times = "  ".join(f"{key} {one[kind] or 0:.3g}" for key, one in row["times"].items())
    ratio = row["native_over_floor"]
    told = "unknown: the profiler saw no kernels" if ratio is None else f"{ratio:.2f} of the floor"
    return (
        f"{name:9} {shape:15} {row['dtype']:9} {row['layout']} {row['pass']:16} "
        f"floor {floor:.3g}  {times}  ({told})"
    )


def _judged(row: dict[str, Any]) -> tuple[str, float]:
    """Selects the time of a variant that counts, and that of the floor: on the GPU, if known."""
    if row.get("floor_device_ms"):
        return "device_ms", row["floor_device_ms"]
    return "ms", row["floor_ms"]


def _peer(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("peer", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"--peer {path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws every variant over the floor as bars, on a logarithmic axis, a row for each pass."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(PASSES), 1, figsize=(11, 9), layout="constrained")
    variants = list(dict.fromkeys(name for row in rows for name in row["times"]))
    for axis, name in zip(axes, PASSES, strict=True):
        chosen = [row for row in rows if row["pass"] == name]
        for place, variant in enumerate(variants):
            pairs = [
                (x + place / (len(variants) + 1), row["times"][variant][kind] / floor)
                for x, row in enumerate(chosen)
                for kind, floor in [_judged(row)]
                if row["times"].get(variant, {}).get(kind)
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
    add("--operator", nargs="+", choices=OPERATORS, default=list(NETWORKS))
    add("--beside", nargs="*", choices=OTHERS, default=list(OTHERS), help="timed beside ours")
    add("--rounds", type=int, default=15, help="at most so many of each variant")
    add("--round-seconds", type=float, default=0.1)
    add("--processes", type=int, default=3, help="on a CPU, in which each case is timed")
    add("--minutes", type=float, default=math.inf, help="no further case is begun after that")
    add("--peer", type=Path)
    add("--out", type=Path, help="JSON to write; the plot gets the same name")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
