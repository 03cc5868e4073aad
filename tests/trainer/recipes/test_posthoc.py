"""Tau-normalisation of a finished network."""

from __future__ import annotations

import pytest
import torch

from trainer import models
from trainer.models.classifier import Classifier
from trainer.objectives import Task
from trainer.recipes.posthoc import TauNorm

TASK = Task((3, 2, 1))


def network() -> Classifier:
    model = models.build("resnet8", classes=3, channels=1)
    models.initialise(model, 0)
    torch.nn.init.normal_(model.head.bias)
    return model


@torch.no_grad()
def test_without_validation_images_tau_is_the_given_one() -> None:
    model, before = network(), network().head.weight
    assert TauNorm(0.5)(model, TASK, None) == {"tau": 0.5}
    torch.testing.assert_close(model.head.weight.norm(dim=1), before.norm(dim=1) ** 0.5)
    assert not model.head.bias.any()


@pytest.mark.parametrize(("best", "chosen"), [(0.7, 0.7), (0.0, 0.0), (2.0, 2.0), (0.74, 0.7)])
@torch.no_grad()
def test_with_validation_images_tau_is_the_best_on_them(best: float, chosen: float) -> None:
    model, before = network(), network().head.weight

    def validate() -> float:
        """Best where the norm of the first class is its own to the power of 1 - best."""
        tau = 1 - model.head.weight[0].norm().log() / before[0].norm().log()
        return -abs(float(tau) - best)

    assert TauNorm(1.0)(model, TASK, validate) == {"tau": chosen}
    norms = before.norm(dim=1) ** (1 - chosen)
    torch.testing.assert_close(model.head.weight.norm(dim=1), norms)


@torch.no_grad()
def test_of_equally_good_ones_the_smallest_is_chosen() -> None:
    assert TauNorm(1.0)(network(), TASK, lambda: 50.0) == {"tau": 0.0}
