"""Operations of augmentation policies: each beside Pillow, image by image, and rows apart."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from stylegan_mix.rng import stream
from trainer.engine.augmentation import contrastive, geometry
from trainer.engine.augmentation.apply import augmented
from trainer.engine.augmentation.colours import EFFECTS
from trainer.engine.augmentation.contrastive import simclr, turned
from trainer.engine.augmentation.cutout import cutout
from trainer.engine.augmentation.operations import NAMES, OPERATIONS, Slot, values

SHAPES = [(size, channels) for size in (8, 32) for channels in (1, 3)]


def photographs(size: int, channels: int, count: int = 6) -> np.ndarray:
    """Smooth images with a little noise, and one of a single value, [count, H, W, C] uint8."""
    draws = stream(0, "test.photographs", size, channels)
    y, x = np.mgrid[:size, :size] / size
    wave = draws.uniform(1, 6, (count, 2, channels, 1, 1))
    images = 120 + 90 * np.sin(
        wave[:, 0] * x + wave[:, 1] * y + draws.uniform(0, 6, (count, 1, 1, 1))
    )
    images = images.transpose(0, 2, 3, 1) + draws.normal(0, 12, (count, size, size, channels))
    images[-1] = 77
    return images.clip(0, 255).astype(np.uint8)


def slot(name: str, value: float, count: int) -> Slot:
    number = NAMES.index(name)
    return Slot(np.full(count, number), np.full(count, value, np.float32))


def ours(name: str, value: float, images: np.ndarray, fill: int = 0) -> np.ndarray:
    channels = images.shape[3]
    one = slot(name, value, len(images))
    shown = augmented(
        torch.from_numpy(images), [one], torch.full((channels,), fill, dtype=torch.uint8)
    )
    return shown.numpy()


def by_pillow(change: Callable[[Image.Image], Image.Image], images: np.ndarray) -> np.ndarray:
    """Changes image after image with Pillow."""
    shown = []
    for image in images:
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        shown.append(np.asarray(change(picture)).reshape(image.shape))
    return np.stack(shown)


def affine(*numbers: float) -> Callable[[Image.Image], Image.Image]:
    return lambda one: one.transform(one.size, Image.Transform.AFFINE, numbers)


# name, value, Pillow's way, largest difference in grey values
COLOURS: list[tuple[str, float, Callable[[Image.Image], Image.Image], int]] = [
    ("invert", 0, ImageOps.invert, 0),
    ("autocontrast", 0, ImageOps.autocontrast, 1),
    ("equalise", 0, ImageOps.equalize, 0),
    *(("solarise", t, lambda one, t=t: ImageOps.solarize(one, t), 0) for t in (0, 100, 256)),
    *(("posterise", b, lambda one, b=b: ImageOps.posterize(one, b), 0) for b in (4, 6, 8)),
    *(
        (name, factor, lambda one, kind=kind, factor=factor: kind(one).enhance(factor), 1)
        for name, kind in (
            ("contrast", ImageEnhance.Contrast),
            ("colour", ImageEnhance.Color),
            ("brightness", ImageEnhance.Brightness),
            ("sharpness", ImageEnhance.Sharpness),
        )
        for factor in (0.1, 0.7, 1.0, 1.9)
    ),
]


@pytest.mark.parametrize(("size", "channels"), SHAPES)
@pytest.mark.parametrize(
    ("name", "value", "pillow", "most"), COLOURS, ids=[f"{one[0]}-{one[1]}" for one in COLOURS]
)
def test_colours_are_those_of_pillow(
    name: str, value: float, pillow: Any, most: int, size: int, channels: int
) -> None:
    images = photographs(size, channels)
    shown, theirs = ours(name, value, images), by_pillow(pillow, images)
    assert np.abs(shown.astype(int) - theirs).max() <= most
    acts = name in ("invert", "autocontrast") or (value != OPERATIONS[name].neutral)
    if name == "equalise":
        acts = size == 32  # too few pixels for 255 steps: both leave the image
    if name == "colour" and channels == 1:
        acts = False
    assert (shown != images).any() == acts


def test_every_colour_is_compared() -> None:
    assert {name for name, *_ in COLOURS} == set(EFFECTS)


MOVES = [
    ("shear-x", 0.3, lambda size: affine(1, 0.3, 0, 0, 1, 0)),
    ("shear-x", -0.13, lambda size: affine(1, -0.13, 0, 0, 1, 0)),
    ("shear-y", 0.23, lambda size: affine(1, 0, 0, 0.23, 1, 0)),
    ("translate-x", 0.25, lambda size: affine(1, 0, size // 4, 0, 1, 0)),
    ("translate-x", -0.45, lambda size: affine(1, 0, -0.45 * size, 0, 1, 0)),
    ("translate-y", 0.4, lambda size: affine(1, 0, 0, 0, 1, 0.4 * size)),
    ("rotate", 30.0, lambda size: lambda one: one.rotate(30)),
    ("rotate", -17.0, lambda size: lambda one: one.rotate(-17)),
]


@pytest.mark.parametrize(("size", "channels"), SHAPES)
@pytest.mark.parametrize(
    ("name", "value", "pillow"), MOVES, ids=[f"{one[0]}{one[1]}" for one in MOVES]
)
def test_moved_images_are_those_of_pillow(
    name: str, value: float, pillow: Any, size: int, channels: int
) -> None:
    """Pillow counts places in units of 2 ** -16, so a pixel may lie beyond another edge."""
    images = photographs(size, channels)
    shown, theirs = ours(name, value, images), by_pillow(pillow(size), images)
    assert (shown != theirs).any(3).mean() < 0.005
    assert (shown != images).any()


def test_every_move_is_compared() -> None:
    moved = geometry.moves(np.arange(len(NAMES)))
    assert {name for name, *_ in MOVES} == {NAMES[place] for place in np.flatnonzero(moved)}
    assert {"identity", *EFFECTS} | {name for name, *_ in MOVES} == set(NAMES)


def test_pixels_from_outside_have_the_colour_that_is_asked_for() -> None:
    images = np.zeros((1, 8, 8, 3), np.uint8)
    shown = ours("translate-x", 0.25, images, fill=9)
    assert (shown[:, :, :6] == 0).all() and (shown[:, :, 6:] == 9).all()


@pytest.mark.parametrize(("size", "channels"), [*SHAPES, (8, 4), (8, 2)])
def test_a_row_is_changed_as_if_it_were_alone(size: int, channels: int) -> None:
    """Each row has another operation, and its own value."""
    draws = stream(0, "test.rows")
    images = torch.from_numpy(draws.integers(0, 256, (60, size, size, channels), "u1"))
    operation = draws.integers(0, len(NAMES), 60)
    strength = draws.random(60)
    signs = draws.integers(0, 2, 60) * 2 - 1
    one = Slot(operation, values(operation, strength, signs))
    fill = torch.arange(channels, dtype=torch.uint8) + 100
    together = augmented(images, [one], fill)
    for row in range(60):
        alone = Slot(one.operation[row : row + 1], one.value[row : row + 1])
        assert torch.equal(together[row], augmented(images[row : row + 1], [alone], fill)[0])
    if channels == 4:
        coloured = ~torch.from_numpy(geometry.moves(operation))
        assert torch.equal(together[coloured][..., 3], images[coloured][..., 3])


def test_slots_follow_one_another_and_the_images_given_stay() -> None:
    images = torch.from_numpy(photographs(8, 3))
    before = images.clone()
    first, second = slot("solarise", 90, 6), slot("posterise", 4, 6)
    fill = torch.zeros(3, dtype=torch.uint8)
    both = augmented(images, [first, second], fill)
    assert torch.equal(both, augmented(augmented(images, [first], fill), [second], fill))
    assert not torch.equal(both, augmented(images, [second, first], fill))
    assert torch.equal(images, before)
    assert torch.equal(augmented(images, [slot("identity", 0, 6)], fill), images)


def test_values_go_from_no_change_to_the_ends_of_the_ranges() -> None:
    """Cubuk et al. 2019, Table 6."""
    ends = {
        "shear-x": (0.3, -0.3),
        "translate-y": (150 / 331, -150 / 331),
        "rotate": (30, -30),
        "solarise": (0, 0),
        "posterise": (4, 4),
        "contrast": (1.9, 0.1),
        "sharpness": (1.9, 0.1),
    }
    for name, (positive, negative) in ends.items():
        number = np.full(4, NAMES.index(name))
        found = values(number, np.array([0, 0, 1, 1]), np.array([1, -1, 1, -1]))
        neutral = OPERATIONS[name].neutral
        assert found == pytest.approx([neutral, neutral, positive, negative], rel=1e-6)


# The contrastive view


def test_hue_turns_as_in_the_standard_library() -> None:
    draws = stream(0, "test.hue")
    images = draws.integers(0, 256, (4, 5, 5, 3)).astype(np.float32)
    images[0, 0] = 90  # grey has no hue
    by = np.array([0.0, 0.1, -0.07, 0.5])
    found = turned(torch.from_numpy(images), torch.from_numpy(by.astype(np.float32))[:, None, None])
    for image, turn, ours_ in zip(images, by, found.numpy(), strict=True):
        for pixel, mine in zip(image.reshape(-1, 3), ours_.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(float(one) / 255 for one in pixel))
            theirs = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            assert mine == pytest.approx(np.array(theirs) * 255, abs=0.01)


def test_boxes_have_the_areas_and_ratios_of_the_paper(monkeypatch: Any) -> None:
    """The image is its own coordinates, so a view tells the box that it shows."""
    size, count = 32, 4000
    middle = torch.arange(size) + 0.5
    images = torch.stack(torch.meshgrid(middle, middle, indexing="ij"), -1).expand(
        count, -1, -1, -1
    )
    monkeypatch.setattr(contrastive, "_JITTERED", 0.0)
    shown = simclr(images, stream(0, "test.boxes"), flip=True) / size
    tall = (shown[:, 23, 8, 0] - shown[:, 8, 8, 0]) * size / 15
    wide = (shown[:, 8, 23, 1] - shown[:, 8, 8, 1]) * size / 15
    assert ((wide < 0).float().mean() - 0.5).abs() < 0.03
    area, ratio = tall * wide.abs(), wide.abs() / tall
    assert area.min() >= 0.2 - 1e-3 and area.max() <= 1 + 1e-3
    assert ratio.min() >= 3 / 4 - 1e-2 and ratio.max() <= 4 / 3 + 1e-2
    assert area.mean() == pytest.approx(0.6, abs=0.03)
    assert ratio.log().mean() == pytest.approx(0, abs=0.01)
    centre = shown[:, 15:17, 15:17].mean((1, 2))
    assert (centre - 0.5).abs().mean() > 0.05  # not all about the middle
    still = simclr(images, stream(0, "test.boxes"), flip=False)
    assert (still[:, 8, 23, 1] > still[:, 8, 8, 1]).all()


@pytest.mark.parametrize(("size", "channels"), [*SHAPES, (8, 4), (8, 2)])
def test_contrastive_views_stay_in_range_and_are_sometimes_grey(size: int, channels: int) -> None:
    images = torch.from_numpy(photographs(size, channels, 400))
    shown = simclr(images, stream(0, "test.simclr"), flip=True)
    assert shown.shape == images.shape and shown.dtype == torch.float32
    assert shown.min() >= 0 and shown.max() <= 255
    if channels == 4:
        images[..., 3] = 200
        alpha = simclr(images, stream(0, "test.simclr"), flip=True)[..., 3]
        torch.testing.assert_close(alpha, torch.full_like(alpha, 200))
    if channels == 3:
        grey = (shown.amax(3) - shown.amin(3)).amax((1, 2)) < 0.01
        assert grey[:-1].float().mean() == pytest.approx(0.2, abs=0.06)


# Cutout


@pytest.mark.parametrize(("size", "channels"), SHAPES)
def test_cutout_hides_one_square_of_half_the_side_anywhere(size: int, channels: int) -> None:
    planes = cutout(torch.ones(900, channels, size, size), stream(0, "test.cutout"))
    hidden = planes == 0
    assert (hidden == hidden[:, :1]).all()
    down, across = hidden[:, 0].any(2).sum(1), hidden[:, 0].any(1).sum(1)
    assert torch.equal(hidden[:, 0].sum((1, 2)), down * across)
    assert int(down.max()) == int(across.max()) == size // 2
    assert int(down.min()) == int(across.min()) == size // 4  # its centre is in a corner
    whole = ((down == size // 2) & (across == size // 2)).float().mean()
    assert whole == pytest.approx(((size // 2 + 1) / size) ** 2, abs=0.06)


def test_pi_is_half_a_turn() -> None:
    """A rotation by 180 degrees turns both axes, whatever the range of the policies."""
    images = photographs(8, 3)
    matrix = geometry.inverse(slot("rotate", 180.0, 6), 8, 8)
    assert matrix[0, 0, 0] == pytest.approx(math.cos(math.pi))
    turned_ = geometry.warped(
        torch.from_numpy(images), torch.from_numpy(matrix), torch.zeros(3, dtype=torch.uint8)
    )
    assert np.array_equal(turned_.numpy(), images[:, ::-1, ::-1])
