"""Ten thousand classes and a hundred thousand epochs: what is written can be read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylegan_mix import console, datasets, store
from trainer import cli
from trainer.engine import evaluate
from trainer.engine.folder import packed, unpacked
from trainer.engine.record import MOST_EVENTS, thinned
from trainer.reports import records

CLASSES = 10_000


def many_classes() -> datasets.Dataset:
    """Two training images of each class, one test image of every second, and long names."""
    digits = datasets.load("digits_lt")
    labels = np.repeat(np.arange(CLASSES), 2)
    tested = np.arange(0, CLASSES, 2)
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (len(labels), 8, 8, 1)).astype(np.uint8)
    return dataclasses.replace(
        digits,
        name="many",
        classes=tuple(f"the class that has the number {index:,}" for index in range(CLASSES)),
        train=datasets.Part(images, labels),
        test=datasets.Part(images[tested * 2], tested),
        counts=np.full(CLASSES, 2),
        profile="natural",
        imbalance=None,
    )


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line of `trainer`: exit code, stdout, stderr."""

    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            console.main(cli.group, "trainer", argv)
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    return run


@pytest.mark.slow
def test_ten_thousand_classes_are_run_reported_compared_and_scored_again(
    home: Path, tmp_path: Path, monkeypatch: Any, call: Any
) -> None:
    data = many_classes()
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: data)
    # Whatever counts pairs of classes would take 800 MB.
    monkeypatch.setattr(evaluate, "confusion_of", None)
    options = ("--dataset", "many", "--model", "resnet8", "--epochs", "1", "--batch", "4000")
    options += ("--bn-refresh-batches", "1", "--val-per-class", "0")
    for aug in ("none", "mixup"):
        code, _, err = call("run", *options, "--aug", aug)
        assert code == 0, err
    folder = next(Path("runs").glob("many-ce-none-*/seed-0"))
    record = records.read(folder / "result.json").record
    assert record["confusion"] is None
    assert record["dataset"]["test_counts"] == [1, 0] * (CLASSES // 2)
    code, _, err = call("run", *options)
    assert code == 0 and "finished before" in err
    assert call("report", "runs", "--format", "md")[0] == 0
    assert call("report", "runs", "--out", "report.html")[0] == 0
    assert call("compare", "none", "mixup")[0] == 0
    code, _, err = call("eval", str(folder))
    assert code == 0 and "the same as when the run ended" in err


def test_the_largest_confusion_matrix_that_is_kept_can_be_read(tmp_path: Path) -> None:
    """One of 1,673 classes once made a record that was too large for its reader."""
    full = [[9999] * evaluate.MOST_CONFUSED] * evaluate.MOST_CONFUSED
    store.write_json(tmp_path / "result.json", full)
    assert (tmp_path / "result.json").stat().st_size < records.LARGEST_FILE // 2


def test_long_histories_are_thinned_in_records_and_whole_in_containers() -> None:
    events = [
        {"epoch": epoch, "accuracy": 50.0 if epoch % 7 == 0 else None}
        for epoch in range(1, 100_001)
    ]
    kept = thinned(events)
    assert len(kept) <= MOST_EVENTS
    assert (kept[0], kept[-1]) == (events[0], events[-1])
    assert [event["epoch"] for event in kept] == sorted(event["epoch"] for event in kept)
    assert sum(event["accuracy"] is not None for event in kept) >= MOST_EVENTS // 2
    assert thinned(events[:MOST_EVENTS]) == events[:MOST_EVENTS]
    assert unpacked(packed(events)) == events


def test_a_network_with_a_long_history_is_kept_and_read(
    tmp_path: Path, network_facts: dict[str, Any]
) -> None:
    from trainer import models
    from trainer.engine.folder import Finished, save_network

    model = models.build("resnet8", classes=5, channels=2)
    del network_facts["history"]
    events = [{"stage": "train", "epoch": epoch, "loss": 1 / 3} for epoch in range(100_000)]
    save_network(tmp_path / "it", model, {"history": packed(events)}, network_facts)
    found = Finished.load(tmp_path / "it")
    assert found.facts["history"] == events and found.confusion is None
    assert (tmp_path / "it" / "MANIFEST.json").stat().st_size < 1 << 20
    assert store.read_json(tmp_path / "it" / "MANIFEST.json")["kind"]
