"""The request of a bank, and the two keys that follow from it; no torch.

The request key hashes the request, and finds a bank. The exact key adds the numerics class, and
names bytes. Both hash declared values only, never code, paths, hosts or clocks. The behaviour of
the code is declared by `ALGORITHM`: a change of the code raises its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stylegan_mix import store
from stylegan_mix.console import as_typed
from stylegan_mix.errors import UsageFailure, nearest
from stylegan_mix.latents.plan import BLOCK
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.numerics import Numerics

__all__ = ["ALGORITHM", "KIND", "SCHEMA_VERSION", "Request", "command_words"]

KIND = "hybrid-bank"
SCHEMA_VERSION = 1
ALGORITHM = {"plan": 1, "mixing": 1, "rounding": 1}
"""Versions of the steps from a request to bytes; tests pin their results."""

_MOST_ROWS = 1 << 40


@dataclass(frozen=True)
class Request:
    """The request of a bank.

    `generator` and `split_id` are hashes, `classes` K, `resolution` and `channels` those of the
    generator's images; `n` rows, `space` of `SPACES`, `alpha` of Beta(alpha, alpha), `truncation`
    psi. Raises `UsageFailure` (exit code 2), which lists everything out of bounds.
    """

    generator: str
    split_id: str
    classes: int
    resolution: int
    channels: int
    n: int
    space: str = "w"
    alpha: float = 1.0
    truncation: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.space not in SPACES:
            problems.append(f"no space '{self.space}'{nearest(self.space, SPACES)}")
        if not 1 <= self.n <= _MOST_ROWS:
            problems.append(f"--n must be from 1 to 2^40, got {self.n}")
        if not (math.isfinite(self.alpha) and 0.01 <= self.alpha <= 1000.0):
            problems.append(f"--alpha must be from 0.01 to 1000, got {self.alpha}")
        if not (math.isfinite(self.truncation) and 0.0 <= self.truncation <= 2.0):
            problems.append(f"--truncation must be from 0 to 2, got {self.truncation}")
        if problems:
            raise UsageFailure("; ".join(problems))

    @property
    def blocks(self) -> int:
        """The number of blocks of `BLOCK` rows; the last is cut."""
        return -(-self.n // BLOCK)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return self.resolution, self.resolution, self.channels

    @property
    def bytes(self) -> int:
        """The size of the arrays in bytes: image, pair and lam of every row."""
        height, width, channels = self.image_shape
        return self.n * (height * width * channels + 12)

    def spec(self) -> dict[str, Any]:
        """Lists the declared values, typed, so that 1 and 1.0 are one number."""
        values = asdict(self)
        for name in ("classes", "resolution", "channels", "n", "seed"):
            values[name] = int(values[name])
        values["truncation"] = float(self.truncation)
        # Where nothing is mixed, alpha must not make a second bank of the same rows.
        values["alpha"] = float(self.alpha) if SPACES[self.space].mixes else None
        fixed = {"kind": KIND, "schema_version": SCHEMA_VERSION, "block": BLOCK}
        return {**fixed, "algorithm": dict(ALGORITHM), "noise": "random", **values}

    @property
    def key(self) -> str:
        """The request key: 64 hex digits."""
        return store.digest(self.spec())

    def exact_key(self, numerics: Numerics) -> str:
        """Computes the name of a bank's bytes: 64 hex digits."""
        return store.digest({"request": self.spec(), "numerics": numerics.spec()})


def command_words(request: Request, draw: Mapping[str, Any], precision: str) -> list[str]:
    """Composes the command that requests a bank again, as words.

    `draw` holds the data set and the draw of its generator, as a card does.
    """
    words = ["stylegan-mix", "generate", "--dataset", str(draw["dataset"])]
    for option in ("imbalance", "profile", "split_seed"):
        if draw.get(option) is not None:
            words += [f"--{option.replace('_', '-')}", as_typed(draw[option])]
    words += ["--n", str(request.n), "--space", request.space, "--alpha", as_typed(request.alpha)]
    words += ["--truncation", as_typed(request.truncation), "--seed", str(request.seed)]
    words += ["--generator", request.generator[:12]] if request.generator else []
    return [*words, "--precision", precision]
