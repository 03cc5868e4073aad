"""The contract of objectives, over every stage of every recipe, and the maths by identities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.errors import InvalidInput
from stylegan_mix.rng import Draws
from trainer import objectives
from trainer.engine.batch import Batch, Partners, Source
from trainer.engine.loop import Losses, row_losses
from trainer.losses.teachers import revised, shrunk
from trainer.models import Head, Outputs
from trainer.objectives import (
    BackTracked,
    CrossEntropy,
    Distill,
    LogitAdjusted,
    Loss,
    MetaSoftmax,
    Needs,
    Objective,
    OneHotDistill,
    Reweighted,
    Rows,
    Task,
    TeacherAnswer,
    VoteDistill,
)
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.levers import with_levers

N, K, D = 6, 4, 5
# CIFAR-10-LT at imbalance 100, for the test vectors.
CIFAR_COUNTS = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)

LEVERS = [
    with_levers(one, drw=0.5, head_epochs=1, h2t=False, epochs=10) for one in RECIPES.values()
]
STAGES = [(recipe, stage) for recipe in RECIPES.values() for stage in recipe.stages]
STAGES += [(one, stage) for one in LEVERS for stage in one.stages if one.takes_drw]
each_stage = pytest.mark.parametrize(
    "objective", [s.objective for _, s in STAGES], ids=[f"{r.name}/{s.name}" for r, s in STAGES]
)


def task(counts: tuple[int, ...] = (40, 20, 10, 5)) -> Task:
    shares = torch.rand(K, K, dtype=torch.float64) + torch.eye(K, dtype=torch.float64)
    return Task(counts, shares / shares.sum(1, keepdim=True), features=D, teacher_features=2 * D)


def bound(objective: Objective, to: Task | None = None) -> Loss:
    """The loss with a state of its own, in double precision."""
    to = to or task()
    state = objective.state(to)
    return objective.bind(to, state.double() if state is not None else None)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def student(objective: Objective | None = None) -> Outputs:
    """Random outputs of a network with all the heads and views that the objective needs."""
    needs = objective.needs if objective else Needs()
    weight = normal(K, D)

    def seen() -> Outputs:
        others = {name: normal(N, head.width or K) for name, head in needs.others.items()}
        if needs.head and needs.head.experts > 1:
            others["experts"] = normal(N, needs.head.experts, K)
        if isinstance(objective, BackTracked):
            others["label"] = torch.randint(-1, K, (N,))
        if isinstance(objective, MetaSoftmax):
            others |= {"meta": normal(N, K), "label": torch.randint(K, (N,))}
        return Outputs(normal(N, D), 2 * normal(N, K), others, weight)

    return seen()._replace(views=tuple(seen() for _ in range(needs.views)))


def tensors_of(out: Outputs) -> list[Tensor]:
    """All tensors of numbers in some outputs, each once; the weight is the last."""
    own = [[one.features, one.logits, *one.others.values()] for one in (out, *out.views)]
    found = [value for part in own for value in part if value.is_floating_point()]
    assert out.weight is not None
    return [*found, out.weight]


def with_tensors(out: Outputs, given: Sequence[Tensor]) -> Outputs:
    """The same outputs with the tensors of `tensors_of` replaced."""
    left = iter(given)
    weight = given[-1]

    def seen(one: Outputs) -> Outputs:
        features, logits = next(left), next(left)
        others = {
            name: next(left) if value.is_floating_point() else value
            for name, value in one.others.items()
        }
        return one._replace(features=features, logits=logits, others=others, weight=weight)

    first, *views = [seen(one) for one in (out, *out.views)]
    return first._replace(views=tuple(views))


def answers(objective: Objective, *, bank: bool = False) -> tuple[TeacherAnswer, ...]:
    """The answers of as many teachers as the objective reads, in the form that it needs."""
    asked = objective.needs.answers
    about = []
    for _ in range(0 if not asked else 2 if objective.needs.ensemble else 1):
        label = torch.randint(K, (N,))
        if "votes" in asked:
            views = F.one_hot(torch.randint(K, (N, 16)), K).sum(1).double()
            about.append(TeacherAnswer(label=label) if bank else TeacherAnswer(votes=views))
        elif asked == {"label"}:
            about.append(TeacherAnswer(label=label))
        else:
            about.append(TeacherAnswer(normal(N, K), label, features=normal(N, D)))
    return tuple(about)


def rows(label: Tensor, *teachers: TeacherAnswer, bank: bool = False) -> Rows:
    """The view of a loss on labels, and on teachers where there are some; always the same noise.

    Rows of a bank, and those whose label is one of all classes, have no views.
    """
    shown = None if bank or label.is_floating_point() else label
    return Rows(label, torch.arange(len(label)), teachers, 0.0, same_noise(), bank, shown)


def same_noise(seed: int = 1) -> Draws:
    """Draws that begin anew with every draw."""
    generator = torch.Generator()

    def again(draw: Callable[[], Tensor]) -> Tensor:
        generator.manual_seed(seed)
        return draw()

    return Draws(generator, hold=again)


def reordered(teacher: TeacherAnswer, order: Tensor) -> TeacherAnswer:
    return TeacherAnswer(*(None if part is None else part[order] for part in teacher))


@each_stage
@pytest.mark.parametrize("bank", [False, True], ids=["real", "bank"])
def test_a_loss_is_finite_differentiable_and_one_per_row(objective: Objective, bank: bool) -> None:
    loss = bound(objective, task().balanced() if bank else task())
    out, label = student(objective), torch.randint(K, (N,))
    inputs = tensors_of(out)
    for value in inputs:
        value.requires_grad_(True)
    values = loss(out, rows(label, *answers(objective, bank=bank), bank=bank))
    assert values.shape == (N,)
    assert values.isfinite().all()
    values.sum().backward()
    grads = [value.grad for value in inputs if value.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    assert sum(grad.abs().sum() for grad in grads) > 0


@each_stage
def test_the_order_of_the_rows_does_not_matter(objective: Objective) -> None:
    if objective.stochastic:
        return  # as it declares, equal rows may differ
    loss, out, label = bound(objective), student(objective), torch.randint(K, (N,))
    teachers, order = answers(objective), torch.randperm(N)
    values = loss(out, rows(label, *teachers))
    seen = rows(label[order], *(reordered(one, order) for one in teachers))
    permuted = loss(out.of(order), replace(seen, index=order))
    torch.testing.assert_close(permuted, values[order])


@each_stage
def test_rows_do_not_see_one_another_unless_that_is_declared(objective: Objective) -> None:
    loss, out, label = bound(objective), student(objective), torch.randint(K, (N,))
    teachers = answers(objective)
    before = loss(out, rows(label, *teachers))[0]
    others = [
        value if value is out.weight else torch.cat([value[:1], normal(*value[1:].shape)])
        for value in tensors_of(out)
    ]
    label = torch.cat([label[:1], (label[1:] + 1) % K])
    after = loss(with_tensors(out, others), rows(label, *teachers))[0]
    assert objective.reads_batch != torch.equal(before, after)


@each_stage
def test_gradients_are_those_of_finite_differences(objective: Objective) -> None:
    if objective.detaches:
        return  # as it declares, a factor has no gradient
    loss, label, teachers = bound(objective), torch.randint(K, (N,)), answers(objective)
    out = student(objective)

    def values(*given: Tensor) -> Tensor:
        return loss(with_tensors(out, given), rows(label, *teachers))

    inputs = [value.requires_grad_(True) for value in tensors_of(out)]
    assert torch.autograd.gradcheck(values, inputs)


@each_stage
def test_an_objective_declares_whether_it_reads_a_state_and_draws_noise(
    objective: Objective,
) -> None:
    keeps = objective.reads_state or objective.remembers  # a memory that its own loss leaves unread
    assert keeps == (objective.state(task()) is not None)
    loss, out, label = bound(objective), student(objective), torch.randint(K, (N,))
    seen = rows(label, *answers(objective))
    other = replace(seen, draws=same_noise(2))
    assert objective.stochastic != torch.equal(loss(out, seen), loss(out, other))


@each_stage
def test_an_objective_prints_as_its_source(objective: Objective) -> None:
    again = eval(repr(objective), {**vars(objectives), "Head": Head})
    assert again == objective
    assert hash(again) == hash(objective)


def batch_of(label_a: Tensor, label_b: Tensor, lam: Tensor, real: int) -> Batch:
    """Mixed rows, the first `real` of the training set and the others of a bank."""
    images, index = torch.zeros(len(lam), 1, 1, 1), torch.arange(len(lam))
    sources = (
        Source("real", slice(0, real), mixed=True),
        Source("bank", slice(real, len(lam)), bank=True, mixed=True),
    )
    found = sources[: 1 if real == len(lam) else 2]
    return Batch(images, label_a, label_b, lam, index, index, found)


@each_stage
def test_pure_shares_reproduce_the_unmixed_loss(objective: Objective) -> None:
    """lam = 1 is the loss of label_a, lam = 0 that of label_b."""
    loss, out, teachers = bound(objective), student(objective), answers(objective)
    a, b = torch.randint(K, (2, N))
    losses = Losses(loss, loss)
    for lam, label in ((1.0, a), (0.0, b)):
        batch = batch_of(a, b, torch.full((N,), lam), N)
        said = [{"real": (one, one)} for one in teachers]
        mixed = row_losses(losses, out, batch, said, noise=same_noise())
        views = a if out.views else None  # which are never mixed
        alone = replace(rows(label, *teachers), shown=views, mixed=True)
        torch.testing.assert_close(mixed, loss(out, alone), rtol=0, atol=0)


@each_stage
def test_a_label_of_all_classes_is_the_sum_of_its_shares(objective: Objective) -> None:
    """sum_c p_c loss(c), also for p with zeros; the loss of one class is that of its label."""
    if not objective.reads_shares:
        return
    equal = task() if isinstance(objective, CrossEntropy | LogitAdjusted) else task().balanced()
    loss, out = bound(objective, equal), student(objective)
    teachers = answers(objective, bank=True)
    shares = torch.rand(N, K, dtype=torch.float64) * (torch.rand(N, K) < 0.7) + 1e-9
    shares /= shares.sum(1, keepdim=True)
    classes = [loss(out, rows(torch.full((N,), c), *teachers, bank=True)) for c in range(K)]
    expected = (shares * torch.stack(classes, 1)).sum(1)
    torch.testing.assert_close(loss(out, rows(shares, *teachers)), expected)


def test_class_weights_enter_a_label_of_all_classes_class_by_class() -> None:
    """Also where the weights differ, as they do on training images."""
    loss, out = bound(Reweighted(CrossEntropy())), student()
    shares = torch.softmax(normal(N, K), 1)
    classes = [loss(out, rows(torch.full((N,), c))) for c in range(K)]
    expected = (shares * torch.stack(classes, 1)).sum(1)
    torch.testing.assert_close(loss(out, rows(shares)), expected)
    plain = bound(CrossEntropy())(out, rows(torch.arange(N) % K))
    ratio = (bound(Reweighted(CrossEntropy()))(out, rows(torch.arange(N) % K)) / plain)[:K]
    assert ratio.tolist() == sorted(ratio.tolist())  # classes get rarer
    assert float((ratio * torch.tensor([40, 20, 10, 5])).sum() / 75) == pytest.approx(1)


def test_a_target_takes_the_place_of_both_labels_and_a_partner_adds_its_own() -> None:
    """own (sum_c p_c loss of equal classes(c)) + (1 - own) loss of the training set(y)."""
    losses = Losses.of(LogitAdjusted(), task(), None)
    out, a, b, lam = student(), *torch.randint(K, (2, N)), torch.rand(N)
    plain = batch_of(a, b, lam, 3)
    target, y = torch.softmax(normal(3, K), 1), torch.randint(K, (3,))
    own = torch.rand(3)
    about = out.of(slice(3, N))
    dense = losses.bank(about, rows(target))
    found = row_losses(losses, out, replace(plain, targets={"bank": target}))
    torch.testing.assert_close(found[3:], dense)
    torch.testing.assert_close(found[:3], row_losses(losses, out, plain)[:3])
    partners = {"bank": Partners(y, torch.zeros(3, dtype=torch.int64), own)}
    crossed = row_losses(losses, out, replace(plain, targets={"bank": target}, partners=partners))
    expected = own * dense + (1 - own) * losses.real(about, rows(y))
    torch.testing.assert_close(crossed[3:], expected)
    both = row_losses(losses, out, replace(plain, partners=partners))[3:]
    alone = row_losses(losses, out, plain)[3:]
    torch.testing.assert_close(both, own * alone + (1 - own) * losses.real(about, rows(y)))


def test_training_images_that_are_drawn_evenly_meet_a_task_of_equal_counts() -> None:
    out, label = student(), torch.randint(K, (N,))
    losses = Losses.of(LogitAdjusted(), task(), None)
    batch = batch_of(label, label, torch.ones(N), 3)
    even = Source("even", slice(3, N), mixed=True, even=True)
    found = row_losses(losses, out, replace(batch, sources=(batch.sources[0], even)))
    torch.testing.assert_close(found, row_losses(losses, out, batch))


def test_rows_of_a_bank_meet_a_task_of_equal_counts() -> None:
    objective, out, label = LogitAdjusted(), student(), torch.randint(K, (N,))
    losses = Losses.of(objective, task(), None)
    values = row_losses(losses, out, batch_of(label, label, torch.ones(N), 3))
    torch.testing.assert_close(values[:3], objective.bind(task())(out, rows(label))[:3])
    torch.testing.assert_close(values[3:], F.cross_entropy(out.logits, label, reduction="none")[3:])


def test_balanced_softmax_is_cross_entropy_on_equal_counts() -> None:
    out, label, equal = student(), torch.randint(K, (N,)), Task((7,) * K)
    torch.testing.assert_close(
        LogitAdjusted().bind(equal)(out, rows(label)), CrossEntropy().bind(equal)(out, rows(label))
    )


def test_logit_adjustment_without_tau_is_cross_entropy() -> None:
    out, label = student(), torch.randint(K, (N,))
    torch.testing.assert_close(
        LogitAdjusted(tau=0.0).bind(task())(out, rows(label)),
        CrossEntropy().bind(task())(out, rows(label)),
    )


def test_balanced_softmax_by_hand() -> None:
    """Balanced softmax (Ren et al. 2020) of z = (2, 1, 0) with pi = (.7, .2, .1)."""
    out = Outputs(torch.zeros(3, 1), torch.tensor([[2.0, 1.0, 0.0]] * 3))
    values = LogitAdjusted().bind(Task((7, 2, 1)))(out, rows(torch.arange(3)))
    torch.testing.assert_close(values, torch.tensor([0.11729, 2.37005, 4.06320]), rtol=0, atol=5e-6)


def test_log_priors_of_cifar10_at_100() -> None:
    """The loss at equal logits is -log pi (Ren et al. 2020)."""
    expected = [-0.9087, -1.4206, -1.9326, -2.4440, -2.9567]
    expected += [-3.4675, -3.9792, -4.4915, -5.0071, -5.5139]
    out = Outputs(torch.zeros(10, 1), torch.zeros(10, 10, dtype=torch.float64))
    values = LogitAdjusted().bind(Task(CIFAR_COUNTS))(out, rows(torch.arange(10)))
    torch.testing.assert_close(-values, torch.tensor(expected).double(), rtol=0, atol=6e-5)


def test_two_calls_equal_the_soft_cross_entropy() -> None:
    """The lam of two hard labels is the cross-entropy of their two-hot vector."""
    out, (a, b), lam = student(), torch.randint(K, (2, N)), torch.rand(N)
    loss = CrossEntropy().bind(task())
    mixed = row_losses(Losses(loss, loss), out, batch_of(a, b, lam, N))
    soft = lam[:, None] * F.one_hot(a, K) + (1 - lam)[:, None] * F.one_hot(b, K)
    torch.testing.assert_close(mixed, F.cross_entropy(out.logits, soft.double(), reduction="none"))


def test_distillation_from_oneself_is_zero() -> None:
    out = student()
    values = Distill(4.0).bind(task())(out, rows(torch.zeros(N).long(), teacher_of(out)))
    torch.testing.assert_close(values, torch.zeros(N, dtype=torch.float64), rtol=0, atol=1e-12)


def teacher_of(out: Outputs) -> TeacherAnswer:
    return TeacherAnswer(logits=out.logits.detach())


def test_distillation_gradient_is_the_temperature_times_the_difference() -> None:
    """By hand: T (p_S - p_T) / B for the mean over B rows."""
    T, out, other = 4.0, student(), student()
    out.logits.requires_grad_(True)
    Distill(T).bind(task())(out, rows(torch.zeros(N).long(), teacher_of(other))).mean().backward()
    expected = T * ((out.logits / T).softmax(1) - (other.logits / T).softmax(1)).detach() / N
    torch.testing.assert_close(out.logits.grad, expected)


def test_distillation_from_certainty_at_temperature_one_is_cross_entropy() -> None:
    """At T = 1 a one-hot teacher gives CE minus its own entropy, which is 0."""
    out, label = student(), torch.randint(K, (N,))
    certain = TeacherAnswer(logits=1e4 * F.one_hot(label, K).double())
    torch.testing.assert_close(
        Distill(1.0).bind(task())(out, rows(label, certain)),
        CrossEntropy().bind(task())(out, rows(label)),
    )


def test_the_label_stays_the_most_probable_after_revision() -> None:
    """For 10,000 random shares and any eta < 1."""
    shares = torch.rand(10_000, K, dtype=torch.float64) ** 4
    shares = shares / shares.sum(1, keepdim=True)
    label = torch.randint(K, (10_000,))
    for eta in (0.1, 0.9, 0.999):
        target = revised(shares, label, eta)
        assert torch.equal(target.argmax(1), label)
        torch.testing.assert_close(target.sum(1), torch.ones(10_000, dtype=torch.float64))
        assert (target >= 0).all()


def test_without_pseudo_votes_a_unanimous_teacher_is_one_hot() -> None:
    """Before the anchor, q is the one-hot vector of the class all views got."""
    said = torch.randint(K, (N,))
    votes = 64 * F.one_hot(said, K).double()
    row = torch.full((N, K), 1 / K, dtype=torch.float64)
    assert torch.equal(shrunk(votes, row, 0.0), F.one_hot(said, K).double())


def test_votes_of_a_unanimous_and_right_teacher_are_one_hot_distillation() -> None:
    out, label = student(), torch.randint(K, (N,))
    voted = TeacherAnswer(votes=64 * F.one_hot(label, K).double())
    torch.testing.assert_close(
        VoteDistill(pseudo_votes=0.0).bind(task())(out, rows(label, voted)),
        OneHotDistill().bind(task())(out, rows(label, TeacherAnswer(label=label))),
    )


def test_many_pseudo_votes_give_the_shares_of_the_class() -> None:
    votes = torch.randint(0, 9, (N, K)).double() + 1
    row = torch.rand(N, K, dtype=torch.float64)
    row = row / row.sum(1, keepdim=True)
    torch.testing.assert_close(shrunk(votes, row, 1e12), row)


def test_a_class_without_images_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"classes \[1\] have no training image"):
        Task((3, 0, 2))
