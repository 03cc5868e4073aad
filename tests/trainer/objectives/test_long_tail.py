"""Objectives of the long tail against their equations, their identities, and rows of a bank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.rng import Draws
from trainer import losses as equations
from trainer.engine.loop import Losses
from trainer.losses import class_weights, sigmoid_focal
from trainer.models import Head, Outputs
from trainer.objectives import (
    BalancedSigmoid,
    CrossEntropy,
    Deferred,
    Focal,
    GaussianClouded,
    LabelAwareSmoothing,
    Ldam,
    LogitAdjusted,
    Objective,
    Reweighted,
    Rows,
    SigmoidFocal,
    Task,
    VectorScaled,
)
from trainer.recipes.catalogue import RECIPES

N, K = 8, 4
COUNTS = (40, 20, 10, 5)


def student() -> Outputs:
    return Outputs(torch.zeros(N, 1), 6 * torch.rand(N, K, dtype=torch.float64) - 3)


def draws() -> Draws:
    return Draws(torch.Generator().manual_seed(3))


def values(
    objective: Objective, counts: tuple[int, ...], out: Outputs, label: Tensor, done: float = 0.0
) -> Tensor:
    return objective.bind(Task(counts))(out, Rows(label, torch.arange(N), (), done, draws()))


def plain(out: Outputs, label: Tensor) -> Tensor:
    return F.cross_entropy(out.logits, label, reduction="none")


def lowered(z: Tensor, y: Tensor) -> Tensor:
    return z - torch.tensor(3.0, dtype=z.dtype).log()


OF_COUNTS: list[tuple[Objective, Callable[..., Tensor]]] = [
    (LogitAdjusted(1.3), lambda z, y: equations.logit_adjust(z, y, COUNTS, 1.3)),
    (VectorScaled(0.3, 1.1), lambda z, y: equations.vs_loss(z, y, COUNTS, gamma=0.3, tau=1.1)),
    (BalancedSigmoid(), lambda z, y: equations.balanced_sigmoid(z, y, COUNTS)),
    (Focal(1.7), lambda z, y: equations.focal(z, y, 1.7)),
    (SigmoidFocal(1.7), lambda z, y: sigmoid_focal(lowered(z, y), y, 1.7)),
    (
        LabelAwareSmoothing(0.4, 0.1),
        lambda z, y: equations.label_aware_smoothing(z, y, COUNTS, first=0.4, last=0.1),
    ),
    (Ldam(0.4, 16.0), lambda z, y: equations.ldam(z, y, COUNTS, largest=0.4, scale=16.0)),
    (
        GaussianClouded("cosine", 0.4, 0.2, 16.0, 1.5),
        lambda z, y: equations.gcl(
            z, y, COUNTS, size=0.4, margin=0.2, scale=16.0, gamma=1.5, draws=draws()
        ),
    ),
    (
        GaussianClouded("angle", 0.4, 0.2, 16.0, 1.5),
        lambda z, y: equations.gcl_angular(
            z, y, COUNTS, size=0.4, margin=0.2, scale=16.0, gamma=1.5, draws=draws()
        ),
    ),
    (
        Reweighted(CrossEntropy(), 0.99, "classes"),
        lambda z, y: equations.cb_ce(z, y, COUNTS, 0.99),
    ),
    (
        Reweighted(SigmoidFocal(2.0), 0.99, "classes"),
        lambda z, y: equations.cb_focal(z, y, COUNTS, beta=0.99, gamma=2.0),
    ),
    (
        Reweighted(CrossEntropy(), 0.99),
        lambda z, y: (
            class_weights(COUNTS, 0.99, "images")[y] * F.cross_entropy(z, y, reduction="none")
        ),
    ),
]


@pytest.mark.parametrize(("objective", "equation"), OF_COUNTS, ids=[repr(o) for o, _ in OF_COUNTS])
def test_an_objective_is_its_equation_with_its_own_numbers(
    objective: Objective, equation: Callable[..., Tensor]
) -> None:
    out, label = student(), torch.arange(N) % K
    torch.testing.assert_close(
        values(objective, COUNTS, out, label), equation(out.logits, label), rtol=1e-6, atol=1e-8
    )


CROSS_ENTROPY_ON_EQUAL_COUNTS = [
    *("ce", "balanced-softmax", "logit-adjust", "vs-loss", "cb-ce", "ce-drw"),
    *("label-aware-smoothing", "gcl", "gcl-angular", "class-balanced", "square-root"),
    *(
        "progressive",
        "effective-number",
        "logit-adjust-posthoc",
        "ncm",
        "temperature",
        "tau-norm",
        "crt",
        "lws",
    ),
]


@pytest.mark.parametrize("name", CROSS_ENTROPY_ON_EQUAL_COUNTS)
@pytest.mark.parametrize("done", [0.0, 0.9])
def test_on_equal_counts_the_first_stage_is_cross_entropy(name: str, done: float) -> None:
    """And so it is for rows of a bank, before and after a switch."""
    objective, out, label = RECIPES[name].stages[0].objective, student(), torch.arange(N) % K
    torch.testing.assert_close(values(objective, (7,) * K, out, label, done), plain(out, label))
    rows = Rows(label, torch.arange(N), (), done, draws())
    of_bank = Losses.of(objective, Task(COUNTS), None).bank(out, rows)
    torch.testing.assert_close(of_bank, plain(out, label))


@pytest.mark.parametrize("name", ["focal", "cb-focal", "ldam", "ldam-drw", "balanced-sigmoid"])
def test_the_others_are_on_equal_counts_what_a_bank_has(name: str) -> None:
    objective, out, label = RECIPES[name].stages[0].objective, student(), torch.arange(N) % K
    rows = Rows(label, torch.arange(N), (), 0.9, draws())
    of_bank = Losses.of(objective, Task(COUNTS), None).bank(out, rows)
    torch.testing.assert_close(of_bank, values(objective, (7,) * K, out, label, 0.9))
    assert not torch.isclose(of_bank, plain(out, label)).all()


def test_deferred_weights_of_cross_entropy_begin_at_their_share_of_the_steps() -> None:
    (stage,) = RECIPES["ce-drw"].stages
    assert stage.objective == Deferred(CrossEntropy(), Reweighted(CrossEntropy(), 0.9999), at=0.8)
    out, label = student(), torch.arange(N) % K
    before, after = (values(stage.objective, COUNTS, out, label, done) for done in (0.79, 0.8))
    torch.testing.assert_close(before, plain(out, label))
    weights = class_weights(COUNTS, 0.9999, "images")[label]
    torch.testing.assert_close(after, weights * plain(out, label))


def test_two_names_of_one_loss_have_the_same_bits() -> None:
    one, other = (RECIPES[name].stages for name in ("logit-adjust", "balanced-softmax"))
    assert one == other


@pytest.mark.parametrize("name", ["gcl", "gcl-angular"])
def test_a_row_near_both_of_its_classes_costs_no_more_than_its_mixed_label(name: str) -> None:
    """A margin in the first stage would ask each class of a mixed row to be ahead of the other."""
    objective = RECIPES[name].stages[0].objective
    near = torch.tensor([[0.9, 0.9, -0.5, -0.5]] * N).double()
    out = Outputs(torch.zeros(N, 1), 30 * near)
    a, b = (values(objective, (9,) * K, out, torch.full((N,), side)) for side in (0, 1))
    mixed = 0.5 * a + 0.5 * b
    torch.testing.assert_close(mixed, torch.full((N,), 2.0).double().log())


@pytest.mark.parametrize("form", ["cosine", "angle"])
def test_clouded_logits_ask_for_a_cosine_head_and_say_what_they_do(form: Any) -> None:
    assert GaussianClouded(form, scale=16.0).needs.head == Head("cosine", 16.0)
    assert GaussianClouded(form).stochastic and not GaussianClouded(form).detaches
    assert GaussianClouded(form, gamma=1.0).detaches


def test_a_mixed_row_has_new_noise_for_each_label() -> None:
    """Two calls in one step go on in one stream."""
    loss = GaussianClouded().bind(Task(COUNTS))
    out, label = student(), torch.arange(N) % K
    rows = Rows(label, torch.arange(N), (), 0.0, draws())
    assert not torch.equal(loss(out, rows), loss(out, rows))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Focal(-1.0), "gamma must be at least 0"),
        (lambda: SigmoidFocal(-0.5), "gamma must be at least 0"),
        (lambda: LabelAwareSmoothing(0.1, 0.3), "0 <= last <= first < 1"),
        (lambda: LabelAwareSmoothing(1.0, 0.0), "0 <= last <= first < 1"),
        (lambda: GaussianClouded("round"), "form must be one of"),  # type: ignore[arg-type]
    ],
)
def test_numbers_that_cannot_be_are_refused(make: Callable[[], Objective], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()
