"""The layers against their slow twins and their equations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from kernels import reference, setup_filter
from stylegan_mix.networks.discriminator import minibatch_std
from stylegan_mix.networks.layers import (
    Convolution,
    FullyConnected,
    convolve,
    demodulation,
    modulated_conv2d,
    modulated_conv2d_per_sample,
    modulated_product,
    normalize_second_moment,
)

FILTER = setup_filter([1, 3, 3, 1])
ONE = (1, 1)


def test_second_moment_is_one() -> None:
    x = normalize_second_moment(torch.randn(3, 7) * 5)
    torch.testing.assert_close(x.square().mean(dim=1), torch.ones(3))


@pytest.mark.parametrize("lr_mul", [1.0, 0.01])
def test_dense_layer_is_its_equation(lr_mul: float) -> None:
    layer = FullyConnected(6, 4, act="lrelu", bias_init=1, lr_mul=lr_mul)
    x = torch.randn(3, 6)
    u = x @ layer.weight.T * (lr_mul / 6**0.5) + layer.bias * lr_mul
    torch.testing.assert_close(layer(x), functional.leaky_relu(u, 0.2) * 2**0.5)
    assert abs(FullyConnected(200, 200, lr_mul=lr_mul).weight.std() * lr_mul - 1) < 0.02


@pytest.mark.parametrize("gain", [1.0, 0.5**0.5])
def test_convolution_layer_is_its_equation(gain: float) -> None:
    layer = Convolution(5, 4, 3, clamp=0.8)
    layer.bias.data.normal_()
    x = torch.randn(2, 5, 6, 6)
    y = functional.conv2d(x, layer.weight / (5 * 9) ** 0.5, padding=1)
    y = reference.bias_act(y, layer.bias, act="lrelu", gain=2**0.5 * gain, clamp=0.8 * gain)
    torch.testing.assert_close(layer(x, gain=gain), y)


@pytest.mark.parametrize("resampled", [{}, {"up": 2}, {"down": 2}])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("act", ["lrelu", "linear"])
def test_every_convolution_layer_adds_its_bias(
    act: str, kernel: int, resampled: dict[str, int]
) -> None:
    layer = Convolution(5, 4, kernel, act=act, **resampled)
    layer.bias.data.normal_()
    x = torch.randn(2, 5, 6, 6)
    weight = layer.weight / (5 * kernel**2) ** 0.5
    y = reference.bias_act(convolve(x, weight, FILTER, **resampled), layer.bias, act=act)
    torch.testing.assert_close(layer(x), y)


def slow_up(x: Tensor, weight: Tensor) -> Tensor:
    """Zero-stuffing, the filter, and then a true convolution at the full resolution."""
    x = reference.upfirdn2d(x, FILTER, up=(2, 2), down=ONE, padding=(2, 1, 2, 1), gain=4)
    return functional.conv2d(x, weight.flip(2, 3), padding=weight.shape[-1] // 2)


def slow_down(x: Tensor, weight: Tensor) -> Tensor:
    """The filter and then a convolution at full resolution, of which every second is kept."""
    x = reference.upfirdn2d(x, FILTER, up=ONE, down=ONE, padding=(1, 1, 1, 1))
    return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)[:, :, ::2, ::2]


@pytest.mark.parametrize("kernel", [1, 3])
def test_resampling_convolutions_agree_with_the_long_way_inside(kernel: int) -> None:
    """At the border they differ: the filter there sees values that the long way has cut off."""
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, kernel, kernel)
    for name, slow, border in (("up", slow_up, 2), ("down", slow_down, 1)):
        fast = convolve(x, weight, FILTER, **{name: 2})
        expected = slow(x, weight)
        assert fast.shape == expected.shape
        inside = (..., slice(border, -border), slice(border, -border))
        torch.testing.assert_close(fast[inside], expected[inside], rtol=1e-4, atol=1e-4)


def demodulated(*args: Tensor, up: int = 1) -> Tensor:
    y, d = modulated_conv2d(*args, up=up)
    return y * d.to(y.dtype)[:, :, None, None]


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    n=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    kernel=st.sampled_from([1, 3]),
    up=st.sampled_from([1, 2]),
)
def test_modulated_convolution_equals_its_slow_twin_with_all_gradients(
    n: int, channels: tuple[int, int], kernel: int, up: int
) -> None:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64).requires_grad_()

    x, weight = draw(n, channels[0], 4, 4), draw(channels[1], channels[0], kernel, kernel)
    inputs = [x, weight, draw(n, channels[0])]
    results = []
    for operator in (demodulated, modulated_conv2d_per_sample):
        y = operator(*inputs, FILTER, up=up)
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(first[0].sum(), inputs)
        results.append((y, *first, *second))
    for fast, slow in zip(*results, strict=True):
        scale = 1 + slow.abs().max().item()
        torch.testing.assert_close(fast, slow, rtol=1e-8, atol=1e-10 * scale)


@pytest.mark.parametrize("outs", [1, 3])
def test_modulated_product_equals_the_scaled_convolution_with_all_gradients(outs: int) -> None:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    def slow(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
        return functional.conv2d(x * style[:, :, None, None], weight)

    x = draw(3, 5, 4, 6).contiguous(memory_format=torch.channels_last)
    inputs = [one.requires_grad_() for one in (x, draw(outs, 5, 1, 1), draw(3, 5))]
    results = []
    for operator in (modulated_product, slow):
        y = operator(*inputs)
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in first), inputs)
        results.append((y, *first, *second))
    for fast, expected in zip(*results, strict=True):
        torch.testing.assert_close(fast, expected)
    # What comes next takes them as they lie.
    y, dx = results[0][:2]
    assert y.is_contiguous()
    assert dx.is_contiguous(memory_format=torch.channels_last)


def test_float16_does_not_overflow_where_its_slow_twin_would() -> None:
    x, weight, style = torch.randn(2, 64, 4, 4), torch.randn(8, 64, 3, 3), torch.randn(2, 64)
    y = demodulated(x.half(), weight * 1e3, style * 1e5, FILTER)
    exact = modulated_conv2d_per_sample(x, weight, style, FILTER)
    torch.testing.assert_close(y.float(), exact, rtol=0, atol=0.02)


def test_demodulated_features_have_unit_variance() -> None:
    weight, style = torch.randn(32, 16, 3, 3), torch.rand(4, 16) + 0.5
    x = torch.randn(4, 16, 64, 64)
    inside = demodulated(x, weight, style, FILTER)[..., 1:-1, 1:-1]
    torch.testing.assert_close(inside.var(dim=(2, 3)), torch.ones(4, 32), rtol=0, atol=0.15)
    full = weight[None] * style[:, None, :, None, None]
    expected = 1 / full.square().sum(dim=(2, 3, 4)).sqrt()
    torch.testing.assert_close(demodulation(weight, style), expected)


def test_minibatch_std_groups_sample_i_with_i_plus_n_over_g() -> None:
    x = torch.zeros(8, 2, 4, 4)
    x[[0, 4]] = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)  # one group of 2 among 4
    channel = minibatch_std(x, 2)[:, 2]
    assert channel.shape == (8, 4, 4)
    expected = torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0])
    torch.testing.assert_close(channel[:, 1, 2], expected, rtol=0, atol=2e-4)
    assert channel.std(dim=(1, 2)).max() < 1e-6


def test_minibatch_std_of_fewer_samples_than_a_group_takes_them_all() -> None:
    x = torch.randn(3, 2, 4, 4)
    expected = x.var(dim=0, unbiased=False).add(1e-8).sqrt().mean()
    torch.testing.assert_close(minibatch_std(x, 4)[:, 2], expected.expand(3, 4, 4))
    with pytest.raises(ValueError, match="groups of 4 must divide the batch of 6"):
        minibatch_std(torch.zeros(6, 1, 4, 4), 4)
