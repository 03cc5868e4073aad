"""The rows of each step: how often each image is looked at, in every arm and by every schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix.errors import UsageFailure
from trainer.engine.arms import ARMS
from trainer.engine.batch import Batch
from trainer.engine.batches import Batches
from trainer.engine.portions import Portions
from trainer.objectives import CrossEntropy
from trainer.recipes.stage import Draw, Stage
from trainer.schedule import Schedule
from trainer.spec import BankRef, LabelRef, RunSpec

CPU = torch.device("cpu")
STAGE = Stage("train", CrossEntropy())
BANK = BankRef("k", "r", "c", "w", "/nowhere")
# 21 images in batches of 7 are three steps an epoch, and ten epochs.
EPOCHS, STEPS, BATCH = 10, 30, 7


class FakeBank:
    """Forty rows of classes 0 and 2 whose pixels are all 200."""

    images = np.full((40, 8, 8, 2), 200, np.uint8)
    pair = np.tile(np.array([[0, 2]], np.int32), (40, 1))
    lam = np.linspace(0, 1, 40, dtype=np.float32)

    def __len__(self) -> int:
        return 40


def spec_of(aug: str, **settings: Any) -> RunSpec:
    bank = BANK if ARMS[aug].bank else None
    return RunSpec(
        **{"aug": aug, "bank": bank, "batch": BATCH, "epochs": EPOCHS, "seed": 1, **settings}
    )


def made(aug: str, data: Any, posterior: Any = None, **settings: Any) -> list[Batch]:
    """All batches of a run of an arm."""
    bank: Any = FakeBank() if ARMS[aug].bank else None
    spec = spec_of(aug, **settings)
    one = Batches(
        spec,
        data,
        stage=STAGE,
        number=0,
        bank=bank,
        steps=STEPS,
        device=CPU,
        posterior=posterior,
    )
    return [one(step) for step in range(STEPS)]


def looks(batches: list[Batch], name: str) -> np.ndarray:
    """How often each image was looked at among the rows of a source."""
    rows = [
        batch.index[source.rows]
        for batch in batches
        for source in batch.sources
        if source.name == name
    ]
    return np.bincount(torch.cat(rows).numpy(), minlength=21)


def counts(batches: list[Batch], name: str) -> list[int]:
    """The number of rows of a source in the first step of each epoch."""
    return [
        sum(len(range(*s.rows.indices(10**9))) for s in batch.sources if s.name == name)
        for batch in batches[::3]
    ]


def of_bank(batch: Batch) -> Any:
    return next(source for source in batch.sources if source.name == "bank")


@pytest.mark.parametrize("aug", [aug for aug, arm in ARMS.items() if not arm.balanced])
def test_by_equal_real_every_arm_looks_at_each_image_as_often_as_plain_training(
    aug: str, data: Any
) -> None:
    """Ten epochs are ten looks, and each step has the very rows that it has without a bank."""
    fair = {"fair": "equal-real"} if "fair" in ARMS[aug].reads else {}
    batches, plain = made(aug, data, **fair), made("none", data)
    assert (looks(batches, "real") == EPOCHS).all()
    for batch, other in zip(batches, plain, strict=True):
        real = batch.sources[0].rows
        assert real == slice(0, BATCH)
        assert torch.equal(batch.index[real], other.index)
    extra = {False: BATCH, True: BATCH + round(BATCH / 2)}[ARMS[aug].bank or ARMS[aug].even]
    assert {len(batch.images) for batch in batches[:27]} == {extra}
    assert {len(batch.images) for batch in batches[27:]} == {BATCH}


def test_by_equal_steps_a_bank_takes_the_place_of_real_rows(data: Any) -> None:
    batches = made("hybrid", data)
    assert {len(batch.images) for batch in batches} == {BATCH}
    assert looks(batches, "real").sum() == 27 * (BATCH - round(BATCH / 2)) + 3 * BATCH


def test_the_control_draws_as_many_rows_as_a_bank_has_evenly_over_the_classes(data: Any) -> None:
    control, hybrid = (
        made("mixup-even", data, bank_share=2.0),
        made("hybrid", data, bank_share=2.0, fair="equal-real"),
    )
    assert [len(one.images) for one in control] == [len(one.images) for one in hybrid]
    seen = looks(control, "even")
    by_class = np.bincount(data.train.labels, seen)  # of 12, 6 and 3 images
    assert by_class.sum() == 27 * 14
    assert np.abs(by_class / by_class.sum() - 1 / 3).max() < 0.1
    assert seen[18:].min() > seen[:12].max()


def test_the_rows_of_the_control_are_mixed_within_their_kind(data: Any) -> None:
    """So each kind keeps its class frequencies, for losses that correct for them."""
    plain, control = made("mixup", data)[0], made("mixup-even", data)[0]
    real, even = control.sources
    assert torch.equal(control.index_b[real.rows], plain.index_b)
    assert torch.equal(control.lam[real.rows], plain.lam)
    assert set(control.index_b[even.rows].tolist()) <= set(control.index[even.rows].tolist())
    assert (control.lam[even.rows] < 1).any()
    assert even.even and not even.bank and not real.even


@pytest.mark.parametrize("fair", ["equal-steps", "equal-real"])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [4] * 9),
        ("falling", [4, 4, 3, 3, 2, 2, 1, 1, 0]),
        ("falling-weight", [4] * 9),
        ("from:6", [0] * 6 + [4] * 3),
        ("until:2", [4] * 2 + [0] * 7),
    ],
)
def test_a_schedule_sets_the_rows_of_a_bank_by_epoch(
    schedule: str, expected: list[int], fair: str, data: Any
) -> None:
    batches = made("hybrid", data, bank_schedule=schedule, fair=fair)
    assert counts(batches, "bank") == [*expected, 0]
    real = [BATCH - (n if fair == "equal-steps" else 0) for n in expected]
    assert counts(batches, "real") == [*real, BATCH]
    # Each order goes on where it was, over every change: no row of a pass is left out or twice.
    for name, length in (("real", 21), ("bank", 40)):
        seen = [b.index[s.rows] for b in batches for s in b.sources if s.name == name]
        rows = torch.cat(seen).tolist()
        whole = len(rows) // length * length
        for start in range(0, whole, length):
            assert sorted(rows[start : start + length]) == list(range(length))
    planned = Portions(
        spec_of("hybrid", bank_schedule=schedule, fair=fair), STAGE, images=21, steps=STEPS
    )
    assert planned.images == sum(len(batch.images) for batch in batches)
    # A mixing arm mixes its real rows also while no row of a bank is there.
    assert all(batch.sources[0].mixed for batch in batches[:27])


def test_a_falling_weight_falls_by_equal_parts(data: Any) -> None:
    batches = made("hybrid", data, bank_schedule="falling-weight", bank_weight=2.0)
    weights = [of_bank(batch).weight for batch in batches[:27:3]]
    assert weights == pytest.approx([2 - 2 * epoch / 9 for epoch in range(9)])


def test_a_stage_of_real_rows_has_no_other() -> None:
    stage = Stage("head", CrossEntropy(), rows="real", draws=(Draw("class"),))
    portions = Portions(spec_of("hybrid", fair="equal-real"), stage, images=21, steps=STEPS)
    assert portions.plain_from == 0 and portions.extra(4) == (0, 0)
    assert portions.images == STEPS * BATCH


def test_rows_of_a_bank_are_mixed_with_real_ones_that_are_still_unmixed(data: Any) -> None:
    data.train.images[...] = np.arange(21, dtype=np.uint8)[:, None, None, None] * 10
    settings: dict[str, Any] = {"pad": 0, "flip": False, "mix_bank_real": True}
    for fair, share in (("equal-steps", 0.5), ("equal-real", 3.0)):
        batch = made("hybrid", data, bank_share=share, fair=fair, **settings)[1]
        partners, source = batch.partners["bank"], of_bank(batch)
        pixel = (batch.images[source.rows][:, 0, 0, 0] * 0.25 + 0.5) * 255
        expected = partners.own * 200 + (1 - partners.own) * 10 * partners.index
        torch.testing.assert_close(pixel, expected.float())
        labels = torch.from_numpy(data.train.labels)
        assert torch.equal(partners.label, labels[partners.index])
        assert set(partners.index.tolist()) <= set(batch.index[batch.sources[0].rows].tolist())
        assert ((partners.own > 0) & (partners.own < 1)).all()
    assert made("hybrid", data)[1].partners == {}
    for aug in ("bank", "mixup-even"):  # which read no such setting
        assert made(aug, data, **settings)[1].partners == {}
    assert made("hybrid", data, **settings)[28].partners == {}


def test_a_judge_shares_the_label_with_lam(data: Any) -> None:
    posterior = np.zeros((40, 3), np.float16)
    posterior[np.arange(40), np.arange(40) % 3] = 1
    for share in (1.0, 0.25):
        label = LabelRef(share, "content", "/nowhere")
        batch = made("bank", data, posterior, label=label)[0]
        source = of_bank(batch)
        index, lam = batch.index[source.rows], batch.lam[source.rows]
        expected = share * torch.eye(3)[index % 3]
        expected[:, 0] += (1 - share) * lam
        expected[:, 2] += (1 - share) * (1 - lam)
        torch.testing.assert_close(batch.targets["bank"], expected)
    assert made("bank", data)[0].targets == {}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"bank_schedule": "rising"}, "bank_schedule must be one of constant, falling"),
        ({"bank_schedule": "from:0"}, "got 'from:0'"),
        ({"bank_schedule": "from:9"}, "EPOCH must be below 9, as the last 0.1 of 10 epochs"),
        ({"bank_schedule": "until:x"}, "got 'until:x'"),
        ({"fair": "equal"}, "fair 'equal' is unknown"),
        ({"bank_share": 1.0}, r"bank_share must be a number in \(0.0, 1.0\)"),
        ({"bank_share": 17.0, "fair": "equal-real"}, r"in \(0.0, 16.0\]"),
        ({"bank_share": 0.01, "fair": "equal-real"}, "leaves no real or no bank row"),
        ({"mix_bank_real": 1}, "must be true or false"),
        ({"drw": 1.0}, r"drw must be a number in \(0.0, 1.0\)"),
        ({"drw": float("nan")}, "drw must be a number"),
        ({"head_epochs": -1}, "head_epochs must be a number"),
        ({"h2t": 1}, "h2t must be true or false"),
        ({"head_epochs": 11}, "head_epochs must not be more than epochs, 10"),
        ({"label": LabelRef(0.0, "c", "/")}, "label.judge_share"),
    ],
)
def test_levers_out_of_range_are_refused(settings: Any, problem: str) -> None:
    with pytest.raises(UsageFailure, match=problem):
        spec_of("hybrid", **settings)


def test_a_schedule_is_read_as_it_is_written() -> None:
    assert Schedule.parse("from:160") == Schedule("from", 160)
    assert [Schedule.parse(text) for text in ("", "from:", "from:1.5", "FALLING")] == [None] * 4
    assert Schedule("from", 160).name == "from160" and Schedule().name == ""


def test_a_lever_renames_the_arm_and_at_its_default_no_key() -> None:
    plain = spec_of("hybrid")
    assert plain.arm == "hybrid" and plain.fairness == "equal-steps"
    later = {"label", "fair", "bank_schedule", "mix_bank_real", "drw", "head_epochs", "accept"}
    later |= {"h2t"}
    assert not later & set(plain.identity())
    levers = {
        "label": (LabelRef(0.5, "c", "/"), "hybrid-judge0.5"),
        "fair": ("equal-real", "hybrid-equal-real"),
        "bank_schedule": ("from:5", "hybrid-from5"),
        "mix_bank_real": (True, "hybrid-crossed"),
        "drw": (0.8, "hybrid-drw"),
        "head_epochs": (2, "hybrid-head"),
        "h2t": (True, "hybrid-h2t"),
    }
    keys = {plain.key}
    for name, (value, arm) in levers.items():
        changed = spec_of("hybrid", **{name: value})
        assert changed.arm == arm
        assert RunSpec.from_plain(changed.plain()) == changed
        keys.add(changed.key)
    assert len(keys) == 1 + len(levers)
    moved = spec_of("hybrid", label=LabelRef(0.5, "c", "/elsewhere"))
    assert moved.key == spec_of("hybrid", label=LabelRef(0.5, "c", "/")).key
    assert spec_of("mixup-even").fairness == "equal-real"
