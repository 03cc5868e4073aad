"""Finished generators in the store: publishing, finding, loading.

`generators/<hash>/` holds the moving average of the weights as a container, a card, and a grid of
every class; the hash is that of the weights. Finding reads manifests alone and imports no torch.

One that was imported has seen what whoever imported it says it has: the split on its card is
declared, not known. It is never taken because its split fits, only by its hash.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix import arrays, store
from stylegan_mix.errors import InvalidInput
from stylegan_mix.presets import preset_of
from stylegan_mix.progress import say

if TYPE_CHECKING:
    from PIL.Image import Image

    from stylegan_mix.networks import Generator

__all__ = ["GENERATOR_KIND", "Published", "check", "find", "load", "network", "publish"]

GENERATOR_KIND = "generator"


@dataclass(frozen=True)
class Published:
    """A finished generator: the hash of its weights, its folder, and its card as plain data."""

    hash: str
    folder: Path
    card: dict[str, Any]

    @property
    def imported(self) -> dict[str, Any] | None:
        """Where an imported generator comes from; None for one that was trained here."""
        return self.card.get("imported")


def find(*, split_id: str | None = None) -> list[Published]:
    """The finished generators, the newest first; of a split, those that were trained here on it."""
    found: list[tuple[float, Published]] = []
    for path in _folders():
        try:
            published = _read(path)
        except InvalidInput as error:
            _leave_out(f"left out: {error}; {error.remedy}")
            continue
        known = published.imported is None and published.card["split_id"] == split_id
        if split_id is None or known:
            found.append(((path / arrays.MANIFEST).stat().st_mtime, published))
    found.sort(key=lambda item: (item[0], item[1].hash), reverse=True)
    return [published for _, published in found]


def load(reference: str) -> Published:
    """The generator with that hash, or the only one whose hash begins so."""
    places = [path for path in _folders() if reference and path.name.startswith(reference)]
    names = {path.name for path in places}
    if len(names) > 1:
        raise InvalidInput(f"'{reference}' begins several generators: {', '.join(sorted(names))}")
    if not places:
        raise InvalidInput(
            f"no generator '{reference}' in {store.home() / 'generators'}",
            remedy="stylegan-mix train --dataset NAME trains one",
        )
    return _read(places[0])


def _folders() -> list[Path]:
    """The folders of all generators: those of our own store first."""
    parents = [root / "generators" for root in store.roots()]
    return [
        path
        for parent in parents
        if parent.is_dir()
        for path in sorted(parent.iterdir())
        if not path.name.startswith(".")
    ]


@cache
def _leave_out(line: str) -> None:
    """Says so once: a command may look for generators more than once."""
    say(line)


def _read(folder: Path) -> Published:
    with _damage(folder):
        manifest = arrays.read_manifest(folder, kind=GENERATOR_KIND)
        try:
            card = manifest["facts"]["facts"]
            card.check(card)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"{folder} has no card of a generator: {error}") from error
    return Published(hash=folder.name, folder=folder, card=card)


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Adds to what is wrong with a generator what to do about it."""
    try:
        yield
    except InvalidInput as error:
        remedy = (
            f"move {folder} away; the same `train` or import command publishes it again, at once "
            "if its training still stands there; where that has gone on, ask for a longer --kimg "
            "or another --seed"
        )
        raise InvalidInput(str(error), remedy=remedy) from error


def check(published: Published) -> Published:
    """The same generator, its file found whole; else `InvalidInput` with what to do."""
    with _damage(published.folder):
        arrays.open_container(published.folder, kind=GENERATOR_KIND)
    return published


def network(published: Published, *, precision: str | None = None) -> Generator:
    """The generator in evaluation mode, its weights checked against their hash.

    `precision` is float32, bfloat16 or float16; by default that of its training, or float32.
    """
    from stylegan_mix import checkpoint

    with _damage(published.folder):
        state, _ = checkpoint.load(published.folder, kind=GENERATOR_KIND)
        try:
            built = _blank(published.card, precision)
            built.load_state_dict(state)
        except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise InvalidInput(f"{published.folder} does not fit its own card: {error}") from error
    return built.eval().requires_grad_(False)


def _blank(card: dict[str, Any], precision: str | None) -> Generator:
    """The network of a card, with fresh weights: the preset's, or the imported one's own."""
    from stylegan_mix.networks import Generator
    from stylegan_mix.networks.build import PRECISIONS, build_generator

    if "network" in card:
        return Generator(**card["network"], compute_dtype=PRECISIONS[precision or "float32"])
    return build_generator(
        preset_of(card["preset"]),
        resolution=card["resolution"],
        channels=card["channels"],
        classes=len(card["classes"]),
        precision=precision,
    )


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
    return check(_read(final))


def _card_text(name: str, card: dict[str, Any]) -> str:
    return _trained_text(name, card) if card.get("imported") is None else _imported_text(name, card)


def _trained_text(name: str, card: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {label} | {count} | {'n/a' if ratio is None else format(ratio, '.2f')} |"
        for label, count, ratio in zip(
            card["classes"], card["counts"], card["diversity"], strict=True
        )
    )
    factor = card["imbalance"]
    drawn = "as it is" if factor is None else f"imbalance {factor}"
    average = "moving average"
    if "half_life" in card:
        average += f" of half-life {card['half_life']:g} kimg, kept beside the main one"
    return f"""# Generator {name[:12]}

StyleGAN2 of preset `{card["preset"]["name"]}`, trained on {card["dataset"]} (split
`{card["split_id"][:12]}`, {drawn}) for {card["kimg"]:g} thousand images, seed
{card["seed"]}, in {card["preset"]["precision"]}. Weights: {average}, SHA-256 `{name}`.

Diversity is the mean pairwise pixel distance among a class's samples over that among its real
training images: 1 is as diverse as the data, 0 a single picture.

| class | training images | diversity |
|---|---|---|
{rows}

![every class, real and generated](grid.png)

Trained on exactly the training part of that split, and on nothing else. What its images may be
used for follows from the terms of that data. Written again by: `{card["command"]}`
"""


def _imported_text(name: str, card: dict[str, Any]) -> str:
    source, network = card["imported"], card["network"]
    size, classes = card["resolution"], card["classes"]
    left = ", ".join(f"`{one}`" for one in source["left"]) or "nothing"
    settings = "\n".join(f"| {key} | {value} |" for key, value in network.items())
    return f"""# Generator {name[:12]}

Imported from `{source["file"]}`, a {source["what"]}, of {source["bytes"]:,} bytes.
It was read as data: no code in it or named by it was run. Left in it: {left}.

| | |
|---|---|
| file, SHA-256 | `{source["sha256"]}` |
| weights, SHA-256 | `{name}` |
| images | {size}x{size}, {card["channels"]} channel(s) |

## What it was trained on

{_declared_text(card)}

{_use_text(classes, card["counts"])}

![samples](grid.png)

## Network

| | |
|---|---|
{settings}

What its images may be used for follows from the terms of its publication and of its training
images. Written again by: `{card["command"]}`
"""


def _declared_text(card: dict[str, Any]) -> str:
    if card["split_id"] is None:
        return "Not said when it was imported: nothing is known of the images that it has seen."
    factor = card["imbalance"]
    drawn = f"profile {card['profile']}" if factor is None else f"imbalance {factor:g}"
    word = card["imported"]["split"]
    return f"""{card["dataset"]} ({drawn}), split `{card["split_id"]}`: **{word}** who
imported it. Nothing in the file says so and nothing here could check it. If it has seen other
images of this data set, test images among them, results with its banks are worth nothing."""


def _use_text(classes: list[str], counts: list[int]) -> str:
    if not classes:
        return """It is unconditional: it draws images of no known class, so no bank, whose rows
need labels, can be written from it. It can be looked at, and its latent space searched."""
    rows = "\n".join(
        f"| {index} | {label} | {count} |"
        for index, (label, count) in enumerate(zip(classes, counts, strict=True))
    )
    return f"""Its class numbers are taken for these, in this order; the picture shows, in each row,
real images of the class beside what it draws for that number.

| number | class | training images of that split |
|---|---|---|
{rows}"""
