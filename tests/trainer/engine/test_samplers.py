"""Samplers: shares of classes, orders that follow them, and a loader of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from stylegan_mix.errors import UsageFailure
from trainer.engine import samplers
from trainer.engine.batches import Batches
from trainer.engine.samplers import SAMPLERS, LoaderSampler, class_shares
from trainer.objectives import CrossEntropy
from trainer.recipes.stage import Draw, Sampler, Stage
from trainer.spec import RunSpec

COUNTS = np.array([40, 20, 10, 5])
# CIFAR-10-LT at imbalance 100.
CIFAR = np.array([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])
LABELS = np.repeat(np.arange(4), COUNTS)


def observed(rows: np.ndarray) -> np.ndarray:
    return np.bincount(LABELS[rows], minlength=4) / len(rows)


def test_the_recipes_know_the_samplers_by_their_names() -> None:
    from typing import get_args

    assert set(get_args(Sampler)) == {"instance", *SAMPLERS}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_shares_add_to_one_and_rarer_classes_have_more_than_their_own(
    name: str, progress: float
) -> None:
    found, natural = class_shares(name, CIFAR, progress), CIFAR / CIFAR.sum()
    assert found.sum() == pytest.approx(1)
    assert (found > 0).all() and (np.diff(found) <= 0).all()
    if not (name == "progressive" and progress == 0):
        assert found[0] < natural[0] and found[-1] > natural[-1]
    np.testing.assert_allclose(class_shares(name, [7, 7, 7], progress), 1 / 3)


def test_square_roots_by_hand() -> None:
    roots = np.array([40**0.5, 20**0.5, 10**0.5, 5**0.5])
    np.testing.assert_allclose(class_shares("square-root", COUNTS), roots / roots.sum())


def test_progressive_shares_go_from_natural_to_even() -> None:
    natural = COUNTS / 75
    for t in (0.0, 0.25, 1.0):
        np.testing.assert_allclose(
            class_shares("progressive", COUNTS, t), (1 - t) * natural + t * 0.25
        )


def test_effective_number_shares_of_cifar10_at_100() -> None:
    """Nearly even: .119 for the largest class, .094 for the smallest."""
    found = class_shares("effective-number", CIFAR)
    assert [round(float(found[c]), 3) for c in (0, -1)] == [0.119, 0.094]


def test_effective_number_shares_weigh_each_image_by_its_class() -> None:
    behind = np.log(40 / COUNTS) / np.log(8)
    betas = 0.99 + 0.005 * behind
    mass = [n * (1 - b) / (1 - b**n) for n, b in zip(COUNTS, betas, strict=True)]
    found = samplers.effective_number_shares(COUNTS, beta=0.99, spread=0.005)
    np.testing.assert_allclose(found, mass / np.sum(mass))
    plain = COUNTS * 0.01 / (1 - 0.99**COUNTS)
    np.testing.assert_allclose(
        samplers.effective_number_shares(COUNTS, beta=0.99, spread=0.0), plain / plain.sum()
    )


def test_an_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(UsageFailure, match="did you mean 'square-root'"):
        class_shares("square_root", COUNTS)


def test_draws_follow_their_shares_and_take_all_rows_of_a_class_alike() -> None:
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    order = samplers.weighted(LABELS, lambda number: shares, 0, "data.class", 0)
    rows = order.rows(0, 40_000)
    np.testing.assert_allclose(observed(rows), shares, atol=0.01)
    often = np.bincount(rows, minlength=75)
    np.testing.assert_allclose(often[LABELS == 3] / often[LABELS == 3].sum(), 0.2, atol=0.01)


def test_rows_are_a_function_of_seed_stage_and_position() -> None:
    def order(seed: int = 0, stage: int = 0) -> Any:
        return samplers.weighted(LABELS, lambda number: COUNTS / 75, seed, "data.class", stage)

    whole = order().rows(0, 300)
    assert np.array_equal(order().rows(140, 60), whole[140:200])
    assert not np.array_equal(order(seed=1).rows(0, 300), whole)
    assert not np.array_equal(order(stage=1).rows(0, 300), whole)


def test_each_pass_has_shares_of_its_own() -> None:
    def shares(number: int) -> np.ndarray:
        return np.eye(4)[number]

    order = samplers.weighted(LABELS, shares, 0, "data.class", 0)
    for number in range(4):
        assert (LABELS[order.rows(75 * number, 75)] == number).all()


@pytest.fixture
def batches(data: Any) -> Callable[..., Batches]:
    """The maker of the batches of a sampler, on classes of 12, 6 and 3 images."""

    def make(sampler: Sampler, steps: int, aug: str = "none") -> Batches:
        return Batches(
            RunSpec(model="resnet8", batch=8, aug=aug),
            data,
            stage=Stage("train", CrossEntropy(), draws=(Draw(sampler),)),
            number=0,
            bank=None,
            steps=steps,
            device=torch.device("cpu"),
        )

    return make


def drawn(made: Batches, steps: range) -> np.ndarray:
    labels = torch.cat([made(step).label_a for step in steps])
    return (labels.bincount(minlength=3) / len(labels)).numpy()


@pytest.mark.parametrize("name", ["class", "square-root", "effective-number"])
@pytest.mark.parametrize("aug", ["none", "mixup"])
def test_batches_follow_the_shares_of_their_sampler(name: Any, aug: str, batches: Any) -> None:
    """In an arm that mixes, too."""
    expected = class_shares(name, (12, 6, 3))
    np.testing.assert_allclose(drawn(batches(name, 500, aug), range(500)), expected, atol=0.03)


def test_progressive_batches_begin_natural_and_end_even(batches: Any) -> None:
    made = batches("progressive", 1000)
    np.testing.assert_allclose(drawn(made, range(100)), [0.56, 0.29, 0.15], atol=0.05)
    np.testing.assert_allclose(drawn(made, range(450, 550)), [0.45, 0.31, 0.24], atol=0.05)
    np.testing.assert_allclose(drawn(made, range(900, 1000)), [1 / 3] * 3, atol=0.06)


def test_progress_is_that_of_the_passes_of_a_stage(data: Any, monkeypatch: Any) -> None:
    """Pass e of T has t = e / T (Kang et al. 2020): 42 steps of 8 rows are 16 passes of 21."""
    seen: list[float] = []
    monkeypatch.setattr(
        samplers,
        "class_shares",
        lambda name, counts, progress: seen.append(progress) or np.ones(3) / 3,
    )
    stage = Stage("train", CrossEntropy(), draws=(Draw("progressive"),))
    made = Batches(
        RunSpec(model="resnet8", batch=8),
        data,
        stage=stage,
        number=0,
        bank=None,
        steps=42,
        device=torch.device("cpu"),
    )
    for step in range(42):
        made(step)
    assert sorted(set(seen)) == pytest.approx([number / 16 for number in range(16)])
    assert replace(stage, rows="real").draws == stage.draws


@pytest.mark.parametrize("name", ["instance", *SAMPLERS])
def test_a_loader_of_pytorch_takes_them(name: str) -> None:
    sampler = LoaderSampler(LABELS, name, epochs=4)
    loader = DataLoader(list(range(75)), batch_size=25, sampler=sampler)  # type: ignore[arg-type]
    assert len(sampler) == 75 and len(loader) == 3
    first, second = (torch.cat(list(loader)).numpy() for _ in range(2))
    assert len(first) == 75 and not np.array_equal(first, second)
    resumed = LoaderSampler(LABELS, name, epochs=4)
    resumed.epoch = 1
    assert np.array_equal(list(resumed), second)
    many = LoaderSampler(np.tile(LABELS, 200), name, epochs=4)
    shares = np.bincount(np.tile(LABELS, 200)[list(many)], minlength=4) / 15_000
    natural = name in ("instance", "progressive")
    expected = COUNTS / 75 if natural else class_shares(name, 200 * COUNTS)
    np.testing.assert_allclose(shares, expected, atol=0.02)


def test_a_loader_goes_from_natural_to_even_over_its_epochs() -> None:
    labels = np.tile(LABELS, 200)
    sampler = LoaderSampler(labels, "progressive", epochs=2)
    counts = [np.bincount(labels[list(sampler)], minlength=4) / 15_000 for _ in range(4)]
    for found, t in zip(counts, (0, 0.5, 1, 1), strict=True):
        np.testing.assert_allclose(found, class_shares("progressive", COUNTS, t), atol=0.02)


def test_labels_of_a_loader_may_skip_classes() -> None:
    labels = np.array([3] * 300 + [9] * 100)
    found = labels[list(LoaderSampler(labels, "class"))]
    assert set(found) == {3, 9} and 0.4 < (found == 9).mean() < 0.6
