"""Whole runs on files of odd sizes: same bits however they are decoded, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photographs import lists, photographs

from stylegan_mix import datasets
from stylegan_mix.datasets import decoders
from stylegan_mix.datasets.decoders import Decoders
from stylegan_mix.datasets.prepare import Request, prepare
from stylegan_mix.datasets.streamed import FileImages
from stylegan_mix.errors import Stopped
from stylegan_mix.session import Session
from trainer.engine import crops
from trainer.engine.folder import Finished
from trainer.engine.run import run_recipe
from trainer.reports import records
from trainer.spec import DataSpec, RunSpec

Trainer = Callable[..., tuple[int, str, str]]
SMALL = ("--model", "resnet8", "--epochs", "2", "--batch", "8", "--bn-refresh-batches", "1")
RUN = ("run", "--dataset", "photos", *SMALL)


@pytest.fixture
def root(home: Path, tmp_path: Path) -> Path:
    """Files of which the streamed set "photos" was made, with views of 16 pixels."""
    made = photographs(tmp_path / "photos")
    found = lists(made)
    prepare(asked(made, train_list=found["train"], test_list=found["test"]))
    return made


def asked(root: Path, **options: Any) -> Request:
    return Request("photos", root, size=16, stream=True, **options)


def only_run() -> Path:
    (found,) = Path("runs").glob("*/seed-0")
    return found


def weights(run: Path, stage: str = "train") -> dict[str, bytes]:
    kept = Finished.load(run / "weights" / stage).weights
    return {name: value.numpy().tobytes() for name, value in kept.items()}


class Stops:
    """Asks for a stop after some steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def requested(self) -> str | None:
        self._left -= 1
        return "minutes" if self._left < 0 else None

    def failure(self, *, saved: bool, what: str) -> Stopped:
        return Stopped(what)


def run(spec: RunSpec, folder: Path, steps: int = 1000) -> None:
    run_recipe(spec, folder, session=Session(Stops(steps)), checkpoint_seconds=1e9)


@pytest.mark.parametrize("recipe", ["ce", "h2t"])
def test_a_run_ends_with_the_same_bits_however_it_is_cut_and_decoded(
    root: Path, recipe: str, monkeypatch: Any
) -> None:
    spec = RunSpec(
        data=DataSpec("photos", profile="natural"),
        aug="mixup",
        recipe=recipe,
        model="resnet8",
        epochs=2,
        batch=8,
        bn_refresh_batches=1,
    )
    run(spec, Path("whole"))
    monkeypatch.setattr(crops, "AHEAD", 1)  # a step ahead, by one thread
    threads = Decoders(1)
    for module in ("streamed", "streaming"):
        monkeypatch.setattr(f"stylegan_mix.datasets.{module}.decoders", lambda: threads)
    for _ in range(40):
        try:
            run(spec, Path("pieces"), steps=3)
            break
        except Stopped:
            pass
    for stage in sorted(path.name for path in Path("whole/weights").iterdir()):
        assert weights(Path("whole"), stage) == weights(Path("pieces"), stage)
    ends = [records.read(Path(name) / "result.json").record for name in ("whole", "pieces")]
    assert ends[0]["accuracy"] == ends[1]["accuracy"]
    assert ends[0]["confusion"] == ends[1]["confusion"]


def test_a_run_trains_scores_and_answers(root: Path, trainer: Trainer) -> None:
    code, _, err = trainer(*RUN, "--aug", "mixup")
    assert code == 0, err
    folder = str(only_run())
    result = records.read(only_run() / "result.json")
    assert result.dataset["counts"] == [9, 6, 3] and sum(result.test_counts or []) == 9
    found = json.loads(trainer("eval", folder, "--json")[1])
    assert found["same"] and found["stored"]["overall"] == result.accuracy("overall")
    found = json.loads(trainer("eval", folder, "--part", "train", "--json")[1])
    assert (found["images"], found["stored"]) == (18, None)
    # The files of the test part are shown as the part itself.
    by_part = list(csv.DictReader(io.StringIO(trainer("predict", folder)[1])))
    by_file = list(csv.DictReader(io.StringIO(trainer("predict", folder, f"{root}/test")[1])))
    for one, other in zip(by_part, by_file, strict=True):
        assert {name: other[name] for name in one if name != "index"} == {
            name: one[name] for name in one if name != "index"
        }
    again = json.loads(trainer("eval", folder, f"{root}/test", "--json")[1])
    assert again["accuracy"] == json.loads(trainer("eval", folder, "--json")[1])["accuracy"]


def test_a_streamed_set_has_defaults_of_its_own(root: Path, trainer: Trainer) -> None:
    plan = json.loads(trainer("run", "--dataset", "photos", "--dry-run", "--json")[1])
    assert (plan["run"]["model"], plan["run"]["epochs"]) == ("resnet10", 90)
    plan = json.loads(trainer(*RUN, "--dry-run", "--json")[1])
    assert (plan["run"]["model"], plan["run"]["epochs"]) == ("resnet8", 2)


def test_padding_has_no_effect_and_is_refused(root: Path, trainer: Trainer) -> None:
    code, _, err = trainer(*RUN, "--pad", "4")
    assert code == 2 and "cropped at random" in err and not Path("runs").exists()


def test_a_generator_is_not_trained_on_files(root: Path, trainer: Trainer) -> None:
    code, _, err = trainer(*RUN, "--aug", "hybrid")
    assert code == 3 and "there is no bank for photos" in err


def test_a_missing_file_is_found_before_the_first_step(
    root: Path, trainer: Trainer, monkeypatch: Any
) -> None:
    (root / "test/cow/033.jpg").rename(root / "033.jpg")
    monkeypatch.setattr(FileImages, "read", None)  # nothing is read
    code, _, err = trainer(*RUN)
    assert code == 3 and "'test/cow/033.jpg' no such file or directory" in err


def test_a_file_that_changes_ends_the_run_and_the_same_command_goes_on(
    root: Path, trainer: Trainer
) -> None:
    assert trainer(*RUN, "--name", "whole")[0] == 0
    path = root / "train/bee/012.jpg"
    content = path.read_bytes()
    path.write_bytes(content[:-20] + b"x" * 20)  # the pixels of its end, and as many bytes
    code, _, err = trainer(*RUN)
    assert code == 3 and "'train/bee/012.jpg'" in err and "is not as it was" in err
    state = json.loads(next(Path("runs").glob("photos-*/seed-0/run.json")).read_text())
    assert state["status"] == "failed"
    path.write_bytes(content)
    assert trainer(*RUN)[0] == 0
    (folder,) = Path("runs").glob("photos-*/seed-0")
    assert weights(folder) == weights(Path("runs/whole/seed-0"))


def test_a_set_that_was_prepared_again_is_another_experiment(root: Path, trainer: Trainer) -> None:
    assert trainer(*RUN)[0] == 0
    before = str(only_run())
    (root / "train/ant/001.jpg").unlink()
    found = lists(root)
    prepare(asked(root, train_list=found["train"], test_list=found["test"]), replace=True)
    code, _, err = trainer(*RUN)
    assert code == 3 and "other images" in err
    assert trainer("eval", before)[0] == 3


def test_an_unreadable_disk_is_code_4(root: Path, trainer: Trainer) -> None:
    root.rename(root.with_name("unmounted"))
    code, _, err = trainer(*RUN)
    assert code == 4 and "is not there" in err and "mount it" in err


def test_an_image_that_takes_too_long_ends_the_run_with_its_name(
    root: Path, trainer: Trainer, monkeypatch: Any
) -> None:
    threads = Decoders(1, seconds=0.01)
    monkeypatch.setattr("stylegan_mix.datasets.streamed.decoders", lambda: threads)
    read = FileImages.read

    def slow(own: FileImages, row: int) -> bytes:
        if own.name(row).startswith("train/cow"):
            threading.Event().wait()  # for ever, in a daemon
        return read(own, row)

    monkeypatch.setattr(FileImages, "read", slow)
    code, _, err = trainer(*RUN)
    assert code == 4 and "'train/cow/" in err and "within 0.01 seconds" in err


def test_the_threads_are_those_of_the_process() -> None:
    first = decoders.decoders()
    assert decoders.decoders() is first
    assert len(os.sched_getaffinity(0)) >= 1


def test_real_photographs_are_streamed(
    home: Path, shared_data: Path, trainer: Trainer, tmp_path: Path
) -> None:
    """Tiny ImageNet, of which some files are grey, enlarged to 224 pixels for some steps."""
    with tarfile.open(shared_data / "data/tinyimagenet20-jpeg.tar") as tar:
        every = sorted((one for one in tar if one.isfile()), key=lambda one: one.name)
        kept = [
            one
            for part, count in (("train", 8), ("test", 3))
            for name in ("n01443537", "n01784675")
            for one in [one for one in every if one.name.startswith(f"{part}/{name}/")][:count]
        ]
        tar.extractall(tmp_path / "tiny", kept, filter="data")
    prepare(Request("tiny", tmp_path / "tiny", stream=True))
    data = datasets.load("tiny", streamed=True)
    assert data.train.images.shape[1:] == (224, 224, 3) and data.num_classes == 2
    words = ("--model", "resnet10", "--epochs", "1", "--batch", "8", "--bn-refresh-batches", "1")
    code, _, err = trainer("run", "--dataset", "tiny", "--imbalance", "4", *words)
    assert code == 0, err
    assert np.isfinite(records.read(only_run() / "result.json").accuracy("overall"))
