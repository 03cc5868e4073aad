"""Writing a bank: the decoder of its blocks, the work on them, its facts, card and picture."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_mix import arrays, rng, store
from stylegan_mix.banks import near, shards
from stylegan_mix.banks import store as bank_store
from stylegan_mix.banks.blocks import Partial
from stylegan_mix.banks.card import card, trained_for
from stylegan_mix.banks.plan import Means, Plan
from stylegan_mix.banks.preview import STEPS, corner, default_pairs, heads
from stylegan_mix.banks.request import KIND, SCHEMA_VERSION, Request, command_words
from stylegan_mix.banks.shards import Shard
from stylegan_mix.banks.work import Block, Work
from stylegan_mix.drawing.png import as_png
from stylegan_mix.drawing.sheet import Sheet, draw
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.latents import plan
from stylegan_mix.latents.decoding import Decoded, decode_rows
from stylegan_mix.latents.pairing import PAIRINGS
from stylegan_mix.latents.plan import Mixing
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.networks import Generator
from stylegan_mix.numerics import Numerics
from stylegan_mix.session import Session

__all__ = ["Decoder", "bank_facts", "network_of", "write_bank", "write_plan"]


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


def write_plan(
    plan: Plan, session: Session = Session(), *, shard: Shard | None = None
) -> bank_store.Record | None:
    """Writes the bank of a plan that has its generator and means; see `write_bank`."""
    if plan.published is None or plan.means is None:
        raise ValueError("a plan without a generator writes no bank")
    request = plan.request
    if PAIRINGS[request.pairs].reads == "judge":
        request = near.with_pairs(request, plan.published.card, plan.means.device, session)
    network = network_of(plan.published, plan.means)
    numerics = plan.means.numerics
    folder = write_bank(request, plan.published, numerics, network, session, shard=shard)
    return None if folder is None else bank_store.record(folder)


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
    *,
    shard: Shard | None = None,
) -> Path | None:
    """Writes the bank, together with all other processes that do, and returns its folder.

    `network` is the published generator in evaluation mode on its device. Each process makes blocks
    that are not there and that no other one is making, and waits for the rest. The first one to
    find all of them seals the bank. With a `shard` it makes the blocks of that alone, and returns
    None if others are missing then.

    A request of the session stops after a block, with `Stopped` or `Interrupted`; a full disk is
    `MissingEnvironment`. The blocks are kept in each case. `InvalidInput` (exit code 3) for a shard
    of another request than the shards that wait for it.
    """
    facts = bank_facts(request, published, numerics)
    unfinished = Partial(bank_store.folder(), facts["key"], request, _attributes(facts))
    asked = {"request": request.spec(), "numerics": numerics.spec()}
    if unfinished.published:
        return unfinished.final
    if shard is not None:
        shards.check(unfinished.root, shard, asked)
    store.free_space(unfinished.root, unfinished.bytes_to_write(), f"bank {facts['key'][:12]}")
    with unfinished.working(session):
        if not unfinished.published:
            unfinished.begin(asked)
            if shard is not None:
                shards.mark(unfinished.root, shard)
            decoder = Decoder(network, request)
            own = range(request.blocks) if shard is None else shard.blocks(request.blocks)
            end = partial(_finish, unfinished, decoder, facts)
            with _reproducible():
                Work(unfinished, own, request.n, end).carry_out(decoder, session)
    return unfinished.final if unfinished.published else None


def _finish(
    unfinished: Partial, decoder: Decoder, facts: dict[str, Any], filled: arrays.Writer | None
) -> None:
    if filled is not None:
        made = datetime.now(UTC).isoformat(timespec="seconds")
        unfinished.seal(filled, {**facts, "created_utc": made})
    manifest = arrays.read_manifest(unfinished.folder, kind=KIND)
    text = card(facts, content_sha256=manifest["content_sha256"], size=int(manifest["file_bytes"]))
    preview = as_png(draw(_preview(decoder, facts)))
    store.write_bytes(unfinished.folder / "preview.png", preview)
    store.write_bytes(unfinished.folder / "BANK_CARD.md", text.encode())
    unfinished.publish()


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
        "generator_kimg": names.get("lineage_kimg", names["kimg"]),
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
