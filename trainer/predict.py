"""The answers of a finished run: logits of its network on a part of a data set, or on files.

`N` images, `K` classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.datasets.archives import nearest_path
from stylegan_mix.datasets.image_files import FITS, Shape, resized
from stylegan_mix.datasets.loose import EVERYTHING, UNLABELLED, LooseImages, Wanted, open_loose
from stylegan_mix.datasets.pool import prepared_fit
from stylegan_mix.datasets.streamed import as_files
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.process import resolve_device
from stylegan_mix.progress import say
from stylegan_mix.session import Session
from trainer.engine import evaluate
from trainer.engine.folder import load_network
from trainer.engine.transform import Transform
from trainer.inputs import load_data
from trainer.models.layers import operators_on
from trainer.reports.calibration import calibration_error
from trainer.reports.records import RESULT_FILE, Result, read, require_same_data
from trainer.spec import DataSpec

__all__ = ["AS_PREPARED", "PARTS", "Answers", "answers", "answers_on_files", "run_folder"]

PARTS = ("train", "test", "val")

AS_PREPARED = "as prepared"
"""The fit with which the images of the run's data set were made square, or else "crop"."""

_AT_ONCE = 500


@dataclass(frozen=True)
class Answers:
    """The answers of a network: `logits` [N, K] float32, beside the labels [N].

    A label is `UNLABELLED` where none is known. `files` [N] names the images; None for a part of a
    data set, which are known by their rows.
    """

    result: Result
    labels: np.ndarray
    logits: torch.Tensor
    files: tuple[str, ...] | None = None

    @property
    def classes(self) -> list[str]:
        return list(self.result.dataset["classes"])

    @property
    def predicted(self) -> np.ndarray:
        """The class of the largest logit, [N] int64."""
        return self.logits.argmax(1).numpy()

    @property
    def probabilities(self) -> np.ndarray:
        """The softmax of the logits, [N, K] float64."""
        return self.logits.double().softmax(1).numpy()

    @property
    def labelled(self) -> np.ndarray:
        """Marks the images whose class is known, [N] bool."""
        return self.labels != UNLABELLED

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error of the labelled images in percent; None without any."""
        there = self.labelled
        if not there.any():
            return None
        return calibration_error(self.probabilities[there], self.labels[there])

    def rescored(self) -> Result | None:
        """Returns the result with accuracies of the labelled images; None if there are none."""
        there = self.labelled
        if not there.any():
            return None
        labels, predicted, classes = self.labels[there], self.predicted[there], len(self.classes)
        dataset = dict(self.result.dataset)
        dataset["test_counts"] = np.bincount(labels, minlength=classes).tolist()
        accuracy = evaluate.scores(labels, predicted, classes, dataset["groups"])
        few_enough = classes <= evaluate.MOST_CONFUSED
        confusion = evaluate.confusion_of(labels, predicted, classes) if few_enough else None
        changed = {
            "dataset": dataset,
            "accuracy": accuracy,
            "confusion": None if confusion is None else confusion.tolist(),
        }
        return Result({**self.result.record, **changed}, self.result.path)


class _Network:
    """The final network of a run on a device, with the facts of its training images."""

    def __init__(self, run: Path, device: str) -> None:
        self.folder = run_folder(run)
        self.result = read(self.folder / RESULT_FILE)
        network, self.facts = load_network(self.folder)
        self._device = torch.device(resolve_device(device))
        operators_on(self._device)  # or an error, before the first image
        self._network = network.to(self._device)
        mean, std = self.facts["mean"], self.facts["std"]
        self._transform = Transform(mean, std, pad=0, flip=False, device=self._device)

    @property
    def resolution(self) -> int:
        """The side of the training images in pixels."""
        return int(self.facts["resolution"])

    @property
    def views(self) -> str | None:
        """The way in which files of any size were made square for tests; None for an array."""
        views = self.facts.get("views")
        return views if views in FITS else None

    def fit(self, asked: str | None) -> str | None:
        """Resolves how images are made square: `AS_PREPARED` is the way of the training images."""
        if asked != AS_PREPARED:
            return asked
        fit = self.views or prepared_fit(self.result.spec.data.name) or "crop"
        say(f"images of another size are brought to {self.resolution} pixels by '{fit}'")
        return fit

    def logits(self, part: Part) -> torch.Tensor:
        """Computes the logits of a part, [N, K] float32."""
        return evaluate.logits_of(
            self._network,
            part,
            self._transform,
            device=self._device,
            precision=self.result.spec.precision,
            batch=_AT_ONCE,
        )


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
        f"there is no finished run in {path}{'' if path.exists() else nearest_path(path)}",
        remedy="trainer run prints the folder of the run that it makes",
    )


def answers(
    run: Path, part: str, other: DataSpec | None, *, device: str, fit: str | None = None
) -> Answers:
    """Computes the answers of a run's network on a part of its own data set, or of `other`.

    Images are normalised with the means of the run's own training images. With `fit` ("crop",
    "pad", "stretch" or `AS_PREPARED`), images of another size are brought to that of the training.
    Raises `InvalidInput` (exit code 3) if the run's own data set has other images by now, if the
    other data set has other classes or channels, or another size without `fit`, and `UsageFailure`
    (2) if there is no such part.
    """
    if part not in PARTS:
        raise UsageFailure(f"there is no part '{part}'; known: {', '.join(PARTS)}")
    network = _Network(run, device)
    data = load_data(other or network.result.spec.data)
    if other is None:
        require_same_data(
            network.result,
            data,
            remedy="prepare the images of the run again; or score it on those of now: "
            f"trainer predict {run} --dataset {data.name}",
        )
    _require_same(network, data, {"classes": list(data.classes), "channels": data.channels})
    chosen = getattr(data, part)
    if chosen is None:
        raise UsageFailure(f"{data.name} has no validation part", remedy="give --val-per-class N")
    if data.resolution != network.resolution:
        chosen = _refitted(chosen, network, data, network.fit(fit))
    return Answers(network.result, np.asarray(chosen.labels), network.logits(chosen))


def _require_same(network: _Network, data: Dataset, found: dict[str, Any]) -> None:
    for name, value in found.items():
        if network.facts[name] != value:
            raise InvalidInput(
                f"{network.folder} knows {name} {network.facts[name]}, {data.name} has {value}"
            )


def _refitted(part: Part, network: _Network, data: Dataset, fit: str | None) -> Part:
    """Brings the images of a part to the size of the training images."""
    size = network.resolution
    if fit is None:
        raise InvalidInput(
            f"{data.name} has images of {data.resolution} x {data.resolution} pixels; the network "
            f"was trained on {size} x {size}",
            remedy="--resize brings every image to that size (--fit says how)",
        )
    if as_files(part.images) is not None:
        raise InvalidInput(
            f"the files of {data.name} are shown with {data.resolution} pixels; the network was "
            f"trained on {size}",
            remedy=f"prepare them under another name with --size {size}",
        )
    return Part(np.stack([resized(image, size, fit) for image in part.images]), part.labels)


def answers_on_files(
    run: Path,
    path: Path,
    wanted: Wanted = EVERYTHING,
    *,
    device: str,
    fit: str | None = None,
    convert: bool = False,
    skip_bad: bool = False,
    session: Session | None = None,
) -> Answers:
    """Computes the answers of a run's network on the image files of a folder, tar or zip.

    `wanted` says which of them, and where their labels stand. Channels are converted to those of
    the training. With `fit` ("crop", "pad", "stretch" or `AS_PREPARED`), images of another size are
    brought to that of the training; without it they are `InvalidInput` (exit code 3). So are files
    that cannot be read, unless `skip_bad`, and those that lose something, unless `convert`. A
    network of a streamed set, whose images have any size, needs no `fit`.
    """
    network = _Network(run, device)
    chosen = network.fit(fit or network.views)
    shape = Shape(network.resolution, chosen, network.facts["channels"], convert)
    bad: dict[str, str] | None = {} if skip_bad else None
    with open_loose(path, network.facts["classes"], wanted) as images:
        say(f"{len(images.names):,} images of {path}: {images.folders}")
        for note in images.notes:
            say(note)
        rows, logits = [], []
        for places, part in _batches(images, shape, bad, session or Session()):
            rows += places
            logits.append(network.logits(part))
    for name, why in (bad or {}).items():
        say(f"left out: '{name}' {why}")
    if not rows:
        raise InvalidInput(f"{path}: none of {len(images.names)} images can be read")
    order = np.argsort(rows)
    taken = [rows[place] for place in order]
    return Answers(
        network.result,
        images.labels[taken],
        torch.cat(logits)[order],
        tuple(images.names[row] for row in taken),
    )


def _batches(
    images: LooseImages, shape: Shape, bad: dict[str, str] | None, session: Session
) -> Iterator[tuple[list[int], Part]]:
    """Yields (places of the files, their images), at most `_AT_ONCE` at once."""
    places: list[int] = []
    pixels: list[np.ndarray] = []
    progress = session.track(len(images.names), "images", "predict")
    seen = 0
    for place, _, image in images.decoded(shape, bad):
        places.append(place)
        pixels.append(image)
        if len(places) == _AT_ONCE:
            seen += len(places)
            yield places, Part(np.stack(pixels), images.labels[places])
            progress.update(seen)
            places, pixels = [], []
    if places:
        yield places, Part(np.stack(pixels), images.labels[places])
    progress.close()
