"""batch_norm_relu against its specification and PyTorch's three operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from operator_table import LAYOUTS, error, rounding
from torch import Tensor
from torch.nn import functional

from kernels import batch_norm_relu, reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16)


class Case(NamedTuple):
    """Sizes of the images, and how far from 0 they lie."""

    n: int
    c: int
    h: int
    w: int
    shift: float = 0.5


CASES = {
    "one image": Case(1, 16, 8, 8),
    "two pixels": Case(1, 32, 1, 2),
    "odd sizes": Case(3, 48, 5, 7),
    "pixels of an odd number": Case(1, 16, 3, 3),
    "one pixel each": Case(5, 16, 1, 1),
    "many channels": Case(2, 208, 3, 5),
    "channels of more than a block": Case(3, 4112, 1, 3),
    "several parts": Case(9, 16, 33, 31),
    "far from 0": Case(4, 32, 12, 12, 300.0),
    # Left to PyTorch.
    "a vector and a half": Case(2, 24, 6, 6),
    "three channels": Case(2, 3, 5, 4),
}


def drawn(case: Case, dtype: torch.dtype, layout: str, *, adds: bool) -> dict[str, Tensor]:
    """x, weight, bias, the cotangent and, if it `adds`, the residual, of numbers of `dtype`."""
    seed = torch.Generator().manual_seed(case.c)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=seed, dtype=torch.float64)

    n, c, h, w, shift = case
    spread = 1 + torch.arange(c, dtype=torch.float64)[:, None, None] / c
    images = {"x": normal(n, c, h, w) * spread + shift, "dy": normal(n, c, h, w)}
    if adds:
        images["residual"] = normal(n, c, h, w)
    found = {
        name: one.to(dtype).contiguous(memory_format=LAYOUTS[layout])
        for name, one in images.items()
    }
    small = torch.promote_types(dtype, torch.float32)
    return {**found, "weight": normal(c).to(small), "bias": normal(c).to(small)}


def plain(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """PyTorch's three operators."""
    u = functional.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return torch.relu(u if residual is None else u + residual)


def specified(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    *,
    training: bool,
    momentum: float = 0.1,
) -> Tensor:
    """The specification, with running statistics as PyTorch has them."""
    fixed = None if training else (running_mean, running_var)
    if training:
        with torch.no_grad():
            moved = {running_mean: x.mean((0, 2, 3)), running_var: x.var((0, 2, 3))}
            for running, value in moved.items():
                running.copy_((1 - momentum) * running + momentum * value)
    return reference.batch_norm_relu(x, weight, bias, residual, statistics=fixed)


def results(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], **settings: Any
) -> dict[str, Tensor]:
    """y, the gradients, and the running statistics after it."""
    given = {name: one.detach().clone() for name, one in inputs.items()}
    wanted = {name: one.requires_grad_() for name, one in given.items() if name != "dy"}
    small = torch.promote_types(given["x"].dtype, torch.float32)
    running = {
        "running_mean": torch.linspace(-1, 1, len(given["weight"]), dtype=small),
        "running_var": torch.linspace(0.5, 2, len(given["weight"]), dtype=small),
    }
    y = function(**wanted, **running, **settings)
    gradients = torch.autograd.grad(y, list(wanted.values()), given["dy"])
    found = dict(zip((f"d{name}" for name in wanted), gradients, strict=True))
    return {"y": y.detach(), **found, **running}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("adds", [False, True], ids=["alone", "adds"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "fixed"])
@pytest.mark.parametrize("name", CASES)
def test_values_gradients_and_statistics_are_as_exact_as_pytorchs(
    name: str, training: bool, adds: bool, layout: str, dtype: torch.dtype, implementation: str
) -> None:
    """An error is at most twice that of PyTorch's operators, and two roundings of the result, and
    sixteen of what is a sum of many terms. In bfloat16 PyTorch rounds the
    normalised values before they are added and their sign is taken, so its own errors are large.
    """
    case = CASES[name]
    if implementation == "reference" and dtype == torch.bfloat16 and adds:
        pytest.skip("the very operators that round before they add")
    inputs = drawn(case, dtype, layout, adds=adds)
    exact = results(specified, {n: one.double() for n, one in inputs.items()}, training=training)
    theirs = results(plain, inputs, training=training)
    ours = results(batch_norm_relu, inputs, training=training)
    assert ours.keys() == exact.keys()
    for key, value in ours.items():
        assert value.dtype == theirs[key].dtype
        times = 16 if key in ("dweight", "dbias", "dx", "running_var") else 2
        bound = 2 * error(theirs[key], exact[key]) + times * rounding(value.dtype, exact[key])
        off = error(value, exact[key])
        assert off <= bound, f"{key} is off by {off}, more than {bound}"


@pytest.mark.parametrize("adds", [False, True], ids=["alone", "adds"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "fixed"])
def test_both_derivatives_are_those_of_differences(
    training: bool, adds: bool, implementation: str
) -> None:
    inputs = drawn(Case(2, 16, 3, 2), torch.float64, "nhwc", adds=adds)
    del inputs["dy"]

    def function(x: Tensor, weight: Tensor, bias: Tensor, *residual: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        mean = torch.linspace(-1, 1, 16, dtype=torch.float64)
        var = torch.linspace(0.5, 2, 16, dtype=torch.float64)
        return batch_norm_relu(x, mean, var, weight, bias, *residual, training=training)

    names = ("x", "weight", "bias", *(["residual"] if adds else []))
    given = [inputs[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given)


def test_a_variance_of_numbers_far_from_0_is_not_lost(implementation: str) -> None:
    x = 1e4 + torch.randn(8, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    var = torch.ones(16)
    mean, ones = torch.zeros(16), torch.ones(16)
    batch_norm_relu(x, mean, var, ones, ones, training=True, momentum=1.0)
    torch.testing.assert_close(var.double(), x.double().var((0, 2, 3)), rtol=1e-3, atol=0)


# --------------------------------------------------------------------- what it is


@pytest.fixture
def compiled(implementation: str) -> str:
    if implementation == "reference":
        pytest.skip("the compiled operators")
    return implementation


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads PyTorch has; as before after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("adds", [False, True], ids=["alone", "adds"])
def test_the_number_of_threads_changes_no_bit(
    adds: bool, dtype: torch.dtype, compiled: str, threads: Callable[[int], None]
) -> None:
    inputs, found = drawn(Case(7, 48, 33, 29), dtype, "nhwc", adds=adds), []
    for count in (1, 2, 3):
        threads(count)
        found.append(results(batch_norm_relu, inputs, training=True))
    for other in found[1:]:
        assert all(torch.equal(value, other[key]) for key, value in found[0].items())


def test_without_a_gradient_the_bits_are_the_same(implementation: str) -> None:
    inputs = drawn(Case(3, 32, 9, 7), torch.float32, "nhwc", adds=True)
    dy = inputs.pop("dy")
    for training in (True, False):
        expected = results(batch_norm_relu, {**inputs, "dy": dy}, training=training)
        running = torch.linspace(-1, 1, 32), torch.linspace(0.5, 2, 32)
        with torch.no_grad():
            y = batch_norm_relu(inputs["x"], *running, *_rest(inputs), training=training)
        assert torch.equal(y, expected["y"])
        assert torch.equal(running[0], expected["running_mean"])


def _rest(inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return inputs["weight"], inputs["bias"], inputs["residual"]


def _kept(y: Tensor) -> list[tuple[int, ...]]:
    node: Any = y.grad_fn
    return [tuple(one.shape) for one in node.saved_tensors if one is not None]


def test_the_graph_keeps_x_and_what_was_added_to_only(compiled: str) -> None:
    """No mask and no normalised values; y is that which the next layer keeps."""
    for adds, images in ((False, 1), (True, 2)):
        inputs = drawn(Case(2, 16, 6, 5), torch.float32, "nhwc", adds=adds)
        del inputs["dy"]
        given = {name: one.requires_grad_() for name, one in inputs.items()}
        running = {"running_mean": torch.zeros(16), "running_var": torch.ones(16)}
        y = batch_norm_relu(**given, **running, training=True)
        assert type(y.grad_fn).__name__.startswith("kernels::batch_norm_relu")
        assert len([shape for shape in _kept(y) if len(shape) == 4]) == images


@pytest.mark.parametrize(
    ("changes", "training"),
    [
        ({"layout": "nchw"}, True),
        ({"case": Case(2, 24, 6, 6)}, True),
        ({"case": Case(0, 16, 6, 6)}, False),
        ({"dtype": torch.float16}, False),
    ],
    ids=["channels first", "a vector and a half", "no image", "float16"],
)
def test_what_is_left_to_pytorch_has_its_bits(
    changes: dict[str, Any], training: bool, implementation: str
) -> None:
    settings = {"case": Case(2, 16, 6, 6), "dtype": torch.float32, "layout": "nhwc", **changes}
    inputs = drawn(**settings, adds=True)
    ours = results(batch_norm_relu, inputs, training=training)
    for key, value in results(plain, inputs, training=training).items():
        assert torch.equal(ours[key], value)
        assert ours[key].stride() == value.stride()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_is_kept(layout: str, implementation: str) -> None:
    found = results(
        batch_norm_relu, drawn(CASES["odd sizes"], torch.float32, layout, adds=True), training=True
    )
    for name in ("y", "dx"):
        assert found[name].is_contiguous(memory_format=LAYOUTS[layout])


def test_strange_strides_are_read_rightly(implementation: str) -> None:
    inputs = drawn(Case(4, 16, 6, 5), torch.float32, "nhwc", adds=True)
    expected = results(batch_norm_relu, inputs, training=True)
    for name in ("x", "residual", "dy"):
        one = inputs[name]
        for strange in (
            one.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
            torch.stack([one, one + 1], dim=-1)[..., 0],
        ):
            found = results(_unchanged, {**inputs, name: strange}, training=True)
            for key, value in found.items():
                torch.testing.assert_close(value, expected[key], rtol=2e-5, atol=2e-5)


def _unchanged(*, x: Tensor, residual: Tensor, **rest: Any) -> Tensor:
    return batch_norm_relu(x, residual=residual, **rest)


def test_a_number_that_is_none_goes_through(implementation: str) -> None:
    inputs = drawn(Case(2, 16, 4, 4), torch.float32, "nhwc", adds=True)
    inputs["x"][0, 3, 1, 2] = float("nan")
    found = results(batch_norm_relu, inputs, training=False)
    assert found["y"].isnan().sum() == 1
    found = results(batch_norm_relu, inputs, training=True)
    assert found["y"][:, 3].isnan().all()
    assert found["y"].isnan().sum() == 2 * 4 * 4
    assert found["running_mean"].isnan().sum() == 1


def test_at_0_the_gradient_is_0(implementation: str) -> None:
    x = torch.zeros(2, 16, 2, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    zeros = torch.zeros(16)
    y = batch_norm_relu(x, zeros, torch.ones(16), torch.ones(16), zeros, training=False)
    y.sum().backward()
    assert not x.grad.any()


# --------------------------------------------------------------------- what is refused


def test_a_residual_of_another_kind_is_named(implementation: str) -> None:
    inputs = drawn(Case(2, 16, 4, 4), torch.float32, "nhwc", adds=False)
    x = inputs["x"]
    small = torch.zeros(16), torch.ones(16), inputs["weight"], inputs["bias"]
    with pytest.raises(ValueError, match=r"`residual` must have the shape of x \[2, 16, 4, 4\]"):
        batch_norm_relu(x, *small, x[:1], training=True)
    with pytest.raises(TypeError, match="`residual` must be a tensor of torch.float32 on cpu"):
        batch_norm_relu(x, *small, x.double(), training=True)


def test_one_value_has_no_variance(implementation: str) -> None:
    x = torch.ones(1, 16, 1, 1).contiguous(memory_format=torch.channels_last)
    ones = torch.ones(16)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm_relu(x, ones, ones.clone(), ones, ones, training=True)


# --------------------------------------------------------------------- registration


def test_registration_keeps_the_rules_of_pytorch(compiled: str) -> None:
    inputs = drawn(Case(2, 16, 4, 3), torch.float32, "nhwc", adds=True)
    images = [inputs[name].requires_grad_() for name in ("x", "residual")]
    x, residual = images
    mean, var = torch.zeros(16), torch.ones(16)
    weight, bias = inputs["weight"].requires_grad_(), inputs["bias"].requires_grad_()
    operators = torch.ops.kernels
    torch.library.opcheck(operators.batch_moments.default, (x,))
    for more in (residual, None):
        for fixed in (True, False):
            given = (x, mean, var, weight, bias, more, 1e-5, fixed)
            torch.library.opcheck(operators.batch_norm_relu.default, given)


def test_the_short_way_answers_as_the_dispatcher(compiled: str, dispatched: type) -> None:
    inputs = drawn(Case(2, 16, 6, 5), torch.float32, "nhwc", adds=True)
    short = results(batch_norm_relu, inputs, training=True)
    with dispatched() as seen:
        long = results(batch_norm_relu, inputs, training=True)
    ours = {one.name.split(".")[1] for one in seen.calls if one.name.startswith("kernels.")}
    assert ours == {"batch_moments", "batch_norm_relu", "batch_norm_relu_gradient"}
    assert all(torch.equal(value, long[key]) for key, value in short.items())
