"""Distillation from classes and votes, against its equations."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from trainer.losses.teachers import revised, shrunk
from trainer.models import Outputs
from trainer.objectives import OneHotDistill, Rows, Task, TeacherAnswer, VoteDistill

N, K = 6, 3
SHARES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]).double()
TASK = Task((9, 6, 3), SHARES)


def student() -> Outputs:
    return Outputs(torch.zeros(N, 1), torch.randn(N, K, dtype=torch.float64))


def test_one_hot_distillation_learns_the_class_that_the_teacher_says() -> None:
    out, label = student(), torch.arange(N) % K
    said = (label + 1) % K
    rows = Rows(label, torch.arange(N), (TeacherAnswer(label=said),))
    found = OneHotDistill().bind(TASK)(out, rows)
    torch.testing.assert_close(found, F.cross_entropy(out.logits, said, reduction="none"))


def test_votes_shrink_toward_the_shares_of_the_class_and_are_anchored_to_the_label() -> None:
    out, label = student(), torch.arange(N) % K
    votes = torch.tensor([[5.0, 2, 1], [0, 8, 0], [3, 3, 2]] * 2).double()
    rows = Rows(label, torch.arange(N), (TeacherAnswer(votes=votes),))
    found = VoteDistill(pseudo_votes=4.0, eta=0.8).bind(TASK)(out, rows)
    q = (votes + 4 * SHARES[label]) / 12
    own = q.gather(1, label[:, None])
    pull = 0.8 / (q.amax(1, keepdim=True) - own + 1)
    target = pull * q + (1 - pull) * F.one_hot(label, K)
    torch.testing.assert_close(shrunk(votes, SHARES[label], 4.0), q)
    torch.testing.assert_close(revised(q, label, 0.8), target)
    torch.testing.assert_close(found, F.cross_entropy(out.logits, target, reduction="none"))
