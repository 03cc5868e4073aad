"""The compiled epilogue of each instruction set against double-precision autograd, through ctypes.

Images are [n, c, p] here: samples, channels, pixels; the library also gets them as [n, p, c].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from kernels import abi, native
from kernels.reference import ACTIVATIONS

PIECEWISE = ("linear", "relu", "lrelu")
GUARD = 16  # elements on both sides of every output, which must stay as they were
SENTINEL = 7.0
DTYPES = tuple(abi.DTYPES)
LAYOUTS = (abi.CHANNELS_FIRST, abi.CHANNELS_LAST)

# What the library computes and of what size: an image, one value for each sample and channel, ...
SIZES = {
    **dict.fromkeys(("y", "dx", "gdy", "gx"), "image"),
    **dict.fromkeys(("dd", "gd"), "nc"),
    **dict.fromkeys(("db", "gb"), "c"),
    **dict.fromkeys(("dstrength", "gstrength"), "one"),
}
BACKWARD = ("dx", "dd", "dstrength", "db")
DOUBLE_BACKWARD = ("gdy", "gx", "gd", "gstrength", "gb")


@dataclass(frozen=True)
class Case:
    """One epilogue: sizes, numbers, and which operands it has. `noise` counts its samples."""

    shape: tuple[int, int, int] = (2, 5, 12)
    act: str = "lrelu"
    d: bool = False
    noise: int = 0
    b: bool = True
    alpha: float | None = None
    gain: float | None = None
    clamp: float | None = None
    from_output: bool = False

    @property
    def slope(self) -> float:
        return ACTIVATIONS[self.act].alpha if self.alpha is None else self.alpha

    @property
    def scale(self) -> float:
        return ACTIVATIONS[self.act].gain if self.gain is None else self.gain


FULL = Case(d=True, noise=2)
CASES = {
    **{f"{act} plain": Case(act=act) for act in ACTIVATIONS},
    **{f"{act} full": replace(FULL, act=act, clamp=0.9) for act in ACTIVATIONS},
    **{
        f"{act} odd": replace(FULL, act=act, shape=(1, 3, 37), noise=1, gain=-0.7)
        for act in ACTIVATIONS
    },
    **{
        f"{act} from output": Case((2, 19, 9), act, clamp=clamp, from_output=True)
        for act in PIECEWISE
        for clamp in (None, 0.7)
    },
    "nothing": Case(b=False),
    "noise from output": Case((3, 4, 20), noise=3, clamp=0.7, from_output=True),
    "shared noise": replace(FULL, shape=(3, 6, 10), noise=1, b=False),
    "noise alone": Case((2, 3, 4), noise=2, b=False),
    "negative slope": Case(alpha=-0.3, clamp=0.6),
    "to rgb": Case((2, 3, 700), "linear", clamp=0.8),
    "to rgb, modulated": Case((2, 3, 300), "linear", d=True, clamp=0.8),
    "small images": replace(FULL, shape=(3, 65, 16), noise=3),
    "tail of a row": Case((5, 7, 13), d=True),
    "one pixel": replace(FULL, shape=(3, 20, 1), noise=3),
    "dense layer": Case((33, 20, 1)),
    "one channel": replace(FULL, shape=(2, 1, 77)),
    "one value": replace(FULL, shape=(1, 1, 1), noise=1),
    **{  # channels last: several noises in a row, and pixels over
        f"{act} short rows": replace(FULL, act=act, shape=(3, 64, 53), noise=noise, clamp=0.9)
        for act, noise in (("lrelu", 3), ("linear", 1), ("swish", 3))
    },
    "many channels": replace(FULL, shape=(2, 1030, 5)),
    "many pixels": replace(FULL, shape=(1, 2, 1100), noise=1),
    "no samples": replace(FULL, shape=(0, 4, 3), noise=1),
    "no channels": replace(FULL, shape=(2, 0, 3)),
    "no pixels": replace(FULL, shape=(2, 4, 0)),
}


# --------------------------------------------------------------------- calling the library

Values = dict[str, Tensor]


class Caller:
    """Calls one library for one case. Images are given and answered as [n, c, p]."""

    def __init__(
        self, library: native.Library, case: Case, dtype: torch.dtype, layout: int, threads: int = 1
    ) -> None:
        self.library, self.case, self.dtype = library, case, dtype
        self.layout, self.threads = layout, threads
        self.small_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self.alive: list[Tensor] = []
        self.guarded: list[Tensor] = []

    def forward(self, values: Values) -> Tensor:
        y = self.output("y")
        operation = self.operation(values, from_output=False)
        run = abi.Run(threads=self.threads)
        self.library.kernels_epilogue(operation, self.image(values["x"]), y.data_ptr(), run)
        return self.answer({"y": y})["y"]

    def backward(self, values: Values, wanted: tuple[str, ...] = BACKWARD) -> Values:
        return self.derive("backward", abi.EpilogueBackward, values, wanted)

    def double_backward(self, values: Values, wanted: tuple[str, ...] = DOUBLE_BACKWARD) -> Values:
        return self.derive("double_backward", abi.EpilogueDoubleBackward, values, wanted)

    def derive(self, name: str, kind: type, values: Values, wanted: tuple[str, ...]) -> Values:
        outputs = {one: self.output(one) for one in wanted}
        addresses = {one: tensor.data_ptr() for one, tensor in outputs.items()}
        for one in {field for field, _ in kind._fields_} & set(values):
            image = one in ("x", "dy", "gdx")
            addresses[one] = self.image(values[one]) if image else self.small(values[one])
        operation, operands = self.operation(values, self.case.from_output), kind(**addresses)
        size = getattr(self.library, f"kernels_epilogue_{name}_workspace")(operation, operands)
        workspace = torch.full((size // 8 + GUARD,), SENTINEL, dtype=torch.float64)
        run = abi.Run(threads=self.threads, workspace=workspace.data_ptr() if size else None)
        getattr(self.library, f"kernels_epilogue_{name}")(operation, operands, run)
        assert (workspace[-(-size // 8) :] == SENTINEL).all(), "wrote behind its workspace"
        return self.answer(outputs)

    def operation(self, values: Values, from_output: bool) -> abi.Epilogue:
        case, (n, c, p) = self.case, self.case.shape
        small = {
            name: self.small(values[name])
            for name in ("d", "noise", "strength", "b")
            if name in values
        }
        codes = {
            "dtype": abi.DTYPES[self.dtype],
            "layout": self.layout,
            "act": abi.ACTS[case.act],
            "from_output": from_output,
        }
        numbers = {
            "alpha": case.slope,
            "gain": case.scale,
            "clamp": -1 if case.clamp is None else case.clamp,
        }
        return abi.Epilogue(**codes, n=n, c=c, p=p, noise_n=case.noise, **numbers, **small)

    def image(self, x: Tensor) -> int:
        x = x.to(self.dtype)
        return self.placed(x.transpose(1, 2) if self.layout == abi.CHANNELS_LAST else x)

    def small(self, x: Tensor) -> int:
        return self.placed(x.to(self.small_dtype))

    def placed(self, x: Tensor) -> int:
        """The address of a copy, on no alignment but that of an element."""
        memory = torch.empty(x.numel() + 1, dtype=x.dtype)
        memory[1:] = x.reshape(-1)
        self.alive.append(memory)
        return memory[1:].data_ptr()

    def output(self, name: str) -> Tensor:
        n, c, p = self.case.shape
        size = {"image": n * c * p, "nc": n * c, "c": c, "one": 1}[SIZES[name]]
        dtype = self.dtype if SIZES[name] == "image" else self.small_dtype
        self.guarded.append(torch.full((2 * GUARD + 1 + size,), SENTINEL, dtype=dtype))
        return self.guarded[-1][GUARD + 1 : GUARD + 1 + size]

    def answer(self, outputs: Values) -> Values:
        n, c, p = self.case.shape
        for memory in self.guarded:
            assert (memory[: GUARD + 1] == SENTINEL).all(), "wrote before an output"
            assert (memory[-GUARD:] == SENTINEL).all(), "wrote behind an output"
        shapes = {"image": (n, c, p), "nc": (n, c), "c": (c,), "one": (1,)}
        found = {}
        for name, flat in outputs.items():
            last = SIZES[name] == "image" and self.layout == abi.CHANNELS_LAST
            shaped = flat.view(n, p, c).transpose(1, 2) if last else flat.view(shapes[SIZES[name]])
            found[name] = shaped.clone()
        return found


# --------------------------------------------------------------------- the truth


def drawn(case: Case, dtype: torch.dtype) -> Values:
    """Random inputs in double precision, as exact as the library gets them; no value at a kink."""
    generator = torch.Generator().manual_seed(1)
    n, c, p = case.shape
    small = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*shape: int, of: torch.dtype = small) -> Tensor:
        one = torch.randn(shape, generator=generator, dtype=torch.float64)
        return one.to(of).double()

    values = {name: normal(n, c, p, of=dtype) for name in ("x", "dy", "gdx")}
    if case.d:
        values |= {"d": 0.5 + normal(n, c).abs(), "gdd": normal(n, c)}
        values["d"] = values["d"].to(small).double()
    if case.noise:
        values |= {name: normal(1) for name in ("strength", "gdstrength")}
        values["noise"] = normal(case.noise, p)
    if case.b:
        values |= {"b": normal(c), "gdb": normal(c)}
    u, v = before_clamp(case, values)
    kinks = [u.abs()] + ([] if case.clamp is None else [(v.abs() - case.clamp).abs()])
    near = torch.stack(kinks).amin(0) < 0.02
    x = values["x"] + torch.where(near, (0.2 - u) / values.get("d", torch.ones(n, c))[..., None], 0)
    values["x"] = x.to(dtype).double()
    return values


def before_clamp(case: Case, values: Values) -> tuple[Tensor, Tensor]:
    """u and gain * act(u)."""
    u = values["x"]
    if "d" in values:
        u = u * values["d"][:, :, None]
    if "noise" in values:
        u = u + values["noise"][:, None, :] * values["strength"]
    if "b" in values:
        u = u + values["b"][:, None]
    return u, case.scale * ACTIVATIONS[case.act].function(u, case.slope)


def truth(case: Case, values: Values) -> Values:
    """Everything the three functions answer, by autograd."""
    leaves = {name: one.clone().requires_grad_() for name, one in values.items()}
    y = before_clamp(case, leaves)[1]
    if case.clamp is not None:
        y = y.clamp(-case.clamp, case.clamp)
    operands = [name for name in ("x", "d", "strength", "b") if name in values]
    first = torch.autograd.grad(
        y, [leaves[one] for one in operands], leaves["dy"], create_graph=True
    )
    tied = sum((one * leaves[f"gd{name}"]).sum() for name, one in zip(operands, first, strict=True))
    second = torch.autograd.grad(
        tied, [leaves[one] for one in ("dy", *operands)], allow_unused=True, materialize_grads=True
    )
    found = {"y": y, "gdy": second[0]}
    for name, once, twice in zip(operands, first, second[1:], strict=True):
        found |= {f"d{name}": once, f"g{name}": twice}
    return {name: one.detach() for name, one in found.items()}


def tolerance(name: str, exact: Tensor, case: Case, dtype: torch.dtype) -> Tensor:
    """A rounding to the storage type, and those of the accumulation type in its terms."""
    accumulation = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32)
    terms = {"image": 1, "nc": case.shape[2]}.get(SIZES[name], math.prod(case.shape))
    largest = max(1.0, exact.abs().max().item()) if exact.numel() else 1.0
    bound = torch.full_like(exact, 16 * accumulation.eps * largest * max(1, terms) ** 0.5)
    if SIZES[name] == "image":
        bound += torch.finfo(dtype).eps / 2 * exact.abs() + torch.finfo(dtype).smallest_normal
    return bound


def assert_close(found: Values, exact: Values, case: Case, dtype: torch.dtype) -> None:
    for name, one in found.items():
        assert one.shape == exact[name].shape, name
        excess = (one.double() - exact[name]).abs() - tolerance(name, exact[name], case, dtype)
        assert not excess.numel() or excess.max() <= 0, f"{name} is off by {excess.max()}"


# --------------------------------------------------------------------- the tests


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_autograd(library: native.Library, name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    values = drawn(case, dtype)
    exact = truth(case, values)
    for layout in LAYOUTS:
        caller = Caller(library, case, dtype, layout)
        y = caller.forward(values)
        assert_close({"y": y}, exact, case, dtype)
        given = {**values, "x": y} if case.from_output else values
        first = tuple(one for one in BACKWARD if one in exact)
        assert_close(caller.backward(given, first), exact, case, dtype)
        second = tuple(one for one in DOUBLE_BACKWARD if one in exact)
        assert_close(caller.double_backward(given, second), exact, case, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bytes_with_any_number_of_threads(
    library: native.Library, layout: int, dtype: torch.dtype
) -> None:
    for shape in ((3, 45, 700), (1, 3, 40_000), (70, 600, 1)):
        case = replace(FULL, shape=shape, noise=shape[0], clamp=0.9)
        values = drawn(case, dtype)
        results = []
        for threads in (1, 2, 3):
            caller = Caller(library, case, dtype, layout, threads)
            found = {"y": caller.forward(values), **caller.backward(values)}
            results.append(found | caller.double_backward(values))
        for name, one in results[0].items():
            assert all(torch.equal(one, other[name]) for other in results[1:]), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_long_sums_lose_nothing(library: native.Library, layout: int) -> None:
    """Half a million terms of one sign, of which plain float sums would lose some."""
    case = Case((2, 3, 100_000), "linear", d=True, noise=1, gain=1.0, clamp=1e3)
    values = drawn(case, torch.float32)
    values |= {name: values[name].abs() for name in ("x", "dy", "noise")}
    values["strength"] = torch.zeros(1, dtype=torch.float64)
    caller = Caller(library, case, torch.float32, layout)
    found = caller.backward(values)
    expected = {
        "db": values["dy"].sum((0, 2)),
        "dd": (values["dy"] * values["x"]).sum(2),
        "dstrength": (values["dy"] * values["noise"][:, None]).sum().view(1),
    }
    for name, one in expected.items():
        torch.testing.assert_close(found[name].double(), one, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_nan_and_infinity_come_out_as_defined(
    library: native.Library, act: str, dtype: torch.dtype
) -> None:
    x = torch.full((1, 1, 67), 0.3, dtype=torch.float64)
    x[..., [3, 64]] = torch.tensor([math.nan, -math.nan], dtype=torch.float64)
    x[..., [5, 65]] = torch.tensor([math.inf, -math.inf], dtype=torch.float64)
    values = {"x": x, "dy": torch.ones_like(x)}
    for clamp in (None, 0.5):
        case = Case((1, 1, 67), act, b=False, clamp=clamp)
        for layout in LAYOUTS:
            caller = Caller(library, case, dtype, layout)
            y = caller.forward(values)
            expected = before_clamp(case, {"x": x})[1]
            if clamp is not None:
                expected = expected.clamp(-clamp, clamp)
            torch.testing.assert_close(y, expected.to(dtype), equal_nan=True, rtol=0.01, atol=0)
            dx = caller.backward(values, ("dx",))["dx"]
            # u * sigmoid'(u) is infinity * 0 for swish.
            expected_nans = 0 if act in PIECEWISE or clamp else 4 if act == "swish" else 2
            assert dx.isnan().sum() == expected_nans
            if clamp is not None:
                assert (dx[..., [3, 64]] == 0).all(), "NaN is not inside of the clamp"


def test_nan_of_any_payload_stays(library: native.Library) -> None:
    """Rounding to bfloat16 must not carry into the sign."""
    payload = torch.full((5,), 0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    case = Case((1, 5, 40))
    values = {"x": torch.ones(1, 5, 40, dtype=torch.float64)}
    for layout in LAYOUTS:
        caller = Caller(library, case, torch.bfloat16, layout)
        operation = caller.operation(values, from_output=False)
        operation.b = caller.placed(payload)
        y = torch.zeros(200, dtype=torch.bfloat16)
        run = abi.Run(threads=1)
        library.kernels_epilogue(operation, caller.image(values["x"]), y.data_ptr(), run)
        assert y.isnan().all()


def test_large_arguments_do_not_overflow(library: native.Library) -> None:
    limits = {
        "softplus": (100.0, 0.0),
        "swish": (100.0, -0.0),
        "sigmoid": (1.0, 0.0),
        "tanh": (1.0, -1.0),
        "elu": (100.0, -1.0),
    }
    for act, (right, left) in limits.items():
        case = Case((1, 1, 4), act, b=False, gain=1.0)
        x = torch.tensor([100, -1000, 3e38, -3e38], dtype=torch.float64).view(1, 1, 4)
        caller = Caller(library, case, torch.float32, abi.CHANNELS_FIRST)
        values = {"x": x, "dy": torch.ones_like(x), "gdx": torch.ones_like(x)}
        y = caller.forward(values)
        assert y[..., :2].tolist() == [[[right, left]]]
        found = {"y": y, **caller.backward(values, ("dx",))}
        found |= caller.double_backward(values, ("gdy", "gx"))
        assert all(one.isfinite().all() for one in found.values()), act


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kinks_take_the_slope_of_the_contract(library: native.Library, layout: int) -> None:
    slopes = {"relu": 0.0, "lrelu": 0.25, "elu": 1.0, "selu": 1.0507009873554805}
    zeros = torch.zeros(1, 2, 33, dtype=torch.float64)
    for act, slope in slopes.items():
        case = Case((1, 2, 33), act, b=False, alpha=0.25, gain=1.0)
        values = {"x": zeros, "dy": zeros + 1}
        dx = Caller(library, case, torch.float64, layout).backward(values, ("dx",))["dx"]
        assert (dx == slope).all(), act


def test_clamped_outputs_are_recognised_after_rounding(library: native.Library) -> None:
    """0.7 is above its bfloat16: the output at the clamp reads as less than 0.7."""
    case = Case((1, 1, 64), "lrelu", b=False, clamp=0.7, from_output=True)
    x = torch.full((1, 1, 64), 5.0, dtype=torch.float64)
    caller = Caller(library, case, torch.bfloat16, abi.CHANNELS_LAST)
    y = caller.forward({"x": x})
    assert (y.double() < 0.7).all()
    assert (caller.backward({"x": y, "dy": x}, ("dx",))["dx"] == 0).all()


@pytest.mark.parametrize("act", ["lrelu", "swish"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_output_and_cotangent_can_be_left_out(
    library: native.Library, layout: int, act: str
) -> None:
    case = replace(FULL, act=act, shape=(2, 19, 23))
    values = drawn(case, torch.float32)

    def caller() -> Caller:
        return Caller(library, case, torch.float32, layout)

    for name in BACKWARD:
        whole = caller().backward(values)[name]
        assert torch.equal(caller().backward(values, (name,))[name], whole), name
    for name in DOUBLE_BACKWARD:
        whole = caller().double_backward(values)[name]
        assert torch.equal(caller().double_backward(values, (name,))[name], whole), name
    for name in ("gdx", "gdd", "gdstrength", "gdb"):
        zeroed = {**values, name: torch.zeros_like(values[name])}
        without = {key: one for key, one in values.items() if key != name}
        expected = caller().double_backward(zeroed)
        for key, one in caller().double_backward(without).items():
            assert torch.equal(one, expected[key]), f"{key} without {name}"


def test_linear_without_a_clamp_needs_no_x(library: native.Library) -> None:
    case = Case((2, 5, 9), "linear", from_output=True)
    values = drawn(case, torch.float32)
    expected = Caller(library, case, torch.float32, 0).backward(values, ("dx", "db"))
    del values["x"]
    found = Caller(library, case, torch.float32, 0).backward(values, ("dx", "db"))
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_missing_workspace_is_an_error(library: native.Library) -> None:
    caller = Caller(library, FULL, torch.float32, abi.CHANNELS_FIRST)
    values = drawn(FULL, torch.float32)
    operation, dy = caller.operation(values, False), caller.image(values["dy"])
    operands = abi.EpilogueBackward(
        x=caller.image(values["x"]), dy=dy, dstrength=caller.output("dstrength").data_ptr()
    )
    with pytest.raises(MemoryError, match="workspace"):
        library.kernels_epilogue_backward(operation, operands, abi.Run(threads=1))
