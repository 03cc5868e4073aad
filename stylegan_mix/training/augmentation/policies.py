"""Augmentation policies by name: the transforms of every image that the discriminator sees.

`none`; a DiffAugment list such as `color,translation,cutout`, always applied; `ada`, or
`ada:LIST` of `blit`, `geometry`, `color`, `filter`, `noise` and `cutout`, each transform applied
with a probability, the strength p. Transforms run in the order of the list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan_mix.errors import UsageFailure, nearest
from stylegan_mix.rng import Draws
from stylegan_mix.training.augmentation.ada import ADA
from stylegan_mix.training.augmentation.diffaugment import DIFFAUGMENT

__all__ = ["Augmentation", "augmentation_named"]

_ADA_DEFAULT = ("blit", "geometry", "color")


@dataclass(frozen=True)
class Augmentation:
    """The transforms of a policy, by name; `uses_strength` tells if they depend on p."""

    names: tuple[str, ...]
    uses_strength: bool

    def __call__(self, images: Tensor, p: Tensor, draws: Draws) -> Tensor:
        """Augments images [N,C,H,W], same shape and dtype; p [N] is the strength of each.

        A policy that does not use the strength ignores p. The others work in float32 at least,
        never wait for the device, and differentiate twice with respect to the images.
        """
        if not self.uses_strength:
            for name in self.names:
                images = DIFFAUGMENT[name](images, draws)
            return images
        shown = images.to(torch.promote_types(images.dtype, torch.float32)).contiguous()
        for name in self.names:
            shown = ADA[name](shown, p, draws)
        return shown.to(images.dtype)


def augmentation_named(policy: str) -> Augmentation:
    """Parses the text of a policy; an unknown name is a `UsageFailure` (exit code 2)."""
    if policy == "none":
        return Augmentation((), uses_strength=False)
    if policy == "ada":
        return Augmentation(_ADA_DEFAULT, uses_strength=True)
    family, colon, listed = policy.partition(":")
    if family == "ada" and colon:
        return Augmentation(_checked(listed.split(","), ADA, "transform of ada"), True)
    names = policy.split(",")
    alone = ("none", "ada") if len(names) == 1 else ()
    return Augmentation(_checked(names, [*DIFFAUGMENT, *alone], "augmentation"), False)


def _checked(names: list[str], known: Iterable[str], what: str) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise UsageFailure(f"no {what} '{name}'{nearest(name, known)}")
    return tuple(names)
