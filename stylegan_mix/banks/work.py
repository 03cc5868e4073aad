"""The work of one process on a bank: claim blocks, decode them, wait for the others, finish.

A forward pass always has a whole block of `BLOCK` rows, whoever makes it. So the bytes of a bank do
not depend on the number of processes, and a bank of n rows is the beginning of every longer one
with the same seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stylegan_mix import arrays
from stylegan_mix.banks.blocks import Partial
from stylegan_mix.errors import Busy
from stylegan_mix.latents import plan
from stylegan_mix.latents.decoding import Decoded
from stylegan_mix.latents.plan import BLOCK
from stylegan_mix.progress import Track
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopRequest

__all__ = ["Block", "Work"]

# Seconds between two looks at the work of other processes.
_POLL = 0.1


@dataclass(frozen=True)
class Block:
    """Block `index` of a plan, in progress: its rows, and their images still on the device."""

    index: int
    rows: plan.Rows
    decoded: Decoded

    def images(self) -> np.ndarray:
        """Fetches the images [64, H, W, C] uint8 to memory; see `Decoded.fetch`."""
        return self.decoded.fetch(f" in block {self.index}")


class Decodes(Protocol):
    """A decoder of blocks."""

    def block(self, index: int) -> Block:
        """Starts block `index` of the plan."""


@dataclass(frozen=True)
class Work:
    """The work on the `own` blocks of a bank of `rows` rows, and on its end.

    `finish` seals and publishes the filled container, or an existing seal if it is given None.
    """

    partial: Partial
    own: range
    rows: int
    finish: Callable[[arrays.Writer | None], None]

    def carry_out(self, decoder: Decodes, session: Session) -> None:
        """Makes blocks until the bank is published, or until only those of others are missing.

        A request of the session ends it with `Stopped` or `Interrupted`.
        """
        partial, told = self.partial, False
        progress = session.track(self._images(self.own), "images", "bank", start=self._done())
        while not partial.published:
            if partial.whole:
                worked = self._finished(session)
            elif missing := partial.missing(self.own):
                worked = self._make(decoder, missing, session.stop, progress)
            else:
                break  # the blocks of other shards are missing
            if session.stop.requested and not partial.published:
                progress.close()
                raise session.stop.failure(saved=True, what=self._kept())
            if not worked:
                if not told:
                    session.say("waiting for other processes, which work on the same bank")
                told = True
                time.sleep(_POLL)
        progress.close()

    def _finished(self, session: Session) -> bool:
        """Fills, seals and publishes; False if another process is doing it."""
        partial = self.partial
        try:
            with partial.finishing():
                if partial.published:
                    return True
                writer = None if partial.sealed else partial.fill(session)
                if writer is not None or partial.sealed:
                    self.finish(writer)
                return True
        except Busy:
            return False

    def _make(
        self, decoder: Decodes, missing: list[int], stop: StopRequest, progress: Track
    ) -> bool:
        """Makes those of the missing blocks that can be claimed; False if none could."""
        partial, made = self.partial, False
        for block in _one_ahead(decoder, self._claimed(missing, stop)):
            partial.land(block.index, block.images(), block.rows.pair, block.rows.lam)
            partial.release(block.index)
            made = True
            # Blocks that were passed over are made by others.
            passed = missing.index(block.index) + 1
            progress.update(self._images(self.own[: len(self.own) - len(missing) + passed]))
        return made

    def _claimed(self, missing: Iterable[int], stop: StopRequest) -> Iterator[int]:
        for index in missing:
            if stop.requested:
                return
            if self.partial.claim(index):
                yield index

    def _done(self) -> int:
        """Counts the images of own blocks that are there."""
        return self._images(self.own[len(self.partial.missing(self.own)) :])

    def _images(self, blocks: range) -> int:
        """Counts the rows of as many blocks."""
        return min(len(blocks) * BLOCK, self.rows)

    def _kept(self) -> str:
        total = -(-self.rows // BLOCK)
        there = total - len(self.partial.missing(range(total)))
        return f"{there:,} of {total:,} blocks of bank {self.partial.key[:12]} are kept"


def _one_ahead(decoder: Decodes, indices: Iterable[int]) -> Iterator[Block]:
    """Starts each block before fetching the last one: a GPU computes while we hash and write."""
    waiting: Block | None = None
    for index in indices:
        started = decoder.block(index)
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting
