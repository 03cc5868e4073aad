"""The loop: rates, books, weights of rows, resuming at any step, divergence, batch norms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from stylegan_mix.errors import Diverged, Stopped
from stylegan_mix.rng import Draws, stream
from trainer import models
from trainer.engine import finite, loop
from trainer.engine.batch import Batch, Source
from trainer.engine.features import Plain
from trainer.models import Outputs
from trainer.objectives import CrossEntropy, Rows, Task, TeacherAnswer
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.stage import Stage
from trainer.spec import RunSpec

CPU = torch.device("cpu")
LOSS = CrossEntropy().bind(Task((1, 1, 1)))


def rates(stage: Stage, steps: int, per_epoch: int, **settings: Any) -> list[float]:
    rate = loop.rate_of(RunSpec(**settings), stage, steps, per_epoch)
    return [rate(step) for step in range(steps)]


def test_the_step_schedule_is_that_of_the_protocol() -> None:
    """0.02 to 0.1 over 5 epochs, 0.1 to epoch 160, 0.01 to 180, 0.001 to 200."""
    found = rates(Stage("train", CrossEntropy()), 600, 3)
    by_epoch = [found[3 * epoch] for epoch in range(200)]
    assert by_epoch[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert by_epoch[159:161] == pytest.approx([0.1, 0.01])
    assert by_epoch[179:181] == pytest.approx([0.01, 0.001])
    assert by_epoch[-1] == pytest.approx(0.001)
    assert found[0] == found[1] == found[2]


def first_version(epochs: int, per_epoch: int, marks: tuple[float, ...]) -> list[float]:
    """The rates of the loop's first version, which falls between two epochs only."""
    warmup, found = min(5.0, epochs / 4), []
    for step in range(epochs * per_epoch):
        epoch = step // per_epoch + 1
        factor = min(1.0, epoch / warmup)
        for mark, lower in zip(marks, (0.1, 0.01), strict=True):
            factor = lower if epoch > mark * epochs else factor
        found.append(0.1 * factor)
    return found


@pytest.mark.parametrize("epochs", [10, 20, 30, 60, 70, 100, 200, 400])
@pytest.mark.parametrize("per_epoch", [1, 3, 79, 97])
def test_where_milestones_end_an_epoch_the_rate_is_that_of_the_first_version_to_the_bit(
    epochs: int, per_epoch: int
) -> None:
    stage = Stage("train", CrossEntropy())
    found = rates(stage, epochs * per_epoch, per_epoch, epochs=epochs)
    assert found == first_version(epochs, per_epoch, (0.8, 0.9))
    assert not RunSpec(epochs=epochs).depends_on_loop


@pytest.mark.parametrize("marks", [(0.8, 0.9), (0.57, 0.58), (0.3, 0.55), (1 / 3, 2 / 3)])
@pytest.mark.parametrize("per_epoch", [1, 3, 79])
def test_milestones_are_shares_of_the_steps_in_runs_of_any_length(
    marks: tuple[float, float], per_epoch: int
) -> None:
    for epochs in (*range(1, 13), 57, 100):
        steps = epochs * per_epoch
        settings: dict[str, Any] = {"warmup_epochs": 0.0, "milestones": marks, "epochs": epochs}
        found = rates(Stage("train", CrossEntropy()), steps, per_epoch, **settings)
        high, low = (sum(rate > level for rate in found) for level in (0.05, 0.005))
        assert abs(high - marks[0] * steps) <= 0.5 + 1e-9
        assert abs(low - marks[1] * steps) <= 0.5 + 1e-9
        same = found == _without_warmup(first_version(epochs, per_epoch, marks))
        # Runs that the versions of the loop train alike keep their keys; no others do.
        assert same or RunSpec(**settings).depends_on_loop


def _without_warmup(rates: list[float]) -> list[float]:
    """The rates with the first, rising ones at their end value."""
    top = max(rates)
    last = rates.index(top)
    return [top] * last + rates[last:]


def test_no_short_run_is_at_a_lowered_rate_from_the_start() -> None:
    for steps in range(1, 40):
        assert rates(Stage("train", CrossEntropy()), steps, steps, epochs=1)[0] == 0.1


def test_stages_of_another_length_than_the_run_have_another_schedule() -> None:
    """The key says whether milestones fall within an epoch by the epochs of the whole run."""
    for recipe in RECIPES.values():
        for stage in recipe.stages:
            assert stage.schedule != "step" or stage.share == 1


def test_a_short_run_warms_up_for_a_quarter_of_it() -> None:
    found = rates(Stage("train", CrossEntropy()), 8, 1, epochs=8)
    assert found[:3] == pytest.approx([0.05, 0.1, 0.1])


def test_the_cosine_schedule_falls_from_lr_towards_zero() -> None:
    found = rates(Stage("head", CrossEntropy(), schedule="cosine"), 100, 10)
    assert found[0] == pytest.approx(0.1)
    assert found[50] == pytest.approx(0.05)
    assert found[-1] < 1e-4
    assert found == sorted(found, reverse=True)


def test_the_constant_schedule_has_neither_warm_up_nor_fall() -> None:
    assert set(rates(Stage("head", CrossEntropy(), schedule="constant"), 100, 10)) == {0.1}


def sources(real: int, count: int, weight: float) -> tuple[Source, ...]:
    return (
        Source("real", slice(0, real), mixed=True),
        Source("bank", slice(real, count), bank=True, mixed=True, weight=weight),
    )


def test_a_stage_has_its_own_share_of_the_rate() -> None:
    for schedule in ("step", "cosine", "constant"):
        whole = Stage("head", CrossEntropy(), schedule=schedule)
        found = rates(replace(whole, lr=0.2), 100, 10)
        assert found == pytest.approx([0.2 * rate for rate in rates(whole, 100, 10)])


def batch_of(step: int, *, real: int = 4, bank: int = 2, weight: float = 1.0) -> Batch:
    draws = torch.Generator().manual_seed(step)
    count = real + bank
    a, b = torch.randint(3, (2, count), generator=draws)
    lam = torch.rand(count, generator=draws)
    index = torch.arange(count)
    images = torch.randn(count, 2, 8, 8, generator=draws)
    return Batch(images, a, b, lam, index, index, sources(real, count, weight))


def job(steps: int = 12, **changes: Any) -> loop.Job:
    settings: dict[str, Any] = {
        "name": "train",
        "steps": steps,
        "steps_per_epoch": 4,
        "batches": batch_of,
        "forward": Plain(),
        "losses": loop.Losses(LOSS, LOSS),
        "teachers": (),
        "after_step": lambda state, out, batch: None,
        "rate": lambda step: 0.05,
        "noise": lambda step: Draws(),
        "streams": lambda step: lambda name: stream(0, name, step),
        "norms_follow": True,
        "precision": "float32",
    }
    return loop.Job(**{**settings, **changes})


def state() -> loop.State:
    model = models.build("resnet8", classes=3, channels=2)
    models.initialise(model, 0)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    return loop.State(model, optimiser, loop.Tally(CPU))


class Books:
    """Keeps events and checkpoints as a run folder would."""

    def __init__(self, now: loop.State) -> None:
        self.now, self.saved = now, []

    def event(self, event: dict[str, Any]) -> None:
        self.now.history.append(event)

    def save(self) -> None:
        kept = {name: value for name, value in vars(self.now).items() if name == "step"}
        copy = torch.utils._pytree.tree_map(
            lambda x: x.clone() if isinstance(x, torch.Tensor) else x, self.now.dump()
        )
        self.saved.append((kept["step"], copy, [dict(event) for event in self.now.history]))


def go(work: loop.Job, now: loop.State, stop: Any, *, save_seconds: float = 1e9) -> Books:
    books = Books(now)
    loop.train(
        work,
        now,
        stop=stop,
        each_step=lambda: None,
        each_epoch=books.event,
        save=books.save,
        save_seconds=save_seconds,
    )
    return books


def without_clock(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k != "seconds"} for event in history]


def test_resuming_at_any_step_changes_no_bit(stop_after: Any) -> None:
    whole = state()
    books = go(job(), whole, stop_after(), save_seconds=0)
    assert [step for step, _, _ in books.saved] == list(range(1, 13))
    for step, saved, history in books.saved[:-1]:
        again = state()
        again.restore(saved)
        again.step, again.history = step, history
        go(job(), again, stop_after())
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, again.model.state_dict()[name]), (step, name)
        assert without_clock(again.history) == without_clock(whole.history)


def test_a_restored_momentum_lies_as_its_parameter(stop_after: Any) -> None:
    """A contiguous buffer would send the optimiser down its slow path after every resume."""
    books = go(job(steps=1, steps_per_epoch=1), state(), stop_after(), save_seconds=0)
    again = state()
    again.restore(books.saved[0][1])
    for parameter in again.model.parameters():
        buffer = again.optimiser.state[parameter]["momentum_buffer"]
        assert buffer.stride() == parameter.stride()


def test_a_stop_request_saves_and_raises_after_the_step(stop_after: Any) -> None:
    now = state()
    books = Books(now)
    with pytest.raises(Stopped, match="step 3 of 12"):
        loop.train(
            job(),
            now,
            stop=stop_after(2),
            each_step=lambda: None,
            each_epoch=books.event,
            save=books.save,
            save_seconds=1e9,
        )
    assert [step for step, _, _ in books.saved] == [3]


def test_a_loss_that_is_not_finite_ends_the_run_unsaved(stop_after: Any) -> None:
    def poisoned(step: int) -> Batch:
        batch = batch_of(step)
        if step == 5:
            batch.images[0] = float("nan")
        return batch

    now = state()
    books = Books(now)
    with pytest.raises(Diverged, match="not finite at step 5 of stage 'train'") as error:
        loop.train(
            job(batches=poisoned),
            now,
            stop=stop_after(),
            each_step=lambda: None,
            each_epoch=books.event,
            save=books.save,
            save_seconds=0,
        )
    assert error.value.code == 5
    assert books.saved[-1][0] == 5
    assert all(value.isfinite().all() for value in books.saved[-1][1]["model"].values())


def test_events_hold_the_mean_loss_of_each_source(stop_after: Any) -> None:
    now = state()
    for group in now.optimiser.param_groups:
        group["momentum"] = 0.0
    go(job(rate=lambda step: 0.0), now, stop_after())
    again = state()
    values = [loop.one_step(job(rate=lambda step: 0.0), again) for _ in range(4)]
    for step, value in enumerate(values):
        assert value.shape == (6,), step
    assert [event["epoch"] for event in now.history] == [1, 2, 3]
    first = now.history[0]
    assert first["loss"] == pytest.approx((4 * first["loss_real"] + 2 * first["loss_bank"]) / 6)
    assert first["step"] == 4


def test_the_mean_is_over_rows_and_the_bank_has_its_weight() -> None:
    """The gradient of a step is that of (sum of real + weight * sum of bank) / N."""
    for weight in (1.0, 0.25):
        now = state()
        before = {name: value.clone() for name, value in now.model.named_parameters()}
        batch = batch_of(0, weight=weight)
        work = job(batches=lambda step, batch=batch: batch, rate=lambda step: 1.0)
        for group in now.optimiser.param_groups:
            group["weight_decay"] = 0.0
        loop.one_step(work, now)
        twin = state().model
        values = loop.row_losses(work.losses, twin(batch.images), batch)
        ((values[:4].sum() + weight * values[4:].sum()) / 6).backward()
        for name, parameter in twin.named_parameters():
            moved = before[name] - dict(now.model.named_parameters())[name]
            torch.testing.assert_close(moved, parameter.grad, rtol=1e-4, atol=1e-6)


def test_rows_without_a_loss_are_in_no_mean_and_in_no_book() -> None:
    """They are there for the forward, which answers about the others only."""
    whole = batch_of(0)
    judged = replace(whole, sources=(whole.sources[0], replace(whole.sources[1], judged=False)))

    def forward(model: Any, batch: Batch, state: Any, draws: Any) -> tuple[Outputs, Batch]:
        return model(batch.images[:4]), batch

    now, after = state(), []
    work = job(
        batches=lambda step: judged,
        forward=forward,
        teachers=(lambda batch: {s.name: (TeacherAnswer(),) * 2 for s in batch.judged},),
        after_step=lambda state, out, batch: after.append((out.logits, torch.is_grad_enabled())),
    )
    twin = state().model
    expected = loop.row_losses(work.losses, twin(whole.images[:4]), judged, [])
    values = loop.one_step(work, now)
    assert values.shape == (4,)
    torch.testing.assert_close(values, expected.detach())
    means = now.tally.epoch_means()
    assert means["loss"] == means["loss_real"] == pytest.approx(float(values.mean()))
    assert means["loss_bank"] is None
    ((logits, grad),) = after
    assert logits.shape == (4, 3) and not logits.requires_grad and not grad


def test_a_loss_is_told_progress_images_and_noise_of_its_step() -> None:
    seen: list[Rows] = []

    def loss(student: Outputs, rows: Rows) -> torch.Tensor:
        seen.append(rows)
        return student.logits.sum(1)

    draws = Draws()
    now = state()
    now.step = 3
    loop.one_step(job(losses=loop.Losses(loss, loss), noise=lambda step: draws), now)
    assert len(seen) == 4  # two sources, two labels
    assert all(rows.progress == 3 / 12 and rows.draws is draws for rows in seen)
    batch = batch_of(3)
    for rows, label, index, part in (
        (seen[0], batch.label_a, batch.index, slice(0, 4)),
        (seen[1], batch.label_b, batch.index_b, slice(0, 4)),
        (seen[2], batch.label_a, batch.index, slice(4, 6)),
        (seen[3], batch.label_b, batch.index_b, slice(4, 6)),
    ):
        assert torch.equal(rows.label, label[part]) and torch.equal(rows.index, index[part])


def test_a_frozen_backbone_keeps_weights_and_statistics(stop_after: Any) -> None:
    now = state()
    now.model.requires_grad_(False)
    now.model.head.requires_grad_(True)
    now.optimiser = torch.optim.SGD(now.model.head.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in now.model.state_dict().items()}
    go(job(norms_follow=False), now, stop_after())
    changed = {n for n, v in now.model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"head.weight", "head.bias"}


def test_refreshed_statistics_are_the_plain_average_of_batches() -> None:
    class Identity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(2)

        def forward(self, images: torch.Tensor) -> Outputs:
            out = self.norm(images)
            return Outputs(out, out)

    model = Identity()
    batches = [torch.randn(8, 2, 3, 3) * (i + 1) + i for i in range(5)]
    for images in batches:
        model(images)  # statistics of a training that is over
    loop.refresh_norms(model, batches.__getitem__, 5, "float32")
    expected = torch.stack([images.mean((0, 2, 3)) for images in batches]).mean(0)
    torch.testing.assert_close(model.norm.running_mean, expected)
    spread = torch.stack([images.var((0, 2, 3)) for images in batches]).mean(0)
    torch.testing.assert_close(model.norm.running_var, spread)
    assert model.norm.momentum == 0.1


def test_no_refresh_leaves_statistics_alone() -> None:
    now = state()
    now.model(torch.randn(4, 2, 8, 8))
    before = now.model.stem_norm.running_mean.clone()
    loop.refresh_norms(now.model, batch_of, 0, "float32")
    assert torch.equal(now.model.stem_norm.running_mean, before)


def test_disagreement_counts_rows_for_which_the_teacher_names_neither_label() -> None:
    batch, tally = batch_of(0), loop.Tally(CPU)
    a, b = batch.label_a, batch.label_b
    neither = torch.tensor([min({0, 1, 2} - {int(i), int(j)}) for i, j in zip(a, b, strict=True)])
    said = torch.stack([a[0], b[1], neither[2], neither[3], b[4], neither[5]])
    about = {one.name: TeacherAnswer(label=said[one.rows]) for one in batch.sources}
    tally.add_answers(batch, {name: (answer, answer) for name, answer in about.items()})
    assert tally.disagreement() == {"real": 0.5, "bank": 0.5}
    assert loop.Tally(CPU).disagreement() == {"real": None, "bank": None}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stem_norm.running_var", float("inf")),
        ("blocks.0.norm1.running_mean", float("nan")),
        ("head.bias", float("-inf")),
    ],
)
def test_a_network_with_a_number_that_is_not_finite_is_refused(name: str, value: float) -> None:
    model = state().model
    finite.require_finite(model, "train")
    model.state_dict()[name].view(-1)[0] = value
    with pytest.raises(Diverged, match=f"'train' holds numbers that are not finite, in {name}"):
        finite.require_finite(model, "train")
