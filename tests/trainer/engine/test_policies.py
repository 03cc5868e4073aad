"""Policies of augmentation: their names, their draws, and the batches that they make."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix.rng import stream
from trainer.engine.arms import ARMS
from trainer.engine.augmentation.apply import augmented
from trainer.engine.augmentation.operations import NAMES, Slot, values
from trainer.engine.augmentation.policies import (
    FORMS,
    PLAIN,
    VIEWS,
    AutoAugment,
    RandAugment,
    one_name,
    policy,
)
from trainer.engine.batches import Batches, Images
from trainer.engine.transform import Transform, transform_of
from trainer.objectives import CrossEntropy
from trainer.recipes.stage import Stage
from trainer.spec import BankRef, RunSpec

CPU = torch.device("cpu")
POLICIES = ("plain", "cutout", "autoaugment", "autoaugment+cutout", "randaugment", "simclr")
SHAPES = [(size, channels) for size in (8, 32) for channels in (1, 3)]


# Names


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_a_policy_with_one_name(form: str) -> None:
    name = form.replace("N", "3").replace("M", "5")
    found = policy(name)
    assert found is not None and policy(found.name) == found
    assert one_name(name) == found.name
    assert ("cutout" in name) == found.cutout


def test_names_of_one_policy_are_one() -> None:
    assert one_name("randaugment") == "randaugment-2-9" == one_name("randaugment-02-09")
    assert policy("randaugment-3-5+cutout") == replace(PLAIN, choice=RandAugment(3, 5), cutout=True)
    assert {view: one.name for view, one in VIEWS.items()} == {
        "plain": "plain",
        "strong": "autoaugment+cutout",
        "simclr": "simclr",
    }


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "+",
            "strong",
            "Plain",
            "plain+cutout",
            "cutout+autoaugment",
            "autoaugment+",
            "+cutout",
        ),
        *("autoaugment+randaugment", "autoaugment+cutout+cutout", "simclr+cutout", "autoaugment-2"),
        *("randaugment-2", "randaugment-2-9-1", "randaugment-0-5", "randaugment-9-5"),
        *("randaugment-2-11", "randaugment--2-9", "randaugment-2-", "randaugment-²-9", "randaug"),
        *("randaugment-" + "9" * 5000 + "-1", "randaugment-N-M", " autoaugment", "mixup"),
    ],
)
def test_other_names_are_no_policy(name: str) -> None:
    assert policy(name) is None and one_name(name) == name


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 32), (3, 8), (3, 32), (4, 32), (2, 8)])
def test_changes_that_have_no_effect_are_told(channels: int, size: int, data_of: Any) -> None:
    draws = stream(0, "test.idle")
    images = torch.from_numpy(draws.integers(0, 256, (40, size, size, channels), "u1"))
    still = set()
    for name in set(NAMES) - {"identity"}:
        number = np.full(40, NAMES.index(name))
        slot = Slot(number, values(number, np.full(40, 0.9), np.ones(40)))
        if torch.equal(augmented(images, [slot], torch.zeros(channels, dtype=torch.uint8)), images):
            still.add(name)
    for name in ("autoaugment", "randaugment+cutout"):
        own = policy(name)
        assert own is not None and set(own.idle(channels, size**2)) == still
    assert PLAIN.idle(channels, size**2) == ()
    jittered = VIEWS["simclr"].idle(channels, size**2)
    assert bool(jittered) == (channels not in (3, 4))


# Draws

# Cubuk et al. 2019, Table 7, in its own words.
TABLE = [
    [("Invert", 0.1, 7), ("Contrast", 0.2, 6)],
    [("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)],
    [("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)],
    [("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)],
    [("AutoContrast", 0.5, 8), ("Equalize", 0.9, 2)],
    [("ShearY", 0.2, 7), ("Posterize", 0.3, 7)],
    [("Color", 0.4, 3), ("Brightness", 0.6, 7)],
    [("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)],
    [("Equalize", 0.6, 5), ("Equalize", 0.5, 1)],
    [("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)],
    [("Color", 0.7, 7), ("TranslateX", 0.5, 8)],
    [("Equalize", 0.3, 7), ("AutoContrast", 0.4, 8)],
    [("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)],
    [("Brightness", 0.9, 6), ("Color", 0.2, 8)],
    [("Solarize", 0.5, 2), ("Invert", 0.0, 3)],
    [("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)],
    [("Equalize", 0.2, 8), ("Equalize", 0.6, 4)],
    [("Color", 0.9, 9), ("Equalize", 0.6, 6)],
    [("AutoContrast", 0.8, 4), ("Solarize", 0.2, 8)],
    [("Brightness", 0.1, 3), ("Color", 0.7, 0)],
    [("Solarize", 0.4, 5), ("AutoContrast", 0.9, 3)],
    [("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)],
    [("AutoContrast", 0.9, 2), ("Solarize", 0.8, 3)],
    [("Equalize", 0.8, 8), ("Invert", 0.1, 3)],
    [("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 1)],
]
OURS = {
    "Invert": "invert",
    "Contrast": "contrast",
    "Rotate": "rotate",
    "TranslateX": "translate-x",
    "TranslateY": "translate-y",
    "Sharpness": "sharpness",
    "ShearY": "shear-y",
    "AutoContrast": "autocontrast",
    "Equalize": "equalise",
    "Posterize": "posterise",
    "Color": "colour",
    "Brightness": "brightness",
    "Solarize": "solarise",
}
# The value at magnitude m of 9, and at the other sign.
VALUES = {
    "contrast": lambda m: {1 + 0.1 * m, 1 - 0.1 * m},
    "rotate": lambda m: {30 * m / 9, -30 * m / 9},
    "translate-x": lambda m: {150 / 331 * m / 9, -150 / 331 * m / 9},
    "shear-y": lambda m: {0.3 * m / 9, -0.3 * m / 9},
    "posterise": lambda m: {8 - 4 * m / 9},
    "solarise": lambda m: {256 - 256 * m / 9},
}
VALUES |= {"sharpness": VALUES["contrast"], "colour": VALUES["contrast"]}
VALUES |= {"brightness": VALUES["contrast"], "translate-y": VALUES["translate-x"]}


class Told(np.random.Generator):
    """A generator whose first integers are given: the pairs of AutoAugment."""

    def __init__(self, pair: int) -> None:
        super().__init__(np.random.Philox(key=7))
        self._pair: int | None = pair

    def integers(self, *args: Any, **named: Any) -> Any:
        if self._pair is not None:
            drawn, self._pair = np.full(named["size"], self._pair), None
            assert args == (25,)
            return drawn
        return super().integers(*args, **named)


@pytest.mark.parametrize("pair", range(25))
def test_autoaugment_has_the_pairs_of_the_paper(pair: int) -> None:
    slots = AutoAugment().draw(2000, Told(pair))
    happened = []
    for found, (name, probability, magnitude) in zip(slots, TABLE[pair], strict=True):
        ours = NAMES.index(OURS[name])
        happens = found.operation == ours
        happened.append(happens)
        assert (found.operation[~happens] == NAMES.index("identity")).all()
        assert happens.mean() == pytest.approx(probability, abs=0.04)
        if happens.any():
            expected = VALUES.get(OURS[name], lambda m: {0.0})(magnitude)
            seen = np.unique(found.value[happens])
            assert seen == pytest.approx(sorted(expected), rel=1e-6), name
    both = (happened[0] & happened[1]).mean()
    assert both == pytest.approx(happened[0].mean() * happened[1].mean(), abs=0.04)


def test_autoaugment_takes_all_pairs_alike() -> None:
    slots = AutoAugment().draw(50_000, stream(0, "test.auto"))
    share = {name: np.zeros(2) for name in NAMES}
    for line in TABLE:
        for place, (name, probability, _) in enumerate(line):
            share[OURS[name]][place] += probability / 25
    for name in set(NAMES) - {"identity"}:
        seen = [(one.operation == NAMES.index(name)).mean() for one in slots]
        assert seen == pytest.approx(share[name], abs=0.006), name


def test_randaugment_draws_all_operations_but_inversion_alike() -> None:
    slots = RandAugment(3, 5).draw(20_000, stream(0, "test.rand"))
    assert len(slots) == 3
    for one in slots:
        share = np.bincount(one.operation, minlength=len(NAMES)) / 20_000
        assert share[NAMES.index("invert")] == 0
        assert share[share > 0] == pytest.approx(np.full(14, 1 / 14), abs=0.01)
        turned = one.value[one.operation == NAMES.index("rotate")]
        assert set(turned.tolist()) == {15.0, -15.0}
        assert (turned > 0).mean() == pytest.approx(0.5, abs=0.05)
    assert (slots[0].operation != slots[1].operation).mean() > 0.9
    still = RandAugment(2, 0).draw(500, stream(0, "test.rand"))
    moved = still[0].operation == NAMES.index("translate-x")
    assert moved.any() and (still[0].value[moved] == 0).all()


# Batches


class FakeBank:
    """Rows of a bank with the images of training rows."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        self.pair = np.zeros((len(images), 2), np.int32)
        self.lam = np.ones(len(images), np.float32)

    def __len__(self) -> int:
        return len(self.lam)


REFERENCE = BankRef("k", "r", "c", "w", "/nowhere")
STAGE = Stage("train", CrossEntropy())


def batches(data: Any, augment: str, aug: str = "none", stage: Stage = STAGE) -> Batches:
    bank: Any = FakeBank(data.train.images) if ARMS[aug].bank else None
    reference = REFERENCE if bank else None
    spec = RunSpec(aug=aug, augment=augment, batch=8, seed=1, bank=reference)
    return Batches(spec, data, stage=stage, number=0, bank=bank, steps=20, device=CPU)


@pytest.mark.parametrize(("size", "channels"), SHAPES)
@pytest.mark.parametrize("augment", POLICIES)
def test_a_step_decides_its_images_in_every_shape(
    augment: str, size: int, channels: int, data_of: Any
) -> None:
    """Whatever was asked before, and whatever torch drew: draws are the same on every device."""
    data = data_of(size=size, channels=channels)
    drawn = torch.get_rng_state()
    made, fresh = batches(data, augment), batches(data, augment)
    for step in range(5):
        made(step)
    images = made(5).images
    assert images.shape == (8, channels, size, size) and images.isfinite().all()
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, fresh(5).images)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not torch.equal(images, made(6).images)
    assert torch.equal(images, batches(data, "plain")(5).images) == (augment == "plain")
    lowest, highest = (0 - 0.5) / 0.25, (1 - 0.5) / 0.25
    assert images.min() >= lowest and images.max() <= highest


@pytest.mark.parametrize("augment", POLICIES)
def test_rows_of_a_bank_and_of_the_training_set_pass_through_one_policy(
    augment: str, data_of: Any
) -> None:
    """The rows together are what the transform makes of their images, one after another."""
    data = data_of(size=32, channels=3)
    batch = batches(data, augment, "bank")(3)
    assert [source.name for source in batch.sources] == ["real", "bank"]
    taken = Images(data.train.images, CPU).take(batch.index.numpy())
    transform = transform_of(RunSpec(), data, CPU)
    own = policy(augment)
    assert own is not None
    expected = transform.view(taken, own, "data.augment", lambda name: stream(1, name, 0, 3))
    assert torch.equal(batch.images, expected)


@pytest.mark.parametrize("aug", ARMS)
def test_all_rows_of_every_arm_are_seen_by_one_policy(
    aug: str, data_of: Any, monkeypatch: Any
) -> None:
    seen: list[tuple[str, int]] = []
    view = Transform.view

    def watched(self: Transform, images: Any, own: Any, *rest: Any) -> torch.Tensor:
        seen.append((own.name, len(images)))
        return view(self, images, own, *rest)

    monkeypatch.setattr(Transform, "view", watched)
    batch = batches(data_of(channels=3), "autoaugment+cutout", aug)(3)
    assert {name for name, _ in seen} == {"autoaugment+cutout"}
    assert sum(count for _, count in seen) >= len(batch.images)


def test_crops_are_the_same_with_and_without_a_square(data_of: Any) -> None:
    data = data_of(size=32, channels=3)
    plain, hidden = batches(data, "plain")(2).images, batches(data, "cutout")(2).images
    differs = (plain != hidden).any(1)
    assert (hidden[:, :, 0, 0] == plain[:, :, 0, 0]).any() and differs.any()
    assert (hidden.movedim(1, -1)[differs] == 0).all()
    assert differs.sum((1, 2)).max() <= 256


def test_images_are_augmented_whether_they_are_mixed_or_not(data_of: Any) -> None:
    data = data_of(size=32, channels=3)
    mixed, alone = batches(data, "cutout", "mixup")(2), batches(data, "cutout")(2)
    lam = mixed.lam[:, None, None, None]
    torch.testing.assert_close(
        mixed.images, lam * alone.images + (1 - lam) * alone.images[_partner(mixed, alone)]
    )


def _partner(mixed: Any, alone: Any) -> torch.Tensor:
    """The places in a batch of the rows that are mixed in."""
    return (mixed.index_b[:, None] == alone.index).int().argmax(1)


def test_further_views_and_refreshed_norms_do_not_follow_the_policy_of_a_run(data_of: Any) -> None:
    data = data_of(size=32, channels=3)
    stage = replace(STAGE, views=("plain", "strong"))
    one, other = (batches(data, augment, stage=stage) for augment in ("plain", "randaugment"))
    views, theirs = one(4).views, other(4).views
    assert views is not None and theirs is not None and torch.equal(views, theirs)
    assert torch.equal(one.refresh(2), other.refresh(2))


def test_what_lies_beyond_a_moved_image_is_the_mean() -> None:
    transform = Transform((0.3, 0.6), (0.2, 0.2), pad=0, flip=False, device=CPU)

    class Shifts:
        name = "shifts"

        def draw(self, count: int, draws: np.random.Generator) -> tuple[Slot, ...]:
            number = np.full(count, NAMES.index("translate-x"))
            return (Slot(number, np.full(count, 0.5, np.float32)),)

    images = torch.full((3, 8, 8, 2), 255, dtype=torch.uint8)
    own = replace(PLAIN, choice=Shifts())
    planes = transform.view(images, own, "data.augment", lambda name: stream(0, name))
    assert planes[..., :4].min() > 1
    assert planes[..., 4:].abs().max() < 0.5 / 255 / 0.2 + 1e-6  # rounded to a grey value


@pytest.mark.parametrize(("size", "channels"), [(1, 1), (2, 3), (5, 4)])
@pytest.mark.parametrize("augment", POLICIES)
def test_the_smallest_images_pass(augment: str, size: int, channels: int, data_of: Any) -> None:
    images = batches(data_of(size=size, channels=channels), augment)(0).images
    assert images.shape == (8, channels, size, size) and images.isfinite().all()
