"""Heads with a memory of class means: their equations, what they reduce to, what is stored."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer import models
from trainer.engine.folder import Finished, save_network
from trainer.losses.memory import matched, nearness
from trainer.models import Head
from trainer.models.classifier import Classifier
from trainer.models.fusion import (
    attended,
    by_factor,
    surer,
    weighted_logits,
    weighted_probabilities,
)
from trainer.models.heads import CORRECTED_FORMS, MEMORY_FORMS
from trainer.models.memory_heads import Assigned, Weighed

N, K, D = 40, 5, 64
WEIGHTED = ["fused-logits", "fused-probabilities", "fused-scaled"]


def features() -> Tensor:
    """As after a ReLU: not below zero."""
    return torch.rand(N, D)


def network(form: Any, **buffers: Tensor) -> Classifier:
    """A network with a linear head, then one of `form` with the same weights and a memory."""
    model = models.build("resnet8", classes=K, channels=1)
    models.initialise(model, 3)
    with torch.no_grad():
        model.head.bias.copy_(torch.linspace(-1, 1, K))
    models.with_head(model, Head(form), 1, memory=memory(), **buffers)
    return model.eval()


def memory() -> Tensor:
    return F.normalize(torch.rand(K, D, generator=torch.Generator().manual_seed(7)), dim=1) * 0.9


def plain(model: Classifier, f: Tensor) -> Tensor:
    return F.linear(f, model.head.weight, model.head.bias).detach()


def test_scaled_cosines_have_the_largest_logit_as_their_maximum() -> None:
    v, z = torch.rand(N, K) + 0.01, torch.rand(N, K) * 9
    found = by_factor(v, z)
    torch.testing.assert_close(found.amax(1), z.amax(1))
    torch.testing.assert_close(found, v * (z.amax(1) / v.amax(1))[:, None])


@pytest.mark.parametrize(
    ("v", "z"), [([0.2, 0.9], [-3.0, -1.0]), ([-0.4, -0.1], [1.0, 2.0]), ([0.0, 0.0], [1.0, 2.0])]
)
def test_a_factor_that_would_turn_the_order_around_is_not_taken(v: Any, z: Any) -> None:
    scores, logits = torch.tensor([v, [0.2, 0.4]]), torch.tensor([z, [1.0, 3.0]])
    found = by_factor(scores, logits)
    assert torch.equal(found[0], logits[0])
    torch.testing.assert_close(found[1], torch.tensor([1.5, 3.0]))


def test_weighted_sums_by_hand() -> None:
    z, v, share = torch.randn(N, K), torch.randn(N, K), torch.tensor(0.3)
    torch.testing.assert_close(weighted_logits(z, v, share), 0.3 * z + 0.7 * v)
    mixture = 0.3 * z.softmax(1) + 0.7 * v.softmax(1)
    torch.testing.assert_close(weighted_probabilities(z, v, share).exp(), mixture)


def test_the_surer_answer_wins_class_by_class() -> None:
    """Published: the largest of z and of cosines with the same maximum, where both winners tie."""
    z, v = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 2.9]])
    assert surer(z, v).argmax(1).tolist() == [0]
    assert surer(v, z).argmax(1).tolist() == [0]
    torch.testing.assert_close(surer(z, v).exp(), torch.maximum(z.softmax(1), v.softmax(1)))
    logits, cosines = torch.rand(N, K) * 9, torch.rand(N, K) + 0.01
    published = torch.maximum(logits, by_factor(cosines, logits))
    rows = torch.arange(N)
    both = [published[rows, one.argmax(1)] for one in (logits, cosines)]
    torch.testing.assert_close(*both)


def test_attention_by_hand_and_equal_means_leave_the_logits() -> None:
    z, f, means = torch.randn(N, K), features(), memory()
    unit = f / f.norm(dim=1, keepdim=True)
    expected = K * (unit @ means.T).softmax(1) * z
    torch.testing.assert_close(attended(z, f, means), expected)
    torch.testing.assert_close(attended(z, f, means[:1].expand(K, D)), z)


@pytest.mark.parametrize("form", WEIGHTED)
def test_share_one_is_the_plain_network_and_share_zero_the_nearest_class_mean(form: Any) -> None:
    f = features()
    model = network(form, share=torch.tensor(1.0))
    z, v = plain(model, f), nearness(f, memory())
    found = model.answer(f).logits
    torch.testing.assert_close(found.softmax(1), z.softmax(1))
    assert torch.equal(found.argmax(1), z.argmax(1))
    model = network(form, share=torch.tensor(0.0))
    found = model.answer(f).logits
    below = z.amax(1) <= 0 if form == "fused-scaled" else torch.zeros(N, dtype=torch.bool)
    assert torch.equal(found.argmax(1), torch.where(below, z.argmax(1), v.argmax(1)))
    if form != "fused-scaled":
        torch.testing.assert_close(found.softmax(1), matched(v, z).softmax(1))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("fused-logits", lambda z, v, f: 0.25 * z + 0.75 * matched(v, z)),
        (
            "fused-probabilities",
            lambda z, v, f: (0.25 * z.softmax(1) + 0.75 * matched(v, z).softmax(1)).log(),
        ),
        ("fused-scaled", lambda z, v, f: 0.25 * z + 0.75 * by_factor(v, z)),
        ("fused-max", lambda z, v, f: surer(z, matched(v, z))),
        ("fused-attention", lambda z, v, f: attended(z, f, memory())),
        ("weighed", lambda z, v, f: z + matched(v, z)),
    ],
)
def test_a_head_answers_by_its_equation(form: Any, expected: Any) -> None:
    f, own = features(), {"share": torch.tensor(0.25)} if form in WEIGHTED else {}
    model = network(form, **own)
    z, v = plain(model, f), nearness(f, memory())
    torch.testing.assert_close(model.answer(f).logits, expected(z, v, f))


def test_weights_by_class_scale_and_shift_both_answers() -> None:
    f, model = features(), network("weighed")
    a, b, c, d = torch.randn(4, K)
    assert isinstance(model.head, Weighed)
    with torch.no_grad():
        model.head.plain_scale.copy_(a)
        model.head.plain_shift.copy_(b)
        model.head.memory_scale.copy_(c)
        model.head.memory_shift.copy_(d)
    z = plain(model, f)
    expected = (a * z + b) + (c * matched(nearness(f, memory()), z) + d)
    torch.testing.assert_close(model.answer(f).logits, expected)
    model.answer(f).logits.sum().backward()
    assert model.head.weight.grad is None and model.head.bias.grad is None
    torch.testing.assert_close(model.head.plain_scale.grad, z.sum(0))
    torch.testing.assert_close(model.head.memory_shift.grad, torch.full((K,), float(N)))


def test_a_row_is_answered_by_the_memory_where_it_is_trusted() -> None:
    f, model = features(), network("assigned")
    head = model.head
    assert isinstance(head, Assigned)
    z = plain(model, f)
    unit = f / f.norm(dim=1, keepdim=True)
    hidden = F.leaky_relu(unit @ head.hidden.weight.T, 0.1)
    assert hidden.shape == (N, 50)
    seen = torch.cat([z.sort(1, descending=True).values, hidden], 1)
    s = (seen @ head.out.weight.T + head.out.bias)[:, 0]
    s = s - s.median()
    with torch.no_grad():
        before = head.trust(f, z)
        head.out.bias.sub_(before.median())
    torch.testing.assert_close(head.trust(f, z), s)
    expected = torch.where((s > 0)[:, None], matched(nearness(f, memory()), z), z)
    assert 0 < (s > 0).sum() < N
    torch.testing.assert_close(model.answer(f).logits, expected)


@pytest.mark.parametrize("classes", [2, 9, 10, 30])
def test_the_ten_largest_logits_are_read_or_all_of_fewer(classes: int) -> None:
    """Published: 100, which fewer classes than that do not have."""
    head = Assigned(D, classes)
    assert head.out.in_features == min(classes, 10) + 50
    assert head(features()).shape == (N, classes)


@pytest.mark.parametrize("form", MEMORY_FORMS)
def test_a_stored_network_with_a_memory_answers_as_it_did(
    form: Any, tmp_path: Path, network_facts: dict[str, Any]
) -> None:
    made = models.build("resnet8", classes=5, channels=2)
    models.initialise(made, 3)
    models.with_head(made, Head(form), 1, memory=memory())
    images = torch.randn(6, 2, 8, 8)
    facts = {**network_facts, "head": asdict(Head(form))}
    save_network(tmp_path / "it", made, {"memory": memory()}, facts)
    found = Finished.load(tmp_path / "it")
    assert found.head == Head(form)
    assert found.memory is not None and torch.equal(found.memory, memory())
    assert torch.equal(found.network()(images).logits, made.eval()(images).logits)


def test_networks_without_a_memory_have_none(tmp_path: Path, network_facts: dict[str, Any]) -> None:
    made = models.build("resnet8", classes=5, channels=2)
    save_network(tmp_path / "it", made, {}, network_facts)
    assert Finished.load(tmp_path / "it").memory is None


@pytest.mark.parametrize("form", MEMORY_FORMS)
def test_heads_with_a_memory_have_no_scale(form: Any) -> None:
    with pytest.raises(ValueError, match="has no scale"):
        Head(form, 2.0)
    assert set(CORRECTED_FORMS) < set(MEMORY_FORMS)
