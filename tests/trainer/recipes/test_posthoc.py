"""Corrections of a finished network: class norms, logits, nearest means, temperature."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from trainer import models
from trainer.models.classifier import Classifier
from trainer.models.normalised import best_temperature
from trainer.objectives import Task
from trainer.recipes.posthoc import (
    Evidence,
    LogitAdjust,
    NearestMean,
    Seen,
    TauNorm,
    Temperature,
)

TASK = Task((30, 12, 3))
K = 3


def network() -> Classifier:
    model = models.build("resnet8", classes=K, channels=1)
    models.initialise(model, 0)
    torch.nn.init.normal_(model.head.bias)
    return model


def without_validation() -> Evidence:
    def never() -> Seen:
        raise AssertionError("training images were asked")

    return Evidence(never)


def judged(right: Callable[[], float]) -> Evidence:
    """Validation images of which `right` of 1000 are right."""

    def ask() -> Seen:
        said = (torch.arange(1000) >= right()).long()  # class 1 where wrong
        return Seen(torch.zeros(1000, 2), F.one_hot(said, K).float(), torch.zeros(1000).long())

    return Evidence(without_validation().training, ask)


@torch.no_grad()
def test_without_validation_images_tau_is_the_given_one() -> None:
    model, before = network(), network().head.weight
    assert TauNorm(0.5)(model, TASK, without_validation()) == {"tau": 0.5}
    torch.testing.assert_close(model.head.weight.norm(dim=1), before.norm(dim=1) ** 0.5)
    assert not model.head.bias.any()


@pytest.mark.parametrize(("best", "chosen"), [(0.7, 0.7), (0.0, 0.0), (2.0, 2.0), (0.74, 0.7)])
@torch.no_grad()
def test_with_validation_images_tau_is_the_best_on_them(best: float, chosen: float) -> None:
    model, before = network(), network().head.weight

    def right() -> float:
        """Most where the norm of the first class is its own to the power of 1 - best."""
        tau = 1 - model.head.weight[0].norm().log() / before[0].norm().log()
        return 1000 * (1 - abs(float(tau) - best) / 4)

    assert TauNorm(1.0)(model, TASK, judged(right)) == {"tau": chosen}
    norms = before.norm(dim=1) ** (1 - chosen)
    torch.testing.assert_close(model.head.weight.norm(dim=1), norms)


@pytest.mark.parametrize("posthoc", [TauNorm(1.0), LogitAdjust(1.0)])
@torch.no_grad()
def test_of_equally_good_ones_the_smallest_is_chosen(posthoc: TauNorm | LogitAdjust) -> None:
    assert posthoc(network(), TASK, judged(lambda: 500)) == {"tau": 0.0}


@torch.no_grad()
def test_post_hoc_adjustment_takes_log_shares_from_the_logits() -> None:
    model, features = network(), torch.randn(7, 64)
    before = copy.deepcopy(model)
    assert LogitAdjust(1.5)(model, TASK, without_validation()) == {"tau": 1.5}
    shares = torch.tensor([30 / 45, 12 / 45, 3 / 45])
    expected = before.answer(features).logits - 1.5 * shares.log()
    torch.testing.assert_close(model.answer(features).logits, expected)


@torch.no_grad()
def test_post_hoc_adjustment_is_tuned_on_validation_images() -> None:
    model = network()
    before = copy.deepcopy(model)

    def right() -> float:
        """Most where the bias of the rarest class rose by 0.6 log 15."""
        risen = float(model.head.bias[2] - before.head.bias[2])
        return 1000 - 100 * abs(risen / 2.70805 - 0.6)

    assert LogitAdjust(1.0)(model, TASK, judged(right)) == {"tau": 0.6}
    risen = model.head.bias[2] - before.head.bias[2]
    torch.testing.assert_close(risen, torch.tensor(0.6 * 2.70805), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_on_equal_counts_post_hoc_adjustment_changes_no_answer() -> None:
    model, features = network(), torch.randn(7, 64)
    before = copy.deepcopy(model)
    LogitAdjust(1.0)(model, Task((4, 4, 4)), without_validation())
    torch.testing.assert_close(
        model.answer(features).logits.softmax(1), before.answer(features).logits.softmax(1)
    )


@torch.no_grad()
def test_the_nearest_mean_by_cosine_is_the_largest_logit() -> None:
    model, features, labels = network(), torch.randn(30, 64) + 0.5, torch.arange(30) % K
    evidence = Evidence(lambda: Seen(features, torch.zeros(30, K), labels))
    assert NearestMean()(model, TASK, evidence) == {}
    unit = features / features.norm(dim=1, keepdim=True)
    means = torch.stack([unit[labels == one].mean(0) for one in range(K)])
    asked = torch.randn(50, 64)
    cosines = F.cosine_similarity(asked[:, None], means[None], dim=2)
    logits = model.answer(asked).logits
    torch.testing.assert_close(logits, asked.norm(dim=1, keepdim=True) * cosines)
    assert not model.head.bias.any()


@torch.no_grad()
def test_a_temperature_makes_validation_images_most_likely_and_changes_no_answer() -> None:
    model, features = network(), torch.randn(400, 64)
    before = copy.deepcopy(model)
    drawn = torch.distributions.Categorical(logits=before.answer(features).logits / 2.5).sample()
    evidence = Evidence(
        without_validation().training,
        lambda: Seen(features, model.answer(features).logits, drawn),
    )
    (chosen,) = Temperature()(model, TASK, evidence).values()
    own, was = model.answer(features).logits, before.answer(features).logits
    torch.testing.assert_close(own, was / chosen)
    at = F.cross_entropy(own, drawn)
    for other in (0.9, 1.1):
        assert F.cross_entropy(own * other, drawn) > at
    assert chosen == pytest.approx(2.5, rel=0.4)


def test_temperatures_stay_in_their_range() -> None:
    certain = 5 * F.one_hot(torch.arange(12) % K, K).double()
    assert best_temperature(certain, torch.arange(12) % K) == pytest.approx(0.01)
    assert best_temperature(certain, (torch.arange(12) + 1) % K) == pytest.approx(100)
