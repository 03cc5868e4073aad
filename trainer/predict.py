"""The answers of a finished run: logits of its network on a part of a data set, scores, a CSV.

`N` images, `K` classes.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_mix import datasets
from stylegan_mix.datasets import Dataset
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.process import resolve_device
from trainer.engine import evaluate
from trainer.engine.batches import Transform
from trainer.engine.folder import load_network
from trainer.reports.records import RESULT_FILE, Result, read, require_same_data
from trainer.spec import DataSpec

__all__ = ["PARTS", "Answers", "answers", "as_csv", "run_folder"]

PARTS = ("train", "test", "val")


@dataclass(frozen=True)
class Answers:
    """The answers of a network on a part: `logits` [N, K] float32, beside the labels [N]."""

    result: Result
    data: Dataset
    labels: np.ndarray
    logits: torch.Tensor

    @property
    def predicted(self) -> np.ndarray:
        """The class of the largest logit, [N] int64."""
        return self.logits.argmax(1).numpy()

    def scores(self) -> dict[str, Any]:
        """Computes overall, many, medium, few and per class, in percent."""
        classes = len(self.data.classes)
        return evaluate.scores(self.labels, self.predicted, classes, self.data.groups)


def run_folder(path: Path) -> Path:
    """Finds the folder of one finished run; a folder of seeds with a single run will do."""
    if (path / RESULT_FILE).is_file():
        return path
    seeds = sorted(file.parent for file in path.glob(f"seed-*/{RESULT_FILE}"))
    if len(seeds) == 1:
        return seeds[0]
    if seeds:
        raise UsageFailure(
            f"{path} holds {len(seeds)} runs", remedy=f"name one of them, such as {seeds[0]}"
        )
    raise InvalidInput(
        f"there is no finished run in {path}",
        remedy="trainer run prints the folder of the run that it makes",
    )


def answers(run: Path, part: str, other: DataSpec | None, *, device: str) -> Answers:
    """Computes the answers of a run's network on a part of its own data set, or of `other`.

    Images are normalised with the means of the run's own training images. Raises `InvalidInput`
    (exit code 3) if the run's own data set has other images by now, or the other one other classes
    or channels, `UsageFailure` (2) if there is no such part.
    """
    folder = run_folder(run)
    result = read(folder / RESULT_FILE)
    data = datasets.load(**asdict(other or result.spec.data))
    if other is None:
        require_same_data(
            result,
            data,
            remedy="prepare the images of the run again; or score it on those of now: "
            f"trainer predict {run} --dataset {data.name}",
        )
    network, facts = load_network(folder)
    for name, found in (("classes", list(data.classes)), ("channels", data.channels)):
        if facts[name] != found:
            raise InvalidInput(f"{folder} knows {name} {facts[name]}, {data.name} has {found}")
    if part not in PARTS:
        raise UsageFailure(f"there is no part '{part}'; known: {', '.join(PARTS)}")
    images = getattr(data, part)
    if images is None:
        raise UsageFailure(f"{data.name} has no validation part", remedy="give --val-per-class N")
    place = torch.device(resolve_device(device))
    transform = Transform(facts["mean"], facts["std"], pad=0, flip=False, device=place)
    logits = evaluate.logits_of(
        network.to(place), images, transform, device=place, precision=result.spec.precision
    )
    return Answers(result, data, np.asarray(images.labels), logits)


def as_csv(found: Answers) -> str:
    """Renders index, label, prediction (class indices), then the probability of each class."""
    probabilities = found.logits.double().softmax(1).numpy()
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["index", "label", "prediction", *(f"p:{name}" for name in found.data.classes)])
    for index, row in enumerate(probabilities):
        told = [index, int(found.labels[index]), int(found.predicted[index])]
        writer.writerow([*told, *(f"{value:.6f}" for value in row)])
    return table.getvalue()
