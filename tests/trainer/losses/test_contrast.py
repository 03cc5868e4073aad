"""Contrast of views: hand-made cases, sums written out, and identities."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.losses.contrast import balanced_contrast, parametric_contrast

V, N, K, P = 2, 6, 3, 5
LABEL = torch.tensor([0, 0, 0, 0, 1, 2])


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_balanced_contrast_by_hand() -> None:
    """Two rows at right angles, each on the prototype of its class: log(1 + 1/e)."""
    corners = torch.eye(2)
    found = balanced_contrast(3 * corners[None], torch.arange(2), 0.5 * corners, temperature=1.0)
    torch.testing.assert_close(found, torch.full((2,), math.log(1 + math.exp(-1))))


def written_out(views: Tensor, label: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """The equation of Zhu et al. 2022, item by item."""
    own = [(v, i) for v in range(len(views)) for i in range(len(label))]
    items = [(views[v, i], int(label[i])) for v, i in own]
    items += [(prototypes[c], c) for c in range(len(prototypes))]
    found = torch.zeros(len(label), dtype=views.dtype)
    for place, (_, row) in enumerate(own):
        x, y = items[place]
        size = [sum(c == of for _, of in items) for c in range(len(prototypes))]
        score = [float(F.cosine_similarity(x, z, dim=0)) / temperature for z, _ in items]
        rest = [k for k in range(len(items)) if k != place]
        below = sum(math.exp(score[k]) / (size[items[k][1]] - (items[k][1] == y)) for k in rest)
        alike = [k for k in rest if items[k][1] == y]
        each = [-math.log(math.exp(score[k]) / below) for k in alike]
        found[row] += sum(each) / len(alike) / len(views)
    return found


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_balanced_contrast_is_the_sum_over_items(temperature: float) -> None:
    views, prototypes = normal(V, N, P), normal(K, P)
    found = balanced_contrast(views, LABEL, prototypes, temperature)
    torch.testing.assert_close(found, written_out(views, LABEL, prototypes, temperature))


def test_items_that_are_all_alike_cost_the_logarithm_of_the_classes() -> None:
    """However many images each class has."""
    found = balanced_contrast(torch.ones(V, N, P), LABEL, torch.ones(K, P))
    torch.testing.assert_close(found, torch.full((N,), math.log(K)))


def test_a_class_that_comes_twice_as_often_weighs_no_more_for_the_others() -> None:
    """All items of class 0 doubled, its prototype by another view of it."""
    views, prototypes, label = normal(1, 3, P), normal(K, P), torch.tensor([0, 1, 2])
    alone = balanced_contrast(views, label, prototypes)
    more = torch.cat([views, views[:, :1], prototypes[None, :1]], 1)
    found = balanced_contrast(more, torch.tensor([0, 1, 2, 0, 0]), prototypes)
    torch.testing.assert_close(found[1:3], alone[1:])


def test_a_batch_without_rows_has_no_loss() -> None:
    found = balanced_contrast(normal(V, 0, P), torch.zeros(0, dtype=torch.long), normal(K, P))
    assert found.shape == (0,)


# One softmax of classes and keys


def test_parametric_contrast_by_hand() -> None:
    """Two classes of log 1/2 and a key of the class at a right angle: p = 1/4, 1/4, 1/2."""
    logits = torch.tensor([[0.5, 0.5]]).log()
    query, key = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    label = torch.tensor([1])
    found = parametric_contrast(logits, label, query, key, label, alpha=0.5, temperature=0.1)
    expected = (math.log(4) + 0.5 * math.log(2)) / 1.5
    torch.testing.assert_close(found, torch.tensor([expected]))


@pytest.mark.parametrize("among", [False, True])
def test_parametric_contrast_is_the_sum_over_classes_and_keys(among: bool) -> None:
    logits, queries, keys = normal(N, K), normal(N, P), normal(4, P)
    key_label = torch.tensor([0, 2, -1, 1])
    found = parametric_contrast(
        logits, LABEL, queries, keys, key_label, alpha=0.3, temperature=0.4, among=among
    )
    for i in range(N):
        known = [(keys[k], int(key_label[k])) for k in (0, 1, 3)]
        known += [(queries[j], int(LABEL[j])) for j in range(N) if among and j != i]
        scores = [float(F.cosine_similarity(queries[i], k, dim=0)) / 0.4 for k, _ in known]
        total = sum(math.exp(s) for s in [*logits[i].tolist(), *scores])
        alike = [s for s, (_, y) in zip(scores, known, strict=True) if y == LABEL[i]]
        terms = [-math.log(math.exp(s) / total) for s in alike]
        right = -math.log(math.exp(logits[i, LABEL[i]]) / total)
        expected = (right + 0.3 * sum(terms)) / (1 + 0.3 * len(alike))
        assert float(found[i]) == pytest.approx(expected)


def test_without_keys_parametric_contrast_is_cross_entropy() -> None:
    logits, nobody = normal(N, K), torch.full((3,), -1)
    found = parametric_contrast(logits, LABEL, normal(N, P), normal(3, P), nobody)
    torch.testing.assert_close(found, F.cross_entropy(logits, LABEL, reduction="none"))


def test_keys_that_do_not_count_leave_finite_gradients() -> None:
    logits, queries = normal(N, K).requires_grad_(True), normal(N, P).requires_grad_(True)
    key_label = torch.tensor([-1, 0, -1])
    parametric_contrast(
        logits, LABEL, queries, normal(3, P), key_label, among=True
    ).sum().backward()
    for value in (logits, queries):
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.any()
