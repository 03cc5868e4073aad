"""Objectives made of objectives: weights, needs, states, and the moment of a deferred one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.models import Head, Outputs
from trainer.objectives import (
    CrossEntropy,
    Deferred,
    Distill,
    LogitAdjusted,
    Loss,
    Needs,
    Objective,
    OneHotDistill,
    Rows,
    Sum,
    Task,
)

TASK = Task((40, 20, 10, 5), features=5)


@dataclass(frozen=True)
class Counter(Objective):
    """Loss `step` for every row; its state counts the steps by `by`."""

    by: float = 1.0
    reads_state = True

    def state(self, task: Task) -> nn.Module:
        made = nn.Module()
        made.register_buffer("seen", torch.zeros(()))
        return made

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        assert state is not None

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return 0 * student.logits.sum(1) + state.seen

        return loss

    def after_step(self, state: Any, out: Outputs, batch: Any) -> None:
        state.seen += self.by


def outputs() -> Outputs:
    return Outputs(torch.randn(6, 5), torch.randn(6, 4))


def rows(progress: float = 0.0) -> Rows:
    return Rows(torch.arange(6) % 4, torch.arange(6), progress=progress)


def test_a_sum_weighs_its_terms() -> None:
    out = outputs()
    both = Sum(((0.25, CrossEntropy()), (0.5, LogitAdjusted()))).bind(TASK)
    one, other = (o.bind(TASK)(out, rows()) for o in (CrossEntropy(), LogitAdjusted()))
    torch.testing.assert_close(both(out, rows()), 0.25 * one + 0.5 * other)


def test_a_sum_needs_what_all_of_its_terms_need() -> None:
    assert Sum(((1.0, CrossEntropy()), (1.0, CrossEntropy()))).needs == Needs()
    both = Sum(((1.0, Distill()), (1.0, Sum(((1.0, OneHotDistill()),)))))
    assert both.needs.answers == {"logits", "label"}


def test_needs_join_and_refuse_two_heads_of_one_name() -> None:
    cosine = Needs(head=Head("cosine", 30.0), views=1)
    soft = Needs(frozenset({"features"}), others={"soft": Head()}, ensemble=True)
    assert cosine | soft == Needs(
        frozenset({"features"}), Head("cosine", 30.0), {"soft": Head()}, 1, True
    )
    for other in (Needs(head=Head("cosine", 16.0)), Needs(others={"soft": Head("cosine")})):
        with pytest.raises(ValueError, match="one network cannot have the heads"):
            _ = cosine | soft | other


def test_a_deferred_objective_gives_way_at_its_share_of_the_stage() -> None:
    out = outputs()
    loss = Deferred(CrossEntropy(), LogitAdjusted(), at=0.8).bind(TASK)
    first, then = (o.bind(TASK)(out, rows()) for o in (CrossEntropy(), LogitAdjusted()))
    for step in range(200):
        expected = first if step < 160 else then
        assert torch.equal(loss(out, rows(step / 200)), expected), step
    with pytest.raises(ValueError, match=r"at must lie in \(0, 1\)"):
        Deferred(CrossEntropy(), LogitAdjusted(), at=1.0)


def test_each_part_has_a_state_of_its_own_wherever_it_stands() -> None:
    whole = Sum(((1.0, CrossEntropy()), (1.0, Deferred(Counter(1.0), Counter(10.0), at=0.5))))
    assert whole.reads_state and not whole.stochastic
    state = whole.state(TASK)
    loss, out = whole.bind(TASK, state), outputs()
    plain = CrossEntropy().bind(TASK)(out, rows())
    for _ in range(3):
        whole.after_step(state, out, None)
    torch.testing.assert_close(loss(out, rows(0.0)), plain + 3)
    torch.testing.assert_close(loss(out, rows(0.5)), plain + 30)
    assert Sum(((1.0, CrossEntropy()),)).state(TASK) is None
