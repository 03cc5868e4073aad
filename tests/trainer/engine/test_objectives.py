"""The contract of objectives, over every stage of every recipe, and the maths by identities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.errors import InvalidInput
from trainer import objectives
from trainer.engine.loop import Losses, row_losses
from trainer.models import Outputs
from trainer.objectives import (
    CrossEntropy,
    Distill,
    LogitAdjusted,
    Objective,
    OneHotDistill,
    Sum,
    Task,
    TeacherAnswer,
    VoteDistill,
)
from trainer.objectives.distill import revised, shrunk
from trainer.recipes.catalogue import RECIPES

N, K, D = 6, 4, 5
# CIFAR-10-LT at imbalance 100, for the test vectors of the dossier (longtail.md 1.5).
CIFAR_COUNTS = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)

STAGES = [(recipe, stage) for recipe in RECIPES.values() for stage in recipe.stages]
each_stage = pytest.mark.parametrize(
    "objective", [s.objective for _, s in STAGES], ids=[f"{r.name}/{s.name}" for r, s in STAGES]
)


def task(counts: tuple[int, ...] = (40, 20, 10, 5)) -> Task:
    shares = torch.rand(K, K, dtype=torch.float64) + torch.eye(K, dtype=torch.float64)
    return Task(counts, shares / shares.sum(1, keepdim=True))


def student(requires_grad: bool = False) -> Outputs:
    logits = 2 * torch.randn(N, K, dtype=torch.float64)
    features = torch.randn(N, D, dtype=torch.float64)
    return Outputs(features, logits.requires_grad_(requires_grad))


def answer(objective: Objective, *, bank: bool = False) -> TeacherAnswer | None:
    """What a teacher of the kind that the objective needs would say."""
    label = torch.randint(K, (N,))
    match objective.needs_teacher:
        case "logits":
            return TeacherAnswer(logits=torch.randn(N, K, dtype=torch.float64), label=label)
        case "label":
            return TeacherAnswer(label=label)
        case "votes" if bank:
            return TeacherAnswer(label=label)
        case "votes":
            views = torch.randint(K, (N, 16))
            return TeacherAnswer(votes=F.one_hot(views, K).sum(1).double())
    return None


def rows_of(teacher: TeacherAnswer | None, rows: Any) -> TeacherAnswer | None:
    if teacher is None:
        return None
    return TeacherAnswer(*(None if part is None else part[rows] for part in teacher))


@each_stage
@pytest.mark.parametrize("bank", [False, True], ids=["real", "bank"])
def test_a_loss_is_finite_differentiable_and_one_per_row(objective: Objective, bank: bool) -> None:
    loss = objective.bind(task().balanced() if bank else task())
    out, label = student(requires_grad=True), torch.randint(K, (N,))
    values = loss(out, label, answer(objective, bank=bank))
    assert values.shape == (N,)
    assert values.isfinite().all()
    values.sum().backward()
    assert out.logits.grad is not None and out.logits.grad.isfinite().all()
    assert out.logits.grad.abs().sum() > 0


@each_stage
def test_rows_do_not_see_one_another(objective: Objective) -> None:
    loss, out, label = objective.bind(task()), student(), torch.randint(K, (N,))
    teacher, order = answer(objective), torch.randperm(N)
    values = loss(out, label, teacher)
    permuted = loss(
        Outputs(out.features[order], out.logits[order]), label[order], rows_of(teacher, order)
    )
    torch.testing.assert_close(permuted, values[order])


@each_stage
def test_gradients_are_those_of_finite_differences(objective: Objective) -> None:
    loss, label, teacher = objective.bind(task()), torch.randint(K, (N,)), answer(objective)
    features = torch.zeros(N, D, dtype=torch.float64)
    logits = student(requires_grad=True).logits
    assert torch.autograd.gradcheck(lambda z: loss(Outputs(features, z), label, teacher), (logits,))


@each_stage
def test_an_objective_prints_as_its_source(objective: Objective) -> None:
    assert eval(repr(objective), vars(objectives)) == objective
    assert hash(objective) == hash(eval(repr(objective), vars(objectives)))


class Rows:
    """As much of a batch as the mixing of losses looks at."""

    def __init__(self, label_a: Tensor, label_b: Tensor, lam: Tensor, real: int) -> None:
        self.label_a, self.label_b, self.lam, self.real = label_a, label_b, lam, real
        self.mixed = True
        bank = slice(real, len(lam))
        self.sources = (slice(0, real), bank) if real < len(lam) else (slice(0, real),)


@each_stage
def test_pure_shares_reproduce_the_unmixed_loss(objective: Objective) -> None:
    """lam = 1 is the loss of label_a, lam = 0 that of label_b."""
    loss, out, teacher = objective.bind(task()), student(), answer(objective)
    a, b = torch.randint(K, (2, N))
    losses = Losses(loss, loss, 1.0)
    for lam, label in ((1.0, a), (0.0, b)):
        batch: Any = Rows(a, b, torch.full((N,), lam), N)
        answers = None if teacher is None else ((teacher, teacher),)
        mixed = row_losses(losses, out, batch, answers)
        torch.testing.assert_close(mixed, loss(out, label, teacher), rtol=0, atol=0)


def test_rows_of_a_bank_meet_a_task_of_equal_counts() -> None:
    objective, out, label = LogitAdjusted(), student(), torch.randint(K, (N,))
    losses = Losses(objective.bind(task()), objective.bind(task().balanced()), 1.0)
    batch: Any = Rows(label, label, torch.ones(N), 3)
    values = row_losses(losses, out, batch, None)
    torch.testing.assert_close(values[:3], objective.bind(task())(out, label, None)[:3])
    torch.testing.assert_close(values[3:], F.cross_entropy(out.logits, label, reduction="none")[3:])


def test_balanced_softmax_is_cross_entropy_on_equal_counts() -> None:
    out, label, equal = student(), torch.randint(K, (N,)), Task((7,) * K)
    torch.testing.assert_close(
        LogitAdjusted().bind(equal)(out, label, None), CrossEntropy().bind(equal)(out, label, None)
    )


def test_logit_adjustment_without_tau_is_cross_entropy() -> None:
    out, label = student(), torch.randint(K, (N,))
    torch.testing.assert_close(
        LogitAdjusted(tau=0.0).bind(task())(out, label, None),
        CrossEntropy().bind(task())(out, label, None),
    )


def test_balanced_softmax_toy_of_the_dossier() -> None:
    """longtail.md 1.5: z = (2, 1, 0), pi = (.7, .2, .1)."""
    out = Outputs(torch.zeros(3, 1), torch.tensor([[2.0, 1.0, 0.0]] * 3))
    values = LogitAdjusted().bind(Task((7, 2, 1)))(out, torch.arange(3), None)
    torch.testing.assert_close(values, torch.tensor([0.11729, 2.37005, 4.06320]), rtol=0, atol=5e-6)


def test_log_priors_of_cifar10_at_100() -> None:
    """longtail.md 1.5, log pi: read off the loss at equal logits."""
    expected = [-0.9087, -1.4206, -1.9326, -2.4440, -2.9567]
    expected += [-3.4675, -3.9792, -4.4915, -5.0071, -5.5139]
    out = Outputs(torch.zeros(10, 1), torch.zeros(10, 10, dtype=torch.float64))
    values = LogitAdjusted().bind(Task(CIFAR_COUNTS))(out, torch.arange(10), None)
    torch.testing.assert_close(-values, torch.tensor(expected).double(), rtol=0, atol=6e-5)


def test_two_calls_equal_the_soft_cross_entropy() -> None:
    """Dossier test 6: lam of two hard labels is the cross-entropy of their two-hot vector."""
    out, (a, b), lam = student(), torch.randint(K, (2, N)), torch.rand(N)
    loss = CrossEntropy().bind(task())
    mixed = row_losses(Losses(loss, loss, 1.0), out, Rows(a, b, lam, N), None)
    soft = lam[:, None] * F.one_hot(a, K) + (1 - lam)[:, None] * F.one_hot(b, K)
    torch.testing.assert_close(mixed, F.cross_entropy(out.logits, soft.double(), reduction="none"))


def test_distillation_from_oneself_is_zero() -> None:
    out = student()
    values = Distill(4.0).bind(task())(out, torch.zeros(N, dtype=torch.int64), teacher_of(out))
    torch.testing.assert_close(values, torch.zeros(N, dtype=torch.float64), rtol=0, atol=1e-12)


def teacher_of(out: Outputs) -> TeacherAnswer:
    return TeacherAnswer(logits=out.logits.detach())


def test_distillation_gradient_is_the_temperature_times_the_difference() -> None:
    """Dossier test 7 and section 3.1: T (p_S - p_T) / B for the mean over B rows."""
    T, out, other = 4.0, student(requires_grad=True), student()
    Distill(T).bind(task())(out, torch.zeros(N).long(), teacher_of(other)).mean().backward()
    expected = T * ((out.logits / T).softmax(1) - (other.logits / T).softmax(1)).detach() / N
    torch.testing.assert_close(out.logits.grad, expected)


def test_distillation_from_certainty_at_temperature_one_is_cross_entropy() -> None:
    """Dossier test 7: at T = 1 a one-hot teacher gives CE minus its own entropy, which is 0."""
    out, label = student(), torch.randint(K, (N,))
    certain = TeacherAnswer(logits=1e4 * F.one_hot(label, K).double())
    torch.testing.assert_close(
        Distill(1.0).bind(task())(out, label, certain),
        CrossEntropy().bind(task())(out, label, None),
    )


def test_the_label_stays_the_most_probable_after_revision() -> None:
    """Dossier test 9: for 10,000 random shares and any eta < 1."""
    shares = torch.rand(10_000, K, dtype=torch.float64) ** 4
    shares = shares / shares.sum(1, keepdim=True)
    label = torch.randint(K, (10_000,))
    for eta in (0.1, 0.9, 0.999):
        target = revised(shares, label, eta)
        assert torch.equal(target.argmax(1), label)
        torch.testing.assert_close(target.sum(1), torch.ones(10_000, dtype=torch.float64))
        assert (target >= 0).all()


def test_without_pseudo_votes_a_unanimous_teacher_is_one_hot() -> None:
    """Dossier test 11, before the anchor: q is the one-hot vector of the class all views got."""
    said = torch.randint(K, (N,))
    votes = 64 * F.one_hot(said, K).double()
    row = torch.full((N, K), 1 / K, dtype=torch.float64)
    assert torch.equal(shrunk(votes, row, 0.0), F.one_hot(said, K).double())


def test_votes_of_a_unanimous_and_right_teacher_are_one_hot_distillation() -> None:
    """Dossier test 11."""
    out, label = student(), torch.randint(K, (N,))
    voted = TeacherAnswer(votes=64 * F.one_hot(label, K).double())
    torch.testing.assert_close(
        VoteDistill(pseudo_votes=0.0).bind(task())(out, label, voted),
        OneHotDistill().bind(task())(out, label, TeacherAnswer(label=label)),
    )


def test_many_pseudo_votes_give_the_shares_of_the_class() -> None:
    votes = torch.randint(0, 9, (N, K)).double() + 1
    row = torch.rand(N, K, dtype=torch.float64)
    row = row / row.sum(1, keepdim=True)
    torch.testing.assert_close(shrunk(votes, row, 1e12), row)


def test_a_sum_weighs_its_terms_and_asks_one_kind_of_answer() -> None:
    out, label = student(), torch.randint(K, (N,))
    both = Sum(((0.25, CrossEntropy()), (0.5, LogitAdjusted()))).bind(task())
    parts = [o.bind(task())(out, label, None) for o in (CrossEntropy(), LogitAdjusted())]
    torch.testing.assert_close(both(out, label, None), 0.25 * parts[0] + 0.5 * parts[1])
    with pytest.raises(ValueError, match=r"asks one teacher for \['label', 'logits'\]"):
        _ = Sum(((1.0, Distill()), (1.0, OneHotDistill()))).needs_teacher


def test_a_class_without_images_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"classes \[1\] have no training image"):
        Task((3, 0, 2))
