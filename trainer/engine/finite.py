"""The end of a training whose losses or weights are not finite."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_mix.errors import Diverged
from stylegan_mix.world import World

__all__ = ["FiniteWatch", "require_finite"]


class FiniteWatch:
    """A watch, on the device, for the first step with a loss that is not finite in any process."""

    def __init__(self, device: torch.device, world: World) -> None:
        self._world = world
        self._first = torch.full((), -1, dtype=torch.int64, device=device)

    def see(self, values: Tensor, step: int) -> None:
        """Looks at the losses of this process's rows in a step, [N]."""
        bad = ~values.isfinite().all() & (self._first < 0)
        self._first = torch.where(bad, step, self._first)

    def check(self, stage: str) -> None:
        """Raises `Diverged` (exit code 5), in all processes, if there was such a step."""
        firsts = [int(one) for one in self._world.gather(self._first)]
        first = min((one for one in firsts if one >= 0), default=-1)
        if first >= 0:
            raise Diverged(
                f"the loss was not finite at step {first:,} of stage '{stage}'",
                remedy="try a lower --lr, or --precision float32; nothing after it was saved",
            )


def require_finite(model: nn.Module, stage: str) -> None:
    """Raises `Diverged` (exit code 5) if any number of a network is not finite.

    A loss can be finite in every step while a batch-norm variance is not, as it only acts at test.
    """
    bad = [
        name
        for name, value in model.state_dict().items()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise Diverged(
            f"the network of stage '{stage}' holds numbers that are not finite, in "
            f"{', '.join(bad[:3])}{more}; it was not kept",
            remedy="try a lower --lr, or --precision float32",
        )
