"""Generators of this project in one file each: weights and card, for another store.

The file is one of the safetensors format, which other tools open. Its texts hold the card, the hash
of the weights, and a hash over both. In float32 the weights are those of the store, and so is their
hash. In bfloat16 they are rounded: another generator, whose card says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stylegan_mix import checkpoint, store
from stylegan_mix.datasets.asked import dataset_of
from stylegan_mix.datasets.records import draw_name
from stylegan_mix.drawing.sheet import Sheet, draw
from stylegan_mix.errors import Failure, InvalidInput, fitting
from stylegan_mix.generators import card as cards
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.class_grid import class_grid, shown_classes
from stylegan_mix.generators.store import Published
from stylegan_mix.interop import safetensors
from stylegan_mix.interop.importing import drawn_samples
from stylegan_mix.interop.safetensors import Stored
from stylegan_mix.reading import parse_json
from stylegan_mix.showing import shown

if TYPE_CHECKING:
    from PIL.Image import Image

    from stylegan_mix.datasets import Dataset
    from stylegan_mix.networks import Generator

__all__ = ["DTYPES", "Exported", "found", "lines", "open_file", "pack", "publish"]

SCHEMA = "stylegan-mix-generator/1"
DTYPES = ("float32", "bfloat16")
_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
}
_TORCH = {name: dtype for dtype, name in _NAMES.items()}
_AGAIN = (
    "nothing was stored; get the file again from where it was published, and compare its SHA-256"
)
# Facts of a card that two generators with the same weights must share.
_SAME = ("dataset", "split_id", "test_id", "classes", "counts", "resolution", "channels")


@dataclass(frozen=True)
class Exported:
    """A generator as a file holds it: the hash of its weights, its card, and its float32 state."""

    hash: str
    dtype: str
    card: dict[str, Any]
    state: dict[str, torch.Tensor]

    def network(self) -> Generator:
        """Builds the network of the card with these weights, in evaluation mode."""
        built = generator_store.blank(self.card)
        built.load_state_dict(self.state)
        return built.eval().requires_grad_(False)


# Writing


def pack(published: Published, dtype: str) -> tuple[bytes, str]:
    """Composes the file of a generator: its bytes, and the hash that its import will have.

    `dtype` is one of `DTYPES`. Raises `InvalidInput` (exit code 3) for a damaged generator.
    """
    state = generator_store.weights(published)
    card = {name: value for name, value in published.card.items() if name != "hash"}
    stored = {name: tensor.to(getattr(torch, dtype)) for name, tensor in state.items()}
    name = checkpoint.weights_sha256(_widened(stored))
    if name != published.hash:
        card["rounded"] = {"dtype": dtype, "generator": published.hash}
    text = json.dumps(card, separators=(",", ":"), allow_nan=False)
    texts = {
        "format": "pt",
        "schema": SCHEMA,
        "generator": name,
        "card": text,
        "sha256": _sealed(name, text),
    }
    return safetensors.write({key: _stored(one) for key, one in stored.items()}, texts), name


def _widened(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Converts a state to float32, as it stands in a store; this is exact."""
    return {name: tensor.to(torch.float32) for name, tensor in state.items()}


def _stored(tensor: torch.Tensor) -> Stored:
    plain = tensor.detach().cpu().contiguous()
    data = plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain
    return Stored(_NAMES[plain.dtype], tuple(plain.shape), data.numpy().tobytes())


def _sealed(name: str, card: str) -> str:
    """Hashes what a file says of its weights, so that a changed card shows."""
    return hashlib.sha256(f"{SCHEMA}\n{name}\n{card}".encode()).hexdigest()


# Reading


def open_file(content: bytes, path: Path) -> Exported:
    """Reads a file of `pack`; `path` is for messages.

    Raises `InvalidInput` (exit code 3) with the fault, for anything that is not one.
    """
    try:
        arrays, texts = safetensors.read(content)
        return _checked(arrays, texts)
    except (ValueError, InvalidInput) as error:
        raise InvalidInput(f"{path} is refused: {error}", remedy=_AGAIN) from error


def _checked(arrays: Mapping[str, Stored], texts: Mapping[str, str]) -> Exported:
    """Checks card, tensors and hashes against each other; ValueError names the fault."""
    schema = texts.get("schema", "")
    if schema != SCHEMA:
        said = f"'{shown(schema)}'" if schema else "none"
        raise ValueError(
            f"it is a safetensors file, but no generator of export-generator: the schema is {said},"
            f" expected {SCHEMA}"
        )
    missing = [name for name in ("generator", "card", "sha256") if name not in texts]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    name, text = texts["generator"], texts["card"]
    if _sealed(name, text) != texts["sha256"]:
        raise ValueError("its card was altered: the hash over it does not fit")
    card = parse_json(text)
    try:
        cards.check(card)
        store.json_bytes(card)  # a lone surrogate could be read, but not stored
    except ValueError as error:
        raise ValueError(f"its card: {shown(str(error), 300)}") from error
    dtypes = {one.dtype for one in arrays.values()}
    if len(dtypes) != 1 or not dtypes <= set(_TORCH):
        raise ValueError(
            f"its arrays are {', '.join(sorted(dtypes)) or 'missing'}; expected is F32 alone, or "
            "BF16 alone"
        )
    _check_shapes(arrays, card)
    stored = {key: _tensor(one) for key, one in arrays.items()}
    state = _widened(stored)
    has = checkpoint.weights_sha256(state)
    if has != name:
        raise ValueError(
            f"its weights were altered: their hash is {has[:12]}, the file says {shown(name, 12)}"
        )
    return Exported(name, str(_TORCH[dtypes.pop()]).removeprefix("torch."), card, state)


def _check_shapes(arrays: Mapping[str, Stored], card: dict[str, Any]) -> None:
    """Compares the arrays with the network of the card, which is built without memory."""
    layers = {**card["preset"], **card.get("network", {})}.get("mapping_layers", 0)
    if type(layers) is not int or layers > len(arrays):
        raise ValueError(f"its card names {shown(layers)} mapping layers in {len(arrays)} arrays")
    with fitting("its card describes no network"), torch.device("meta"):
        wanted = {
            name: tuple(one.shape) for name, one in generator_store.blank(card).state_dict().items()
        }
    missing, more = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing or more:
        parts = [f"lacks {missing[0]}"] if missing else []
        parts += [f"has the unknown {shown(more[0])}"] if more else []
        raise ValueError(f"it does not hold the network of its card: it {' and '.join(parts)}")
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"array '{name}' has shape {list(arrays[name].shape)}; the network of its card "
                f"has {list(shape)}"
            )


def _tensor(one: Stored) -> torch.Tensor:
    kind = np.dtype("<i2") if one.dtype == "BF16" else np.dtype("<f4")
    plain = torch.from_numpy(np.frombuffer(one.data, kind).copy())
    return plain.view(_TORCH[one.dtype]).reshape(one.shape)


def lines(exported: Exported) -> list[str]:
    """Describes a file for people: its dtype, its network, its training as the card has it."""
    card = exported.card
    parts = [
        f"generator {exported.hash[:12]}",
        exported.dtype,
        f"{card['resolution']}x{card['resolution']}x{card['channels']}",
        f"{len(card['classes'])} classes",
        f"preset {card['preset']['name']}",
        *([] if card["kimg"] is None else [cards.trained_for(card)]),
        *filter(None, [cards.rounding(card)]),
    ]
    split = "nothing of its data"
    if card["split_id"] is not None:
        split = f"{card['dataset']} ({draw_name(card['imbalance'])}), split {card['split_id'][:12]}"
    return [", ".join(parts), f"its card says: {split}"]


# Into the store


def found(exported: Exported) -> Published | None:
    """Looks up the generator with these weights in the store; None if there is none.

    `InvalidInput` (exit code 3) if its card there says something else of its data.
    """
    for one in generator_store.find():
        if one.hash != exported.hash:
            continue
        apart = [name for name in _SAME if one.card[name] != exported.card[name]]
        if apart:
            raise InvalidInput(
                f"these weights are in the store as generator {one.hash[:12]}, whose card differs "
                f"in {', '.join(apart)}",
                remedy=f"if the one in the store is wrong, stylegan-mix generators remove "
                f"{one.hash[:12]} takes it out; then import again",
            )
        return generator_store.check(one)
    return None


@torch.no_grad()
def publish(exported: Exported, device: str) -> Published:
    """Draws the generator's picture, and puts it into the store."""
    with fitting("the weights and the card do not fit", remedy=_AGAIN):
        network = exported.network().to(device)
        picture = _picture(network, exported.card)
    return generator_store.publish(exported.state, exported.card, picture)


def _picture(network: Generator, card: Mapping[str, Any]) -> Image:
    """Draws samples of the classes, beside real images if the data set is at hand."""
    labels = shown_classes(card["counts"]) if network.classes else [None]
    samples = {label: drawn_samples(network, 0, label, 1.0) for label in labels}
    data = _data(card) if network.classes else None
    if data is not None:
        return class_grid({label: one for label, one in samples.items() if label is not None}, data)
    rows = [list(one.numpy()) for one in samples.values()]
    return draw(
        Sheet(
            title=f"{card['dataset'] or 'generator'}: samples",
            note="the data set is not at hand, so no real images stand beside them",
            left=["" if label is None else card["classes"][label] for label in labels],
            right=None,
            columns=[str(number + 1) for number in range(len(rows[0]))],
            cells=rows,
        )
    )


def _data(card: Mapping[str, Any]) -> Dataset | None:
    try:
        return dataset_of(card, "the generator")
    except Failure:
        return None
