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
from trainer.losses.contrast import balanced_contrast, parametric_contrast
from trainer.losses.directions import expected_scores
from trainer.losses.priors import logit_adjust
from trainer.models import Outputs
from trainer.models.class_directions import ClassDirections
from trainer.models.classifier import Classifier
from trainer.models.key_queue import KeyQueue
from trainer.objectives import (
    BalancedContrast,
    ExpectedContrast,
    LogitAdjusted,
    Objective,
    ParametricContrast,
    Rows,
    Task,
)

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


@pytest.mark.parametrize("objective", [BalancedContrast(), ExpectedContrast()])
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


@pytest.mark.parametrize("kind", [BalancedContrast, ExpectedContrast, ParametricContrast])
def test_a_temperature_is_positive(kind: Any) -> None:
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        kind(temperature=0)


# Distributions of classes


def directions(images: int = 100) -> ClassDirections:
    return ClassDirections(K, 4, images)


def test_a_class_has_the_mean_of_its_unit_vectors_in_all_views() -> None:
    state, views, label = directions(), torch.randn(2, 5, 4), torch.tensor([0, 0, 2, 2, 2])
    state.follow(9 * views, label)
    unit = torch.nn.functional.normalize(views, dim=2)
    torch.testing.assert_close(state.means[0], unit[:, :2].mean((0, 1)))
    torch.testing.assert_close(state.means[2], unit[:, 2:].mean((0, 1)))
    assert not state.means[1].any()
    assert int(state.seen) == 5


def test_the_last_epoch_and_this_one_count_and_none_before() -> None:
    """Three epochs of two steps: each view is one of its own axis."""
    state, axes = directions(images=4), torch.eye(4)

    def step(axis: int) -> None:
        state.follow(axes[axis].expand(1, 2, 4), torch.zeros(2, dtype=torch.long))

    for axis in (0, 1):  # all of the first epoch
        step(axis)
    torch.testing.assert_close(state.means[0], torch.tensor([0.5, 0.5, 0, 0]))
    step(2)  # the first epoch, and the half of the second
    torch.testing.assert_close(state.means[0], torch.tensor([1.0, 1, 1, 0]) / 3)
    step(2)  # the second epoch alone
    torch.testing.assert_close(state.means[0], axes[2])
    step(3)
    torch.testing.assert_close(state.means[0], torch.tensor([0, 0, 2.0, 1]) / 3)


def test_a_long_step_ends_an_epoch() -> None:
    state = directions(images=3)
    state.follow(torch.randn(2, 5, 4), torch.zeros(5, dtype=torch.long))
    assert int(state.seen) == 0 and not state.counts[1].any() and state.counts[0, 0] == 10


def test_views_meet_the_distributions_of_their_classes_in_both_views() -> None:
    objective = ExpectedContrast(temperature=0.2)
    state, given = objective.state(TASK), batch()
    assert state.images == 18
    out = seen(objective, given).of(slice(0, 5))
    label = given.label_a[:5]
    state.follow(torch.randn(2, 5, 128), label)
    rows = Rows(label, given.index[:5], shown=label)
    found = objective.bind(TASK, state)(out, rows)
    each = []
    for view in out.views:
        scores = expected_scores(view.others["contrast"], state.means, 0.2)
        each.append(logit_adjust(scores, label, TASK.counts))
    torch.testing.assert_close(found, (each[0] + each[1]) / 2)
    equal = objective.bind(TASK.balanced(), state)(out, rows)
    assert not torch.allclose(equal, found)


def test_before_any_view_was_seen_only_the_shares_of_the_classes_count() -> None:
    """-log pi_y, for 9, 6 and 3 of 18 images."""
    objective, given = ExpectedContrast(), batch()
    out, label = seen(objective, given).of(slice(0, 5)), given.label_a[:5]
    found = objective.bind(TASK, objective.state(TASK))(
        out, Rows(label, given.index[:5], shown=label)
    )
    torch.testing.assert_close(found, -(torch.tensor([9.0, 6, 3])[label] / 18).log())


def test_after_a_step_views_of_training_images_move_the_distributions() -> None:
    """Whatever is mixed, and without the rows of a bank."""
    objective, given = ExpectedContrast(), batch(mixed=True)
    state, out = objective.state(TASK), seen(objective, given).detach()
    objective.after_step(state, out, given)
    views = torch.stack([view.others["contrast"] for view in out.views])
    expected = objective.state(TASK)
    expected.follow(views, given.label_a[:5])
    assert torch.equal(state.sums, expected.sums) and int(state.seen) == 5
    assert set(state.state_dict()) == {"sums", "counts", "seen"}
    assert not list(state.parameters())


# Keys among the classes


def test_a_queue_holds_the_latest_keys() -> None:
    queue = KeyQueue(5, 2)
    keys, label = torch.randn(7, 2), torch.arange(7)
    queue.put(keys[:2], label[:2])
    assert queue.label.tolist() == [0, 1, -1, -1, -1]
    queue.put(keys[2:5], label[2:5])
    queue.put(keys[5:7], label[5:7])
    assert queue.label.tolist() == [5, 6, 2, 3, 4]
    assert torch.equal(queue.keys, keys[queue.label])
    queue.put(keys, label)  # more than there are places
    assert sorted(queue.label.tolist()) == [2, 3, 4, 5, 6]
    queue.put(keys[:0], label[:0])
    assert torch.equal(queue.keys, keys[queue.label])
    assert set(queue.state_dict()) == {"keys", "label", "place"}


def test_queries_meet_keys_of_this_step_and_of_those_before() -> None:
    objective, given = ParametricContrast(alpha=0.2, temperature=0.3, queue=6), batch()
    state = objective.state(TASK)
    state.put(torch.randn(4, 128), torch.tensor([0, 1, 2, 2]))
    out = seen(objective, given).of(slice(0, 5))
    label, shown, (view,) = given.label_b[:5], given.label_a[:5], out.views[:1]
    out = out._replace(views=(view,))
    shares = torch.tensor([9.0, 6, 3]) / 18
    loss = objective.bind(TASK, state)
    for mixed in (False, True):
        found = loss(out, Rows(label, given.index[:5], mixed=mixed, shown=shown))
        expected = parametric_contrast(
            out.logits + shares.log(),
            label,
            out.others["contrast"],
            torch.cat([view.others["contrast"], state.keys]),
            torch.cat([shown, state.label]),
            alpha=0.2,
            temperature=0.3,
            among=not mixed,
        )
        torch.testing.assert_close(found, expected)


def test_a_mixed_row_meets_the_keys_of_each_label_and_a_row_of_a_bank_none() -> None:
    objective, given = ParametricContrast(), batch(mixed=True)
    state = objective.state(TASK)
    losses = Losses.of(objective, TASK, state)
    out = seen(objective, given)
    out = out._replace(views=out.views[:1])
    found = row_losses(losses, out, given)
    real, shown = out.of(slice(0, 5)), given.label_a[:5]

    def about(label: torch.Tensor) -> torch.Tensor:
        return losses.real(real, Rows(label, given.index[:5], mixed=True, shown=shown))

    lam = given.lam[:5]
    expected = lam * about(given.label_a[:5]) + (1 - lam) * about(given.label_b[:5])
    torch.testing.assert_close(found[:5], expected)
    bank = Losses.of(LogitAdjusted(), TASK, None)
    torch.testing.assert_close(found[5:], row_losses(bank, out._replace(views=()), given)[5:])
    assert not (state.label >= 0).any()


def test_after_a_step_the_keys_of_training_images_join_the_queue() -> None:
    objective, given = ParametricContrast(queue=6), batch(mixed=True)
    state, out = objective.state(TASK), seen(objective, given).detach()
    out = out._replace(views=out.views[:1])
    objective.after_step(state, out, given)
    assert state.label.tolist() == [*given.label_a[:5].tolist(), -1]
    torch.testing.assert_close(state.keys[:5], out.views[0].others["contrast"])


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_a_copy_follows_and_not_at_once(momentum: float) -> None:
    with pytest.raises(ValueError, match="momentum must lie in"):
        ParametricContrast(momentum=momentum)
