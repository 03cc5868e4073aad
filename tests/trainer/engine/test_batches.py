"""Order of rows, mixing and batches: who is drawn, how it is changed, that a step decides all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix.rng import stream
from trainer.engine import arms, mixing, samplers
from trainer.engine.augmentation.policies import VIEWS
from trainer.engine.batch import Batch, Source
from trainer.engine.batches import Batches, Images
from trainer.engine.transform import Transform, transform_of, windows
from trainer.objectives import CrossEntropy
from trainer.recipes.stage import Draw, Stage
from trainer.spec import BankRef, RunSpec

CPU = torch.device("cpu")
STAGE = Stage("train", CrossEntropy())


# Samplers


def test_every_row_once_a_pass_wherever_batches_end() -> None:
    order = samplers.instance(10, 0, "data.order", 0)
    together = order.rows(0, 30)
    assert all(sorted(together[i : i + 10]) == list(range(10)) for i in (0, 10, 20))
    pieces = np.concatenate([order.rows(start, 7) for start in range(0, 28, 7)])
    assert np.array_equal(pieces, together[:28])
    assert not np.array_equal(together[:10], together[10:20])


def test_an_order_is_a_function_of_position() -> None:
    forward, later = (samplers.instance(10, 5, "data.order", 1) for _ in range(2))
    forward.rows(0, 20)
    assert np.array_equal(forward.rows(20, 10), later.rows(20, 10))
    assert not np.array_equal(
        later.rows(0, 10), samplers.instance(10, 5, "data.order", 2).rows(0, 10)
    )


def test_balanced_draws_have_equal_classes_and_equal_rows_within() -> None:
    labels = np.repeat([0, 1, 2], [90, 9, 1])
    order = samplers.balanced(labels, 3, 0, "data.class", 0)
    rows = order.rows(0, 30_000)
    share = np.bincount(labels[rows], minlength=3) / len(rows)
    assert np.abs(share - 1 / 3).max() < 0.01
    within = np.bincount(rows[labels[rows] == 1], minlength=100)[90:99] / 10_000
    assert np.abs(within - 1 / 9).max() < 0.015


# Mixing


@pytest.mark.parametrize("alpha", [0.4, 1.0, 2.0])
def test_shares_follow_beta_and_differ_by_row(alpha: float) -> None:
    """A constant per batch would fail on the number of distinct values."""
    lam = mixing.shares(alpha, 10_000, stream(0, "mix.lam", 0))
    assert lam.mean() == pytest.approx(0.5, abs=0.01)
    assert lam.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    assert len(np.unique(lam)) > 9_000
    assert lam.dtype == np.float32


def test_mixing_two_constant_images_is_exact() -> None:
    """0 and 200 at lam 0.25 give 150, without overflow."""
    images = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 200.0)])
    mixed = mixing.mix(images, torch.tensor([1, 0]), torch.tensor([0.25, 0.25]))
    assert torch.equal(mixed[0], torch.full((1, 2, 2), 150.0))
    assert torch.equal(mixed[1], torch.full((1, 2, 2), 50.0))


# Transform


def test_windows_are_crops_mirrored_where_asked() -> None:
    images = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).view(2, 4, 5, 3)
    found = windows(
        images,
        torch.tensor([1, 0]),
        torch.tensor([2, 1]),
        torch.tensor([False, True]),
        size=(3, 2),
    )
    assert torch.equal(found[0], images[0, 1:4, 2:4])
    assert torch.equal(found[1], images[1, 0:3, 1:3].flip(1))


def transform(pad: int = 1, flip: bool = True) -> Transform:
    return Transform((0.25, 0.5), (0.1, 0.2), pad=pad, flip=flip, device=CPU)


def test_normalising_is_by_channel_in_units_of_one() -> None:
    images = torch.full((3, 4, 4, 2), 255, dtype=torch.uint8)
    planes = transform().plain(images)
    assert planes.shape == (3, 2, 4, 4)
    assert planes.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(planes[0, :, 0, 0], torch.tensor([7.5, 2.5]))


def test_a_channel_without_spread_stays_finite() -> None:
    flat = Transform((1.0,), (0.0,), pad=0, flip=False, device=CPU)
    assert flat.plain(torch.full((1, 2, 2, 1), 7, dtype=torch.uint8)).isfinite().all()


def test_crops_shift_by_up_to_pad_and_show_black_beyond() -> None:
    image = torch.full((400, 4, 4, 1), 255, dtype=torch.uint8)
    plain = Transform((0.0,), (1.0,), pad=1, flip=False, device=CPU)
    planes = plain.random(image, stream(0, "test"))
    kept = planes.mean((1, 2, 3))  # 1, 3/4 (a shift along one axis) or 9/16 (along both)
    seen = {round(float(value), 4) for value in kept}
    assert seen == {1.0, 0.75, 0.5625}
    assert (kept == 1).float().mean() == pytest.approx(1 / 9, abs=0.05)


def test_half_of_the_images_are_flipped_and_none_where_flips_change_the_label() -> None:
    image = torch.zeros(400, 2, 2, 1, dtype=torch.uint8)
    image[:, :, 0] = 255
    for flip, expected in ((True, 0.5), (False, 0.0)):
        turn = Transform((0.0,), (1.0,), pad=0, flip=flip, device=CPU)
        share = turn.random(image, stream(0, "test"))[:, 0, 0, 1].mean()
        assert share == pytest.approx(expected, abs=0.08)


# Batches


def spec_of(aug: str, bank: BankRef | None = None, **settings: Any) -> RunSpec:
    settings = {"batch": 8, "seed": 1, **settings}
    return RunSpec(aug=aug, bank=bank, **settings)  # type: ignore[arg-type]


class FakeBank:
    """Rows that can be told by their pixels: a bank's are all 200, labels 0 and 2."""

    def __init__(self, n: int = 40) -> None:
        self.images = np.full((n, 8, 8, 2), 200, np.uint8)
        self.pair = np.tile(np.array([[0, 2]], np.int32), (n, 1))
        self.lam = np.linspace(0, 1, n, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.lam)


REFERENCE = BankRef("k", "r", "c", "w", "/nowhere")


def batches(
    aug: str, data: Any, *, stage: Stage = STAGE, steps: int = 20, **settings: Any
) -> Batches:
    bank: Any = FakeBank() if aug in ("bank", "hybrid") else None
    spec = spec_of(aug, REFERENCE if bank else None, **settings)
    return Batches(spec, data, stage=stage, number=0, bank=bank, steps=steps, device=CPU)


def stream_of(seed: int, *index: int) -> mixing.Streams:
    return lambda name: stream(seed, name, *index)


def real(count: int, mixed: bool, **drawn: bool) -> Source:
    return Source("real", slice(0, count), mixed=mixed, **drawn)


BANK = Source("bank", slice(4, 8), bank=True, mixed=True, weight=1.0)
EVEN = Source("even", slice(8, 12), mixed=True, even=True)
ARMS = {
    "none": (real(8, False),),
    "mixup": (real(8, True),),
    "mixup-even": (real(8, True), EVEN),
    "cutmix": (real(8, True),),
    "remix": (real(8, True),),
    "cmo": (real(8, True, even_partners=True),),
    "unimix": (real(8, True),),
    "lob-mixup": (real(8, True, even=True, even_partners=True),),
    "bank": (real(4, False), BANK),
    "hybrid": (real(4, True), BANK),
}


def test_every_arm_has_its_sources_below() -> None:
    assert list(ARMS) == list(arms.ARMS)


@pytest.mark.parametrize("aug", ARMS)
def test_arms_differ_in_who_is_in_a_batch_of_one_size(aug: str, data: Any) -> None:
    made = batches(aug, data)
    for step in range(18):
        batch = made(step)
        assert len(batch.images) == (12 if aug == "mixup-even" else 8)
        assert batch.sources == ARMS[aug]
        for source in batch.sources:
            rows, shares = source.rows, batch.lam[source.rows]
            if source.bank:
                assert set(batch.label_a[rows].tolist()) == {0}
                assert set(batch.label_b[rows].tolist()) == {2}
                torch.testing.assert_close(shares, torch.linspace(0, 1, 40)[batch.index[rows]])
            else:
                assert (shares < 1).any() if source.mixed else (shares == 1).all()


@pytest.mark.parametrize("aug", [aug for aug in ARMS if aug != "none"])
def test_the_last_tenth_of_the_steps_is_real_and_unmixed(aug: str, data: Any) -> None:
    made = batches(aug, data)
    for step in (18, 19):
        batch = made(step)
        assert batch.sources == (real(8, False, even=arms.ARMS[aug].balanced),)
        assert (batch.lam == 1).all()


def test_a_stage_of_real_rows_sees_no_bank_and_no_mixing(data: Any) -> None:
    made = batches("hybrid", data, stage=replace(STAGE, rows="real"))
    assert all(made(step).sources == (real(8, False),) for step in range(20))


def test_a_class_sampler_draws_balanced_rows(data: Any) -> None:
    stage = replace(STAGE, rows="real", draws=(Draw("class"),))
    made = batches("none", data, stage=stage, steps=500)
    labels = torch.cat([made(step).label_a for step in range(500)])
    assert (labels.bincount(minlength=3) / len(labels) - 1 / 3).abs().max() < 0.03


def test_each_draw_has_rows_and_an_order_of_its_own(data: Any) -> None:
    draws = (Draw("class"), Draw("instance", share=0.5), Draw("instance", judged=False))
    made = batches("none", data, stage=replace(STAGE, rows="real", draws=draws), steps=300)
    batch = made(7)
    assert batch.sources == (
        real(8, False),
        Source("real-2", slice(8, 12)),
        Source("real-3", slice(12, 20), judged=False),
    )
    assert batch.judged == batch.sources[:2]
    assert len(batch.images) == len(batch.lam) == 20
    alone = batches("none", data, stage=replace(STAGE, rows="real", draws=draws[:1]), steps=300)
    assert torch.equal(batch.index[:8], alone(7).index)
    labels = torch.from_numpy(data.train.labels)
    assert torch.equal(batch.label_a, labels[batch.index])
    for rows, size in ((slice(8, 12), 4), (slice(12, 20), 8)):
        seen = torch.cat([made(step).index[rows] for step in range(21)])
        assert torch.equal(seen.bincount(), torch.full((21,), size))
    second = torch.cat([made(step).index[8:12] for step in range(4)])
    third = torch.cat([made(step).index[12:20] for step in range(2)])
    assert not torch.equal(second, third)


def test_further_views_show_the_same_images_cropped_anew(data: Any) -> None:
    data.train.images[...] = np.arange(21, dtype=np.uint8)[:, None, None, None] * 10
    plain = batches("none", data, pad=0)
    stage = replace(STAGE, views=("plain", "plain"))
    seen = batches("none", data, stage=stage, pad=0)(3)
    assert plain(3).views is None
    assert torch.equal(seen.images, plain(3).images)
    assert seen.views is not None and seen.views.shape == (2, *seen.images.shape)
    assert torch.equal(seen.views[0], seen.images) and torch.equal(seen.views[1], seen.images)
    cropped = batches("none", data, stage=stage, pad=2)(3)
    assert cropped.views is not None
    assert not torch.equal(cropped.views[0], cropped.images)
    assert not torch.equal(cropped.views[0], cropped.views[1])
    again = batches("none", data, stage=stage, pad=2)(3).views
    assert again is not None and torch.equal(cropped.views, again)


@pytest.mark.parametrize("aug", ARMS)
def test_views_show_the_training_images_of_every_arm_unmixed(aug: str, data: Any) -> None:
    data.train.images[...] = np.arange(21, dtype=np.uint8)[:, None, None, None] * 10
    seen = batches(aug, data, stage=replace(STAGE, views=("plain",)), pad=0)(0)
    real = [source for source in seen.sources if not source.bank]
    ends = [source.rows.stop for source in real]
    assert seen.views is not None and seen.views.shape[1] == max(ends)
    raw = torch.from_numpy(data.train.images)[seen.index[: max(ends)]]
    transform = Transform(data.mean, data.std, pad=0, flip=False, device=CPU)
    assert torch.equal(seen.views[0], transform.plain(raw))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 32])
def test_views_are_made_by_the_policies_of_their_names(
    size: int, channels: int, data_of: Any
) -> None:
    shown = data_of(size=size, channels=channels)
    stage = replace(STAGE, views=("plain", "strong", "simclr", "simclr"))
    batch = batches("none", shown, stage=stage)(3)
    views = batch.views
    assert views is not None and views.shape == (4, 8, channels, size, size)
    assert views.isfinite().all()
    assert torch.equal(batch.images, batches("none", shown)(3).images)
    taken = Images(shown.train.images, CPU).take(batch.index.numpy())
    transform = transform_of(spec_of("none"), shown, CPU)
    for place, name in enumerate(stage.views):
        streams = stream_of(1, 0, 3, place)
        expected = transform.view(taken, VIEWS[name], "data.view", streams)
        assert torch.equal(views[place], expected)
    assert not torch.equal(views[2], views[3])
    again = batches("none", shown, stage=stage)(3).views
    assert again is not None and torch.equal(views, again)


@pytest.mark.parametrize("aug", ["none", "hybrid"])
def test_real_rows_come_once_a_pass_across_the_change_of_phase(aug: str, data: Any) -> None:
    made, count = batches(aug, data), len(data.train.labels)
    seen = torch.cat([made(step).index[made(step).sources[0].rows] for step in range(20)])
    whole = len(seen) // count * count
    assert all(
        sorted(seen[start : start + count].tolist()) == list(range(count))
        for start in range(0, whole, count)
    )


@pytest.mark.parametrize("aug", ARMS)
def test_a_step_decides_its_batch(aug: str, data: Any) -> None:
    """Whatever was asked before: resuming at any step sees the same rows."""
    first, fresh = batches(aug, data), batches(aug, data)
    for step in range(11):
        first(step)
    same(first(11), fresh(11))


def same(one: Batch, other: Batch) -> None:
    for name in ("images", "label_a", "label_b", "lam", "index", "index_b"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("aug", ["mixup", "unimix", "lob-mixup"])
def test_a_mixed_row_names_both_images_it_is_made_of(aug: str, data: Any) -> None:
    """Without crop and flip, each row is lam times row `index` plus the rest of row `index_b`."""
    batch = batches(aug, data, pad=0, flip=False)(3)
    plain = Transform(data.mean, data.std, pad=0, flip=False, device=CPU)
    images = Images(data.train.images, CPU)
    a, b = (plain.plain(images.take(rows.numpy())) for rows in (batch.index, batch.index_b))
    lam = batch.lam[:, None, None, None]
    torch.testing.assert_close(batch.images, lam * a + (1 - lam) * b)
    labels = torch.from_numpy(data.train.labels)
    assert torch.equal(batch.label_a, labels[batch.index])
    assert torch.equal(batch.label_b, labels[batch.index_b])


def test_rows_of_a_bank_pass_through_the_transform_of_real_rows(data: Any) -> None:
    """Constant images of one value come out alike from both sources."""
    data.train.images[...] = 200
    batch = batches("bank", data, pad=0)(0)
    assert torch.equal(batch.images[:4], batch.images[4:])
    cropped = batches("bank", data, pad=2)(0).images
    black = (torch.tensor(0.0) - 0.5) / 0.25
    assert (cropped[4:] == black).any() and (cropped[:4] == black).any()


def test_refresh_batches_are_real_unmixed_and_keyed(data: Any) -> None:
    data.train.images[...] = 100
    made = batches("hybrid", data, pad=0)
    expected = (torch.tensor(100 / 255) - 0.5) / 0.25
    torch.testing.assert_close(made.refresh(0), expected.expand(8, 2, 8, 8))
    data.train.images[...] = stream(1, "test").integers(0, 256, data.train.images.shape, "u1")
    made = batches("hybrid", data)
    assert torch.equal(made.refresh(5), batches("hybrid", data).refresh(5))
    assert not torch.equal(made.refresh(5), made.refresh(6))


def test_images_are_gathered_from_a_map_on_the_disk(tmp_path: Path) -> None:
    array = stream(0, "test").integers(0, 256, (6, 2, 2, 3), "u1")
    (tmp_path / "images").write_bytes(array.tobytes())
    mapped = np.memmap(tmp_path / "images", np.uint8, "r", shape=array.shape)
    taken = Images(mapped, CPU).take(np.array([4, 0, 4]))
    assert np.array_equal(taken.numpy(), array[[4, 0, 4]])


def test_a_real_bank_can_be_read(data: Any, home: Path, bank_of: Callable[..., BankRef]) -> None:
    """The reader's arrays fit: int32 pairs become labels, memory maps are gathered."""
    from stylegan_mix.banks.reader import open_bank

    data.split_id, data.name, data.classes = "s", "toy", ("a", "b", "c")
    reference = bank_of(home / "bank", data)
    bank = open_bank(Path(reference.folder))
    spec = spec_of("hybrid", reference)
    made = Batches(spec, data, stage=STAGE, number=0, bank=bank, steps=20, device=CPU)(0)
    assert made.label_a.dtype == torch.int64
    rows = made.index[4:].numpy()
    assert np.array_equal(made.label_b[4:].numpy(), bank.pair[rows, 1])
