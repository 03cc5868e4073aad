"""Heads: their equations, what they inherit, and networks rebuilt from their facts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from trainer import models
from trainer.engine.folder import Finished, save_network
from trainer.models import Head
from trainer.models.classifier import Classifier


def network(head: Head = Head(), **others: Head) -> Classifier:
    made = models.build("resnet8", classes=5, channels=2, head=head, others=others)
    models.initialise(made, 3)
    return made.eval()


def test_a_cosine_head_answers_scaled_cosines_whatever_the_norms() -> None:
    model, features = network(Head("cosine", 30.0)), torch.randn(7, 64)
    weight = model.head.weight
    expected = 30 * F.cosine_similarity(features[:, None], weight[None], dim=2)
    torch.testing.assert_close(model.answer(features).logits, expected)
    with torch.no_grad():
        weight.mul_(torch.rand(5, 1) + 0.5)
    torch.testing.assert_close(model.answer(9 * features).logits, expected)
    assert model.head.bias is None


def test_a_scaled_head_learns_its_scales_only() -> None:
    model, features = network(Head("scaled", 2.0)), torch.randn(7, 64)
    linear = F.linear(features, model.head.weight, model.head.bias)
    torch.testing.assert_close(model.answer(features).logits, 2 * linear)
    model.answer(features).logits.sum().backward()
    assert model.head.weight.grad is None and model.head.bias.grad is None
    torch.testing.assert_close(model.head.scale.grad, linear.sum(0))


def test_other_heads_answer_by_name_and_leave_the_first_as_it_is() -> None:
    images = torch.randn(2, 2, 8, 8)
    alone, both = network(), network(soft=Head(), projection=Head("cosine", width=9))
    out = both(images)
    assert {name: value.shape for name, value in out.others.items()} == {
        "soft": (2, 5),
        "projection": (2, 9),
    }
    assert torch.equal(out.logits, alone(images).logits)
    assert not torch.equal(out.logits, out.others["soft"])
    part = out.of(slice(1, 2))
    assert torch.equal(part.others["soft"], out.others["soft"][1:])
    assert not any(value.requires_grad for value in out.detach().others.values())


@pytest.mark.parametrize("normed", [False, True])
def test_a_projection_has_two_layers_with_a_relu_between(normed: bool) -> None:
    model = network(side=Head("mlp", width=3, hidden=7, normed=normed))
    first, *norm, relu, last = model.others["side"]
    assert (first.weight.shape, last.weight.shape) == ((7, 64), (3, 7))
    assert [type(one) for one in norm] == ([torch.nn.BatchNorm1d] if normed else [])
    assert first.weight.any() and not first.bias.any()
    features = torch.randn(4, 64)
    hidden = first(features) if not normed else norm[0](first(features))
    expected = last(hidden.clamp(min=0))
    torch.testing.assert_close(model.answer(features).others["side"], expected)
    assert isinstance(relu, torch.nn.ReLU)


def test_a_detached_projection_does_not_shape_the_features() -> None:
    model, features = network(side=Head("mlp", width=3, hidden=7, detached=True)), torch.ones(2, 64)
    model.answer(features.requires_grad_(True)).others["side"].sum().backward()
    assert features.grad is None and model.others["side"][0].weight.grad is not None


@pytest.mark.parametrize(
    ("form", "settings", "problem"),
    [
        ("mlp", {}, "an MLP has hidden units"),
        ("mlp", {"hidden": 0}, "an MLP has hidden units"),
        ("cosine", {"hidden": 3}, "an MLP has hidden units, and it alone has"),
        ("cosine", {"normed": True}, "an MLP alone has a batch norm"),
    ],
)
def test_a_projection_that_cannot_be_is_refused(form: Any, settings: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Head(form, **settings)


def test_a_projection_never_answers() -> None:
    with pytest.raises(ValueError, match="has no classes to answer with"):
        network(Head("mlp", hidden=4))


def test_a_network_inherits_the_backbone_and_its_head_if_asked() -> None:
    earlier = network()
    with torch.no_grad():
        for parameter in earlier.parameters():
            parameter.add_(1)
    for heads in (False, True):
        later = network(Head("scaled"))
        own = later.head.weight.clone()
        models.inherit(later, earlier.state_dict(), heads=heads)
        assert torch.equal(later.stem.weight, earlier.stem.weight)
        assert torch.equal(later.head.weight, earlier.head.weight if heads else own)
        assert (later.head.scale == 1).all()


@pytest.mark.parametrize("head", [Head(), Head("cosine", 16.0), Head("scaled", 2.0)], ids=repr)
def test_a_saved_network_is_rebuilt_from_its_facts(
    head: Head, tmp_path: Path, network_facts: dict[str, Any]
) -> None:
    model, images = network(head, soft=Head("cosine", 4.0)), torch.randn(2, 2, 8, 8)
    others = {"soft": asdict(Head("cosine", 4.0))}
    facts = {**network_facts, "head": asdict(head), "others": others}
    save_network(tmp_path / "it", model, {"confusion": torch.zeros(5, 5)}, facts)
    found = Finished.load(tmp_path / "it")
    assert found.head == head
    out, expected = found.network()(images), model(images)
    assert torch.equal(out.logits, expected.logits)
    assert torch.equal(out.others["soft"], expected.others["soft"])


@pytest.mark.parametrize("head", [Head(), Head("cosine", 16.0), Head("scaled", 2.0)], ids=repr)
def test_heads_are_float32_when_the_backbone_is_not(head: Head) -> None:
    """bfloat16 logits of 200 classes have many ties, of which the first class wins."""
    model, images = network(head, soft=Head()), torch.randn(8, 2, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(images)
    alone = model.answer(out.features)
    assert out.logits.dtype == torch.float32
    assert torch.equal(out.logits, alone.logits)
    assert torch.equal(out.others["soft"], alone.others["soft"])
    assert not torch.equal(out.logits, out.logits.to(torch.bfloat16).float())


def test_facts_of_the_time_before_heads_mean_a_linear_one(
    tmp_path: Path, network_facts: dict[str, Any]
) -> None:
    model, images = network(), torch.randn(2, 2, 8, 8)
    save_network(tmp_path / "it", model, {"confusion": torch.zeros(5, 5)}, network_facts)
    assert torch.equal(
        Finished.load(tmp_path / "it").network()(images).logits, model(images).logits
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [(("round",), "must be one of"), (("cosine", 0.0), "positive"), (("linear", 2.0), "no scale")],
)
def test_a_head_that_cannot_be_is_refused(settings: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Head(*settings)
