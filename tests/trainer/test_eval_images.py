"""`eval` on every part of a data set, on other sets, and on files."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylegan_mix import console, datasets
from trainer import cli
from trainer.reports import records

Trainer = Callable[..., tuple[int, str, str]]
DIGITS = ("--dataset", "digits_lt", "--val-per-class", "2", "--epochs", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a short run on the digits has finished, with validation images."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEGAN_MIX_HOME", str(folder / "home"))
        patch.chdir(folder)
        with pytest.raises(SystemExit) as end:
            console.main(cli.group, "trainer", ["run", *DIGITS, "--bn-refresh-batches", "1"])
    assert end.value.code == 0
    return folder


@pytest.fixture
def run(made: Path, home: Path) -> str:
    """The folder of the finished run, in a working directory of its own."""
    shutil.copytree(made / "runs", "runs")
    (folder,) = Path("runs").glob("*/seed-0")
    return str(folder)


def scored(trainer: Trainer, *words: str) -> dict[str, Any]:
    code, out, err = trainer("eval", *words, "--json")
    assert code == 0, err
    return dict(json.loads(out))


def right(trainer: Trainer, *words: str) -> float:
    """The share of right answers, by hand, of `predict`."""
    rows = list(csv.DictReader(io.StringIO(trainer("predict", *words)[1])))
    return 100 * sum(row["label"] == row["prediction"] for row in rows) / len(rows)


def test_every_part_is_scored_as_it_is_answered(run: str, trainer: Trainer) -> None:
    stored = records.read(Path(run) / "result.json")
    counts = {"train": sum(stored.dataset["counts"]), "test": 740, "val": 20}
    for part, count in counts.items():
        found = scored(trainer, run, "--part", part)
        assert found["images"] == count
        assert found["accuracy"]["overall"] == pytest.approx(right(trainer, run, "--part", part))
    whole = scored(trainer, run)
    assert whole == scored(trainer, run, "--part", "test")
    assert whole["same"] and whole["stored"]["overall"] == stored.accuracy("overall")
    part = scored(trainer, run, "--part", "train")
    assert part["stored"] is None and part["same"] is None


def test_another_draw_of_the_data_set_is_scored(run: str, trainer: Trainer) -> None:
    words = (run, "--dataset", "digits_lt", "--imbalance", "2", "--part", "train")
    found = scored(trainer, *words)
    assert found["images"] == len(datasets.load("digits_lt", imbalance=2.0).train)
    assert found["stored"] is None


def test_a_folder_of_class_folders_is_scored(run: str, trainer: Trainer, tmp_path: Path) -> None:
    """The test part, written as files, has the accuracies of the part itself."""
    part = datasets.load("digits_lt").test
    for row, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
        folder = tmp_path / "photos" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image)[:, :, 0]).save(folder / f"{row:04}.png")
    Image.new("L", (8, 8)).save(tmp_path / "photos/of no class.png")
    found = scored(trainer, run, "photos")
    assert found["images"] == 740 and found["stored"] is None
    assert found["accuracy"] == scored(trainer, run)["accuracy"]
    _, out, err = trainer("eval", run, "photos")
    assert "740 of 741 images have a label" in err and "74 scored images" in out


def test_images_without_labels_have_no_score(run: str, trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("L", (8, 8), 9).save(tmp_path / "photos/a.png")
    code, _, err = trainer("eval", run, "photos")
    assert code == 3 and "none of the 1 images has a label" in err and "trainer predict" in err


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("--part", "tset"), 2, "no part 'tset'; known: train, test, val"),
        (("--labels", "a.csv"), 2, "--labels and --convert are for files"),
        (("--fit", "crop"), 2, "add --resize"),
        (("--imbalance", "3"), 2, "a split needs --dataset"),
        (("photos", "--dataset", "digits_lt"), 2, "leave one of them out"),
        (("nosuch",), 3, "nosuch"),
        (("--dataset", "digits_lt", "--part", "val"), 2, "give --val-per-class N"),
    ],
)
def test_images_that_cannot_be_scored_are_refused(
    run: str, trainer: Trainer, words: Any, code: int, reason: str
) -> None:
    found, _, err = trainer("eval", run, *words)
    assert found == code and reason in err
