"""LDAM as an objective: its head, its weights of classes, and rows of a bank."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylegan_mix.datasets.class_weights import inverse_effective_number
from trainer.engine.loop import Losses
from trainer.losses.margin import ldam
from trainer.models import Outputs
from trainer.objectives import Deferred, Ldam, Objective, Rows, Task

N, K = 6, 4
COUNTS = (40, 20, 10, 5)


def values(objective: Objective, task: Task, out: Outputs, label: torch.Tensor) -> torch.Tensor:
    return objective.bind(task)(out, Rows(label, torch.arange(N)))


def student(scale: float = 30.0) -> Outputs:
    """Outputs of a cosine head."""
    cosines = 2 * torch.rand(N, K, dtype=torch.float64) - 1
    return Outputs(torch.zeros(N, 1), scale * cosines)


@pytest.mark.parametrize("beta", [0.0, 0.9999])
def test_on_equal_counts_and_without_margins_it_is_cross_entropy(beta: float) -> None:
    out, label = student(), torch.randint(K, (N,))
    found = values(Ldam(0.0, 30.0, beta), Task((7,) * K), out, label)
    torch.testing.assert_close(found, F.cross_entropy(out.logits, label, reduction="none"))


def test_it_asks_for_a_cosine_head_of_its_scale() -> None:
    head = Ldam(scale=16.0).needs.head
    assert head is not None and (head.form, head.scale) == ("cosine", 16.0)


def test_margins_are_of_the_counts_and_in_units_of_the_cosine() -> None:
    out, label = student(16.0), torch.randint(K, (N,))
    margins = 0.4 * torch.tensor([(5 / n) ** 0.25 for n in COUNTS], dtype=torch.float64)
    found = values(Ldam(0.4, 16.0), Task(COUNTS), out, label)
    held = out.logits - 16 * margins * F.one_hot(label, K)
    torch.testing.assert_close(found, F.cross_entropy(held, label, reduction="none"))


def test_weights_are_inverse_effective_numbers_with_mean_one_over_images() -> None:
    out, label = student(), torch.arange(N) % K
    task = Task(COUNTS)
    ratio = values(Ldam(beta=0.99), task, out, label) / values(Ldam(), task, out, label)
    weights = inverse_effective_number(np.array(COUNTS), 0.99)
    expected = weights / np.average(weights, weights=COUNTS)
    torch.testing.assert_close(ratio, torch.from_numpy(expected[label.numpy()]))


def test_late_re_weighting_begins_at_its_share_of_the_steps() -> None:
    late = Deferred(Ldam(), Ldam(beta=0.99), at=0.8)
    out, label, task = student(), torch.randint(K, (N,)), Task(COUNTS)
    loss = late.bind(task)
    for progress, objective in ((0.0, Ldam()), (0.79, Ldam()), (0.8, Ldam(beta=0.99))):
        rows = Rows(label, torch.arange(N), progress=progress)
        torch.testing.assert_close(loss(out, rows), values(objective, task, out, label))


def test_rows_of_a_bank_have_one_margin_and_one_weight() -> None:
    out, label = student(), torch.arange(N) % K
    losses = Losses.of(Ldam(beta=0.9999), Task(COUNTS), None)
    rows = Rows(label, torch.arange(N))
    torch.testing.assert_close(losses.bank(out, rows), ldam(out.logits, label, (9,) * K))
    assert not torch.isclose(losses.real(out, rows), losses.bank(out, rows)).all()
