"""The training of one network by several processes, each with its rows of every batch.

Every process makes the whole batch, which costs little, and keeps of each source the rows r,
r + W, ... (`World`). So batches, mixed partners and draws are those of one process. Losses are
averaged over the rows of all processes, batch norms see all of them, and so do the states of
objectives. The network is that of one process, up to the order of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_mix.errors import Failure, Stopped, UsageFailure
from stylegan_mix.stopping import StopRequest
from stylegan_mix.world import World
from trainer.engine.batch import Batch, Partners, Source
from trainer.models import Outputs
from trainer.recipes.stage import Recipe, Stage

__all__ = [
    "Beginning",
    "follow_whole_batches",
    "mean_over_all",
    "of_all",
    "own_rows",
    "require_followed",
    "require_splitting",
    "stop_of_all",
]


def require_splitting(recipe: Recipe, world: World) -> None:
    """Raises `UsageFailure` (exit code 2) for a recipe whose batches cannot be split by rows."""
    for stage in recipe.stages if world.size > 1 else ():
        if reason := _reason(stage):
            raise UsageFailure(
                f"recipe '{recipe.name}' cannot be trained by {world.size} processes: {reason}",
                remedy="train it in one process; several runs can go side by side",
            )


def _reason(stage: Stage) -> str:
    """Says why a stage needs whole batches; "" if it does not."""
    if not stage.forward.splits:
        return f"in stage '{stage.name}' {stage.forward!r} needs the rows of the whole batch"
    if stage.objective.reads_batch or stage.views:
        return f"in stage '{stage.name}' the loss of a row depends on other rows of its batch"
    return ""


class Beginning:
    """The leader's word to the others about a run: that it begins, is finished, or cannot begin."""

    def __init__(self, world: World) -> None:
        self._world, self._told = world, False

    def tell(self, *, finished: bool = False, fails: bool = False) -> None:
        """Tells it the others, once."""
        if not self._told:
            self._told = True
            self._world.each(finished, fails)

    def hear(self) -> bool:
        """Waits for the word; returns True if the run begins.

        Raises `Stopped` if it cannot begin, for which the leader gives the reason.
        """
        finished, fails = self._world.each(False, False)
        if fails:
            raise Stopped("the first process could not begin this run")
        return not finished


def own_rows(batch: Batch, world: World) -> Batch:
    """Selects this process's rows of a whole batch.

    A source with too few rows has none in some processes, and is left out there. Raises
    `UsageFailure` (exit code 2) if every source has fewer rows than there are processes.
    """
    if world.size == 1:
        return batch
    counts = [_count(source) for source in batch.sources]
    if max(counts) < world.size:
        raise UsageFailure(
            f"a batch of {sum(counts)} rows is too small for {world.size} processes",
            remedy="choose a larger --batch, or fewer processes",
        )
    places = torch.cat([_places(source, world.rank, world) for source in batch.sources])
    rows = places.to(batch.lam.device)
    return replace(
        batch,
        images=batch.images[rows],
        label_a=batch.label_a[rows],
        label_b=batch.label_b[rows],
        lam=batch.lam[rows],
        index=batch.index[rows],
        index_b=batch.index_b[rows],
        sources=_own_sources(batch.sources, world),
        targets={name: world.own(target) for name, target in batch.targets.items()},
        partners={
            name: Partners(*map(world.own, (one.label, one.index, one.own)))
            for name, one in batch.partners.items()
        },
    )


def _count(source: Source) -> int:
    return source.rows.stop - source.rows.start


def _places(source: Source, rank: int, world: World) -> Tensor:
    """Lists the places in the whole batch of the rows of a source that a process holds."""
    return torch.arange(source.rows.start, source.rows.stop)[rank :: world.size]


def _own_sources(sources: Sequence[Source], world: World) -> tuple[Source, ...]:
    own, start = [], 0
    for source in sources:
        end = start + len(_places(source, world.rank, world))
        if end > start:
            own.append(replace(source, rows=slice(start, end), in_all=_count(source)))
        start = end
    return tuple(own)


def mean_over_all(values: Tensor, batch: Batch, world: World) -> Tensor:
    """Computes this process's part of the mean of `values`, over the judged rows of all processes.

    values: [N], of its own rows; batch: the whole one. The gradients of the parts, averaged over
    the processes, are the gradient of the mean.
    """
    if world.size == 1:
        return values.mean()
    return values.sum() * (world.size / sum(map(_count, batch.judged)))


def of_all(out: Outputs, batch: Batch, world: World) -> Outputs:
    """Collects the outputs of all processes on the judged rows of the whole `batch`, in its order.

    The gradient does not flow. out: on the own judged rows, and perhaps on others after them.
    """
    if world.size == 1:
        return out
    held = [
        torch.cat([_places(source, rank, world) for source in batch.judged])
        for rank in range(world.size)
    ]
    most = max(map(len, held))

    def collected(rows: Tensor) -> Tensor:
        own = rows[: len(held[world.rank])]
        padded = torch.cat([own, own[:1].expand(most - len(own), *own.shape[1:])])
        whole = own.new_empty(sum(map(len, held)), *own.shape[1:])
        for places, part in zip(held, world.gather(padded), strict=True):
            whole[places.to(whole.device)] = part[: len(places)]
        return whole

    others = {name: collected(rows) for name, rows in out.others.items()}
    return Outputs(collected(out.features), collected(out.logits), others)


def stop_of_all(stop: StopRequest, what: str) -> Exception:
    """Makes the failure of a stop that this process, or only another one, was asked for."""
    if stop.requested is not None:
        return stop.failure(saved=True, what=what)
    return Stopped(
        f"stopped (another process was asked to): {what}", remedy="run the same command to go on"
    )


# Batch norms


class _OfAll(nn.modules.batchnorm._BatchNorm):
    """A batch norm whose statistics in training are those of the rows of all processes."""

    world: World
    followed: bool

    def forward(self, x: Tensor) -> Tensor:  # [N, C, ...]
        if not self.training:
            return super().forward(x)
        self.followed = True
        y: Tensor
        y, mean, var, count = _Normalised.apply(x, self.weight, self.bias, self.eps, self.world)
        with torch.no_grad():
            self._follow(mean, var * (count / (count - 1)))
        return y

    def _follow(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics, or averages them over all batches without a momentum."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), rate)
        self.running_var.lerp_(var.to(self.running_var), rate)


class _OfAll1d(_OfAll, nn.BatchNorm1d):
    """A batch norm of [N, C]."""


class _OfAll2d(_OfAll, nn.BatchNorm2d):
    """A batch norm of [N, C, H, W]."""


# By the class of PyTorch that each takes the place of.
_KINDS: dict[type[nn.Module], type[_OfAll]] = {
    nn.BatchNorm1d: _OfAll1d,
    nn.BatchNorm2d: _OfAll2d,
}


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, mean and var over the rows of all processes.

    Ioffe and Szegedy 2015, Algorithm 1; its gradient with the sums over all processes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.float() if x.dtype.itemsize < 4 else x
        ctx.axes, ctx.spread = (0, *range(2, x.dim())), (-1, *[1] * (x.dim() - 2))
        values = wide.new_tensor([x.numel() // x.shape[1]])  # of each channel, in this process
        whole = world.sum(torch.cat([wide.sum(ctx.axes), values]))
        count = whole[-1]
        mean = whole[:-1] / count
        apart = wide - mean.view(ctx.spread)
        var = world.sum(apart.square().sum(ctx.axes)) / count
        inverse = (var + eps).rsqrt()
        normal = apart * inverse.view(ctx.spread)
        ctx.save_for_backward(normal, weight, inverse, count)
        ctx.world, ctx.dtype = world, x.dtype
        y = normal * weight.view(ctx.spread) + bias.view(ctx.spread)
        ctx.mark_non_differentiable(mean, var, count)
        return y.to(x.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normal, weight, inverse, count = ctx.saved_tensors
        dy = gradients[0].to(normal.dtype)
        of_bias = dy.sum(ctx.axes)
        of_weight = (dy * normal).sum(ctx.axes)
        whole = ctx.world.sum(torch.stack([of_bias, of_weight])) / count
        of_all = [one.view(ctx.spread) for one in whole]
        pulled = dy - of_all[0] - normal * of_all[1]
        dx = pulled * (weight * inverse).view(ctx.spread)
        return dx.to(ctx.dtype), of_weight, of_bias, None, None


def follow_whole_batches(model: nn.Module, world: World) -> None:
    """Makes the batch norms of a network see the rows of all processes, in place.

    Fails (our bug, exit code 1) for one of a kind that has no such form.
    """
    for name, part in model.named_modules() if world.size > 1 else ():
        if isinstance(part, nn.modules.batchnorm._NormBase):
            kind = _KINDS.get(type(part))
            if kind is None:
                raise Failure(f"{name} is {type(part).__name__}, not known to several processes")
            part.__class__ = kind
            assert isinstance(part, _OfAll)
            part.world, part.followed = world, False


def require_followed(model: nn.Module) -> None:
    """Fails (our bug, exit code 1) if a batch norm in training saw only the rows of this process.

    For after a step, in a network of `follow_whole_batches`.
    """
    for name, part in model.named_modules():
        if isinstance(part, _OfAll) and part.training and not part.followed:
            raise Failure(f"batch norm {name} was computed without the rows of other processes")
