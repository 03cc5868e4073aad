"""A data set that was prepared again, from other images, under the name of the old one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix import cli, console
from stylegan_mix.errors import InvalidInput
from trainer.engine.folder import RunFolder

Trainer = Callable[..., tuple[int, str, str]]
RUN = ("--dataset", "made", "--model", "resnet8", "--epochs", "1", "--batch", "16")
RUN = (*RUN, "--bn-refresh-batches", "1")
SWEEP = """
[base]
dataset = "made"
model = "resnet8"
epochs = 1
batch = 16
bn-refresh-batches = 1

[[runs]]
aug = "none"
"""


def draw(folder: Path, *, train: str, test: str, val: str = "") -> None:
    """Noise of two classes; another seed gives other images of a part. No seed, no part."""
    parts = (("train", 12, train), ("test", 5, test), ("val", 4, val))
    for part, images, seed in (one for one in parts if one[2]):
        for name in ("ant", "bee"):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(images):
                noise = hashlib.shake_256(f"{seed} {part} {name} {number}".encode()).digest(64)
                (folder / part / name / f"{number}.pgm").write_bytes(b"P5 8 8 255\n" + noise)


@pytest.fixture
def prepare(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Prepares the set "made" from noise, in the place of an earlier one."""

    def make(train: str, test: str, val: str = "") -> None:
        draw(tmp_path / "pictures", train=train, test=test, val=val)
        with pytest.raises(SystemExit) as end:
            words = ["dataset", "prepare", "made", "--from", "pictures", "--replace"]
            console.main(cli.group, "stylegan-mix", words)
        assert not end.value.code, capsys.readouterr().err
        capsys.readouterr()

    return make


@pytest.fixture(params=["train", "test"])
def replaced(request: Any, prepare: Callable[..., None], trainer: Trainer) -> str:
    """A finished run, whose training or test images are others by now."""
    prepare("old", "old")
    code, _, err = trainer("run", *RUN)
    assert code == 0, err
    part = str(request.param)
    prepare(**{"train": "old", "test": "old", part: "new"})
    return {"train": "training split", "test": "test part"}[part]


def finished() -> Path:
    (path,) = Path("runs").glob("made-*/seed-0/result.json")
    return path


def test_run_gives_no_old_result_as_the_new_one(replaced: str, trainer: Trainer) -> None:
    before = finished().read_bytes()
    for more in ((), ("--dry-run",)):
        code, out, err = trainer("run", *RUN, *more)
        assert (code, out) == (3, "")
        assert f"of other images than made has now:\n  {replaced}" in err
        assert "--name or --out of its own" in err
    assert finished().read_bytes() == before
    code, out, _ = trainer("run", *RUN, "--name", "again")
    assert code == 0 and out
    assert finished().read_bytes() == before


def test_eval_says_which_images_are_missing(replaced: str, trainer: Trainer) -> None:
    run = str(finished().parent)
    code, out, err = trainer("eval", run)
    assert (code, out) == (3, "")
    assert f"of other images than made has now:\n  {replaced}" in err
    assert "rounds differently" not in err
    assert "prepare the images of the run again" in err
    # Other images on purpose.
    assert trainer("predict", run, "--dataset", "made")[0] == 0


def test_report_and_compare_keep_the_runs_apart_and_tell(replaced: str, trainer: Trainer) -> None:
    assert trainer("run", *RUN, "--name", "again")[0] == 0
    code, out, err = trainer("report", "runs", "--json")
    assert code == 0
    assert len(json.loads(out)["tables"]) == 2
    assert "1 run(s), such as runs/made-ce-none-" in err and "saw other images" in err
    assert "same run with different accuracies" not in err
    code, _, err = trainer("compare", str(finished().parent), "runs/again")
    assert code == 2 and "A and B cannot be compared" in err
    assert ("split_id" if replaced == "training split" else "test_id") in err
    code, _, err = trainer("compare", "none", "mixup")
    assert code == 2 and "'none' means 2 experiments" in err and "runs/again/seed-0" in err


def test_a_sweep_refuses_the_old_run_and_overwrites_no_result(
    replaced: str, trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "grid.toml").write_text(SWEEP)
    for more in ((), ("--dry-run",)):
        code, _, err = trainer("sweep", "grid.toml", "--results", "kept", *more)
        assert code == 3 and f"of other images than made has now:\n  {replaced}" in err
    assert not list(tmp_path.glob("kept/*"))


def test_a_results_folder_holds_the_results_of_both(
    prepare: Callable[..., None], trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "grid.toml").write_text(SWEEP)
    prepare("old", "old")
    assert trainer("sweep", "grid.toml", "--results", "kept", "--out", "one")[0] == 0
    (first,) = (tmp_path / "kept").iterdir()
    before = first.read_bytes()
    prepare("old", "new")
    code, _, err = trainer("sweep", "grid.toml", "--results", "kept", "--out", "two")
    assert code == 0 and "0 have a result" in err
    assert first.read_bytes() == before
    assert len(list((tmp_path / "kept").iterdir())) == 2
    code, _, err = trainer("sweep", "grid.toml", "--results", "kept", "--out", "three")
    assert code == 0 and "1 have a result" in err


def test_other_validation_images_make_another_run(
    prepare: Callable[..., None], trainer: Trainer, tmp_path: Path
) -> None:
    """They may decide a correction of the network, and no other id tells of them."""
    held = (*RUN, "--val-per-class", "3")
    prepare("old", "old", "old")
    assert trainer("run", *RUN)[0] == trainer("run", *held)[0] == 0
    paths = sorted(Path("runs").glob("made-*/seed-0/result.json"))
    ids = [json.loads(path.read_text())["dataset"].get("val_id") for path in paths]
    assert sum(one is None for one in ids) == 1
    inputs = [json.loads((path.parent / "inputs.json").read_text()) for path in paths]
    assert [one.get("val_id") for one in inputs] == ids
    prepare("old", "old", "new")
    assert trainer("run", *RUN)[0] == 0
    code, out, err = trainer("run", *held)
    assert (code, out) == (3, "")
    assert "of other images than made has now:\n  validation part" in err
    assert trainer("run", *held, "--name", "again")[0] == 0
    code, out, err = trainer("report", "runs", "--json")
    rows = [row for table in json.loads(out)["tables"] for row in table["rows"]]
    assert len(rows) == 3 and "1 run(s), such as runs/made-ce-none-" in err
    assert "validation part" in err
    code, _, err = trainer("predict", str(paths[ids.index(None) - 1].parent), "--part", "val")
    assert code == 3 and "validation part" in err


def test_runs_that_kept_no_id_of_their_validation_part_still_count(
    prepare: Callable[..., None], trainer: Trainer
) -> None:
    held = (*RUN, "--val-per-class", "3")
    prepare("old", "old", "old")
    assert trainer("run", *held)[0] == 0
    record = json.loads(finished().read_text())
    del record["dataset"]["val_id"]
    finished().write_text(json.dumps(record))
    inputs = finished().with_name("inputs.json")
    inputs.write_text(json.dumps({**json.loads(inputs.read_text()), "val_id": None}))
    before = finished().read_bytes()
    assert trainer("run", *held)[0] == 0 and finished().read_bytes() == before
    assert "other images" not in trainer("report", "runs")[2]
    assert trainer("run", *held, "--name", "now")[0] == 0
    assert trainer("report", "runs")[0] == 0
    kept = {name: one for name, one in json.loads(inputs.read_text()).items() if name != "val_id"}
    inputs.write_text(json.dumps(kept))
    run = RunFolder(inputs.parent)
    run.require_inputs({**kept, "val_id": "1" * 64})
    with pytest.raises(InvalidInput, match="val_id changed"):
        run.require_inputs({**kept, "val_id": "2" * 64})


def test_a_run_that_was_stopped_is_not_gone_on_with_on_other_images(
    prepare: Callable[..., None], trainer: Trainer
) -> None:
    prepare("old", "old")
    assert trainer("run", *RUN, "--epochs", "400", "--minutes", "0.0001")[0] == 75
    prepare("new", "old")
    code, _, err = trainer("run", *RUN, "--epochs", "400")
    assert code == 3 and "split_id changed since this run began" in err


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        ({"lr": -1.0}, 2, "lr must be a number"),
        ({"teacher": '"nowhere"'}, 2, "no run there reads 'teacher'"),
        ({"recipe": '"kd"', "teacher": '"nowhere"'}, 3, "nowhere"),
        ({"recipe": '"kdd"'}, 2, "did you mean 'kd'"),
        ({"val-per-class": 12}, 2, "--val-per-class"),
        ({"aug": '"hybrid"'}, 3, "there is no bank"),
    ],
)
def test_a_dry_sweep_refuses_what_a_dry_run_refuses(
    prepare: Callable[..., None],
    trainer: Trainer,
    tmp_path: Path,
    more: dict[str, Any],
    code: int,
    told: str,
) -> None:
    prepare("old", "old")
    table = {"dataset": '"made"', "model": '"resnet8"', "epochs": 1, "batch": 16, **more}
    lines = [f"{name} = {value}" for name, value in table.items()]
    (tmp_path / "grid.toml").write_text("\n".join(["[[runs]]", *lines]))
    words = [word for name, value in table.items() for word in (f"--{name}", str(value).strip('"'))]
    found = trainer("run", *words, "--dry-run")
    assert found[0] == code, found
    found = trainer("sweep", "grid.toml", "--dry-run")
    assert found[:2] == (code, "") and told in found[2]


def test_a_dry_sweep_refuses_a_device_that_is_not_there(
    prepare: Callable[..., None], trainer: Trainer, tmp_path: Path
) -> None:
    prepare("old", "old")
    (tmp_path / "grid.toml").write_text(SWEEP)
    for name, code in (("tpu", 2), ("cuda:99", 4)):
        assert trainer("run", *RUN, "--device", name, "--dry-run")[0] == code
        assert trainer("sweep", "grid.toml", "--device", name, "--dry-run")[0] == code
