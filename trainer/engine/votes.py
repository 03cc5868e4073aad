"""Votes of a label-only teacher over patches of the training images, counted once and kept.

Our reconstruction of patched one-hot distillation (trainer/README.md). Each image is shown to the
teacher in `views` views, as `VoteSpec` says. Some show the whole image, shifted and flipped; the
others are square patches brought to full size. `N` images, `K` classes.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix import arrays, store
from stylegan_mix.errors import fitting
from stylegan_mix.progress import say
from stylegan_mix.rng import stream
from stylegan_mix.session import Session
from trainer.engine.batches import Images
from trainer.engine.loop import autocast
from trainer.engine.teachers import Ask
from trainer.engine.transform import Transform, windows
from trainer.spec import VoteSpec

if TYPE_CHECKING:
    from stylegan_mix.datasets import Part

__all__ = ["Ballot", "class_shares", "collect", "ensure", "sinks", "view"]

KIND = "votes"
# A class with more than this many times its share of the images as votes is a sink.
SINK_FACTOR = 3.0


@dataclass(frozen=True)
class Ballot:
    """The questions of a vote: everything that decides the votes, and the means to ask."""

    ask: Ask
    part: Part
    classes: int
    transform: Transform
    spec: VoteSpec
    seed: int
    precision: str
    device: torch.device

    def identity(self, split_id: str, teacher_sha256: str) -> dict[str, Any]:
        """Composes the key of these votes as plain data."""
        # Earlier votes in bfloat16 are those of a head in bfloat16.
        heads = {} if self.precision == "float32" else {"heads": "float32"}
        return {
            "schema": "stylegan-mix-votes/1",
            "split_id": split_id,
            "teacher_sha256": teacher_sha256,
            "views": asdict(self.spec),
            "pad": self.transform.pad,
            "flip": self.transform.flip,
            "seed": self.seed,
            "precision": self.precision,
            **heads,
        }


def ensure(ballot: Ballot, identity: dict[str, Any], session: Session) -> np.ndarray:
    """Reads the counts of these votes, [N, K], from a store, or collects and stores them.

    A stop request leaves the finished views in the store and raises `stop.failure`.
    """
    key = store.digest(identity)
    for root in store.roots():
        folder = root / "annotations" / key / "votes"
        if folder.is_dir():
            return _counts(folder, ballot)
    folder = store.home() / "annotations" / key / "votes"
    with store.locked(folder.parent / "votes.lock", session=session):
        if not folder.is_dir():
            counts = collect(ballot, folder.with_name("votes.partial"), session)
            arrays.write(folder, {"counts": counts}, kind=KIND, facts=identity)
        shutil.rmtree(folder.with_name("votes.partial"), ignore_errors=True)
    return _counts(folder, ballot)


def _counts(folder: Path, ballot: Ballot) -> np.ndarray:
    """Reads stored counts, [N, K]; `InvalidInput` if they are not votes of this ballot."""
    container = arrays.open_container(folder, kind=KIND)
    with fitting(f"{folder} holds no votes", remedy=f"move {folder} away, and ask again"):
        counts = container["counts"]
        if counts.shape != (len(ballot.part.labels), ballot.classes):
            raise ValueError(f"counts of shape {counts.shape}")
        if not (counts.min() >= 0 and (counts.sum(1, dtype=np.int64) == ballot.spec.views).all()):
            raise ValueError(f"images without {ballot.spec.views} votes")
    return counts


def collect(ballot: Ballot, partial: Path, session: Session) -> np.ndarray:
    """Asks for all views and counts, [N, K] uint8 or int32; `partial` keeps finished views."""
    views, count = ballot.spec.views, len(ballot.part.labels)
    declared = {"answers": ("i4", (views, count)), "done": ("u1", (views,))}
    writer = arrays.Writer(partial, declared, resume=True)
    answers, done = writer.view("answers"), writer.view("done")
    progress = session.track(views * count, "questions", "asking the teacher about patches")
    images = Images(ballot.part.images, ballot.device)
    for number in range(views):
        if done[number]:
            continue
        if session.stop.requested:
            what = f"asking the teacher, view {number} of {views}"
            raise session.stop.failure(saved=True, what=what)
        answers[number] = _answers(ballot, images, number)
        writer.flush()
        done[number] = 1
        progress.update((number + 1) * count)
    progress.close()
    dtype = np.uint8 if views <= 255 else np.int32
    counts = np.zeros((count, ballot.classes), dtype)
    rows = np.arange(count)
    for number in range(views):
        counts[rows, answers[number]] += 1
    return counts


def _answers(ballot: Ballot, images: Images, number: int) -> np.ndarray:
    """Asks the teacher's class for view `number` of every image, [N]."""
    found = []
    for start in range(0, len(images), 512):
        rows = np.arange(start, min(start + 512, len(images)))
        draws = stream(ballot.seed, "votes.view", number, start)
        with autocast(ballot.precision, ballot.device):
            found.append(ballot.ask(view(ballot, images.take(rows), number, draws)).cpu())
    return torch.cat(found).numpy()


def view(ballot: Ballot, images: Tensor, number: int, draws: np.random.Generator) -> Tensor:
    """Makes view `number` of images [N, H, W, C] uint8 -> normalised [N, C, H, W]."""
    spec = ballot.spec
    full = round(spec.views * spec.full_share)
    if number < full or not spec.sides:
        return ballot.transform.random(images, draws)
    side = spec.sides[(number - full) % len(spec.sides)]
    return ballot.transform.plain(enlarged_patch(images, side, draws))


def enlarged_patch(images: Tensor, side: float, draws: np.random.Generator) -> Tensor:
    """Cuts a random patch of `side` times the image's side and enlarges it, [N, H, W, C] float.

    images: [N, H, W, C] uint8. Bilinear with antialiasing.
    """
    count, height, width, _ = images.shape
    tall, wide = max(1, round(side * height)), max(1, round(side * width))
    top = torch.from_numpy(draws.integers(0, height - tall + 1, count))
    left = torch.from_numpy(draws.integers(0, width - wide + 1, count))
    upright = torch.zeros(count, dtype=torch.bool)
    patch = windows(images, top, left, upright, size=(tall, wide))
    planes = patch.permute(0, 3, 1, 2).to(torch.float32)
    large = F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return large.permute(0, 2, 3, 1)


def class_shares(counts: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Averages the shares of votes over images of class y into row y, [K, K] float64.

    A class without images gets all votes of its row.
    """
    shares = np.eye(classes)
    for index in range(classes):
        mine = counts[labels == index].astype(np.float64)
        if len(mine):
            shares[index] = (mine / mine.sum(1, keepdims=True)).mean(0)
    return shares


def sinks(counts: np.ndarray, labels: np.ndarray, classes: int) -> list[int]:
    """Lists classes with more than `SINK_FACTOR` times their share of the images as votes."""
    votes = counts.sum(0, dtype=np.float64)
    images = np.bincount(labels, minlength=classes)
    over = (votes / votes.sum()) > SINK_FACTOR * (images / images.sum())
    return [int(index) for index in np.flatnonzero(over)]


def diagnostics(counts: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, Any]:
    """Describes the votes for the reader of a result; prints a warning about sink classes."""
    own = counts[np.arange(len(labels)), labels] / counts.sum(1, dtype=np.float64)
    found = sinks(counts, labels, classes)
    if found:
        say(
            f"patches push the teacher towards classes {found}: each gets over "
            f"{SINK_FACTOR:g} times its share of votes; larger patches help"
        )
    return {
        "views": int(counts[0].sum()),
        "disagreement": float(1 - own.mean()),
        "unanimous": float((counts.max(1) == counts.sum(1)).mean()),
        "histogram": [int(number) for number in counts.sum(0, dtype=np.int64)],
        "sinks": found,
    }
