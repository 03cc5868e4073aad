"""Mutants of what says labels: tables beside images, and what a judge says of a bank's rows."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import store_targets
from targets import Target, Wrong, change, change_text, command, image_folder

from stylegan_mix import arrays
from stylegan_mix.errors import Failure


def rows(source: Path) -> list[tuple[str, str]]:
    """Moves the images of class folders into one folder -> (file, class) of each."""
    found = []
    for number, path in enumerate(sorted(source.rglob("*.png"))):
        found.append((f"{number:02}.png", path.parent.name))
        path.rename(source / f"{number:02}.png")
    for part in ("train", "test"):
        shutil.rmtree(source / part)
    return found


class LabelTable(Target):
    """A CSV beside the images that an option names, prepared and used for loose images."""

    name = "labels.csv"
    words: tuple[str, ...] = ("--labels", name)

    def build(self, folder: Path) -> None:
        source = image_folder(folder / "source")
        (source / self.name).write_text(self.text(rows(source)), encoding="utf-8")

    def text(self, pairs: list[tuple[str, str]]) -> str:
        return "".join(f"{file},{label},0\n" for file, label in [("file", "label"), *pairs])

    def change(self, mutator: Any, folder: Path) -> None:
        path = folder / "source" / self.name
        if mutator.draws.random() < 0.3:
            change(path, mutator.of_bytes)
        else:
            change_text(path, mutator.of_json if path.suffix == ".json" else mutator.of_text)

    def use(self, folder: Path) -> str | None:
        from stylegan_mix.datasets.loose import Wanted, open_loose

        os.environ["STYLEGAN_MIX_HOME"] = str(folder / "home")
        os.chdir(folder)
        prepare = ("dataset", "prepare", "tiny", "--from", "source", *self.words)
        command(*prepare, "--dry-run")
        command(*prepare, "--on-bad-image", "skip")
        named = (Path(self.words[1]),) if self.words else ()
        wanted = Wanted(labels=named)
        with (
            contextlib.suppress(Failure),
            open_loose(Path("source"), ["ant", "bee"], wanted) as images,
        ):
            if set(images.labels.tolist()) - {-1, 0, 1}:
                raise Wrong(f"labels of no class: {images.labels}")
        return None


class LabelTabs(LabelTable):
    """The same as a TSV, with columns named by options, and a column of parts."""

    name = "labels.tsv"
    words = ("--labels", name, "--file-column", "id", "--label-column", "kind")

    def text(self, pairs: list[tuple[str, str]]) -> str:
        parts = ("train", "test", "train")
        lines = [f"{label}\t{file[:2]}\t{parts[at % 3]}" for at, (file, label) in enumerate(pairs)]
        return "\n".join(["kind\tid\tpart", *lines]) + "\n"


class LabelLines(LabelTable):
    """The same as JSON lines of a known name, which no option names."""

    name = "metadata.jsonl"
    words = ()

    def text(self, pairs: list[tuple[str, str]]) -> str:
        lines = [{"file_name": file, "label": label, "n": 1} for file, label in pairs]
        return "".join(f"{json.dumps(one)}\n" for one in lines)


class LabelPairs(LabelTable):
    """The same as StyleGAN2-ADA's `dataset.json`."""

    name = "dataset.json"
    words = ()

    def text(self, pairs: list[tuple[str, str]]) -> str:
        return json.dumps({"labels": [[file, label] for file, label in pairs]})


class LabelOnes(LabelTable):
    """The same with a column of 0 and 1 for each class."""

    def text(self, pairs: list[tuple[str, str]]) -> str:
        lines = [f"{file},{int(label == 'ant')},{int(label == 'bee')}" for file, label in pairs]
        return "\n".join(["image,ant,bee", *lines]) + "\n"


class UnusedTable(LabelTable):
    """A table beside class folders that no option names."""

    words = ()

    def build(self, folder: Path) -> None:
        source = image_folder(folder / "source")
        files = [str(path.relative_to(source)) for path in sorted(source.rglob("*.png"))]
        text = self.text([(file, Path(file).parent.name) for file in files])
        (source / self.name).write_text(text, encoding="utf-8")


class Annotations(store_targets.Bank):
    """What a judge says of the rows of a bank, its bytes changed."""

    def build(self, folder: Path) -> None:
        from stylegan_mix.banks.reader import open_bank
        from stylegan_mix.judging.annotations import KIND, named

        with zipfile.ZipFile(store_targets.RECORDED) as stored:
            stored.extractall(folder)
        bank = open_bank(self.first(folder))
        posterior = np.zeros((len(bank), len(bank.classes)), "<f2")
        posterior[np.arange(len(bank)), bank.pair[:, 0]] = 1
        held = {
            "posterior": posterior,
            "distance": np.zeros((len(bank), 2), "<f4"),
            "nearest": np.zeros(len(bank), "<f4"),
            "copy": np.zeros(len(bank), "<i4"),
        }
        facts = {
            "schema_version": 1,
            "bank": bank.key,
            "content_sha256": bank.content_sha256,
            "split_id": bank.split_id,
            "classes": list(bank.classes),
            "judge": "7" * 64,
            "reach": [1.0] * len(bank.classes),
        }
        place = folder / "annotations" / bank.content_sha256 / named("7" * 64)
        arrays.write(place, held, kind=KIND, facts=facts)

    def annotations(self, folder: Path) -> Path:
        return next(folder.glob("annotations/*/judge-*"))

    def change(self, mutator: Any, folder: Path) -> None:
        place = self.annotations(folder)
        change(mutator.draws.choice(sorted(place.iterdir())), mutator.of_bytes)

    def use(self, folder: Path) -> str | None:
        from stylegan_mix.banks.reader import open_bank
        from stylegan_mix.judging.annotations import find_annotations, open_annotations

        os.environ["STYLEGAN_MIX_HOME"] = str(folder)
        bank = open_bank(self.first(folder))
        words = ("run", "--aug", "hybrid", "--bank", bank.key, "--accept", "clean", "--dry-run")
        command(*words, package="trainer")
        found = [open_annotations(place, bank) for place in find_annotations(bank)]
        return repr([(one.clean(bank).sum(), one.far(bank).sum(), one.judge) for one in found])


class SealedAnnotations(Annotations):
    """The same, its facts or arrays changed and sealed again."""

    exact = False

    def change(self, mutator: Any, folder: Path) -> None:
        mutator.of_sealed(self.annotations(folder))
