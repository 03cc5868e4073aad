"""Two mixtures of the same images as an objective: its heads, its weights, its agreement."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trainer import models
from trainer.engine.features import GlobalAndLocal
from trainer.losses.features import agreement
from trainer.losses.labels import cross_entropy
from trainer.losses.weights import power_weights
from trainer.models import Outputs
from trainer.objectives import MixtureConsistency, Rows, Task
from trainer.recipes.catalogue import RECIPES

N, K = 6, 3
TASK = Task((9, 6, 3), features=64)
LABEL = torch.arange(N) % K


def outputs(width: int = 128) -> Outputs:
    def seen() -> Outputs:
        others = {"plain": torch.randn(N, K), "agreed": torch.randn(N, width)}
        return Outputs(torch.randn(N, 64), torch.randn(N, K), others)

    return seen()._replace(views=(seen(),))


def loss_of(objective: MixtureConsistency, task: Task = TASK) -> tuple[torch.nn.Module, object]:
    state = objective.state(task)
    return state, objective.bind(task, state)


def rows(progress: float) -> Rows:
    return Rows(LABEL, torch.arange(N), progress=progress)


def test_labels_go_from_the_plain_head_to_weights_of_classes() -> None:
    """1 - t ** 2 and t ** 2: all plain first, a quarter weighted in the middle."""
    out, (_, loss) = outputs(), loss_of(MixtureConsistency(consistency=0.0))
    (view,) = out.views
    weights = power_weights(TASK.counts, 1.2).float()

    def mean(of: Tensor, other: Tensor) -> Tensor:
        return (cross_entropy(of, LABEL) + cross_entropy(other, LABEL)) / 2

    plain = mean(out.others["plain"], view.others["plain"])
    late = weights[LABEL] * mean(out.logits, view.logits)
    torch.testing.assert_close(loss(out, rows(0.0)), plain)
    torch.testing.assert_close(loss(out, rows(0.5)), 0.75 * plain + 0.25 * late)
    torch.testing.assert_close(loss(out, rows(1.0)), late)


def test_the_agreement_of_both_views_has_its_weight() -> None:
    out, objective = outputs(), MixtureConsistency(consistency=3.0)
    state, loss = loss_of(objective)
    alone = replace(objective, consistency=0.0).bind(TASK, state)
    projected = out.others["agreed"], out.views[0].others["agreed"]
    expected = 3 * agreement(projected, (state(projected[0]), state(projected[1])))
    torch.testing.assert_close(loss(out, rows(0.3)) - alone(out, rows(0.3)), expected)
    assert [part.out_features for part in state if hasattr(part, "out_features")] == [32, 128]


def test_equal_classes_without_agreement_are_cross_entropy_of_one_head_and_then_the_other() -> None:
    out, (_, loss) = outputs(), loss_of(MixtureConsistency(consistency=0.0), TASK.balanced())
    same = out._replace(views=(out._replace(views=()),))
    torch.testing.assert_close(loss(same, rows(1.0)), cross_entropy(out.logits, LABEL))
    torch.testing.assert_close(loss(same, rows(0.0)), cross_entropy(out.others["plain"], LABEL))


def test_both_heads_projection_and_predictor_learn() -> None:
    objective = MixtureConsistency()
    made = models.build("resnet8", classes=K, channels=1, others=objective.needs.others)
    models.initialise(made, 0)
    state, loss = loss_of(objective)
    out = made(torch.randn(N, 1, 8, 8))._replace(views=(made(torch.randn(N, 1, 8, 8)),))
    loss(out, rows(0.5)).mean().backward()
    for parameter in (*made.parameters(), *state.parameters()):
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    assert made.stem.weight.grad is not None and made.stem.weight.grad.any()


def test_the_recipe_mixes_its_own_images() -> None:
    recipe = RECIPES["glmc"]
    assert isinstance(recipe.stages[0].forward, GlobalAndLocal)
    assert not recipe.follows_arm() and not recipe.takes_drw and not recipe.takes_head
