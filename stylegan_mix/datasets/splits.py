"""Long-tailed draws by the rule of LDAM-DRW (Cao et al. 2019), which the field shares.

`K` classes, `N` images. Class 0 is the largest: the rule does not shuffle classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stylegan_mix.errors import UsageFailure, nearest

__all__ = ["PROFILES", "check_draw", "long_tailed_counts", "long_tailed_indices"]

PROFILES = ("exp", "step", "natural")


def check_draw(profile: str, imbalance: float | None, seed: int) -> None:
    """Raises `UsageFailure` (exit code 2) for a draw that no data set can give."""
    if profile not in PROFILES:
        raise UsageFailure(f"no profile '{profile}'{nearest(profile, PROFILES)}")
    if not 0 <= seed < 2**32:
        raise UsageFailure(f"the split seed must lie in 0 to 2**32 - 1, got {seed}")
    if profile == "natural":
        if imbalance is not None:
            raise UsageFailure(
                f"the natural profile takes what there is; imbalance {imbalance:g} has no place",
                remedy="use --profile exp or step, or leave --imbalance out",
            )
    elif imbalance is None:
        raise UsageFailure(f"profile {profile} needs an imbalance factor (--imbalance)")
    elif not (math.isfinite(imbalance) and imbalance >= 1):
        raise UsageFailure(
            f"the imbalance factor is largest over smallest class: 1 or more, got {imbalance:g}"
        )


def long_tailed_counts(
    n_max: int, classes: int, imbalance: float, profile: str = "exp"
) -> np.ndarray:
    """Computes the number of training images that each class keeps -> int64 [K].

    "exp": n_c = int(n_max * mu ** (c / (K - 1))) with mu = 1 / imbalance, in float64 as published.
    "step": the first K // 2 classes keep n_max, the others int(n_max * mu). A class keeps at least
    one image; the published rule does not say so and would keep none.
    """
    check_draw(profile, imbalance, 0)
    mu = 1.0 / imbalance
    if profile == "step":
        sizes = [n_max if c < classes // 2 else int(n_max * mu) for c in range(classes)]
    else:
        sizes = [int(n_max * mu ** (c / max(classes - 1.0, 1.0))) for c in range(classes)]
    return np.maximum(np.array(sizes, np.int64), 1)


def long_tailed_indices(
    labels: Sequence[int] | np.ndarray, counts: Sequence[int] | np.ndarray, seed: int = 0
) -> np.ndarray:
    """Selects the positions that the rule keeps, class after class in the order drawn -> int64.

    NumPy's legacy generator is seeded once. Then, in ascending class order, the positions of each
    class in `labels` (official order, all images) are shuffled in place, and the first `counts[c]`
    kept. The shuffles do not depend on the counts, so a draw at a larger factor is a part of one at
    a smaller factor.
    """
    labels = np.asarray(labels)
    generator = np.random.RandomState(seed)
    kept = []
    for c, count in enumerate(counts):
        positions = np.flatnonzero(labels == c).astype(np.int64)
        generator.shuffle(positions)
        kept.append(positions[: int(count)])
    return np.concatenate(kept)
