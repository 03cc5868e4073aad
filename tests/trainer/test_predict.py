"""`predict` on files: folders with and without labels, sizes, bad files, both formats."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_mix import datasets
from trainer import models
from trainer.engine.folder import save_network
from trainer.reports import records

Maker = Callable[..., dict[str, Any]]
Trainer = Callable[..., tuple[int, str, str]]
CLASSES = ["Amphipod", "copépode", "ж/猫"]
SIDE = 8
# Facts of a stored network that no answer depends on.
STORED: dict[str, Any] = {"split_id": "split", "test_id": "test", "history": []}


@pytest.fixture
def run(
    record: Maker, with_classes: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A finished run of an untrained network for three classes of 8-pixel colour images."""
    monkeypatch.chdir(tmp_path)
    one = with_classes(record(), [30, 20, 5], [10, 10, 10], [9, 5, 1])
    one["dataset"]["classes"] = CLASSES
    one["budget"]["stages"] = [{"stage": "train"}]
    folder = tmp_path / "run"
    network = models.build("resnet8", classes=3, channels=3)
    models.initialise(network, 0)
    facts = {
        "model": "resnet8",
        "classes": CLASSES,
        "channels": 3,
        "resolution": SIDE,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        **STORED,
    }
    save_network(
        folder / "weights" / "train", network, {"confusion": torch.zeros(3, 3).long()}, facts
    )
    records.write(folder / "result.json", one)
    return folder


def put(
    path: Path, *, size: tuple[int, int] = (SIDE, SIDE), mode: str = "RGB", seed: int = 0
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_labelled_folder_gives_files_names_probabilities_and_accuracy(
    run: Path, trainer: Trainer
) -> None:
    for number in range(4):
        put(Path(f"photos/test/Amphipod/{number}.png"), seed=number)
    put(Path("photos/test/COPÉPODE/2020/a.jpg"), seed=5)
    put(Path("photos/test/ж/猫/b.png"), seed=6)
    code, out, err = trainer("predict", str(run), "photos")
    assert code == 0, err
    rows = lines(out)
    assert [row["file"] for row in rows] == [
        *(f"test/Amphipod/{number}.png" for number in range(4)),
        *("test/COPÉPODE/2020/a.jpg", "test/ж/猫/b.png"),
    ]
    assert [row["label"] for row in rows] == ["0", "0", "0", "0", "1", "2"]
    assert [row["label_name"] for row in rows] == [*["Amphipod"] * 4, CLASSES[1], CLASSES[2]]
    for row in rows:
        shares = [float(row[f"p:{name}"]) for name in CLASSES]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert row["prediction_name"] == CLASSES[int(np.argmax(shares))]
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert f"overall (images) {100 * right:.1f} %" in err
    assert err.index("balanced (3 classes)") < err.index("overall (images)")  # 4, 1 and 1 images


def test_accuracies_are_those_of_the_shot_groups_that_are_asked_for(
    run: Path, trainer: Trainer
) -> None:
    put(Path("photos/Amphipod/a.png"))
    put(Path("photos/copépode/b.png"))
    code, out, _ = trainer("predict", str(run), "photos", "--groups", "25,10", "--json")
    accuracy = json.loads(out)["accuracy"]
    assert code == 0
    assert accuracy["many"] == accuracy["per_class"][0]
    assert accuracy["medium"] == accuracy["per_class"][1]
    assert accuracy["few"] is None
    assert accuracy["balanced"] == accuracy["overall"]


def test_an_unlabelled_folder_has_no_accuracy_and_no_labels(run: Path, trainer: Trainer) -> None:
    for number in range(3):
        put(Path(f"photos/{number}.png"), seed=number)
    code, out, err = trainer("predict", str(run), "photos")
    assert code == 0 and "3 images, no label is known" in err
    assert {row["label"] + row["label_name"] for row in lines(out)} == {""}
    code, out, _ = trainer("predict", str(run), "photos", "--json")
    found = json.loads(out)
    assert code == 0 and found["accuracy"] is None and found["labelled"] == 0
    assert [one["label"] for one in found["images"]] == [None] * 3


def test_images_of_unknown_folders_are_predicted_and_not_counted(
    run: Path, trainer: Trainer
) -> None:
    put(Path("photos/Amphipod/a.png"), seed=1)
    put(Path("photos/krill/b.png"), seed=2)
    code, out, err = trainer("predict", str(run), "photos", "--out", "a.json")
    assert code == 0, err
    found = json.loads(Path("a.json").read_text())
    assert [one["label"] for one in found["images"]] == ["Amphipod", None]
    assert found["labelled"] == 1 and found["accuracy"]["overall"] in (0.0, 100.0)
    assert "2 images; right of 1 labelled images" in out
    assert "1 of 2 images have no label" in err and "krill" in err


def test_the_answers_are_those_of_the_network(run: Path, trainer: Trainer) -> None:
    """In the order of the files, not in that of an archive."""
    for number in range(5):
        put(Path(f"photos/{number}.png"), seed=number)
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for number in (3, 1, 4, 0, 2):
            archive.write(f"photos/{number}.png", f"x/{number}.png")
    _, folder, _ = trainer("predict", str(run), "photos")
    code, packed, _ = trainer("predict", str(run), "photos.zip")
    assert code == 0
    assert packed.replace("x/", "") == folder
    _, single, _ = trainer("predict", str(run), "photos/3.png")
    assert lines(single)[0]["p:Amphipod"] == lines(folder)[3]["p:Amphipod"]
    assert len({row["p:Amphipod"] for row in lines(folder)}) == 5


def test_another_size_is_refused_or_resized_as_asked(run: Path, trainer: Trainer) -> None:
    put(Path("photos/a.png"))
    put(Path("photos/b.png"), size=(20, 12))
    code, _, err = trainer("predict", str(run), "photos")
    assert code == 3
    assert "'b.png' is 20 x 12 pixels; the network was trained on 8 x 8" in err
    assert "--resize" in err
    answers = set()
    for fit in ("crop", "pad", "stretch"):
        code, out, _ = trainer("predict", str(run), "photos", "--resize", "--fit", fit)
        assert code == 0
        answers.add(lines(out)[1]["p:Amphipod"])
    assert len(answers) == 3
    _, default, err = trainer("predict", str(run), "photos", "--resize")
    assert lines(default)[1]["p:Amphipod"] in answers and "by 'crop'" in err
    code, _, err = trainer("predict", str(run), "photos", "--fit", "pad")
    assert code == 2 and "add --resize" in err


def test_images_are_resized_as_those_of_the_data_set_were(
    run: Path, trainer: Trainer, home: Path
) -> None:
    from stylegan_mix.datasets.prepare import prepare
    from stylegan_mix.datasets.request import Request

    for name in CLASSES[:2]:
        for number in range(5):
            put(Path(f"mine/{name}/{number}.png"), size=(20, 12), seed=number)
    prepare(Request("digits_of_mine", Path("mine"), size=SIDE, fit="stretch"))
    result = records.read(run / "result.json").record
    result["dataset"]["name"] = result["config"]["data"]["name"] = "digits_of_mine"
    records.write(run / "result.json", result)
    put(Path("photos/b.png"), size=(20, 12))
    code, out, err = trainer("predict", str(run), "photos", "--resize")
    assert code == 0 and "by 'stretch'" in err
    assert out == trainer("predict", str(run), "photos", "--resize", "--fit", "stretch")[1]


def test_a_data_set_of_another_size_is_refused_or_resized_as_asked(
    run: Path, trainer: Trainer, home: Path, record: Maker
) -> None:
    digits = datasets.load("digits_lt")
    network = models.build("resnet8", classes=10, channels=1)
    models.initialise(network, 0)
    facts = {"model": "resnet8", "classes": list(digits.classes), "channels": 1, "resolution": 12}
    facts |= {"mean": [0.5], "std": [0.25], **STORED}
    arrays = {"confusion": torch.zeros(10, 10).long()}
    shutil.rmtree(run / "weights")
    save_network(run / "weights" / "train", network, arrays, facts)
    result = record()
    result["budget"]["stages"] = [{"stage": "train"}]
    records.write(run / "result.json", result)
    code, _, err = trainer("predict", str(run), "--dataset", "digits_lt")
    assert code == 3 and "images of 8 x 8 pixels; the network was trained on 12 x 12" in err
    code, out, err = trainer("predict", str(run), "--dataset", "digits_lt", "--resize")
    assert code == 0 and "brought to 12 pixels by 'crop'" in err
    assert len(lines(out)) == 740


def test_channels_are_those_of_the_training(run: Path, trainer: Trainer) -> None:
    for mode in ("L", "RGBA", "P"):
        put(Path(f"photos/{mode}.png"), mode=mode)
    code, out, err = trainer("predict", str(run), "photos")
    assert code == 0, err
    assert len(lines(out)) == 3


def test_bad_files_are_refused_or_left_out_as_asked(run: Path, trainer: Trainer) -> None:
    put(Path("photos/a.png"))
    Path("photos/b.png").write_bytes(b"no image")
    code, _, err = trainer("predict", str(run), "photos")
    assert code == 3 and "'b.png' is not an image" in err and "--on-bad-image skip" in err
    code, out, err = trainer("predict", str(run), "photos", "--on-bad-image", "skip")
    assert code == 0 and "left out: 'b.png'" in err
    assert [row["file"] for row in lines(out)] == ["a.png"]
    Path("photos/a.png").unlink()
    code, _, err = trainer("predict", str(run), "photos", "--on-bad-image", "skip")
    assert code == 3 and "none of 1 images can be read" in err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("foto",), 3, "foto is missing, or neither a file nor a folder; did you mean photos?"),
        (("a/b/c",), 3, "this folder is there, without 'a' in it"),
        (("empty",), 3, "empty holds no image"),
        (("photos", "--part", "test"), 2, "photos has no part 'test'"),
        (("photos", "--part", "tset"), 2, "no part 'tset'; known: train, test, eval, val, all"),
        (("photos", "--file-column", "f"), 2, "need --labels FILE"),
        (("photos", "--labels", "no.csv"), 2, "--labels no.csv is missing"),
        (("--convert",), 2, "there are no IMAGES"),
        (("photos", "--dataset", "digits_lt"), 2, "leave one of them out"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    run: Path, trainer: Trainer, arguments: tuple[str, ...], code: int, told: str
) -> None:
    put(Path("photos/a.png"))
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("none")
    found, _, err = trainer("predict", str(run), *arguments)
    assert found == code and told in err


def test_labels_of_a_table_give_accuracies(run: Path, trainer: Trainer) -> None:
    for number in range(4):
        put(Path(f"photos/{number}.png"), seed=number)
    names = ["Amphipod", "amphipod", "ж/猫", "krill"]
    rows = [f"{number},{name},x" for number, name in enumerate(names)]
    Path("truth.csv").write_text("\n".join(["image_id,kind,note", *rows, "9,Amphipod,x"]))
    words = ("predict", str(run), "photos", "--labels", "truth.csv", "--label-column", "kind")
    code, out, err = trainer(*words)
    assert code == 0, err
    assert [row["label_name"] for row in lines(out)] == ["Amphipod", "Amphipod", "ж/猫", ""]
    assert "4 images of photos: 4 in .\n" in err
    assert "right of 3 labelled images" in err
    assert "no image for 1 row of truth.csv: '9' (row 6)" in err
    assert "1 of 4 images have no label: the label file has no class of the network for them" in err
    assert "(krill)" in err
    code, out, _ = trainer(*words, "--json")
    assert (code, json.loads(out)["labelled"]) == (0, 3)


def test_the_parts_of_a_data_set_are_not_counted_together(run: Path, trainer: Trainer) -> None:
    for part, count in (("train", 3), ("test", 2), ("val", 1)):
        for number in range(count):
            put(Path(f"set/{part}/Amphipod/{number}.png"), seed=number)
    code, out, err = trainer("predict", str(run), "set")
    assert (code, out) == (3, "")
    assert (
        "set holds the parts of a data set (train: 3 images in train; val: 1 images in val; test: "
        "2 images in test)" in err
    )
    assert "--part test; --part all takes them together" in err
    code, out, err = trainer("predict", str(run), "set", "--part", "test")
    assert code == 0 and [row["file"] for row in lines(out)] == [
        "test/Amphipod/0.png",
        "test/Amphipod/1.png",
    ]
    code, out, err = trainer("predict", str(run), "set", "--part", "all")
    assert code == 0 and len(lines(out)) == 6
    assert "6 images of set: 2 in test, 3 in train, 1 in val" in err


def test_images_that_lose_something_are_converted_as_asked(run: Path, trainer: Trainer) -> None:
    put(Path("photos/a.tif"), mode="CMYK")
    code, _, err = trainer("predict", str(run), "photos")
    assert code == 3 and "is CMYK (--convert makes it RGB)" in err
    code, out, err = trainer("predict", str(run), "photos", "--convert")
    assert (code, len(lines(out))) == (0, 1), err


def test_a_single_file_does_not_look_at_the_folder_around_it(run: Path, trainer: Trainer) -> None:
    put(Path("home/a.png"))
    os.mkfifo("home/pipe")
    (Path("home") / "metadata.csv").write_text("file_name,label\nb.png,Amphipod\n")
    code, out, err = trainer("predict", str(run), "home/a.png")
    assert (code, [row["file"] for row in lines(out)]) == (0, ["a.png"]), err


def test_a_run_that_is_not_there_is_looked_for(run: Path, trainer: Trainer) -> None:
    put(Path("photos/a.png"))
    code, _, err = trainer("predict", "rum", "photos")
    assert code == 3 and "there is no finished run in rum; did you mean run?" in err


def test_a_file_name_may_hold_what_csv_quotes(run: Path, trainer: Trainer) -> None:
    put(Path('photos/a, "b".png'))
    code, _, err = trainer("predict", str(run), "photos", "--out", "answers.csv")
    assert code == 0, err
    (row,) = lines(Path("answers.csv").read_text(encoding="utf-8"))
    assert row["file"] == 'a, "b".png'


def test_files_of_many_batches_are_all_answered(
    run: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.predict._AT_ONCE", 2)
    for number in range(5):
        put(Path(f"photos/{number}.png"), seed=number)
    _, out, _ = trainer("predict", str(run), "photos")
    monkeypatch.setattr("trainer.predict._AT_ONCE", 500)
    _, whole, _ = trainer("predict", str(run), "photos")
    for one, other in zip(lines(out), lines(whole), strict=True):
        assert one["file"] == other["file"]
        assert float(one["p:Amphipod"]) == pytest.approx(float(other["p:Amphipod"]), abs=2e-6)
