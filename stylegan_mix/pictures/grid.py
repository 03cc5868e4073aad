"""The class grid of a page: real images beside samples, a row per class."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from stylegan_mix import rng
from stylegan_mix.datasets import Dataset
from stylegan_mix.errors import InvalidInput
from stylegan_mix.generators.class_grid import class_grid, shown_classes
from stylegan_mix.latents.plan import Rows
from stylegan_mix.pictures.picture import Picture, of_image
from stylegan_mix.pictures.viewer import Subject
from stylegan_mix.reading import read_bytes

__all__ = ["grid", "stored_grid"]

SAMPLES = 10
_LARGEST_GRID = 256 << 20


def grid(subject: Subject, dataset: Dataset) -> Picture:
    """Draws real images left and samples right, from head to tail."""
    labels = shown_classes(dataset.counts)
    samples = {label: torch.from_numpy(_samples(subject, label)) for label in labels}
    which = "Every class" if len(labels) == dataset.num_classes else f"{len(labels)} classes"
    caption = (
        f"{which}, from head to tail, with its training images. Left: 5 real images, evenly spaced "
        f"in the training part. Right: {SAMPLES} samples of fresh latents, the same in every row, "
        f"psi {subject.truncation:g}, not chosen; {subject.origin}."
    )
    return of_image("classes.png", "Class by class", caption, class_grid(samples, dataset))


def _samples(subject: Subject, label: int) -> np.ndarray:
    z = rng.stream(subject.seed, "pictures.samples").standard_normal(
        (SAMPLES, subject.network.z_dim), dtype=np.float32
    )
    rows = Rows(
        np.full((SAMPLES, 2), label, np.int32), np.ones(SAMPLES, np.float32), np.stack([z, z])
    )
    return subject.mixed(rows, space="none", noise="random", stream=f"noise.{label}")


def stored_grid(subject: Subject) -> Picture:
    """Returns the grid that was drawn when the generator was published, without the data set."""
    path = subject.published.folder / "grid.png"
    try:
        content = read_bytes(path, limit=_LARGEST_GRID)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            image = opened.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{path} is not the picture of a generator: {error}") from error
    caption = (
        "The picture that was drawn when this generator came into the store, with its own seed "
        f"(generator {subject.published.hash[:12]}): its data set is not here to draw it again."
    )
    return of_image("classes.png", "What it draws", caption, image)
