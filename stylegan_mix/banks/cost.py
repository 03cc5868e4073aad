"""The cost of a bank before it is written: exact size, a range of time from few rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from stylegan_mix.banks.plan import Plan
from stylegan_mix.banks.shards import Shard
from stylegan_mix.banks.write import Decoder, network_of
from stylegan_mix.estimates import Form, Span, measured
from stylegan_mix.latents.plan import BLOCK
from stylegan_mix.process import one_thread_if_busy

__all__ = ["block_seconds", "estimate"]

# Rows that are decoded at once: few first, since a block may take minutes.
_ROWS = (1, 4, 16, BLOCK)
# Factors for hashes, files and noise, beside decoding.
_LEAST_MORE, _MOST_MORE = 1.0, 1.3


def estimate(plan: Plan, shard: Shard | None = None) -> dict[str, Any]:
    """Estimates keys, images, blocks, bytes of a plan with a generator; `seconds` is a `Span`.

    With a `shard`, `blocks` and `seconds` are those of its part.
    """
    request = plan.request
    if plan.published is None or plan.means is None:
        raise ValueError("a plan without a generator has no block to time")
    # The pairs of a judge are not known yet, and do not change the time of a block.
    timed = replace(request, pairs="uniform")
    decoder = Decoder(network_of(plan.published, plan.means), timed)
    blocks = request.blocks if shard is None else len(shard.blocks(request.blocks))
    return {
        "state": "absent",
        "key": request.exact_key(plan.means.numerics),
        "request_key": request.key,
        "images": request.n,
        "blocks": blocks,
        "bytes": request.bytes,
        "seconds": block_seconds(decoder).times(blocks),
    }


def block_seconds(decoder: Decoder) -> Span:
    """Estimates the seconds of a block on this machine."""

    def decoding(rows: int) -> Callable[[], None]:
        def decode() -> None:
            decoder.first_rows(rows)

        return decode

    forms = [Form(rows, partial(decoding, rows)) for rows in _ROWS]
    with one_thread_if_busy() as threads:
        block = measured(forms)
    return block.in_threads(threads).stretched(_LEAST_MORE, _MOST_MORE)
