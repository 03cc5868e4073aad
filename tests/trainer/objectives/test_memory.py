"""The memory of class means as an objective: its two heads, its teaching, its updates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from trainer import models
from trainer.engine.batch import Batch, Source
from trainer.losses.memory import matched, nearness, transfer
from trainer.models import Outputs
from trainer.models.class_means import ClassMeans, means_of
from trainer.objectives import (
    CrossEntropy,
    Deferred,
    Distill,
    LogitAdjusted,
    MemoryTransfer,
    Remembered,
    Reweighted,
    Rows,
    Task,
)

N, K, D = 6, 3, 4
TASK = Task((9, 6, 3), features=D)


def outputs() -> Outputs:
    return Outputs(torch.randn(N, D), torch.randn(N, K), {"plain": torch.randn(N, K)})


def full_memory() -> ClassMeans:
    """A memory that has seen every class."""
    memory = ClassMeans(K, D)
    memory.follow(torch.randn(K, D), torch.arange(K), torch.ones(K, dtype=torch.bool), 0.1)
    return memory


def batch(lam: torch.Tensor | None = None, *, mixed: bool = False) -> Batch:
    """Four training images of classes 0, 1, 0, 1, and two rows of a bank, of class 2."""
    label, index = torch.tensor([0, 1, 0, 1, 2, 2]), torch.arange(N)
    sources = (
        Source("real", slice(0, 4), mixed=mixed),
        Source("bank", slice(4, 6), bank=True, mixed=True),
    )
    share = torch.ones(N) if lam is None else lam
    return Batch(torch.zeros(N, 1, 2, 2), label, label.flip(0), share, index, index, sources)


def test_until_every_class_was_seen_both_heads_learn_by_cross_entropy() -> None:
    out, label, memory = outputs(), torch.arange(N) % K, full_memory()
    memory.seen[1] = False
    found = MemoryTransfer().bind(TASK, memory)(out, Rows(label, torch.arange(N)))
    heads = (out.logits, out.others["plain"])
    expected = sum(F.cross_entropy(z, label, reduction="none") for z in heads)
    torch.testing.assert_close(found, expected)


def test_then_the_memory_teaches_the_head_that_answers() -> None:
    out, label, memory = outputs(), torch.arange(N) % K, full_memory()
    objective = MemoryTransfer(label_weight=0.3, temperature=2.0)
    found = objective.bind(TASK, memory)(out, Rows(label, torch.arange(N)))
    plain = out.others["plain"]
    taught = matched(nearness(out.features, memory.means), plain)
    expected = transfer(out.logits, label, taught, label_weight=0.3, temperature=2.0)
    torch.testing.assert_close(found - F.cross_entropy(plain, label, reduction="none"), expected)


def test_only_the_plain_head_trains_the_backbone() -> None:
    needs = MemoryTransfer().needs
    assert needs.head is not None
    model = models.build("resnet8", classes=K, channels=1, head=needs.head, others=needs.others)
    models.initialise(model, 0)
    memory = ClassMeans(K, model.width)
    memory.follow(torch.randn(K, 64), torch.arange(K), torch.ones(K, dtype=torch.bool), 0.1)
    images, label = torch.randn(N, 1, 8, 8), torch.arange(N) % K

    def gradient(objective: bool) -> torch.Tensor:
        model.zero_grad()
        out = model(images)
        if objective:
            task = replace(TASK, features=model.width)
            loss = MemoryTransfer().bind(task, memory)(out, Rows(label, torch.arange(N))).mean()
        else:
            loss = F.cross_entropy(out.others["plain"], label)
        loss.backward()
        assert model.stem.weight.grad is not None
        return model.stem.weight.grad.clone()

    torch.testing.assert_close(gradient(True), gradient(False))
    gradient(True)
    assert model.head.weight.grad is not None and model.head.weight.grad.any()


def test_after_a_step_training_images_move_the_means_and_rows_of_a_bank_do_not() -> None:
    memory, out = full_memory(), outputs()
    before = memory.means.clone()
    MemoryTransfer(rate=0.25).after_step(memory, out, batch())
    for index in (0, 1):
        own = F.normalize(out.features[index:4:2], dim=1).mean(0)
        expected = 0.75 * before[index] + 0.25 * own
        torch.testing.assert_close(memory.means[index], expected)
    assert torch.equal(memory.means[2], before[2])


def test_of_mixed_images_only_the_almost_pure_move_a_mean() -> None:
    out, lam = outputs(), torch.tensor([1.0, 0.8, 0.79, 0.1, 1.0, 1.0])
    memory = ClassMeans(K, D)
    MemoryTransfer().after_step(memory, out, batch(lam, mixed=True))
    expected = F.normalize(out.features[:2], dim=1)
    torch.testing.assert_close(memory.means[:2], expected)
    assert memory.seen.tolist() == [True, True, False]


def test_the_first_rows_of_a_class_set_its_mean() -> None:
    memory, features = ClassMeans(K, D), torch.randn(2, D)
    everything = torch.ones(2, dtype=torch.bool)
    memory.follow(features, torch.tensor([1, 1]), everything, 0.1)
    torch.testing.assert_close(memory.means[1], F.normalize(features, dim=1).mean(0))
    assert not memory.means[[0, 2]].any()
    assert memory.seen.tolist() == [False, True, False]


def test_the_memory_is_state_and_not_learned() -> None:
    memory = MemoryTransfer().state(TASK)
    assert set(memory.state_dict()) == {"means", "seen"}
    assert not list(memory.parameters())
    with pytest.raises(AssertionError):
        MemoryTransfer().bind(TASK, None)


@pytest.mark.parametrize("objective", [CrossEntropy(), LogitAdjusted(1.0)], ids=repr)
def test_a_memory_beside_a_training_leaves_its_loss_as_it_is(objective: Any) -> None:
    out, label = outputs(), torch.arange(N) % K
    kept = Remembered(objective)
    found = kept.bind(TASK, kept.state(TASK))(out, Rows(label, torch.arange(N)))
    assert torch.equal(found, objective.bind(TASK)(out, Rows(label, torch.arange(N))))
    names = ("needs", "stochastic", "reads_state", "reads_shares", "detaches", "corrects_prior")
    assert all(getattr(kept, name) == getattr(objective, name) for name in names)
    assert kept.remembers and not objective.remembers
    assert Remembered(Distill()).needs == Distill().needs


def test_a_memory_beside_a_training_moves_as_the_one_that_teaches() -> None:
    out, lam = outputs(), torch.tensor([1.0, 0.8, 0.79, 0.1, 1.0, 1.0])
    taught, kept = ClassMeans(K, D), Remembered(CrossEntropy(), rate=0.25)
    state = kept.state(TASK)
    for now in (batch(), batch(lam, mixed=True)):
        MemoryTransfer(rate=0.25).after_step(taught, out, now)
        kept.after_step(state, out, now)
    assert torch.equal(means_of(state), taught.means)
    assert taught.means[:2].any()
    assert not list(state.parameters())


def test_a_switch_between_two_losses_keeps_one_memory() -> None:
    """A run with --drw has each stage's objective twice."""
    kept = Remembered(CrossEntropy())
    both = Deferred(kept, Reweighted(kept, 0.9), at=0.5)
    assert both.remembers and not Deferred(CrossEntropy(), CrossEntropy()).remembers
    state, alone = both.state(TASK), kept.state(TASK)
    out = outputs()
    both.after_step(state, out, batch())
    kept.after_step(alone, out, batch())
    assert torch.equal(means_of(state), means_of(alone))
