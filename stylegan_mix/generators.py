"""Finished generators in the store: publishing, finding, loading.

`generators/<hash>/` holds the moving average of the weights as a container, a card, and a grid of
every class; the hash is that of the weights. Finding reads manifests alone and imports no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix import arrays, store
from stylegan_mix.console import InvalidInput, say
from stylegan_mix.presets import Preset

if TYPE_CHECKING:
    from PIL.Image import Image

    from stylegan_mix.networks import Generator

__all__ = ["GENERATOR_KIND", "Published", "find", "load", "network", "publish"]

GENERATOR_KIND = "generator"


@dataclass(frozen=True)
class Published:
    """A finished generator: the hash of its weights, its folder, and its card as plain data."""

    hash: str
    folder: Path
    card: dict[str, Any]


def find(*, split_id: str | None = None) -> list[Published]:
    """The finished generators, of one split if that is given, the newest first."""
    found: list[tuple[float, Published]] = []
    for root in store.roots():
        folder = root / "generators"
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith("."):
                continue
            try:
                published = _read(path)
            except InvalidInput as error:
                say(f"left out: {error}")
                continue
            if split_id is None or published.card["split_id"] == split_id:
                found.append(((path / arrays.MANIFEST).stat().st_mtime, published))
    found.sort(key=lambda item: (item[0], item[1].hash), reverse=True)
    return [published for _, published in found]


def load(reference: str) -> Published:
    """The generator with that hash, or the only one whose hash begins so."""
    matches = {one.hash: one for one in find() if reference and one.hash.startswith(reference)}
    if len(matches) == 1:
        return next(iter(matches.values()))
    if matches:
        raise InvalidInput(f"'{reference}' begins several generators: {', '.join(matches)}")
    raise InvalidInput(
        f"no generator '{reference}' in {store.home() / 'generators'}",
        remedy="stylegan-mix train --dataset NAME trains one",
    )


def _read(folder: Path) -> Published:
    manifest = arrays.read_manifest(folder, kind=GENERATOR_KIND)
    card = manifest["facts"]["facts"]
    return Published(hash=folder.name, folder=folder, card=card)


def network(published: Published, *, precision: str | None = None) -> Generator:
    """The generator in evaluation mode, its weights checked against their hash.

    `precision` is float32, bfloat16 or float16; by default that of its training.
    """
    from stylegan_mix import checkpoint
    from stylegan_mix.training.state import build_generator

    state, card = checkpoint.load(published.folder, kind=GENERATOR_KIND)
    preset = Preset(**card["preset"])
    built = build_generator(
        preset,
        resolution=card["resolution"],
        channels=card["channels"],
        classes=len(card["classes"]),
        precision=precision,
    )
    try:
        built.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidInput(f"{published.folder} does not fit its own card: {error}") from error
    return built.eval().requires_grad_(False)


def publish(weights: Mapping[str, Any], card: dict[str, Any], grid: Image) -> Published:
    """Writes a finished generator into the store; the same weights again change nothing."""
    from stylegan_mix import checkpoint

    name = checkpoint.weights_sha256(weights)
    final = store.home() / "generators" / name
    if not final.exists():
        temporary = final.with_name(f".{name}")
        shutil.rmtree(temporary, ignore_errors=True)
        checkpoint.save(temporary, weights, kind=GENERATOR_KIND, facts={**card, "hash": name})
        with store.disk_errors(temporary):
            grid.save(temporary / "grid.png")
        store.write_bytes(temporary / "GENERATOR_CARD.md", _card_text(name, card).encode())
        store.publish(temporary, final)
    return _read(final)


def _card_text(name: str, card: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {label} | {count} | {'n/a' if ratio is None else format(ratio, '.2f')} |"
        for label, count, ratio in zip(
            card["classes"], card["counts"], card["diversity"], strict=True
        )
    )
    factor = card["imbalance"]
    drawn = "as it is" if factor is None else f"imbalance {factor}"
    return f"""# Generator {name[:12]}

StyleGAN2 of preset `{card["preset"]["name"]}`, trained on {card["dataset"]} (split
`{card["split_id"][:12]}`, {drawn}) for {card["kimg"]:g} thousand images, seed
{card["seed"]}, in {card["preset"]["precision"]}. Weights: moving average, SHA-256 `{name}`.

Diversity is the mean pairwise pixel distance among a class's samples over that among its real
training images: 1 is as diverse as the data, 0 a single picture.

| class | training images | diversity |
|---|---|---|
{rows}

![every class, real and generated](grid.png)

Trained on exactly the training part of that split, and on nothing else. What its images may be
used for follows from the terms of that data. Written again by: `{card["command"]}`
"""
