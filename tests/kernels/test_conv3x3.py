"""conv3x3 against PyTorch's conv2d: values, derivatives, layouts, and what it leaves to PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from operator_table import CPU, LAYOUTS, derivatives, error, rounding
from torch import Tensor
from torch.nn import functional

from kernels import conv3x3

DTYPES = (torch.float32, torch.bfloat16)
# n, c, h, w, o.
Shape = tuple[int, int, int, int, int]

CASES: dict[str, Shape] = {
    "one vector": (1, 16, 8, 8, 16),
    "three vectors": (3, 48, 8, 12, 48),
    "five to one": (1, 80, 10, 8, 16),
    "one to five": (2, 16, 8, 14, 80),
    "nine": (1, 144, 8, 10, 144),
    "wide": (3, 128, 8, 16, 64),
    "many tiles": (3, 32, 34, 32, 48),
}
# PyTorch's work: the shape, the dtype and the layout of x.
LEFT: dict[str, tuple[Shape, torch.dtype, str]] = {
    "odd height": ((2, 16, 9, 8, 16), torch.float32, "nhwc"),
    "odd width": ((1, 16, 8, 9, 16), torch.float32, "nhwc"),
    "of 3 channels": ((2, 3, 8, 8, 16), torch.float32, "nhwc"),
    "to 3 channels": ((2, 16, 8, 8, 3), torch.float32, "nhwc"),
    "a vector and a half": ((2, 24, 8, 8, 40), torch.float32, "nhwc"),
    "4x4": ((3, 32, 4, 4, 32), torch.float32, "nhwc"),
    "low": ((1, 16, 6, 16, 16), torch.float32, "nhwc"),
    "narrow": ((1, 16, 16, 2, 16), torch.float32, "nhwc"),
    "no image": ((0, 16, 8, 8, 16), torch.float32, "nhwc"),
    "channels first": ((2, 16, 8, 8, 32), torch.float32, "nchw"),
    "one pixel": ((2, 16, 1, 1, 16), torch.float32, "nhwc"),
    "float64": ((2, 16, 8, 8, 32), torch.float64, "nhwc"),
    "bfloat16 of 4x4": ((2, 32, 4, 4, 32), torch.bfloat16, "nhwc"),
    "bfloat16, odd": ((2, 16, 9, 8, 16), torch.bfloat16, "nhwc"),
    "bfloat16, channels first": ((2, 16, 8, 8, 16), torch.bfloat16, "nchw"),
}


def drawn(
    shape: Shape, dtype: torch.dtype = torch.float32, x: str = "nhwc", weight: str = "nchw"
) -> dict[str, Tensor]:
    """x and the filters, float32 whatever x is, each in its layout."""
    n, c, h, w, o = shape
    seed = torch.Generator().manual_seed(o)
    images = torch.randn(n, c, h, w, generator=seed).to(dtype)
    filters = torch.randn(o, c, 3, 3, generator=seed)
    return {
        "x": images.contiguous(memory_format=LAYOUTS[x]),
        "weight": filters.contiguous(memory_format=LAYOUTS[weight]),
    }


def twin(x: Tensor, weight: Tensor) -> Tensor:
    """PyTorch's own, in the dtype and the layout of x."""
    like_x = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return functional.conv2d(x, weight.to(x.dtype, memory_format=like_x), padding=1)


def noise(_: float, __: float, like: Tensor) -> Tensor:
    """Constants that differ from place to place as images do: on a line, sums are of one sign."""
    seed = torch.Generator().manual_seed(like.numel())
    return torch.randn(like.shape, generator=seed, dtype=torch.float64)


def derived(
    convolve: Callable[..., Tensor],
    inputs: dict[str, Tensor],
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> dict[str, Tensor]:
    """y, dx, dweight, and ddy, ddx, ddweight: of a product of both gradients with constants."""
    return derivatives(convolve, inputs, dtype, device, noise)


@pytest.fixture
def compiled(native: torch.device) -> torch.device:
    """Where this operator is a compiled one."""
    if native.type != "cpu":
        pytest.skip("a GPU convolves by cuDNN")
    return native


# --------------------------------------------------------------------- values


def assert_as_exact(
    function: Callable[[Callable[..., Tensor], dict[str, Tensor]], dict[str, Tensor]],
    inputs: dict[str, Tensor],
) -> None:
    """No result of `function(convolution, inputs)` is off by more than twice what the twin's is,
    and a rounding. A gradient of filters may be off by three times that: over few pixels PyTorch's
    sums are short, and what is transformed has terms that are larger.
    """
    dtype = inputs["x"].dtype
    exact = function(twin, {name: one.double() for name, one in inputs.items()})
    slow, fast = function(twin, inputs), function(conv3x3, inputs)
    assert fast.keys() == exact.keys()
    for name, value in fast.items():
        assert value.shape == exact[name].shape
        assert value.dtype == slow[name].dtype
        times = 3 if name == "dweight" else 2
        bound = times * error(slow[name], exact[name]) + rounding(dtype, exact[name])
        off = error(value, exact[name])
        assert off <= bound, f"{name} is off by {off}, more than {bound}"


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("weight", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_value_and_both_derivatives(
    name: str, layout: str, weight: str, dtype: torch.dtype, operators: torch.device
) -> None:
    assert_as_exact(
        lambda convolve, inputs: derived(convolve, inputs, dtype, operators),
        drawn(CASES[name], dtype, layout, weight),
    )


def third(convolve: Callable[..., Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of a slope of a slope; each is small enough for float32 to hold the next."""
    x, weight = (one.detach().clone().requires_grad_() for one in inputs.values())
    value = (convolve(x, weight) / 20).square().sum()
    for one in (x, weight):
        (slope,) = torch.autograd.grad(value, one, create_graph=True)
        value = (slope / slope.detach().abs().max()).pow(3).sum()
    dx, dweight = torch.autograd.grad(value, (x, weight))
    return {"dx": dx, "dweight": dweight}


@pytest.mark.parametrize("name", ["one vector", "five to one", "three vectors"])
def test_a_third_derivative_is_as_exact(name: str, implementation: str) -> None:
    assert_as_exact(third, drawn(CASES[name]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["one vector", "one to five"])
def test_layout_is_kept(name: str, layout: str, operators: torch.device) -> None:
    for weight in LAYOUTS:
        inputs = drawn(CASES[name], x=layout, weight=weight)
        x, w = (one.to(operators).requires_grad_() for one in inputs.values())
        for dy_layout in LAYOUTS.values():
            y = conv3x3(x, w)
            dy = torch.ones_like(y, memory_format=dy_layout).requires_grad_()
            (dx,) = torch.autograd.grad(y, x, dy)
            assert y.is_contiguous(memory_format=LAYOUTS[layout])
            assert dx.is_contiguous(memory_format=LAYOUTS[layout])


def test_strange_strides_are_read_rightly(operators: torch.device) -> None:
    def strange(one: Tensor) -> Iterator[Tensor]:
        yield one.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        yield torch.stack([one, one + 1], dim=-1)[..., 0]
        yield torch.cat([one.flatten()[:1], one.flatten()])[1:].reshape(one.shape)
        yield one[:1].expand(one.shape)
        yield one[:, :1, :1, :1].expand(one.shape)

    def results(x: Tensor, weight: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
        x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
        dy = dy.detach().requires_grad_()
        y = conv3x3(x, weight)
        dx, dweight = torch.autograd.grad(y, (x, weight), dy, create_graph=True)
        (ddy,) = torch.autograd.grad(dx.square().sum() + dweight.square().sum(), dy)
        return y, dx, dweight, ddy

    images = drawn((2, 16, 8, 10, 32))
    operands = [images["x"], images["weight"], torch.randn(2, 32, 8, 10)]
    operands = [one.to(operators) for one in operands]
    for place, operand in enumerate(operands):
        for one in strange(operand):
            changed = [*operands]
            changed[place] = one
            found = results(*changed)
            changed[place] = one.clone(memory_format=torch.channels_last)
            for value, plain in zip(found, results(*changed), strict=True):
                bound = 1e-5 * plain.abs().max().item()
                torch.testing.assert_close(value, plain, rtol=0, atol=bound)


# --------------------------------------------------------------------- what PyTorch does


@pytest.mark.parametrize("weight", LAYOUTS)
@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_pytorch_has_its_bits(
    name: str, weight: str, operators: torch.device
) -> None:
    shape, dtype, layout = LEFT[name]
    inputs = drawn(shape, dtype, layout, weight)
    found = derived(conv3x3, inputs, dtype, operators)
    expected = derived(twin, inputs, dtype, operators)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert torch.equal(value, expected[key]), key
        assert value.stride() == expected[key].stride(), key


IMAGE, FILTERS = drawn(CASES["one vector"]).values()
BAD: dict[str, tuple[Tensor, Tensor]] = {
    "other channels": (IMAGE, FILTERS[:, :8]),
    "more channels": (IMAGE, torch.cat([FILTERS, FILTERS], dim=1)),
    "no channels": (IMAGE[:, :0], FILTERS),
    "no filters": (IMAGE, FILTERS[:0]),
    "a row": (IMAGE[0, 0], FILTERS),
    "other channels, 4x4": (IMAGE[:, :, :4, :4], FILTERS[:, :8]),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_are_those_of_pytorch(name: str, implementation: str) -> None:
    with pytest.raises(RuntimeError) as theirs:
        functional.conv2d(*BAD[name], padding=1)
    with pytest.raises(RuntimeError) as ours:
        conv3x3(*BAD[name])
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_filters_of_another_size_go_to_pytorch(size: int, implementation: str) -> None:
    filters = torch.randn(16, 16, size, size)
    assert torch.equal(conv3x3(IMAGE, filters), twin(IMAGE, filters))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_filters_of_another_dtype_are_rounded_to_that_of_the_images(
    dtype: torch.dtype, implementation: str
) -> None:
    filters = FILTERS.to(dtype).requires_grad_()
    y = conv3x3(IMAGE, filters)
    assert torch.equal(y, conv3x3(IMAGE, filters.float()))
    y.sum().backward()
    assert filters.grad.dtype == dtype


# --------------------------------------------------------------------- bits


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads PyTorch has; as before after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["many tiles", "wide", "one to five"])
def test_the_number_of_threads_changes_no_bit(
    name: str, dtype: torch.dtype, compiled: torch.device, threads: Callable[[int], None]
) -> None:
    inputs, found = drawn(CASES[name], dtype), []
    if not _is_ours(**inputs):
        pytest.skip("PyTorch promises nothing")
    for count in (1, 2, 3):
        threads(count)
        found.append(derived(conv3x3, inputs, dtype))
    for other in found[1:]:
        assert all(torch.equal(value, other[key]) for key, value in found[0].items())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["many tiles", "wide", "three vectors"])
def test_no_bit_of_an_image_depends_on_the_others(
    name: str, dtype: torch.dtype, compiled: torch.device
) -> None:
    x, weight = drawn(CASES[name], dtype).values()
    if not _is_ours(x, weight):
        pytest.skip("PyTorch promises nothing")
    x.requires_grad_()
    together = conv3x3(x, weight)
    dy = torch.randn_like(together)
    (dx,) = torch.autograd.grad(together, x, dy)
    for image in range(len(x)):
        one = x[image : image + 1].detach().requires_grad_()
        y = conv3x3(one, weight)
        assert torch.equal(y[0], together[image])
        (alone,) = torch.autograd.grad(y, one, dy[image : image + 1])
        assert torch.equal(alone[0], dx[image])


def _is_ours(x: Tensor, weight: Tensor) -> bool:
    y = conv3x3(x, weight.detach().requires_grad_())
    return type(y.grad_fn).__name__.startswith("kernels::")


def test_what_fits_is_computed_by_the_compiled_operator(compiled: torch.device) -> None:
    for shape in CASES.values():
        assert _is_ours(**drawn(shape))
    for shape, dtype, layout in LEFT.values():
        assert not _is_ours(**drawn(shape, dtype, layout))


# --------------------------------------------------------------------- what is no number


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_pixel_that_is_no_number_reaches_the_tiles_that_see_it(
    value: float, implementation: str
) -> None:
    """Its neighbours, as by the definition, and besides at most the rest of their 2x2 tiles."""
    for row, column in ((0, 0), (4, 7), (7, 4), (3, 9), (5, 5), (7, 9)):
        x, weight = drawn((2, 32, 8, 10, 16)).values()
        x[1, 17, row, column] = value
        x.requires_grad_()
        weight.requires_grad_()
        y = conv3x3(x, weight)
        bad = ~y.isfinite()
        hit = functional.pad((~x[:, 17:18].isfinite()).float(), [1] * 4)
        near = hit.unfold(2, 3, 1).unfold(3, 3, 1).amax((4, 5)).bool()
        seen = hit.unfold(2, 4, 2).unfold(3, 4, 2).amax((4, 5)).bool()
        seen = seen.repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert (bad >= near).all()
        assert (bad <= seen).all()
        # Gradients: those of the filters of its channel.
        dx, dweight = torch.autograd.grad(y, (x, weight), torch.ones_like(y))
        assert dx.isfinite().all()
        assert dweight[:, [*range(17), *range(18, 32)]].isfinite().all()
        assert not dweight[:, 17].isfinite().any(0).all()


# --------------------------------------------------------------------- registration


def _samples() -> dict[str, tuple[object, ...]]:
    x, weight = drawn((2, 16, 8, 10, 32)).values()
    dy = torch.randn(2, 32, 8, 10)
    last = dy.to(memory_format=torch.channels_last)
    last_weight = weight.to(memory_format=torch.channels_last)
    return {
        "conv3x3": (x.requires_grad_(), weight.requires_grad_(), False),
        "conv3x3 of channels first": (x.detach().contiguous(), last_weight.detach(), False),
        "conv3x3 turned": (last.requires_grad_(), last_weight.detach().requires_grad_(), True),
        "conv3x3_gradient": (x, last),
        "conv3x3_gradient of channels first": (x.detach(), dy),
    }


@pytest.mark.parametrize("name", _samples())
def test_registration_keeps_the_rules_of_pytorch(name: str, compiled: torch.device) -> None:
    operator = getattr(torch.ops.kernels, name.partition(" ")[0])
    torch.library.opcheck(operator.default, _samples()[name])


def test_the_short_way_is_taken_unless_watched_and_answers_the_same(
    compiled: torch.device, dispatched: type
) -> None:
    inputs = drawn(CASES["one to five"])
    short = derived(conv3x3, inputs)
    with dispatched() as seen:
        through_dispatcher = derived(conv3x3, inputs)
    ours = {one.name.split(".")[1] for one in seen.calls if one.name.startswith("kernels.")}
    assert ours == {"conv3x3", "conv3x3_gradient"}
    assert not [one.name for one in seen.calls if "convolution" in one.name]
    for key, value in short.items():
        assert torch.equal(value, through_dispatcher[key])
    with torch.no_grad():
        assert torch.equal(conv3x3(**inputs), short["y"])


@pytest.mark.parametrize("wanted", ["x", "weight"])
def test_a_gradient_that_is_not_wanted_is_not_computed(
    wanted: str, compiled: torch.device, dispatched: type
) -> None:
    inputs = drawn(CASES["one vector"])
    both = derived(conv3x3, inputs)
    inputs[wanted].requires_grad_()
    y = conv3x3(**inputs)
    dy = noise(0, 0, y).float()
    with dispatched() as seen:
        (found,) = torch.autograd.grad(y, inputs[wanted], dy)
    called = [one.name for one in seen.calls if one.name.startswith("kernels.")]
    name = {"x": "conv3x3", "weight": "conv3x3_gradient"}[wanted]
    assert called == [f"kernels.{name}.default"]
    assert torch.equal(found, both[f"d{wanted}"])


def test_compile_sees_the_operator_and_breaks_no_graph(compiled: torch.device) -> None:
    x, weight = (one.requires_grad_() for one in drawn(CASES["one vector"]).values())
    function = torch.compile(conv3x3, backend="aot_eager", fullgraph=True)
    y = function(x, weight)
    assert torch.equal(y, conv3x3(x, weight))
    found = torch.autograd.grad(y.square().sum(), (x, weight))
    expected = torch.autograd.grad(conv3x3(x, weight).square().sum(), (x, weight))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
