"""A slow copy of a network: its weights, its answers, its place in a step and in a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from stylegan_mix.rng import Draws
from trainer import models
from trainer.engine import loop
from trainer.engine.batch import Batch, Source
from trainer.engine.features import Plain
from trainer.engine.follower import Follower
from trainer.models import Outputs
from trainer.models.classifier import Classifier
from trainer.objectives import CrossEntropy, Task


def network(seed: int = 0) -> Classifier:
    made = models.build("resnet8", classes=3, channels=1)
    models.initialise(made, seed)
    return made


def test_a_copy_starts_as_the_network_and_moves_by_a_share() -> None:
    model, later = network(), network(1)
    copy = Follower(model, 0.75)
    assert not any(one.requires_grad for one in copy.parameters())
    copy.follow(later)
    for own, first, then in zip(
        copy.network.parameters(), model.parameters(), later.parameters(), strict=True
    ):
        torch.testing.assert_close(own, 0.75 * first + 0.25 * then)


def test_it_answers_for_each_view_with_the_statistics_of_that_view() -> None:
    model, views = network(), torch.randn(2, 4, 1, 8, 8)
    outs = Follower(model, 0.9)(views)
    model.train()
    for out, images in zip(outs, views, strict=True):
        torch.testing.assert_close(out.logits, model(images).logits)
        assert not out.logits.requires_grad


def test_views_without_images_leave_it_as_it_is() -> None:
    copy = Follower(network(), 0.9)
    before = {name: value.clone() for name, value in copy.state_dict().items()}
    (out,) = copy(torch.zeros(1, 0, 1, 8, 8))
    assert out.logits.shape == (0, 3)
    assert all(torch.equal(before[name], value) for name, value in copy.state_dict().items())


def job(seen: list[Outputs], batch: Batch) -> loop.Job:
    def note(state: Any, out: Outputs, batch: Batch) -> None:
        seen.append(out)

    objective = CrossEntropy()
    return loop.Job(
        name="train",
        steps=4,
        steps_per_epoch=4,
        batches=lambda step: batch,
        forward=Plain(),
        losses=loop.Losses.of(objective, Task((3, 2, 1)), None),
        teachers=(),
        after_step=note,
        rate=lambda step: 0.1,
        noise=lambda step: Draws(),
        streams=lambda step: lambda name: pytest.fail("nothing is drawn"),
        norms_follow=True,
        precision="float32",
    )


def state_of(model: Classifier) -> loop.State:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tally = loop.Tally(torch.device("cpu"))
    return loop.State(model, optimiser, tally, follower=Follower(model, 0.5))


def batch() -> Batch:
    label, index = torch.arange(6) % 3, torch.arange(6)
    rows = Batch(
        torch.randn(6, 1, 8, 8),
        label,
        label,
        torch.ones(6),
        index,
        index,
        (Source("real", slice(0, 6)),),
    )
    return replace(rows, views=torch.randn(1, 6, 1, 8, 8))


def test_in_a_step_the_copy_sees_the_views_and_then_follows() -> None:
    seen: list[Outputs] = []
    rows, model = batch(), network()
    state, twin = state_of(model), Follower(model, 0.5)
    assert rows.views is not None
    (expected,) = twin(rows.views)
    alone = model.train()(rows.images).logits  # batch norms saw no view
    loop.one_step(job(seen, rows), state)
    (out,) = seen
    torch.testing.assert_close(out.views[0].logits, expected.logits)
    torch.testing.assert_close(out.logits, alone)
    twin.follow(model)
    assert state.follower is not None
    for own, other in zip(state.follower.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_a_checkpoint_holds_the_copy() -> None:
    state, fresh = state_of(network()), state_of(network(5))
    loop.one_step(job([], batch()), state)
    fresh.restore(state.dump())
    assert state.follower is not None and fresh.follower is not None
    kept = fresh.follower.state_dict()
    assert all(torch.equal(kept[name], one) for name, one in state.follower.state_dict().items())
    assert (
        state_of(network()).dump().keys()
        == loop.State(state.model, state.optimiser, state.tally).dump().keys()
    )
