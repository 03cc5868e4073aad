"""The passes of the epilogue in the CUDA sources, on a CPU (emulated.py), over a table of cases.

The wanted values are those of kernels/reference.py and of PyTorch's autograd, in float64.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from emulated import DTYPES, STREAM, Memory, judge, laid_out, run_cases, taken
from torch import Tensor

from kernels import abi, reference


@dataclass(frozen=True)
class Epilogue:
    """One case; `operands` lists those that are there: d, n(oise), N(oise for all samples), b."""

    size: tuple[int, int, int, int]
    last: bool
    dtype: torch.dtype
    act: str
    operands: str
    clamp: float | None
    from_output: bool = False
    wanted: str = "x d s b"
    cotangents: str = "x d s b"

    def __str__(self) -> str:
        facts = f"{self.act} {self.operands or '-'} {self.clamp} {'y' * self.from_output}"
        size = "x".join(map(str, self.size))
        return f"epilogue {size} {'last' if self.last else 'first'} {self.dtype} {facts}"


SIZES = (
    *((2, 24, 5, 7), (3, 8, 4, 4), (2, 3, 6, 6), (4, 5, 1, 1), (2, 40, 3, 3), (2, 16, 8, 8)),
    *((1, 1, 16, 20), (3, 264, 2, 2), (1, 2, 33, 33), (1, 2, 48, 48), (1, 2, 130, 128)),
    *((1, 2, 65, 65), (2, 8, 0, 3), (0, 8, 2, 2), (3, 4, 32, 1)),
)
OPERANDS = ("dnb", "dNb", "b", "", "d", "n", "db", "dN")


def epilogues() -> Iterator[Epilogue]:
    """The table: every size in both layouts, everything else taken round in turn."""
    acts = itertools.cycle(reference.ACTIVATIONS)
    fast = itertools.cycle(("lrelu", "linear", "lrelu", "relu"))
    operands = itertools.cycle(OPERANDS)
    clamps = itertools.cycle((None, 0.7, 0.3))
    for size, last in itertools.product(SIZES, (False, True)):
        for dtype in DTYPES:
            act = next(acts) if dtype in (torch.float64, torch.float16) else next(fast)
            yield Epilogue(size, last, dtype, act, next(operands), next(clamps))
    for last, dtype, act in itertools.product((False, True), DTYPES[1:3], ("lrelu", "relu")):
        yield Epilogue((2, 16, 4, 6), last, dtype, act, "nb", 0.3, from_output=True)
    base = Epilogue((2, 8, 4, 4), True, torch.float32, "swish", "dnb", None)
    for last, only in itertools.product((False, True), ("x", "d", "s", "b")):
        case = replace(base, last=last, act=next(fast) if only != "d" else "swish")
        yield replace(case, wanted=only)
        yield replace(case, cotangents=only)


class Problem:
    """The tensors of a case: `x`, `dy`, ... in the case's dtypes, and the wanted results."""

    def __init__(self, case: Epilogue) -> None:
        self.case = case
        n, c, h, w = case.size
        self.small = torch.float64 if case.dtype == torch.float64 else torch.float32
        has = case.operands
        noise_n = n if "n" in has else 1
        self.d = self._draw(n, c, there="d" in has)
        self.noise = self._draw(noise_n, 1, h, w, there="n" in has.lower())
        self.strength = None if self.noise is None else self._draw(1)
        self.b = self._draw(c, there="b" in has)
        self.x = self._away_from_ties(self._image(case.size))
        self.dy, self.gdx = self._image(case.size), self._image(case.size)
        self.gdd, self.gds, self.gdb = (
            None if one is None else self._draw(*one.shape)
            for one in (self.d, self.strength, self.b)
        )
        self.want = self._wanted()

    def _image(self, size: tuple[int, ...]) -> Tensor:
        return torch.randn(size, dtype=torch.float64).to(self.case.dtype)

    def _draw(self, *size: int, there: bool = True) -> Tensor | None:
        return torch.randn(size, dtype=torch.float64).to(self.small) if there else None

    def _y(self, x: Tensor, operands: list[Tensor | None]) -> Tensor:
        d, strength, b = operands
        if d is not None:
            x = x * d[:, :, None, None]
        if self.noise is not None:
            x = x + self.noise.double() * strength
        return reference.bias_act(
            x, b, act=self.case.act, alpha=0.25, gain=1.5, clamp=self.case.clamp
        )

    def _away_from_ties(self, x: Tensor) -> Tensor:
        """Near a kink, rounding decides: there, x is drawn again."""
        operands = [
            None if one is None else one.double() for one in (self.d, self.strength, self.b)
        ]
        limit = self.case.clamp or 1e9
        for _ in range(100):
            case, self.case = self.case, replace(self.case, clamp=None)
            y = self._y(x.double(), operands).abs()
            self.case = case
            near = ((y - limit).abs() < 0.02 * limit) | (y < 0.01)
            if not near.any():
                break
            x = torch.where(near, self._image(self.case.size), x)
        return x

    def _wanted(self) -> dict[str, Tensor]:
        inputs = [self.x, self.d, self.strength, self.b, self.dy]
        x, d, s, b, dy = (None if one is None else one.double().requires_grad_() for one in inputs)
        y = self._y(x, [d, s, b])
        told = {"y": y.detach().to(self.case.dtype)}
        names = {"x": x, "d": d, "s": s, "b": b}
        there = {name: one for name, one in names.items() if one is not None}
        first = torch.autograd.grad(
            y, list(there.values()), dy, create_graph=True, allow_unused=True
        )
        gradients = {
            name: torch.zeros_like(one) + (0 if got is None else got)
            for (name, one), got in zip(there.items(), first, strict=True)
        }
        self.given = {"x": self.gdx, "d": self.gdd, "s": self.gds, "b": self.gdb}
        total = (
            sum(
                (gradients[name] * self.given[name].double()).sum()
                for name in there
                if name in self.case.cotangents
            )
            + 0.0 * dy.sum()
        )
        inner = [dy, *there.values()]
        second = torch.autograd.grad(total, inner, allow_unused=True)
        for name, got in gradients.items():
            told[f"d{name}"] = self._stored(name, got)
        for name, one, got in zip(["dy", *there], inner, second, strict=True):
            kind = "dy" if name == "dy" else name
            told[f"g{kind}"] = self._stored(name, torch.zeros_like(one) if got is None else got)
        return told

    def _stored(self, name: str, value: Tensor) -> Tensor:
        return value.detach().to(self.case.dtype if name in ("x", "dy") else self.small)


def described(problem: Problem, memory: Memory) -> abi.Epilogue:
    case = problem.case
    n, c, h, w = case.size
    return abi.Epilogue(
        dtype=DTYPES.index(case.dtype),
        layout=int(case.last),
        act=list(reference.ACTIVATIONS).index(case.act),
        n=n,
        c=c,
        p=h * w,
        noise_n=0 if problem.noise is None else len(problem.noise),
        alpha=0.25,
        gain=1.5,
        clamp=-1.0 if case.clamp is None else case.clamp,
        d=memory.put(problem.d),
        noise=memory.put(problem.noise),
        strength=memory.put(problem.strength),
        b=memory.put(problem.b),
    )


class EpilogueRun:
    """One run of the three passes in one placement of memory."""

    def __init__(self, library: ctypes.CDLL, problem: Problem, *, at_end: bool) -> None:
        self._library, self._problem = library, problem
        self._memory = Memory(at_end=at_end)
        self._facts = described(problem, self._memory)
        self._images: dict[str, Tensor] = {}
        self.results: dict[str, Tensor] = {}
        self._addresses: dict[str, int | None] = {}

    def _in(self, image: Tensor) -> int | None:
        return self._memory.put(laid_out(image, self._problem.case.last))

    def _out(self, name: str, wanted: bool = True) -> int | None:
        """The address for an output, if it is wanted and exists."""
        want = self._problem.want.get(name)
        if want is None or not wanted:
            return None
        address = self._memory.empty(want.numel() * want.element_size())
        self._addresses[name] = address
        return address

    def _call(self, name: str, *arguments: object) -> None:
        run = abi.Run(stream=STREAM)
        sizes = getattr(self._library, f"{name}_workspace", None)
        if sizes is not None:
            size = sizes(*map(ctypes.byref, arguments))
            assert size >= 0, f"{name}_workspace: {size}"
            run.workspace = self._memory.empty(size)
            arguments = tuple(map(ctypes.byref, arguments))
        status = getattr(self._library, name)(*arguments, ctypes.byref(run))
        assert status == 0, f"{name}: {status}"

    def run(self) -> dict[str, Tensor]:
        problem, facts = self._problem, self._facts
        case = problem.case
        x = self._in(problem.x)
        forward = (ctypes.byref(facts), ctypes.c_void_p(x), ctypes.c_void_p(self._out("y")))
        self._call("kernels_epilogue", *forward)
        if case.from_output:
            facts.from_output = 1
            x = self._in(problem.want["y"])
        dy = self._in(problem.dy)
        wanted = {name: name in case.wanted for name in "xdsb"}
        outputs = [self._out(f"d{name}", wanted[name]) for name in "xdsb"]
        self._call("kernels_epilogue_backward", facts, abi.EpilogueBackward(x, dy, *outputs))
        given = [problem.given[name] if name in case.cotangents else None for name in "xdsb"]
        addresses = [self._in(given[0]) if given[0] is not None else None]
        addresses += map(self._memory.put, given[1:])
        outputs = [self._out("gdy", wanted["x"])]
        outputs += [self._out(f"g{name}", wanted[name]) for name in "xdsb"]
        second = abi.EpilogueDoubleBackward(x, dy, *addresses, *outputs)
        self._call("kernels_epilogue_double_backward", facts, second)
        return {name: self._result(name) for name in self._addresses}

    def _result(self, name: str) -> Tensor:
        want = self._problem.want[name]
        image = want.ndim == 4
        last = self._problem.case.last
        out = taken(self._addresses[name], laid_out(want, last) if image else want)
        return out.permute(0, 3, 1, 2) if image and last else out


def check_epilogue(library: ctypes.CDLL, case: Epilogue) -> str | None:
    torch.manual_seed(0)
    problem = Problem(case)
    runs = []
    for at_end, order in ((True, 0), (True, 1), (False, 7)):
        library.emulator_order(order)
        runs.append(EpilogueRun(library, problem, at_end=at_end).run())
    want = {name: tensor for name, tensor in problem.want.items() if name in runs[0]}
    return judge(runs, want)


if __name__ == "__main__":
    sys.exit(run_cases(epilogues(), check_epilogue))
