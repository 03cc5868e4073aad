"""Colours of the contrastive view: how far each changes, how often, and row by row."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan_mix.rng import stream
from trainer.engine.augmentation.contrastive import simclr

COUNT = 3000


def views_of(*pixels: tuple[int, ...]) -> Tensor:
    """Views of an image whose left and right half have a colour each, or of one colour."""
    image = torch.tensor(pixels, dtype=torch.uint8)[None, :, :].repeat_interleave(4, 1)
    images = image.expand(8, -1, -1).expand(COUNT, -1, -1, -1)
    return simclr(images, stream(0, "test.jitter"), flip=False)


def spreads(values: np.ndarray, low: float, high: float) -> None:
    """Values lie between two bounds evenly, but for a fifth that did not change."""
    still = np.isclose(values, (low + high) / 2, atol=(high - low) * 1e-5)
    assert still.mean() == pytest.approx(0.2, abs=0.03)
    moved = values[~still]
    slack = (high - low) * 0.01
    assert low - slack <= moved.min() < low + 3 * slack
    assert high - 3 * slack < moved.max() <= high + slack
    assert np.quantile(moved, 0.25) == pytest.approx(low + (high - low) / 4, abs=5 * slack)


def test_brightness_is_a_factor_from_six_to_fourteen_tenths() -> None:
    shown = views_of((100,), (100,))
    spreads((shown / 100)[:, 0, 0, 0].numpy(), 0.6, 1.4)


def test_contrast_is_a_factor_of_distances_from_the_mean() -> None:
    """Brightness changes the mean and distances alike. Only boxes about the middle are taken."""
    shown = views_of((90,), (110,))
    mean, spread = shown.mean((1, 2, 3)), shown.amax((1, 2, 3)) - shown.amin((1, 2, 3))
    both = (shown.amin((1, 2, 3)) < mean * 0.97) & (shown.amax((1, 2, 3)) > mean * 1.03)
    whole = both & ((shown[..., 0] < mean[:, None, None]).float().mean((1, 2)) == 0.5)
    values = (spread / mean / 0.2)[whole].numpy()
    assert len(values) > 300 and 0.6 - 0.02 <= values.min() < 0.65
    assert 1.35 < values.max() <= 1.4 + 0.02


def test_hue_turns_by_up_to_a_tenth_and_a_fifth_of_the_views_is_grey() -> None:
    shown = views_of((150, 100, 100), (150, 100, 100))[:, 0, 0].numpy() / 255
    grey = np.ptp(shown, axis=1) < 1e-4
    assert grey.mean() == pytest.approx(0.2, abs=0.03)
    hue = np.array([colorsys.rgb_to_hsv(*map(float, one))[0] for one in shown[~grey]])
    spreads((hue + 0.5) % 1 - 0.5, -0.1, 0.1)
    chroma = np.ptp(shown[~grey], axis=1) * 255 / 50
    assert 0.6**3 - 0.01 < chroma.min() < 0.4 and 1.8 < chroma.max() < 1.4**3 + 0.01


def test_a_view_depends_on_no_other_row() -> None:
    draws = stream(0, "test.alone")
    images = torch.from_numpy(draws.integers(0, 256, (6, 8, 8, 3), "u1"))
    others = images.clone()
    others[1:] = 7
    one, other = (simclr(both, stream(0, "test.jitter"), flip=True) for both in (images, others))
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])
