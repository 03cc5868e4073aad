"""Objectives that contrast views: their parts, and rows without views."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from trainer import models
from trainer.engine.batch import Batch, Source
from trainer.engine.features import Plain
from trainer.engine.loop import Losses, row_losses
from trainer.losses.contrast import balanced_contrast
from trainer.models import Outputs
from trainer.models.classifier import Classifier
from trainer.objectives import BalancedContrast, Objective, Rows, Task

N, K = 8, 3
TASK = Task((9, 6, 3), features=64)


def network(objective: Objective) -> Classifier:
    made = models.build("resnet8", classes=K, channels=1, others=objective.needs.others)
    models.initialise(made, 0)
    return made


def batch(real: int = 5, *, mixed: bool = False) -> Batch:
    """Training images with views, and after them mixed rows of a bank without."""
    label, index = torch.arange(N) % K, torch.arange(N)
    sources = (
        Source("real", slice(0, real), mixed=mixed),
        Source("bank", slice(real, N), bank=True, mixed=True),
    )
    images, views = torch.randn(N, 1, 8, 8), torch.randn(2, real, 1, 8, 8)
    lam = torch.rand(N)
    return Batch(images, label, label.roll(1), lam, index, index, sources, views)


def seen(objective: Objective, rows: Batch) -> Outputs:
    out, _ = Plain()(network(objective), rows, None, Any)
    return out


def test_a_projection_of_the_views_meets_projected_weights_of_the_head() -> None:
    objective = BalancedContrast(temperature=0.2)
    state = objective.state(TASK)
    given = batch()
    out = seen(objective, given).of(slice(0, 5))
    label = given.label_a[:5]
    found = objective.bind(TASK, state)(out, Rows(label, given.index[:5], shown=label))
    views = torch.stack([view.others["contrast"] for view in out.views])
    assert views.shape == (2, 5, 128)
    expected = balanced_contrast(views, label, state(out.weight), 0.2)
    torch.testing.assert_close(found, expected)


def test_the_head_and_both_projections_learn() -> None:
    objective = BalancedContrast()
    model, state, given = network(objective), objective.state(TASK), batch()
    out, _ = Plain()(model, given, None, Any)
    losses = Losses.of(objective, TASK, state)
    row_losses(losses, out, given).mean().backward()
    learned = [model.head.weight, model.stem.weight, *model.others.parameters()]
    for parameter in (*learned, *state.parameters()):
        assert parameter.grad is not None and parameter.grad.any()


@pytest.mark.parametrize("objective", [BalancedContrast()])
def test_views_keep_their_classes_in_mixed_rows_and_rows_of_a_bank_have_none(
    objective: Objective,
) -> None:
    """Whatever the shares of the labels."""
    given = batch(mixed=True)
    out, losses = seen(objective, given), Losses.of(objective, TASK, objective.state(TASK))
    found = row_losses(losses, out, given)
    assert not found[5:].any() and found[:5].all()
    label, index = given.label_a[:5], given.index[:5]
    alone = losses.real(out.of(slice(0, 5)), Rows(label, index, shown=label))
    torch.testing.assert_close(found[:5], alone)
    plain = replace(given.sources[0], mixed=False)
    unmixed = row_losses(losses, out, replace(given, sources=(plain, given.sources[1])))
    torch.testing.assert_close(unmixed, found)


def test_a_temperature_is_positive() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        BalancedContrast(temperature=0)
