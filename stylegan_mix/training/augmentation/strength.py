"""Strength of augmentation: fixed, on a ramp, or by feedback, for each group of classes.

The feedback (Karras et al. 2020, StyleGAN2-ADA) watches the mean sign of the discriminator on real
images, r = E[sign D(x)]. Near 1 it knows them by heart, and p rises. A long tail overfits before
the head does, so every group of classes may have its own p. K classes, G groups, N batch. The
running state is tensors on the device, and nothing here reads one back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan_mix.datasets.groups import shot_groups
from stylegan_mix.errors import UsageFailure, nearest

__all__ = [
    "SCOPES",
    "Feedback",
    "Groups",
    "adjust",
    "fresh_signs",
    "fresh_strength",
    "groups_by",
    "observe",
    "ramped",
    "strength_of",
    "taken_signs",
]

SCOPES = ("all", "shot", "class")
# Names of the counts of `observe`.
_COUNTS = ("sign_sum", "sign_count")


@dataclass(frozen=True)
class Groups:
    """The groups of classes that share a strength: `of_class[c]` indexes `names`."""

    names: tuple[str, ...]
    of_class: tuple[int, ...]


@dataclass(frozen=True)
class Feedback:
    """The constants of the control: the published ones, except `least_images` and `most`.

    p moves by batch * every_steps / (1000 kimg) at a time, so that `kimg` thousand images take it
    from 0 to 1. r is held at `target`.

    A group moves once `least_images` of its real images were seen, and keeps its counts until then.
    Over one or two images, the sign of a mean would hold r near 0 or 0.4, not at 0.6. A batch of
    all classes is larger than that in any case.

    `most` is the largest p. The published control has none. There p runs on beyond 1, where it has
    no further effect, and then takes as long to come back; a small group that always overfits would
    do so. At 1 the augmentation is the same, and p can fall at once. A lower `most` keeps
    augmentations from leaking into the generated images.
    """

    target: float = 0.6
    kimg: float = 500.0
    every_steps: int = 4
    least_images: int = 8
    most: float = 1.0


def groups_by(scope: str, counts: Sequence[int] | np.ndarray) -> Groups:
    """Groups the classes, with `counts` [K] training images, by a scope.

    `all` is one group, `shot` the shot groups of every report, `class` one group a class. Another
    scope is a `UsageFailure` (exit code 2).
    """
    if scope == "all":
        return Groups(("all",), (0,) * len(counts))
    if scope == "class":
        return Groups(tuple(map(str, range(len(counts)))), tuple(range(len(counts))))
    if scope != "shot":
        raise UsageFailure(f"no groups '{scope}'{nearest(scope, SCOPES)}")
    shots = shot_groups(counts)
    group = {c: g for g, some in enumerate((shots.many, shots.medium, shots.few)) for c in some}
    return Groups(("many", "medium", "few"), tuple(group[c] for c in range(len(counts))))


def ramped(strength: float, seen_kimg: float, ramp_kimg: float) -> float:
    """Computes p = P min(1, seen / ramp): rises to `strength` over `ramp_kimg`, 0 is no ramp."""
    return strength * min(1.0, seen_kimg / ramp_kimg) if ramp_kimg > 0 else strength


def fresh_strength(groups: int, device: torch.device) -> dict[str, Tensor]:
    """Makes the running state of the control at the start, p = 0, by name, for a checkpoint."""
    return {"ada.p": torch.zeros(groups, device=device), **fresh_signs(groups, device, of="ada")}


def strength_of(running: dict[str, Tensor], groups: Tensor) -> Tensor:
    """Looks up the strength of images by their groups: int64 [N] -> [N]."""
    return running["ada.p"][groups]


@torch.no_grad()
def observe(
    running: dict[str, Tensor],
    signs: Tensor,
    groups: Tensor,
    *,
    of: str = "ada",
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> None:
    """Counts the signs [N] of the discriminator on real images of `groups` int64 [N], in place.

    They are added to `running`, under names that begin with `of`. If several processes share the
    batch, `total` gives the sum of a tensor over all of them (an all-reduce). The state is then the
    same everywhere after every step. The sums are whole numbers, so they are exact in any order.
    """
    seen = torch.zeros_like(running[f"{of}.sign_sum"]).repeat(2, 1)
    both = torch.stack([signs.to(seen), torch.ones_like(signs).to(seen)])
    seen = total(seen.index_add_(1, groups, both))
    running[f"{of}.sign_sum"] += seen[0]
    running[f"{of}.sign_count"] += seen[1]


def fresh_signs(groups: int, device: torch.device, *, of: str) -> dict[str, Tensor]:
    """Makes the counts of `observe` before the first image, by name."""
    return {f"{of}.{name}": torch.zeros(groups, device=device) for name in _COUNTS}


@torch.no_grad()
def taken_signs(running: dict[str, Tensor], *, of: str) -> list[float | None]:
    """Takes the mean sign of every group since the last call, None without images; resets them."""
    sums, counts = (running[f"{of}.{name}"] for name in _COUNTS)
    pairs = zip(sums.tolist(), counts.tolist(), strict=True)
    means = [round(total / count, 4) if count else None for total, count in pairs]
    sums.zero_()
    counts.zero_()
    return means


@torch.no_grad()
def adjust(running: dict[str, Tensor], feedback: Feedback, *, batch: int) -> None:
    """Moves p by sign(r - target) batch every_steps / (1000 kimg) (Karras et al. 2020, ADA).

    In place, every `feedback.every_steps` steps; `batch` is that of all processes. A group with too
    few images since it last moved stays, and goes on counting.
    """
    p, sums, counts = (running[name] for name in ("ada.p", "ada.sign_sum", "ada.sign_count"))
    due = counts >= max(feedback.least_images, 1)
    step = batch * feedback.every_steps / (feedback.kimg * 1000)
    direction = (sums / counts.clamp(min=1) - feedback.target).sign()
    p += torch.where(due, direction * step, 0)
    p.clamp_(0, feedback.most)
    for counted in (sums, counts):
        counted.masked_fill_(due, 0)
