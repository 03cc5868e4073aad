"""Random crops of files: their boxes, their pixels, and their order, whatever decodes them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photographs import lists, photographs
from PIL import Image

from stylegan_mix import datasets
from stylegan_mix.datasets.prepare import Request, prepare
from stylegan_mix.datasets.streamed import FileImages, as_files
from stylegan_mix.rng import stream
from trainer.engine import crops
from trainer.engine.batches import Batches, Images, transform_of
from trainer.engine.crops import TRIES, Crops, box, views_of
from trainer.recipes.catalogue import recipe
from trainer.recipes.stage import Stage
from trainer.spec import DataSpec, RunSpec

CPU = torch.device("cpu")


@pytest.fixture
def data(home: Path, tmp_path: Path) -> datasets.Dataset:
    root = photographs(tmp_path / "photos")
    found = lists(root)
    prepare(
        Request(
            "photos",
            root,
            train_list=found["train"],
            test_list=found["test"],
            size=16,
            stream=True,
        )
    )
    return datasets.load("photos", streamed=True)


def files(part: datasets.Part) -> FileImages:
    found = as_files(part.images)
    assert found is not None
    return found


# Boxes


def tries(*first: tuple[float, float, float, float], rest: float = 0.5) -> np.ndarray:
    draws = np.full((TRIES, 4), rest)
    draws[: len(first)] = first
    return draws


def test_a_box_has_the_drawn_share_of_the_area_and_the_drawn_shape() -> None:
    """A quarter of the area of 200 x 100 pixels, four to three, in the right lower corner."""
    area = (0.25 - 0.08) / 0.92
    left, top, right, bottom = box(200, 100, tries((area, 1.0, 1.0, 1.0)))
    wide, tall = math.sqrt(5000 * 4 / 3), math.sqrt(5000 * 3 / 4)
    assert (right, bottom) == pytest.approx((200, 100))
    assert (right - left, bottom - top) == pytest.approx((wide, tall))
    left, top, right, bottom = box(200, 100, tries((area, 1.0, 1.0, 0.0)))
    assert (right, top) == pytest.approx((200, 0))
    left, top, right, bottom = box(200, 100, tries((area, 0.0, 0.0, 0.0)))
    assert (left, top) == (0, 0) and (right, bottom) == pytest.approx((tall, wide))


def test_a_box_that_does_not_fit_is_drawn_again() -> None:
    whole = (1.0, 0.5, 0.0, 0.0)  # the whole area as a square, in 200 x 100
    small = (0.0, 0.5, 0.0, 0.0)
    side = math.sqrt(0.08 * 20_000)
    assert box(200, 100, tries(whole, small)) == pytest.approx((0, 0, side, side))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((900, 100), (383.333, 0, 516.667, 100)),
        ((100, 900), (0, 383.333, 100, 516.667)),
        ((120, 100), (0, 0, 120, 100)),
    ],
)
def test_after_ten_draws_it_is_the_largest_in_the_middle(size: Any, expected: Any) -> None:
    never = np.tile([1.0, 1.0, 0.0, 0.0], (TRIES, 1))
    assert box(*size, never) == pytest.approx(expected, abs=1e-3)


def test_boxes_stay_inside_and_in_range() -> None:
    draws = np.random.default_rng(0)
    areas = []
    for _ in range(3000):
        width, height = (int(side) for side in draws.integers(1, 700, 2))
        left, top, right, bottom = box(width, height, draws.random((TRIES, 4)))
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9
        if 0.9 < width / height < 1.1:
            areas.append((right - left) * (bottom - top) / (width * height))
    assert min(areas) >= 0.08 - 1e-9 and 0.08 < np.mean(areas) < 0.6


# Pixels and order


def drawn(name: str, step: int) -> np.random.Generator:
    return stream(3, name, 0, step)


def test_a_crop_is_the_box_of_its_draws_brought_to_the_side(data: datasets.Dataset) -> None:
    rows = np.array([4, 0, 17])
    found = Crops(files(data.train), drawn, CPU).take(rows, "real", 7)
    draws = drawn("data.crop.real", 7).random((3, TRIES, 4))
    for place, row in enumerate(rows):
        image = Image.open(files(data.train).root / files(data.train).name(row))
        part = image.resize((16, 16), Image.Resampling.BILINEAR, box=box(*image.size, draws[place]))
        assert np.array_equal(found[place].numpy(), np.asarray(part))


def test_crops_differ_by_step_name_and_place_and_repeat(data: datasets.Dataset) -> None:
    made = Crops(files(data.train), drawn, CPU)
    rows = np.array([2, 2])
    first = made.take(rows, "real", 0)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(made.take(rows, "real", 0), first)
    assert not torch.equal(made.take(rows, "real", 1), first)
    assert not torch.equal(made.take(rows, "real-2", 0), first)


def test_expected_rows_are_decoded_once_and_are_the_same(
    data: datasets.Dataset, monkeypatch: Any
) -> None:
    plain = Crops(files(data.train), drawn, CPU).take(np.arange(6), "real", 2)
    seen = []
    read = FileImages.read
    monkeypatch.setattr(FileImages, "read", lambda own, row: seen.append(row) or read(own, row))
    made = Crops(files(data.train), drawn, CPU)
    for _ in range(2):
        made.expect(np.arange(6), "real", 2)
    assert torch.equal(made.take(np.arange(6), "real", 2), plain)
    assert sorted(seen) == list(range(6))


@pytest.mark.parametrize("batch", [1, 4, 18, 100])
def test_views_come_in_order_in_batches_of_any_size(data: datasets.Dataset, batch: int) -> None:
    found = list(views_of(files(data.train), batch))
    assert all(len(one) == batch for one in found[:-1])
    assert np.array_equal(np.concatenate(found), data.train.images[:])
    each = list(Images(data.train.images, CPU).each(batch))
    assert np.array_equal(torch.cat(each).numpy(), data.train.images[:])


# Batches


def batches(data: datasets.Dataset, steps: int = 6, **settings: Any) -> Batches:
    spec = RunSpec(data=DataSpec("photos"), model="resnet10", batch=4, epochs=2, **settings)
    stage: Stage = recipe(spec.recipe).stages[0]
    return Batches(spec, data, stage=stage, number=0, bank=None, steps=steps, device=CPU)


@pytest.mark.parametrize("aug", ["none", "mixup", "cutmix", "mixup-even"])
def test_a_batch_is_a_function_of_its_step(data: datasets.Dataset, aug: str) -> None:
    """In any order, and with nothing decoded ahead, steps have the same bits."""
    in_order, backwards = batches(data, aug=aug), batches(data, aug=aug)
    first = [in_order(step) for step in range(6)]
    for step in reversed(range(6)):
        again = backwards(step)
        assert torch.equal(again.images, first[step].images)
        assert torch.equal(again.label_a, first[step].label_a)


def test_unmixed_rows_are_flipped_normalised_crops(data: datasets.Dataset) -> None:
    made = batches(data)
    batch = made(3)
    draws = lambda name, step: stream(0, name, 0, step)  # noqa: E731
    rows = batch.index.numpy()
    cut = Crops(files(data.train), draws, CPU).take(rows, "real", 3)
    transform = transform_of(RunSpec(data=DataSpec("photos"), model="resnet10", batch=4), data, CPU)
    assert transform.pad == 0
    plain = transform.plain(cut)
    for one, other in zip(batch.images, plain, strict=True):
        assert torch.equal(one, other) or torch.equal(one, other.flip(2))


def test_few_images_are_decoded_ahead(data: datasets.Dataset, monkeypatch: Any) -> None:
    monkeypatch.setattr(crops, "AHEAD", 8)  # two steps of four
    made = batches(data)
    waiting = []
    for step in range(6):
        made(step)
        assert made._crops is not None
        waiting.append(sum(map(len, made._crops._expected.values())))
    assert waiting == [8, 8, 8, 8, 4, 0]


def test_views_of_a_stage_are_crops_of_their_own(data: datasets.Dataset) -> None:
    from dataclasses import replace

    stage = replace(recipe("ce").stages[0], views=("plain", "plain"))
    spec = RunSpec(data=DataSpec("photos"), model="resnet10", batch=4, flip=False)
    made = Batches(spec, data, stage=stage, number=0, bank=None, steps=3, device=CPU)
    batch = made(1)
    assert batch.views is not None and batch.views.shape == (2, *batch.images.shape)
    shown = [batch.images, *batch.views]
    assert not any(torch.equal(shown[a], shown[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_the_statistics_of_norms_are_of_crops_too(data: datasets.Dataset, monkeypatch: Any) -> None:
    keys = []
    take = Crops.take
    monkeypatch.setattr(Crops, "take", lambda own, *key: keys.append(key[1:]) or take(own, *key))
    made = batches(data)
    first = made.refresh(0)
    assert first.shape == (4, 3, 16, 16)
    assert torch.equal(batches(data).refresh(0), first)
    assert not torch.equal(made.refresh(1), first)
    assert keys == [("refresh", 0), ("refresh", 0), ("refresh", 1)]
