"""The transforms of the ADA pipe, each against its equation written out another way."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

from stylegan_mix import rng
from stylegan_mix.training.augmentation.ada import ADA
from stylegan_mix.training.augmentation.blit import moved
from stylegan_mix.training.augmentation.color import recolored
from stylegan_mix.training.augmentation.geometry import inverse_map, warped
from stylegan_mix.training.augmentation.octaves import band_gains, band_taps
from stylegan_mix.training.augmentation.policies import augmentation_named


class Median(rng.Draws):
    """Every draw at its median: uniform 1/2, normal 0, integers in the middle, rounded up."""

    def uniform(self, rows: int, *shape: int, device: str | torch.device = "cpu") -> Tensor:
        return torch.full((rows, *shape), 0.5, device=device)

    def normal(self, rows: int, *shape: int, device: str | torch.device = "cpu") -> Tensor:
        return torch.zeros(rows, *shape, device=device)

    def integers(
        self, low: int, high: int, rows: int, *shape: int, device: str | torch.device = "cpu"
    ) -> Tensor:
        return torch.full((rows, *shape), (low + high) // 2, device=device)


def test_the_pipe_at_median_draws_gives_the_recorded_picture() -> None:
    # Recorded. The published pipe resamples the flip and the half turn, which are a gather here:
    # hence the tolerance.
    images = torch.linspace(-1, 1, 768).view(1, 3, 16, 16)
    shown = augmentation_named("ada")(images, torch.ones(1), Median())
    assert float(shown.mean()) == pytest.approx(0.0032965, abs=5e-3)
    assert float(shown.std()) == pytest.approx(0.578438, abs=5e-3)
    middle, corner = shown[0, :, 8, 8].tolist(), shown[0, :, 0, 0].tolist()
    assert middle == pytest.approx([-0.643879, 0.023656, 0.691192], abs=5e-3)
    assert corner == pytest.approx([-0.959983, -0.292447, 0.375088], abs=5e-3)


# --------------------------------------------------------------------- blit


def _moved(image: np.ndarray, flip: int, turns: int, shift_x: int, shift_y: int) -> np.ndarray:
    """The same with NumPy's own flips: [H,W], height - width even."""
    height, width = image.shape
    turned = np.rot90(np.fliplr(image) if flip else image, turns)
    wide = np.pad(turned, 3 * max(height, width), mode="reflect")
    top = (wide.shape[0] - height) // 2 - shift_y
    left = (wide.shape[1] - width) // 2 - shift_x
    return wide[top : top + height, left : left + width]


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (9, 5)])
def test_blit_takes_exactly_the_pixels_that_flips_turns_and_shifts_do(
    size: tuple[int, int],
) -> None:
    image = torch.arange(2.0 * math.prod(size)).view(1, 2, *size)
    cases = list(itertools.product((0, 1), range(4), (-2, 0, 1), (-1, 0, 3)))
    shown = moved(image.expand(len(cases), -1, -1, -1), *torch.tensor(cases).T)
    for case, result in zip(cases, shown.numpy(), strict=True):
        for channel in range(2):
            expected = _moved(image[0, channel].numpy(), *case)
            np.testing.assert_array_equal(result[channel], expected, err_msg=str(case))


# --------------------------------------------------------------------- geometry

SYM6 = np.fromstring(
    ".01540411 .00349071 -.11799011 -.04831174 .49105594 .78764114"
    " .33792942 -.07263752 -.02106029 .04472490 .00176771 -.00780071",
    sep=" ",
)
SYM6 = SYM6 / SYM6.sum()


def _sample_up(image: np.ndarray, row: int, column: int) -> float:
    """One sample of the endlessly mirrored image, up-sampled: 2 sum_i h[j - 2i + 5] x[i]."""
    sums = 0.0
    for i, k in itertools.product(range(-4, 4), repeat=2):
        y, x = row // 2 + i, column // 2 + k
        at_y, at_x = row - 2 * y + 5, column - 2 * x + 5
        if 0 <= at_y < 12 and 0 <= at_x < 12:
            periods = [2 * (size - 1) for size in image.shape]
            y, x = (min(v % q, q - v % q) for v, q in zip((y, x), periods, strict=True))
            sums += 4 * SYM6[at_y] * SYM6[at_x] * image[y, x]
    return sums


def _warped_pixel(image: np.ndarray, forward: np.ndarray, row: int, column: int) -> float:
    """One pixel by hand: every tap of the down-sampling filter, sampled bilinearly."""
    height, width = image.shape
    back = np.linalg.inv(forward)
    result = 0.0
    for i, k in itertools.product(range(12), repeat=2):
        # Up-sampled sample j lies at pixel j / 2 - 1 / 4; the map acts about the centre.
        j = np.array([2 * column + k - 5, 2 * row + i - 5])
        centre = np.array([width - 1, height - 1]) / 2
        x, y = (back @ [*(j / 2 - 0.25 - centre), 1.0])[:2] + centre
        x, y = 2 * x + 0.5, 2 * y + 0.5
        left, top = math.floor(x), math.floor(y)
        value = sum(
            (1 - abs(x - at_x)) * (1 - abs(y - at_y)) * _sample_up(image, at_y, at_x)
            for at_x in (left, left + 1)
            for at_y in (top, top + 1)
        )
        result += SYM6[i] * SYM6[k] * value
    return result


def _turn(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("scale", "before", "stretch", "after", "shift_x", "shift_y"),
    [
        (0.3, 0.0, 0.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, -0.4, 0.0, 0.7, -1.6),
        (-0.5, 0.7, 0.3, -2.1, 0.4, 2.3),
        (-1.5, 2.9, 0.6, 1.0, -5.0, 11.0),
    ],
)
def test_geometry_agrees_with_matrices_composed_in_float64_and_sums_by_hand(
    scale: float, before: float, stretch: float, after: float, shift_x: float, shift_y: float
) -> None:
    image = np.random.default_rng(0).standard_normal((6, 9))
    shift = np.array([[1, 0, shift_x], [0, 1, shift_y], [0, 0, 1]])
    stretched = np.diag([2**stretch, 2**-stretch, 1])
    forward = shift @ _turn(after) @ stretched @ _turn(before) @ np.diag([2**scale, 2**scale, 1])
    parameters = (
        torch.tensor([one], dtype=torch.float64) for one in (scale, before, stretch, after)
    )
    matrix = inverse_map(*parameters)
    shown = warped(torch.from_numpy(image)[None, None], matrix, torch.tensor([[shift_x, shift_y]]))[
        0, 0
    ]
    for row, column in ((0, 0), (2, 7), (3, 4), (5, 8)):
        expected = _warped_pixel(image, forward, row, column)
        assert float(shown[row, column]) == pytest.approx(expected, abs=1e-6)


def test_whole_shifts_of_the_geometry_are_those_of_the_gather() -> None:
    images = torch.randn(5, 3, 16, 32)
    shifts = torch.tensor([[0, 0], [3, -2], [-31, 15], [70, 5], [-1, -200]])
    one = torch.eye(2).expand(5, 2, 2)
    none = torch.zeros(5, dtype=torch.int64)
    expected = moved(images, none, none, shifts[:, 0], shifts[:, 1])
    torch.testing.assert_close(warped(images, one, shifts.float()), expected, atol=3e-6, rtol=0)


def test_the_chance_that_an_image_is_turned_at_all_is_p() -> None:
    class Turning(Median):
        def uniform(self, rows: int, *shape: int, device: str | torch.device = "cpu") -> Tensor:
            return rng.Draws(self.generator).uniform(rows, *shape)

    images = torch.randn(1, 1, 8, 8).expand(1500, -1, -1, -1)
    draws = Turning(rng.torch_generator(0, "turns"))
    shown = augmentation_named("ada:geometry")(images, torch.full((1500,), 0.5), draws)
    turned = (shown - images).abs().amax(dim=[1, 2, 3]) > 1e-4
    assert abs(float(turned.float().mean()) - 0.5) < 4 * (0.25 / 1500) ** 0.5


def test_geometry_says_which_images_are_too_small() -> None:
    with pytest.raises(ValueError, match="5 pixels a side, got 4 x 8"):
        warped(torch.zeros(1, 1, 4, 8), torch.eye(2)[None], torch.zeros(1, 2))


# --------------------------------------------------------------------- colour


def _color_matrix(
    brightness: float, contrast: float, flip: int, hue: float, saturation: float, axes: int
) -> np.ndarray:
    """The five homogeneous matrices, each composed to the left of the ones before."""
    grey = np.ones(axes) / math.sqrt(axes)
    onto = np.outer(grey, grey)
    steps = [
        np.eye(axes) * 2**contrast,
        np.eye(axes) - 2 * onto * flip,
        onto + (np.eye(axes) - onto) * 2**saturation,
    ]
    if axes == 3:
        a, b, c = grey
        cross = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
        steps.insert(2, expm(hue * cross))
    composed = np.eye(axes + 1)
    composed[:axes, axes] = brightness
    for step in steps:
        whole = np.eye(axes + 1)
        whole[:axes, :axes] = step
        composed = whole @ composed
    return composed


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_colours_agree_with_composed_matrices(channels: int) -> None:
    generator = np.random.default_rng(1)
    images = generator.standard_normal((6, channels, 3, 4))
    parameters = generator.standard_normal((5, 6))
    parameters[2] = [0, 1, 0, 1, 1, 0]
    shown = recolored(torch.from_numpy(images), *torch.from_numpy(parameters)).numpy()
    axes = 3 if channels == 4 else channels
    for image, result, numbers in zip(images, shown, parameters.T, strict=True):
        matrix = _color_matrix(*numbers, axes=axes)
        colors = np.concatenate([image[:axes], np.ones((1, 3, 4))])
        expected = np.einsum("ij,jhw->ihw", matrix, colors)[:axes]
        np.testing.assert_allclose(result[:axes], expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(result[axes:], image[axes:])


def test_a_grey_image_of_one_channel_changes_like_one_of_three() -> None:
    parameters = torch.randn(5, 4, dtype=torch.float64)
    parameters[2] = torch.tensor([0, 1, 1, 0])
    grey = torch.randn(4, 1, 5, 5, dtype=torch.float64)
    colored = recolored(grey.expand(-1, 3, -1, -1), *parameters)
    torch.testing.assert_close(colored, recolored(grey, *parameters).expand(-1, 3, -1, -1))


# --------------------------------------------------------------------- filter, noise, cutout


def test_the_bands_sum_to_the_identity_and_split_the_octaves() -> None:
    taps = band_taps()
    assert taps.shape == (4, 43)
    delta = np.zeros(43)
    delta[21] = 1
    np.testing.assert_allclose(taps.sum(axis=0), delta, atol=1e-12)
    np.testing.assert_allclose(taps, taps[:, ::-1], atol=1e-12)
    # One wave in the middle of each octave, (0, 1/8, 1/4, 1/2, 1] of the Nyquist frequency.
    waves = np.cos(np.pi * np.array([1 / 16, 3 / 16, 3 / 8, 3 / 4])[:, None] * np.arange(-21, 22))
    response = taps @ waves.T
    assert (response.argmax(axis=0) == np.arange(4)).all()
    np.testing.assert_allclose(taps.sum(axis=1), [1, 0, 0, 0], atol=1e-12)


def test_filtering_is_the_convolution_of_the_mirrored_image() -> None:
    # More taps than pixels along y: the mirrored image goes on.
    images = torch.randn(3, 2, 8, 32, dtype=torch.float64)
    shown = ADA["filter"](images, torch.ones(3), rng.Draws(rng.torch_generator(0, "f"))).numpy()
    draws = rng.Draws(rng.torch_generator(0, "f"))
    # For each band the exponents, then the coins, which all fall.
    exponents = torch.stack([(draws.normal(3), draws.uniform(3))[0] for _ in range(4)], dim=1)
    gains_of = band_gains(exponents.double()).numpy()
    for n in range(3):
        taps = gains_of[n] @ band_taps()
        for channel in range(2):
            wide = np.pad(images[n, channel].numpy(), 21, mode="reflect")
            along_x = np.stack([np.convolve(row, taps, mode="valid") for row in wide])
            both = np.stack([np.convolve(row, taps, mode="valid") for row in along_x.T]).T
            np.testing.assert_allclose(shown[n, channel], both, atol=1e-10)


def test_one_band_made_louder_keeps_the_power_of_a_natural_image() -> None:
    exponents = torch.eye(4, dtype=torch.float64) * 1.5
    gains = band_gains(exponents)
    power = gains.square() @ torch.tensor([10.0, 1, 1, 1], dtype=torch.float64) / 13
    torch.testing.assert_close(power, torch.ones(4, dtype=torch.float64))
    ratio = gains.diagonal() / gains.roll(1, dims=1).diagonal()
    torch.testing.assert_close(ratio, torch.full((4,), 2**1.5, dtype=torch.float64))
    torch.testing.assert_close(band_gains(torch.zeros(2, 4)), torch.ones(2, 4))


def test_noise_has_a_level_of_its_own_for_every_image() -> None:
    draws = rng.Draws(rng.torch_generator(0, "noise"))
    shown = ADA["noise"](torch.zeros(800, 1, 16, 16), torch.ones(800), draws)
    levels = shown.std(dim=[1, 2, 3])
    assert float(levels.square().mean().sqrt()) == pytest.approx(0.1, rel=0.1)
    # |N(0, s^2)| has its median at 0.674 s.
    assert float(levels.median()) == pytest.approx(0.0674, rel=0.1)


def test_cutout_takes_a_box_of_half_the_sides() -> None:
    draws = rng.Draws(rng.torch_generator(0, "cutout"))
    shown = ADA["cutout"](torch.ones(500, 1, 8, 16), torch.ones(500), draws)
    rows, columns = (shown == 0).any(dim=3).sum(dim=2), (shown == 0).any(dim=2).sum(dim=2)
    assert (int(rows.min()), int(rows.max())) == (2, 4)
    assert (int(columns.min()), int(columns.max())) == (4, 8)
    assert torch.equal((shown == 0).sum(dim=[1, 2, 3]), (rows * columns)[:, 0])
