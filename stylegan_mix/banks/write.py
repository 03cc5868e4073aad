"""Writing a bank: blocks decoded one after another, sealed, published.

A forward pass always has a whole block of `BLOCK` rows. So a bank of n rows is the beginning of
every longer one with the same seed.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_mix import arrays, rng, store
from stylegan_mix.banks import near
from stylegan_mix.banks import store as bank_store
from stylegan_mix.banks.blocks import Partial
from stylegan_mix.banks.card import card, trained_for
from stylegan_mix.banks.plan import Means, Plan
from stylegan_mix.banks.preview import STEPS, corner, default_pairs, heads
from stylegan_mix.banks.request import KIND, SCHEMA_VERSION, Request, command_words
from stylegan_mix.drawing.png import as_png
from stylegan_mix.drawing.sheet import Sheet, draw
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.latents import plan
from stylegan_mix.latents.decoding import Decoded, decode_rows
from stylegan_mix.latents.pairing import PAIRINGS
from stylegan_mix.latents.plan import BLOCK, Mixing
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.networks import Generator
from stylegan_mix.numerics import Numerics
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopRequest

__all__ = ["Decoder", "bank_facts", "network_of", "write_bank", "write_plan"]


@dataclass(frozen=True)
class Block:
    """Block `index` of a plan, in progress: its rows, and their images still on the device."""

    index: int
    rows: plan.Rows
    decoded: Decoded

    def images(self) -> np.ndarray:
        """Fetches the images [64, H, W, C] uint8 to memory; see `Decoded.fetch`."""
        return self.decoded.fetch(f" in block {self.index}")


class Decoder:
    """A decoder of a request's plan, block by block, with one network on one device."""

    def __init__(self, network: Generator, request: Request) -> None:
        self._network = network
        self._request = request
        self.device = next(network.parameters()).device
        self._mixing = Mixing(
            classes=request.classes,
            z_dim=network.z_dim,
            space=request.space,
            alpha=request.alpha,
            seed=request.seed,
            pairing=request.pairing,
            law=request.law,
            w_dim=network.w_dim,
        )
        self._space = SPACES[request.space].prepared(network)

    def block(self, index: int) -> Block:
        """Starts block `index` of the plan."""
        rows = plan.block(self._mixing, index)
        draws = rng.Draws(
            rng.torch_generator(self._request.seed, "mix.noise", index, device=self.device)
        )
        return Block(index, rows, self._decode(rows, noise="random", draws=draws))

    def first_rows(self, count: int) -> np.ndarray:
        """Decodes the first rows of the plan alone, to time them: images [count, H, W, C].

        Their last bits may differ from those of the block.
        """
        rows = plan.rows(self._mixing, 0, count)
        return self._decode(rows, noise="none").fetch(" in the first rows")

    def path(self, pair: tuple[int, int], index: int) -> np.ndarray:
        """Decodes a row of the preview: images [STEPS, H, W, C] of fixed latents and noise."""
        rows = plan.path(self._mixing, pair, index, STEPS)
        return self._decode(rows, noise="const").fetch(" in the preview")

    def _decode(self, rows: plan.Rows, *, noise: str, draws: rng.Draws = rng.Draws()) -> Decoded:
        return decode_rows(
            self._network,
            rows,
            space=self._space,
            truncation=self._request.truncation,
            noise=noise,
            draws=draws,
        )


def write_plan(plan: Plan, session: Session = Session()) -> bank_store.Record:
    """Writes the bank of a plan that has its generator and means; see `write_bank`."""
    if plan.published is None or plan.means is None:
        raise ValueError("a plan without a generator writes no bank")
    request = plan.request
    if PAIRINGS[request.pairs].reads == "judge":
        request = near.with_pairs(request, plan.published.card, plan.means.device, session)
    network = network_of(plan.published, plan.means)
    folder = write_bank(request, plan.published, plan.means.numerics, network, session)
    return bank_store.record(folder)


def network_of(published: Published, means: Means) -> Generator:
    """Loads the generator's network in the precision and to the device of a plan's means."""
    network = generator_store.network(published, precision=means.numerics.compute)
    return network.to(means.device)


def write_bank(
    request: Request,
    published: Published,
    numerics: Numerics,
    network: Generator,
    session: Session = Session(),
) -> Path:
    """Writes the bank, continuing from its finished blocks, and returns its folder.

    `network` is the published generator in evaluation mode on its device. If another process works
    on the same bank, it waits. A request of the session stops after a block, with `Stopped` or
    `Interrupted`; a full disk is `MissingEnvironment`. The blocks are kept in each case.
    """
    facts = bank_facts(request, published, numerics)
    banks, key = bank_store.folder(), facts["key"]
    store.free_space(banks, request.bytes, f"bank {key[:12]}")
    lock = banks / ".partial" / f"{key}.lock"
    with store.locked(lock, session=session):
        if not (banks / key).exists():
            partial = Partial(banks, key, request, _attributes(facts))
            decoder = Decoder(network, request)
            with _reproducible():
                _fill(partial, decoder, request, session)
            _finish(partial, decoder, facts)
        # A process that waits for this lock looks for the finished bank before anything else.
        lock.unlink(missing_ok=True)
    return banks / key


def _fill(partial: Partial, decoder: Decoder, request: Request, session: Session) -> None:
    missing = partial.missing()
    landed = request.blocks - len(missing)
    progress = session.track(request.n, "images", "bank", start=landed * BLOCK)
    for block in _one_ahead(decoder, _until(session.stop, missing)):
        partial.land(block.index, block.images(), block.rows.pair, block.rows.lam)
        landed += 1
        progress.update(min(landed * BLOCK, request.n))
    progress.close()
    if landed < request.blocks:
        what = f"{landed:,} of {request.blocks:,} blocks of bank {partial.key[:12]} are kept"
        raise session.stop.failure(saved=True, what=what)


def _until(stop: StopRequest, indices: Iterable[int]) -> Iterator[int]:
    for index in indices:
        if stop.requested:
            return
        yield index


def _one_ahead(decoder: Decoder, indices: Iterable[int]) -> Iterator[Block]:
    """Starts each block before fetching the last one: a GPU computes while we hash and write."""
    waiting: Block | None = None
    for index in indices:
        started = decoder.block(index)
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting


def _finish(partial: Partial, decoder: Decoder, facts: dict[str, Any]) -> None:
    made = datetime.now(UTC).isoformat(timespec="seconds")
    partial.seal({**facts, "created_utc": made})
    manifest = arrays.read_manifest(partial.folder, kind=KIND)
    text = card(facts, content_sha256=manifest["content_sha256"], size=int(manifest["file_bytes"]))
    preview = as_png(draw(_preview(decoder, facts)), optimize=True)
    store.write_bytes(partial.folder / "preview.png", preview)
    store.write_bytes(partial.folder / "BANK_CARD.md", text.encode())
    partial.publish()


def _preview(decoder: Decoder, facts: dict[str, Any]) -> Sheet:
    names, space = facts["classes"], SPACES[facts["space"]]
    pairs = default_pairs(len(names))
    title = "hybrids between two classes" if space.mixes else "samples of each class, unmixed"
    share = "lam is the share of the left class; " if space.mixes else ""
    return Sheet(
        title=f"{facts['dataset']}: {title}",
        note=f"space {space.name}: {space.about}; {share}generator {facts['generator'][:12]}, "
        f"{trained_for(facts)}; fixed latents, not rows of the bank",
        left=[names[first] for first, _ in pairs],
        right=[names[second] for _, second in pairs] if space.mixes else None,
        columns=heads(space.mixes),
        corner=corner(space.mixes),
        cells=[list(decoder.path(pair, index)) for index, pair in enumerate(pairs)],
    )


def bank_facts(request: Request, published: Published, numerics: Numerics) -> dict[str, Any]:
    """Composes all facts of a bank, as plain data without a clock."""
    names = published.card
    facts = {
        "schema_version": SCHEMA_VERSION,
        "key": request.exact_key(numerics),
        "request_key": request.key,
        "request": request.spec(),
        "numerics": numerics.spec(),
        "dataset": names["dataset"],
        "profile": names.get("profile"),
        "imbalance": names.get("imbalance"),
        "split_seed": names.get("split_seed"),
        "split_id": request.split_id,
        "test_id": names["test_id"],
        "classes": list(names["classes"]),
        "image_shape": list(request.image_shape),
        "n": request.n,
        "space": request.space,
        "control": SPACES[request.space].control,
        "alpha": request.spec()["alpha"],
        "truncation": request.truncation,
        "seed": request.seed,
        "generator": published.hash,
        "generator_preset": _preset_name(names["preset"]),
        "generator_kimg": names["kimg"],
        "generator_seed": names.get("seed"),
        "generator_imported": names.get("imported"),
        "diversity": names.get("diversity"),
        **({"generator_others": published.others} if published.others else {}),
    }
    command = shlex.join(command_words(request, names, numerics.compute))
    return {**facts, "command": command}


def _preset_name(preset: Any) -> str:
    return str(preset["name"] if isinstance(preset, dict) else preset)


def _attributes(facts: dict[str, Any]) -> dict[str, str | int | float]:
    """Composes the attributes of the HDF5 root, for readers with other tools."""
    chosen = ("dataset", "split_id", "test_id", "space", "n", "seed", "truncation", "generator")
    return {
        "schema": KIND,
        "schema_version": SCHEMA_VERSION,
        "classes": json.dumps(facts["classes"]),
        "lam_meaning": "share of class pair[:, 0], in [0, 1]",
        **{name: facts[name] for name in chosen},
    }


@contextmanager
def _reproducible() -> Iterator[None]:
    """Makes CUDA choose its algorithms by shape alone, in full float32 if that is asked."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield
