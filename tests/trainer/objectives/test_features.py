"""Distillation of features: from one teacher as wide as the student, and from wider ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from trainer.losses.features import cosine_distance
from trainer.models import Outputs
from trainer.objectives import FeatureDistill, Rows, Task, TeacherAnswer

N, D = 6, 4


def rows(*features: torch.Tensor) -> Rows:
    said = tuple(TeacherAnswer(features=one) for one in features)
    return Rows(torch.zeros(N, dtype=torch.int64), torch.arange(N), said)


def student() -> Outputs:
    return Outputs(torch.randn(N, D), torch.zeros(N, 2))


def test_features_as_wide_as_the_teachers_are_compared_as_they_are() -> None:
    task = Task((1, 1), features=D, teacher_features=D)
    objective, out, teacher = FeatureDistill(), student(), torch.randn(N, D)
    assert objective.state(task) is None
    found = objective.bind(task, None)(out, rows(teacher))
    torch.testing.assert_close(found, cosine_distance(out.features, teacher))
    same = objective.bind(task, None)(out, rows(2 * out.features))
    torch.testing.assert_close(same, torch.zeros(N), rtol=0, atol=1e-6)


def test_several_teachers_are_met_by_a_learned_projection() -> None:
    task = Task((1, 1), features=D, teacher_features=7)
    objective, out, teachers = FeatureDistill(), student(), (torch.randn(N, 5), torch.randn(N, 2))
    state = objective.state(task)
    assert state is not None
    weight, bias = state.parameters()
    assert weight.shape == (7, D)
    found = objective.bind(task, state)(out, rows(*teachers))
    own = F.relu(out.features @ weight.T + bias)
    target = torch.cat([F.normalize(one, dim=1) for one in teachers], dim=1)
    torch.testing.assert_close(found, cosine_distance(own, target))
    found.sum().backward()
    assert weight.grad is not None and weight.grad.any()
