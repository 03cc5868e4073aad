"""Teachers: frozen, blind where they must be, and asked about the rows that a loss needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix import store
from stylegan_mix.errors import Stopped
from stylegan_mix.rng import stream
from stylegan_mix.session import Session
from trainer import models
from trainer.engine import teachers, votes
from trainer.engine.batch import Batch, Partners, Source
from trainer.engine.transform import Transform
from trainer.spec import VoteSpec

CPU = torch.device("cpu")


@pytest.fixture
def model() -> Any:
    """A network of three classes with batch-norm statistics of its own."""
    network = models.build("resnet8", classes=3, channels=2)
    models.initialise(network, 0)
    for _ in range(3):
        network(torch.randn(16, 2, 8, 8) * 2 + 1)
    return network


def batch(real: int = 3, bank: int = 2) -> Batch:
    count = real + bank
    label = torch.arange(count) % 3
    index = torch.arange(count)
    lam = torch.full((count,), 0.5)
    images = torch.randn(count, 2, 8, 8)
    sources = (
        Source("real", slice(0, real), mixed=True),
        Source("bank", slice(real, count), bank=True, mixed=True),
    )
    return Batch(
        images, label, label.flip(0), lam, index, index.flip(0), sources[: 2 if bank else 1]
    )


def test_a_teacher_cannot_be_trained_or_put_in_training_mode(model: Any) -> None:
    model.train()
    ask = teachers.frozen(model)
    images = torch.randn(4, 2, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    logits = ask(images).logits
    assert not logits.requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(logits, model.eval()(images).logits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_label_only_teacher_lets_nothing_but_classes_out(model: Any) -> None:
    rows = batch()
    answers = teachers.LabelTeacher(teachers.label_only(model))(rows)
    expected = model.eval()(rows.images).logits.argmax(1)
    assert list(answers) == ["real", "bank"]
    for source in rows.sources:
        a, b = answers[source.name]
        assert a is b
        assert a.logits is None and a.votes is None and a.features is None
        assert torch.equal(a.label, expected[source.rows])


def test_an_open_teacher_answers_about_the_very_view(model: Any) -> None:
    rows = batch()
    answers = teachers.OpenTeacher(model)(rows)
    (real, _), (bank, _) = answers["real"], answers["bank"]
    expected = model.eval()(rows.images)
    torch.testing.assert_close(torch.cat([real.logits, bank.logits]), expected.logits)
    torch.testing.assert_close(torch.cat([real.features, bank.features]), expected.features)
    assert torch.equal(torch.cat([real.label, bank.label]), expected.logits.argmax(1))


def test_votes_are_looked_up_for_both_images_of_a_real_row_and_asked_live_for_a_bank(
    model: Any,
) -> None:
    table = torch.arange(15.0).view(5, 3)
    rows = batch()
    answers = teachers.VotesTeacher(table, teachers.label_only(model))(rows)
    (a, b), (live, _) = answers["real"], answers["bank"]
    assert torch.equal(a.votes, table[[0, 1, 2]])
    assert torch.equal(b.votes, table[[4, 3, 2]])
    assert a.label is None and live.votes is None
    assert torch.equal(live.label, model.eval()(rows.images[3:]).logits.argmax(1))


def test_a_real_partner_of_a_row_of_a_bank_has_its_votes(model: Any) -> None:
    """Other teachers see one image, whatever its labels."""
    table, ask = torch.arange(15.0).view(5, 3), teachers.label_only(model)
    rows = batch()
    index = torch.arange(len(rows.lam) - 3) % 5
    partners = Partners(torch.zeros_like(index), index, torch.ones(len(index)))
    crossed = dataclasses.replace(rows, partners={"bank": partners})
    live, _, other = teachers.VotesTeacher(table, ask)(crossed)["bank"]
    assert torch.equal(other.votes, table[index])
    assert other.label is None and live.votes is None
    for teacher in (teachers.OpenTeacher(model), teachers.LabelTeacher(ask)):
        assert len(set(map(id, teacher(crossed)["bank"]))) == 1


def test_a_batch_without_bank_gets_answers_about_real_rows_only(model: Any) -> None:
    ask = teachers.label_only(model)
    for teacher in (
        teachers.OpenTeacher(model),
        teachers.LabelTeacher(ask),
        teachers.VotesTeacher(torch.zeros(9, 3), ask),
    ):
        assert list(teacher(batch(real=4, bank=0))) == ["real"]


# Votes


def ballot(ask: Any, data: Any, spec: VoteSpec, *, pad: int = 1) -> votes.Ballot:
    transform = Transform(data.mean, data.std, pad=pad, flip=False, device=CPU)
    return votes.Ballot(
        ask=ask,
        part=data.train,
        classes=3,
        transform=transform,
        spec=spec,
        seed=0,
        precision="float32",
        device=CPU,
    )


def by_brightness(images: torch.Tensor) -> torch.Tensor:
    """A teacher whose class depends on what the view shows."""
    return (images.mean((1, 2, 3)) * 40).long() % 3


def test_every_image_gets_as_many_votes_as_views(
    data: Any, tmp_path: Path, stop_after: Any
) -> None:
    for views, dtype in ((12, np.uint8), (300, np.int32)):
        asked = ballot(by_brightness, data, VoteSpec(views=views))
        counts = votes.collect(asked, tmp_path / str(views), Session(stop_after()))
        assert counts.shape == (21, 3)
        assert counts.dtype == dtype
        assert (counts.sum(1) == views).all()
        assert (counts.max(1) < views).any()


def test_full_views_alone_reproduce_the_teacher(
    data: Any, model: Any, tmp_path: Path, stop_after: Any
) -> None:
    """K whole views, unshifted, are K times the teacher's answer."""
    spec = VoteSpec(views=3, full_share=1.0)
    asked = ballot(teachers.label_only(model), data, spec, pad=0)
    counts = votes.collect(asked, tmp_path / "votes", Session(stop_after()))
    images = asked.transform.plain(torch.from_numpy(data.train.images))
    expected = model.eval()(images).logits.argmax(1).numpy()
    assert np.array_equal(counts.argmax(1), expected)
    assert (counts.max(1) == 3).all()


def test_views_are_whole_images_first_and_then_patches_in_equal_shares(data: Any) -> None:
    """Each side of patch is seen by what it does: constant images of one pixel's size apart."""
    spec = VoteSpec(views=8, full_share=0.25, sides=(0.25, 0.5))
    asked = ballot(by_brightness, data, spec)
    images = torch.zeros(1, 8, 8, 2, dtype=torch.uint8)
    images[:, ::2] = 255  # stripes of one row; enlarged patches have wider ones
    changes = []
    for number in range(8):
        shown = votes.view(asked, images, number, stream(0, "test", number))
        rows = (shown[0, 0, :, 4] > 0).int()
        changes.append(int((rows.diff() != 0).sum()))
    assert min(changes[:2]) >= 6
    assert changes[2::2] == [changes[2]] * 3 and changes[3::2] == [changes[3]] * 3
    assert changes[2] < changes[3] < min(changes[:2])


def test_enlarged_patches_are_what_torch_resizes() -> None:
    images = stream(0, "test").integers(0, 256, (5, 8, 8, 3), "u1")
    draws = stream(1, "test")
    large = votes.enlarged_patch(torch.from_numpy(images), 0.5, draws)
    again = stream(1, "test")
    top, left = again.integers(0, 5, 5), again.integers(0, 5, 5)
    for row in range(5):
        patch = images[row, top[row] : top[row] + 4, left[row] : left[row] + 4]
        planes = torch.from_numpy(patch).permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(planes, (8, 8), mode="bilinear", antialias=True)
        torch.testing.assert_close(large[row].permute(2, 0, 1), expected[0])


def test_votes_are_collected_once_and_kept_by_what_decides_them(
    data: Any, home: Path, stop_after: Any
) -> None:
    asked = []

    def ask(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return by_brightness(images)

    spec = VoteSpec(views=4)
    first = ballot(ask, data, spec)
    counts = votes.ensure(first, first.identity("split", "teacher"), Session(stop_after()))
    assert asked == [21] * 4
    again = votes.ensure(first, first.identity("split", "teacher"), Session(stop_after()))
    assert np.array_equal(counts, again)
    assert asked == [21] * 4
    folder = home / "annotations" / store.digest(first.identity("split", "teacher")) / "votes"
    assert (folder / "MANIFEST.json").is_file()
    for other in (
        first.identity("split", "another teacher"),
        first.identity("another split", "teacher"),
        dataclasses.replace(first, seed=1).identity("split", "teacher"),
        dataclasses.replace(first, spec=VoteSpec(views=5)).identity("split", "teacher"),
    ):
        assert store.digest(other) != store.digest(first.identity("split", "teacher"))


def test_a_stopped_collection_goes_on_where_it_was(data: Any, home: Path, stop_after: Any) -> None:
    asked = []

    def ask(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return by_brightness(images)

    spec = VoteSpec(views=6)
    one = ballot(ask, data, spec)
    with pytest.raises(Stopped, match="view 4 of 6"):
        votes.ensure(one, one.identity("a", "t"), Session(stop_after(4)))
    assert len(asked) == 4
    counts = votes.ensure(one, one.identity("a", "t"), Session(stop_after()))
    assert len(asked) == 6
    assert np.array_equal(counts, votes.ensure(one, one.identity("b", "t"), Session(stop_after())))


def test_class_shares_are_means_over_the_images_of_a_class() -> None:
    counts = np.array([[3, 1, 0], [1, 3, 0], [0, 4, 0]])
    shares = votes.class_shares(counts, np.array([0, 0, 1]), 3)
    assert np.allclose(shares, [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]])


def test_a_class_with_over_three_times_its_share_is_a_sink(capsys: Any) -> None:
    labels = np.repeat([0, 1], [90, 10])
    counts = np.tile([[6, 4]], (100, 1))
    assert votes.sinks(counts, labels, 2) == [1]
    found = votes.diagnostics(counts, labels, 2)
    assert found["sinks"] == [1]
    assert "classes [1]" in capsys.readouterr().err
    assert found["disagreement"] == pytest.approx(1 - (0.9 * 0.6 + 0.1 * 0.4))
    assert found["histogram"] == [600, 400]
    assert votes.sinks(np.tile([[8, 2]], (100, 1)), labels, 2) == []


def test_a_read_only_shared_store_is_looked_at(
    data: Any, home: Path, stop_after: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    one = ballot(by_brightness, data, VoteSpec(views=2))
    counts = votes.ensure(one, one.identity("a", "t"), Session(stop_after()))
    monkeypatch.setenv("STYLEGAN_MIX_SHARED", str(home))
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "other"))
    silent = dataclasses.replace(one, ask=SimpleNamespace())  # asking would fail
    assert np.array_equal(
        votes.ensure(silent, one.identity("a", "t"), Session(stop_after())), counts
    )
