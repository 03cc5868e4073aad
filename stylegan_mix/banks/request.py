"""The request of a bank, and the two keys that follow from it; no torch.

The request key hashes the request, and finds a bank. The exact key adds the numerics class, and
names bytes. Both hash declared values only, never code, paths, hosts or clocks. The behaviour of
the code is declared by `ALGORITHM`: a change of the code raises its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stylegan_mix import store
from stylegan_mix.console import as_typed
from stylegan_mix.errors import UsageFailure, nearest
from stylegan_mix.latents.pairing import FILLS, PAIRINGS, Pairing, partners_of
from stylegan_mix.latents.plan import BLOCK
from stylegan_mix.latents.shares import Law, law_of
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.numerics import Numerics

__all__ = ["ALGORITHM", "KIND", "SCHEMA_VERSION", "Request", "command_words"]

KIND = "hybrid-bank"
SCHEMA_VERSION = 1
ALGORITHM = {"plan": 1, "mixing": 1, "rounding": 1}
"""Versions of the steps from a request to bytes; tests pin their results."""

_MOST_ROWS = 1 << 40
_POLICY = ("fill", "pairs", "unmixed", "lam", "counts", "listed", "listed_in", "judge")


@dataclass(frozen=True)
class Request:
    """The request of a bank.

    `generator` and `split_id` are hashes, `classes` K, `resolution` and `channels` those of the
    generator's images; `n` rows, `space` of `SPACES`, `alpha` of Beta(alpha, alpha), `truncation`
    psi. `fill` of `FILLS` draws class a, `pairs` of `PAIRINGS` class b, `unmixed` is the share of
    rows with one class alone, `lam` a law as `law_of` reads it. `counts` [K] are the training
    images of the classes, `listed` pairs (a, b, weight), and `judge` the key of a judge, for fills
    and pairings that read them. `listed_in` is the file of these pairs as it was typed. The pairs
    by a judge are listed when a bank is written. Raises `UsageFailure` (exit code 2),
    which lists everything out of bounds.
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
    fill: str = "uniform"
    pairs: str = "uniform"
    unmixed: float = 0.0
    lam: str = "beta"
    counts: tuple[int, ...] = ()
    listed: tuple[tuple[int, int, float], ...] = ()
    listed_in: str = field(default="", compare=False)
    judge: str = ""

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
        if self.fill not in FILLS:
            problems.append(f"no fill '{self.fill}'{nearest(self.fill, FILLS)}")
        if self.pairs not in PAIRINGS:
            problems.append(f"no pairing '{self.pairs}'{nearest(self.pairs, PAIRINGS)}")
        if not 0.0 <= self.unmixed <= 1.0:
            problems.append(f"--unmixed must be from 0 to 1, got {self.unmixed}")
        try:
            law = law_of(self.lam)
        except UsageFailure as failure:
            problems.append(str(failure))
        else:
            if not problems and not law.possible(self.alpha):
                problems.append(f"--lam {law} has no rows under --alpha {self.alpha:g}")
        if problems:
            raise UsageFailure("; ".join(problems))
        if self.counts and self._weights() is not None and not any(self._weights() or ()):
            raise UsageFailure(
                f"--fill {self.fill}: every class has {self.counts[0]:,} training images, so there "
                "is nothing to fill",
                remedy="--fill uniform draws every class equally often",
            )

    @property
    def law(self) -> Law:
        """The distribution of lam."""
        return law_of(self.lam)

    @property
    def pairing(self) -> Pairing:
        """The distribution of the classes of a row."""
        partners = partners_of(self.pairs, self.classes, self.counts, self.listed)
        return Pairing(self._weights(), partners, self.unmixed)

    def _weights(self) -> tuple[int, ...] | None:
        weights = FILLS[self.fill].weights
        return None if weights is None else weights(self.counts)

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
        values = {name: value for name, value in asdict(self).items() if name not in _POLICY}
        for name in ("classes", "resolution", "channels", "n", "seed"):
            values[name] = int(values[name])
        values["truncation"] = float(self.truncation)
        # What is not read must not make a second bank of the same rows.
        mixes = SPACES[self.space].mixes
        values["alpha"] = float(self.alpha) if mixes and self.law.reads_alpha else None
        fixed = {"kind": KIND, "schema_version": SCHEMA_VERSION, "block": BLOCK}
        plain = {**fixed, "algorithm": dict(ALGORITHM), "noise": "random", **values}
        return plain | self._policy(mixes=mixes)

    def _policy(self, *, mixes: bool) -> dict[str, Any]:
        """Selects the settings of classes and lam that differ from the first banks' and are read.

        A setting at its default stays out, so that keys from before it stay what they were.
        """
        chosen: dict[str, Any] = {"fill": self.fill} if self.fill != "uniform" else {}
        reads = set() if self.fill == "uniform" else {"counts"}
        if mixes:
            chosen |= {"pairs": self.pairs} if self.pairs != "uniform" else {}
            chosen |= {"unmixed": float(self.unmixed)} if self.unmixed else {}
            chosen |= {"lam": str(self.law)} if self.law != Law() else {}
            reads.add(PAIRINGS[self.pairs].reads)
        if "counts" in reads:
            chosen["counts"] = [int(count) for count in self.counts]
        if "judge" in reads:
            chosen["judge"] = self.judge
        if "listed" in reads:
            chosen["listed"] = [[int(a), int(b), float(w)] for a, b, w in self.listed]
        return chosen

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
    words += _policy_words(request)
    words += ["--generator", request.generator[:12]] if request.generator else []
    return [*words, "--precision", precision]


def _policy_words(request: Request) -> list[str]:
    """Composes the options of classes and lam that are not at their defaults."""
    words = ["--fill", request.fill] if request.fill != "uniform" else []
    if request.pairs != "uniform":
        words += ["--pairs", request.listed_in or request.pairs]
    words += ["--unmixed", as_typed(request.unmixed)] if request.unmixed else []
    return words + (["--lam", str(request.law)] if request.law != Law() else [])
