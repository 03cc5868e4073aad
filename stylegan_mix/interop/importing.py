"""An imported generator in the store: its declared data set, its card, its picture.

The file does not say which images its generator has seen. The split on the card is declared by the
user. The card and every bank say so, and the declaration cannot be made twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stylegan_mix import checkpoint, rng
from stylegan_mix.datasets import Dataset
from stylegan_mix.drawing.sheet import Sheet, draw
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.class_grid import class_grid, shown_classes
from stylegan_mix.generators.store import Published
from stylegan_mix.interop.foreign import KINDS, Foreign
from stylegan_mix.networks import Generator, to_uint8

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DECLARED", "ImportPlan", "drawn_samples", "found", "publish"]

DECLARED = "declared by the user"
_SAMPLES = 10
_TRUNCATIONS = (1.0, 0.7)


@dataclass(frozen=True)
class ImportPlan:
    """A generator's file, with the data set and split that it is declared to be trained on.

    Raises `InvalidInput` (exit code 3) if they cannot belong together, and `UsageFailure` (2) if
    nothing is declared of a class-conditional generator.
    """

    path: Path
    sha256: str
    size: int
    foreign: Foreign
    dataset: Dataset | None
    seed: int
    command: str

    def __post_init__(self) -> None:
        settings, data = self.foreign.settings, self.dataset
        classes = settings["classes"]
        if data is None:
            if classes:
                raise UsageFailure(
                    f"{self.path.name} draws {classes} classes, and does not say which data set "
                    "and split it was trained on: without that its images could hold what a test "
                    "holds out, and no run may use them",
                    remedy="if you know it, give your word: --dataset NAME, with --imbalance, "
                    "--profile and --split-seed; `--profile natural` is all of its training images",
                )
            return
        pairs = [
            ("classes", classes or None, data.num_classes if classes else None),
            ("pixels a side", settings["resolution"], data.resolution),
            ("channels", settings["image_channels"], data.channels),
        ]
        wrong = [
            f"{mine} {what}, {data.name} has {theirs}"
            for what, mine, theirs in pairs
            if mine != theirs
        ]
        if wrong:
            raise InvalidInput(
                f"{self.path.name} draws {'; '.join(wrong)}: it was not trained on that",
                remedy="name the data set that it was trained on with --dataset; `stylegan-mix "
                "dataset prepare NAME --size PIXELS` brings a data set to another size",
            )

    @property
    def split_id(self) -> str | None:
        """The declared split, or None."""
        return None if self.dataset is None else self.dataset.split_id

    def shown(self) -> dict[str, Any]:
        """Describes the plan in plain data, for people and for `--json`."""
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "kind": self.foreign.kind,
            "dataset": None if self.dataset is None else self.dataset.name,
            "split_id": self.split_id,
            "network": self.foreign.settings,
            "left": list(self.foreign.left),
        }

    def card(self) -> dict[str, Any]:
        """Composes the generator's card in the store, as plain data."""
        data, settings = self.dataset, self.foreign.settings
        classes = list(data.classes) if data is not None and settings["classes"] else []
        return {
            "dataset": None if data is None else data.name,
            "split_id": self.split_id,
            "test_id": None if data is None else data.test_id,
            "profile": None if data is None else data.profile,
            "imbalance": None if data is None else data.imbalance,
            "split_seed": None if data is None else data.split_seed,
            "classes": classes,
            "counts": [int(count) for count in data.counts] if data is not None else [],
            "resolution": settings["resolution"],
            "channels": settings["image_channels"],
            "training": None,
            "preset": {"name": "imported"},
            "network": settings,
            "kimg": None,
            "seed": None,
            "diversity": None,
            "command": self.command,
            "imported": {
                "file": self.path.name,
                "sha256": self.sha256,
                "bytes": self.size,
                "kind": self.foreign.kind,
                "what": KINDS[self.foreign.kind],
                "left": list(self.foreign.left),
                "split": "unknown" if data is None else DECLARED,
            },
        }


def found(plan: ImportPlan) -> Published | None:
    """Looks up the generator that an import of this file gave; None if there was none.

    One set of weights has one card, since two could not both be right: `UsageFailure` (exit code 2)
    if the generator was declared otherwise.
    """
    for one in generator_store.find():
        if one.imported and one.imported["sha256"] == plan.sha256:
            _check_same(one, plan)
            return generator_store.check(one)
    return None


def _check_same(there: Published, plan: ImportPlan) -> None:
    if there.card["split_id"] == plan.split_id:
        return
    has = _named(there.card["dataset"], there.card["split_id"])
    wanted = _named(plan.dataset.name if plan.dataset else None, plan.split_id)
    raise UsageFailure(
        f"these weights are in the store as generator {there.hash[:12]}, of {has}; they cannot be "
        f"of {wanted} as well",
        remedy=f"if that was wrong, remove {there.folder} and its banks, then import again",
    )


def _named(dataset: str | None, split_id: str | None) -> str:
    return f"{dataset}, split {split_id[:12]}" if split_id else "no data set"


@torch.no_grad()
def publish(plan: ImportPlan, device: str) -> Published:
    """Builds the network, draws its picture, and puts both into the store."""
    network = plan.foreign.network().requires_grad_(False)
    weights = network.state_dict()
    name = checkpoint.weights_sha256(weights)
    for one in generator_store.find():
        if one.hash == name:
            _check_same(one, plan)
            return generator_store.check(one)
    return generator_store.publish(weights, plan.card(), _picture(network.to(device), plan))


def _picture(network: Generator, plan: ImportPlan) -> Image:
    if plan.dataset is not None and network.classes:
        labels = shown_classes(plan.dataset.counts)
        samples = {label: drawn_samples(network, plan.seed, label, 1.0) for label in labels}
        return class_grid(samples, plan.dataset)
    rows = [list(drawn_samples(network, plan.seed, None, psi).numpy()) for psi in _TRUNCATIONS]
    sheet = Sheet(
        title=f"{plan.path.name}: samples",
        note="unconditional; the same latents in each row, psi is the truncation",
        left=[f"psi {psi:g}" for psi in _TRUNCATIONS],
        right=None,
        columns=[str(number + 1) for number in range(_SAMPLES)],
        cells=rows,
    )
    return draw(sheet)


def drawn_samples(network: Generator, seed: int, label: int | None, psi: float) -> torch.Tensor:
    """Draws samples of one class, or without a class, one by one: uint8 [n,H,W,C]."""
    device = next(network.parameters()).device
    name = "import.shown" if label is None else f"import.shown.{label}"
    draws = rng.torch_generator(seed, name)
    z = torch.randn(_SAMPLES, network.z_dim, generator=draws).to(device)
    of = None if label is None else torch.full((_SAMPLES,), label, device=device)
    ws = network.truncate(network.ws(z, of), psi)
    # One by one: ten images of 1,024 pixels at once take gigabytes.
    images = [to_uint8(network.synthesis(one, noise="const")) for one in ws.split(1)]
    return torch.cat(images).cpu()
