"""Finished generators in the store: publishing, finding, loading.

`generators/<hash>/` holds the EMA of the weights as a container, a card, and a grid of every class;
the hash is that of the weights. Where the training was asked to keep it, `critic/` below holds the
discriminator. Finding reads manifests alone and imports no torch.

The split on the card of an imported generator is declared by the user, not known. A generator that
began with one of another split has seen other images. Such generators are only found by their hash,
never by their split.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix import arrays, store
from stylegan_mix.drawing.png import as_png
from stylegan_mix.errors import InvalidInput
from stylegan_mix.generators.card import card_text
from stylegan_mix.generators.card import check as check_card
from stylegan_mix.presets import preset_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from stylegan_mix.datasets import Dataset
    from stylegan_mix.networks import Generator

__all__ = [
    "GENERATOR_KIND",
    "Published",
    "blank",
    "check",
    "critic",
    "damaged",
    "find",
    "left_out",
    "load",
    "network",
    "none_of",
    "of_training",
    "publish",
    "resolve",
    "weights",
]

GENERATOR_KIND = "generator"
_CRITIC_KIND, _CRITIC = "discriminator", "critic"


@dataclass(frozen=True)
class Published:
    """A finished generator: the hash of its weights, its folder, and its card as plain data.

    `size` is that of its file in bytes, `made` the time of its publication in seconds since 1970.
    """

    hash: str
    folder: Path
    card: dict[str, Any]
    size: int = 0
    made: float = 0.0

    @property
    def imported(self) -> dict[str, Any] | None:
        """The origin of an imported generator; None for one that was trained here."""
        return self.card.get("imported")

    @property
    def others(self) -> list[dict[str, Any]]:
        """The data sets and splits that the start of its training had seen beside its own."""
        found: list[dict[str, Any]] = self.card.get("init", {}).get("others", [])
        return found

    @property
    def has_critic(self) -> bool:
        """True if its discriminator was published with it."""
        return (self.folder / _CRITIC).is_dir()


def find(*, split_id: str | None = None) -> list[Published]:
    """Finds generators, the newest first; with a split, only those trained here on it.

    Damaged ones are left out; see `damaged`.
    """
    found = []
    for path in _folders():
        try:
            published = _read(path)
        except InvalidInput:
            continue
        alone = published.imported is None and not published.others
        known = alone and published.card["split_id"] == split_id
        if split_id is None or known:
            found.append(published)
    return sorted(found, key=lambda one: (one.made, one.hash), reverse=True)


def of_training(key: str) -> list[Published]:
    """Finds the generators that the training of a key has published, the newest first.

    Those whose weights were rounded on their way here are other generators.
    """
    found = (one for one in find() if "rounded" not in one.card)
    return [one for one in found if one.card.get("training") == key]


def damaged() -> list[tuple[Path, InvalidInput]]:
    """Lists the folders without a sound generator, each with the error of reading it."""
    found = []
    for path in _folders():
        try:
            _read(path)
        except InvalidInput as error:
            found.append((path, error))
    return found


def left_out() -> list[str]:
    """Warns, before a choice among generators, of those that `find` leaves out."""
    return [f"left out: {error}; {error.remedy}" for _, error in damaged()]


def none_of(dataset: Dataset) -> str:
    """Explains that a split has no generator, with the warnings of `left_out`."""
    absent = f"no finished generator of {dataset.name}, split {dataset.split_id[:12]}"
    return "\n".join([absent, *left_out()])


def load(reference: str) -> Published:
    """Finds the generator with that hash, or the only one whose hash begins so."""
    return _read(resolve(reference))


def resolve(reference: str) -> Path:
    """Finds the folder of the generator with that hash, or a beginning of it, sound or not."""
    places = [path for path in _folders() if reference and path.name.startswith(reference)]
    names = {path.name for path in places}
    if len(names) > 1:
        raise InvalidInput(f"'{reference}' begins several generators: {', '.join(sorted(names))}")
    if not places:
        raise InvalidInput(
            f"no generator '{reference}' in {store.home() / 'generators'}",
            remedy="stylegan-mix train --dataset NAME trains one",
        )
    return places[0]


def _folders() -> list[Path]:
    """Lists the folders of all generators, those of our own store first."""
    parents = [root / "generators" for root in store.roots()]
    return [
        path
        for parent in parents
        if parent.is_dir()
        for path in sorted(parent.iterdir())
        if not path.name.startswith(".")
    ]


def _read(folder: Path) -> Published:
    with _damage(folder):
        manifest = arrays.read_manifest(folder, kind=GENERATOR_KIND)
        try:
            card = manifest["facts"]["facts"]
            check_card(card)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"{folder} has no card of a generator: {error}") from error
        made = (folder / arrays.MANIFEST).stat().st_mtime
    return Published(folder.name, folder, card, int(manifest["file_bytes"]), made)


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Adds the remedy to an error about a damaged generator."""
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
    """Checks a generator's file; returns the generator, or raises `InvalidInput` with a remedy."""
    with _damage(published.folder):
        arrays.open_container(published.folder, kind=GENERATOR_KIND)
    return published


def network(published: Published, *, precision: str | None = None) -> Generator:
    """Loads the generator in evaluation mode, its weights checked against their hash.

    `precision` is float32, bfloat16 or float16; the default is that of its training, or float32.
    """
    state = weights(published)
    with _damage(published.folder):
        try:
            built = blank(published.card, precision)
            built.load_state_dict(state)
        except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise InvalidInput(f"{published.folder} does not fit its own card: {error}") from error
    return built.eval().requires_grad_(False)


def weights(published: Published) -> dict[str, Tensor]:
    """Reads the state of a generator's network, on the CPU; `InvalidInput` if it was altered."""
    from stylegan_mix import checkpoint

    with _damage(published.folder):
        state, _ = checkpoint.load(published.folder, kind=GENERATOR_KIND)
    return state


def blank(card: Mapping[str, Any], precision: str | None = None) -> Generator:
    """Builds the network of a card with fresh weights, by its preset or its imported settings."""
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


def critic(published: Published) -> tuple[dict[str, Any], str] | None:
    """Loads the weights of a generator's discriminator and their hash; None if it has none."""
    from stylegan_mix import checkpoint

    if not published.has_critic:
        return None
    folder = published.folder / _CRITIC
    with _damage(published.folder):
        state, facts = checkpoint.load(folder, kind=_CRITIC_KIND)
        if facts.get("generator") != published.hash:
            raise InvalidInput(f"{folder} is the discriminator of another generator")
    return state, checkpoint.weights_sha256(state)


def publish(
    state: Mapping[str, Tensor],
    card: dict[str, Any],
    grid: Image,
    critic: Mapping[str, Any] | None = None,
) -> Published:
    """Writes a finished generator into the store, with its discriminator if that is given.

    The same weights again change nothing; a discriminator that is missing is added.
    """
    from stylegan_mix import checkpoint

    name = checkpoint.weights_sha256(state)
    final = store.home() / "generators" / name
    if not final.exists():
        text, picture = card_text(name, card), as_png(grid)
        temporary = final.with_name(f".{name}")
        shutil.rmtree(temporary, ignore_errors=True)
        checkpoint.save(temporary, state, kind=GENERATOR_KIND, facts={**card, "hash": name})
        store.write_bytes(temporary / "grid.png", picture)
        store.write_bytes(temporary / "GENERATOR_CARD.md", text.encode())
        if critic is not None:
            _write_critic(temporary, name, critic)
        store.publish(temporary, final)
    elif critic is not None and not (final / _CRITIC).is_dir():
        _write_critic(final, name, critic)
    return check(_read(final))


def _write_critic(folder: Path, name: str, weights: Mapping[str, Any]) -> None:
    from stylegan_mix import checkpoint

    checkpoint.save(folder / _CRITIC, weights, kind=_CRITIC_KIND, facts={"generator": name})
