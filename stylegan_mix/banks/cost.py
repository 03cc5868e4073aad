"""The cost of a bank before it is written: exact size, time from a timed block."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from stylegan_mix.banks.plan import Plan
from stylegan_mix.banks.write import Decoder, network_of
from stylegan_mix.latents.plan import BLOCK

__all__ = ["estimate"]


def estimate(plan: Plan) -> dict[str, Any]:
    """Estimates keys, images, blocks and bytes of a plan with a generator; seconds here."""
    request = plan.request
    if plan.published is None or plan.means is None:
        raise ValueError("a plan without a generator has no block to time")
    # The pairs of a judge are not known yet, and do not change the time of a block.
    timed = replace(request, pairs="uniform")
    seconds = _seconds_per_block(Decoder(network_of(plan.published, plan.means), timed))
    return {
        "state": "absent",
        "key": request.exact_key(plan.means.numerics),
        "request_key": request.key,
        "images": request.n,
        "blocks": request.blocks,
        "bytes": request.bytes,
        "images_per_second": round(BLOCK / seconds, 1),
        "seconds": round(seconds * request.blocks, 1),
    }


def _seconds_per_block(decoder: Decoder) -> float:
    """Times a block on this machine, after a first one that warms up."""
    decoder.block(0).images()
    began = time.perf_counter()
    decoder.block(0).images()
    return time.perf_counter() - began
