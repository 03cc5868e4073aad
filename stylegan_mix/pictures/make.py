"""Making a page: the pictures of a generator, and a reason for each one that is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stylegan_mix import arrays
from stylegan_mix.datasets import Dataset
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.metrics.probe import find_probe
from stylegan_mix.metrics.request import KIND, Found
from stylegan_mix.pictures import folder, page
from stylegan_mix.pictures.bars import bars
from stylegan_mix.pictures.curves import curves
from stylegan_mix.pictures.grid import grid, stored_grid
from stylegan_mix.pictures.history import find_log, read
from stylegan_mix.pictures.nearest import Judged, tail_neighbours
from stylegan_mix.pictures.picture import Picture
from stylegan_mix.pictures.strips import strips
from stylegan_mix.pictures.truncation import sweeps
from stylegan_mix.pictures.viewer import Subject
from stylegan_mix.session import Session

__all__ = ["Measured", "make_page", "pictures_of"]


@dataclass(frozen=True, eq=False)
class Measured:
    """A generator's data set, and the report on it."""

    dataset: Dataset
    found: Found


def make_page(
    into: Path,
    published: Published,
    measured: Measured | None,
    *,
    why_not: str = "",
    seed: int,
    truncation: float,
    device: torch.device,
    session: Session = Session(),
) -> Path:
    """Draws all pictures, writes the folder, and returns its index.

    `measured` is None if the data set is not here, for the reason `why_not`. The page then lacks
    everything that needs real images, and says so.
    """
    network = generator_store.network(published, precision="float32").to(device)
    subject = Subject(published, network, seed, truncation)
    drawn, left_out = pictures_of(subject, measured, session)
    if measured is None:
        left_out.insert(0, f"real images, nearest neighbours and metrics: {why_not}")
    report = None if measured is None else measured.found.report
    text = page.html(published, report, drawn, left_out, seed=seed)
    files = {one.file: one.data for one in drawn}
    facts = {
        "generator": published.hash,
        "report": None if report is None else report["key"],
        "seed": seed,
        "truncation": truncation,
    }
    folder.write(into, {**files, folder.INDEX: text.encode()}, facts)
    return into / folder.INDEX


def pictures_of(
    subject: Subject, measured: Measured | None, session: Session
) -> tuple[list[Picture], list[str]]:
    """Draws the pictures in the order of the page, and lists the reasons for missing ones."""
    session.say("page: class grid")
    drawn = [grid(subject, measured.dataset) if measured else stored_grid(subject)]
    if measured is not None:
        drawn.append(bars(measured.found.report, subject.origin))
    session.say("page: truncation sweeps and strips")
    drawn += sweeps(subject)
    wanted = {"interpolation strips": strips(subject) or "there are no two classes"}
    if measured is not None:
        session.say("page: nearest training images")
        wanted["nearest neighbours"] = _neighbours(subject, measured)
    wanted["training curves"] = _curves(subject)
    drawn += [one for one in wanted.values() if isinstance(one, Picture)]
    left_out = [f"{name}: {why}" for name, why in wanted.items() if isinstance(why, str)]
    return drawn, left_out


def _neighbours(subject: Subject, measured: Measured) -> Picture | str:
    """Draws the neighbours of the report's samples, found again by row; or gives a reason."""
    report = measured.found.report
    probe = find_probe(measured.dataset, report["probe"]["seed"])
    if probe is None or probe.hash != report["probe"]["sha256"]:
        return "the probe of the report is not in this store any more"
    kept = arrays.open_container(measured.found.folder, kind=KIND)
    judged = Judged(
        report["samples"]["seeds"][0], kept["label"][0].astype(int), np.array(kept["distance"][0])
    )
    drawn = tail_neighbours(subject, measured.dataset, judged, probe.network(subject.device))
    return drawn or "the report has no sample of a rare class"


def _curves(subject: Subject) -> Picture | str:
    card = subject.published.card
    path = find_log(card["training"])
    if path is None:
        return "the log of the training is not in this store"
    # The last step of a budget ends less than a batch after it.
    lines = read(path, kimg=card["kimg"] + card["preset"]["batch"] / 1000)
    drawn = curves(lines, subject.names, subject.counts, subject.origin)
    return drawn or f"the log of the training, {path.name}, holds no number"
