"""Corrections that put a memory beside the head: fusions, tuned shares, trust that is learned."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer import models
from trainer.losses.memory import nearness
from trainer.models import Head
from trainer.models.classifier import Classifier
from trainer.objectives import CrossEntropy, Ldam, LogitAdjusted, MemoryTransfer, Remembered, Task
from trainer.recipes.posthoc import Evidence, PostHoc, Seen, Temperature
from trainer.recipes.stage import Draw, Recipe, Stage
from trainer.recipes.with_memory import Assignment, MemoryFusion, WeightedFusion

TASK = Task((30, 12, 3))
K, D, N = 3, 64, 300
ALL: list[PostHoc] = [
    MemoryFusion("max"),
    MemoryFusion("attention"),
    WeightedFusion("logits", 0.5),
    WeightedFusion("probabilities", 0.5),
    WeightedFusion("scaled"),
    Assignment(),
]


def network() -> Classifier:
    model = models.build("resnet8", classes=K, channels=1)
    models.initialise(model, 0)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.4, -0.1, -0.3]))
    return model.eval()


def memory() -> Tensor:
    return torch.rand(K, D, generator=torch.Generator().manual_seed(2)) / 8


def never() -> Seen:
    raise AssertionError("training images were asked")


def judged(right: Callable[[], float]) -> Evidence:
    """Validation images of which `right` of 1000 are right."""

    def ask() -> Seen:
        said = (torch.arange(1000) >= right()).long()
        return Seen(torch.zeros(1000, D), F.one_hot(said, K).float(), torch.zeros(1000).long())

    return Evidence(never, ask, memory())


@pytest.mark.parametrize(
    ("posthoc", "form", "numbers"),
    [
        (MemoryFusion("max"), "fused-max", {}),
        (MemoryFusion("attention"), "fused-attention", {}),
        (WeightedFusion("logits", 0.25), "fused-logits", {"share": 0.25}),
        (WeightedFusion("probabilities", 0.25), "fused-probabilities", {"share": 0.25}),
        (WeightedFusion("scaled", 0.25), "fused-scaled", {"share": 0.25}),
    ],
)
@torch.no_grad()
def test_a_fusion_puts_the_memory_beside_the_head_of_the_network(
    posthoc: Any, form: Any, numbers: Any
) -> None:
    model, features = network(), torch.rand(N, D)
    before = copy.deepcopy(model)
    assert posthoc(model, TASK, Evidence(never, None, memory())) == numbers
    assert posthoc.head == Head(form) and not posthoc.needs_validation
    assert torch.equal(model.head.weight, before.head.weight)
    assert torch.equal(model.head.bias, before.head.bias)
    assert torch.equal(model.head.memory, memory())
    expected = copy.deepcopy(before)
    own = {"share": torch.tensor(0.25)} if numbers else {}
    models.with_head(expected, Head(form), memory=memory(), **own)
    assert torch.equal(model.answer(features).logits, expected.answer(features).logits)


@pytest.mark.parametrize(("best", "chosen"), [(0.7, 0.7), (0.0, 0.0), (1.0, 1.0), (0.74, 0.7)])
@pytest.mark.parametrize("rule", ["logits", "probabilities", "scaled"])
@torch.no_grad()
def test_a_share_is_the_best_on_validation_images(rule: Any, best: float, chosen: float) -> None:
    model = network()

    def right() -> float:
        return 1000 * (1 - abs(float(model.head.share) - best))

    posthoc = WeightedFusion(rule)
    assert posthoc.needs_validation
    assert posthoc(model, TASK, judged(right)) == {"share": chosen}
    assert float(model.head.share) == pytest.approx(chosen)


@torch.no_grad()
def test_of_equally_good_shares_the_one_nearest_to_the_plain_network_is_taken() -> None:
    assert WeightedFusion("logits")(network(), TASK, judged(lambda: 500)) == {"share": 1.0}


def seen_by(model: Classifier, labels: Callable[[Tensor, Tensor], Tensor]) -> Seen:
    """Answers about random features, with labels made from z and v."""
    features = torch.rand(N, D, generator=torch.Generator().manual_seed(4))
    logits = model.answer(features).logits
    return Seen(features, logits, labels(logits, nearness(features, memory())))


def half_by_memory(logits: Tensor, near: Tensor) -> Tensor:
    """Labels that the memory has where the largest logit is below its median, else the head."""
    unsure = logits.amax(1) < logits.amax(1).median()
    return torch.where(unsure, near.argmax(1), logits.argmax(1))


@torch.no_grad()
def test_trust_is_learned_where_it_can_be() -> None:
    model = network()
    seen = seen_by(model, half_by_memory)
    alone = (seen.logits.argmax(1) != seen.labels).sum()
    numbers = Assignment()(model, TASK, Evidence(lambda: seen, None, memory()))
    assert numbers == {"images": N, "memory_alone_right": int(alone), "on": "training"}
    assert 10 < alone < N - 10
    found = model.answer(seen.features).logits.argmax(1) == seen.labels
    assert found.double().mean() > 0.9
    assert Assignment().head == Head("assigned") and not Assignment().needs_validation


@torch.no_grad()
def test_held_out_images_are_asked_where_there_are_some() -> None:
    model = network()
    seen = seen_by(model, half_by_memory)
    numbers = Assignment()(model, TASK, Evidence(never, lambda: seen, memory()))
    assert numbers["on"] == "validation"


@torch.no_grad()
def test_the_same_seed_gives_the_same_trust_and_nothing_else_is_trained() -> None:
    made = []
    for seed in (0, 0, 1):
        model = network()
        seen = seen_by(model, half_by_memory)
        before = model.state_dict()
        before = {name: value.clone() for name, value in before.items()}
        Assignment(steps=5)(model, TASK, Evidence(lambda seen=seen: seen, None, memory(), seed))
        after = model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        made.append(after["head.out.weight"].clone())
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


@pytest.mark.parametrize("by_memory", [False, True])
@torch.no_grad()
def test_images_of_one_kind_alone_give_one_answer(by_memory: bool) -> None:
    """The published sampler has nothing to draw then."""
    model = network()
    seen = seen_by(model, lambda z, v: v.argmax(1) if by_memory else z.argmax(1))
    if by_memory:
        keep = seen.logits.argmax(1) != seen.labels
        seen = Seen(seen.features[keep], seen.logits[keep], seen.labels[keep])
    Assignment()(model, TASK, Evidence(lambda: seen, None, memory()))
    assert torch.equal(model.answer(seen.features).logits.argmax(1), seen.labels)


REMEMBERED = Stage("a", Remembered(CrossEntropy()))


def made(*stages: Stage, posthoc: PostHoc | None = None) -> Recipe:
    return Recipe("x", "for a test", stages, posthoc=posthoc)


@pytest.mark.parametrize("posthoc", ALL, ids=repr)
def test_they_ask_for_a_stage_that_keeps_class_means_and_for_a_linear_head(posthoc: Any) -> None:
    assert posthoc.reads_memory
    made(REMEMBERED, posthoc=posthoc)
    made(Stage("a", Remembered(LogitAdjusted())), posthoc=posthoc)
    for objective in (CrossEntropy(), MemoryTransfer()):
        with pytest.raises(ValueError, match=r"stage 'a' keeps none: train it with .*Remembered"):
            made(Stage("a", objective), posthoc=posthoc)
    with pytest.raises(ValueError, match="changes a linear head"):
        made(Stage("a", Remembered(Ldam())), posthoc=posthoc)


def test_stages_with_a_memory_beside_their_head_ask_for_the_same() -> None:
    head = Stage(
        *("b", CrossEntropy(Head("weighed"))),
        rows="real",
        draws=(Draw("class"),),
        train="head",
        start="a",
        head="kept",
    )
    made(REMEMBERED, head)
    with pytest.raises(ValueError, match="stage 'a' keeps none"):
        made(Stage("a", CrossEntropy()), head)
    with pytest.raises(ValueError, match="goes on with a linear head"):
        made(Stage("a", Remembered(Ldam())), head)
    with pytest.raises(ValueError, match="say head='kept'"):
        made(Stage("a", CrossEntropy(Head("weighed"))))


def test_no_stage_trains_a_head_that_a_correction_makes() -> None:
    with pytest.raises(ValueError, match="a correction of a finished network makes it"):
        made(Stage("a", CrossEntropy(Head("fused-max"))))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: MemoryFusion("sum"), "rule must be one of"),  # type: ignore[arg-type]
        (lambda: WeightedFusion("max"), "rule must be one of"),  # type: ignore[arg-type]
        (lambda: WeightedFusion("logits", 1.5), r"share must lie in \[0, 1\]"),
        (lambda: WeightedFusion("logits", float("nan")), r"share must lie in \[0, 1\]"),
        (lambda: Remembered(CrossEntropy(), 0.0), r"rate must lie in \(0, 1\]"),
    ],
)
def test_values_that_cannot_be_are_refused(make: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make()


def test_temperature_needs_validation_images_still() -> None:
    assert Temperature().needs_validation
