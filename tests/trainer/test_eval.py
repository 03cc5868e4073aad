"""The calibration error and the confusion matrix that `trainer eval` tells."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer.engine import evaluate
from trainer.reports import records
from trainer.reports.calibration import calibration_error

Trainer = Callable[..., tuple[int, str, str]]


def two(*confidences: float) -> np.ndarray:
    """Answers about three classes of which the first has these probabilities."""
    return np.array([[share, 1 - share, 0] for share in confidences])


def test_the_calibration_error_by_hand() -> None:
    """0.6 is the upper end of a bin, where 0.55 is, too: |2 - 1.15|; alone, 0.1 and 0.8."""
    shares = two(0.9, 0.8, 0.6, 0.55)
    labels = np.array([0, 1, 0, 0])
    assert calibration_error(shares, labels) == pytest.approx(100 * (0.1 + 0.8 + 0.85) / 4)
    assert calibration_error(shares, labels, bins=1) == pytest.approx(100 * (3 - 2.85) / 4)


def test_the_calibration_error_at_its_ends() -> None:
    sure = two(1.0, 1.0)
    assert calibration_error(sure, np.array([0, 0])) == 0
    assert calibration_error(sure, np.array([1, 2])) == 100
    even = np.full((4, 4), 0.25)
    assert calibration_error(even, np.array([0, 1, 2, 3])) == 0


def test_labels_that_are_as_likely_as_is_said_leave_next_to_no_error() -> None:
    """At most sqrt(15 N / 4) / N on average, as each of 15 sums has the spread of its bin."""
    draws, count = np.random.default_rng(0), 20_000
    shares = draws.dirichlet(np.full(5, 0.5), count)
    labels = (shares.cumsum(1) < draws.random((count, 1))).sum(1)
    most = 100 * np.sqrt(15 / 4 / count)
    assert calibration_error(shares, labels) < most
    sharper = shares**2 / (shares**2).sum(1, keepdims=True)
    assert calibration_error(sharper, labels) > 5 * most


@pytest.fixture
def finished(trainer: Trainer, home: Path) -> Path:
    """The folder of a finished run of one epoch."""
    words = ("--dataset", "digits_lt", "--epochs", "1", "--bn-refresh-batches", "1")
    code, _, told = trainer("run", *words)
    assert code == 0, told
    (folder,) = Path("runs").glob("*/seed-0")
    return folder


def test_eval_tells_the_calibration_error_of_the_probabilities_of_predict(
    finished: Path, trainer: Trainer
) -> None:
    code, out, _ = trainer("eval", str(finished), "--json")
    told = json.loads(out)["calibration_error"]
    assert code == 0
    assert trainer("predict", str(finished), "--out", "answers.csv")[0] == 0
    rows = list(csv.DictReader(io.StringIO(Path("answers.csv").read_text())))
    shares = np.array([[float(row[name]) for name in row if name[:2] == "p:"] for row in rows])
    labels = np.array([int(row["label"]) for row in rows])
    assert told == pytest.approx(calibration_error(shares, labels), abs=0.01)
    code, out, _ = trainer("eval", str(finished))
    (line,) = [line for line in out.splitlines() if line.startswith("calibration error (15 bins)")]
    assert float(line.split()[-1]) == pytest.approx(told, abs=0.005)


def test_eval_writes_the_confusion_matrix_as_counts_and_as_a_picture(
    finished: Path, trainer: Trainer
) -> None:
    words = ("--confusion", "who.csv", "--confusion", "who.png", "--json")
    code, out, err = trainer("eval", str(finished), *words)
    assert code == 0 and json.loads(out)["same"] is True
    assert "confusion matrix: who.csv" in err and "confusion matrix: who.png" in err
    record = records.read(finished / records.RESULT_FILE).record
    head, *rows = csv.reader(io.StringIO(Path("who.csv").read_text()))
    names = record["dataset"]["classes"]
    assert head == ["true", *names] and [row[0] for row in rows] == names
    assert [[int(cell) for cell in row[1:]] for row in rows] == record["confusion"]
    assert [sum(map(int, row[1:])) for row in rows] == record["dataset"]["test_counts"]
    assert Path("who.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_place_without_a_matrix_is_refused_before_the_network_is_asked(
    finished: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import predict

    monkeypatch.setattr(predict, "answers", None)  # not called
    Path("folder.csv").mkdir()
    for place, told in (
        ("who.txt", "--confusion who.txt ends in neither of .csv, .png"),
        ("who", "name it who.csv"),
        ("folder.csv", "nothing can be written to folder.csv"),
    ):
        code, _, err = trainer("eval", str(finished), "--confusion", place)
        assert code == 2 and told in err, err


def test_too_many_classes_have_no_matrix(
    finished: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "MOST_CONFUSED", 9)
    code, _, err = trainer("eval", str(finished), "--confusion", "who.csv")
    assert code == 3 and "there is no confusion matrix of 10 classes" in err
    assert "trainer predict RUN --out answers.csv" in err and not Path("who.csv").exists()
