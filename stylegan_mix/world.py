"""The processes that train one network together, each with its rows of every batch.

Process r of W holds the rows r, r + W, ... So the groups of minibatch-std stay whole, and W
processes train as one process does, apart from the order of sums. One flat all-reduce a phase
averages the gradients. DistributedDataParallel would not do: its hooks run inside a backward pass,
and it is silently wrong under R1. `torchrun` starts the processes and gives them their ranks.
"""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from stylegan_mix import rng
from stylegan_mix.errors import Failure, MissingEnvironment, UsageFailure, is_out_of_memory
from stylegan_mix.launched import by_torchrun, number_in, several
from stylegan_mix.process import end_with_parent
from stylegan_mix.stopping import NEVER, StopRequest

__all__ = ["World", "joined"]

# Longest wait of a process for the others: during a training, and at its start.
_PATIENCE = timedelta(minutes=5)
_START = timedelta(minutes=4)


@dataclass(frozen=True)
class World:
    """The place of this process: `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """True for the process that writes and prints."""
        return self.rank == 0

    def rows(self, batch: int) -> int:
        """Counts the rows of a batch in this process."""
        return batch // self.size

    def own(self, rows: Tensor) -> Tensor:
        """Selects this process's rows of a whole batch [N, ...]."""
        return rows[self.rank :: self.size] if self.size > 1 else rows

    def draws(self, generator: torch.Generator | None) -> rng.Draws:
        """Makes the draws for this process's rows."""
        return rng.Draws(generator, self.rank, self.size)

    def check_batch(self, batch: int, group: int) -> None:
        """Raises `UsageFailure` (exit code 2) unless processes get whole minibatch-std groups."""
        whole = min(group, batch) * self.size
        if batch % whole:
            raise UsageFailure(
                f"a batch of {batch} in {self.size} process(es) with minibatch-std groups of "
                f"{min(group, batch)} must be a multiple of {whole}",
                remedy="another --batch, or another number of processes",
            )

    def reduce_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the processes, in one all-reduce."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with self._hearing():
            distributed.all_reduce(flat)
        flat /= self.size
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def sum(self, values: Tensor) -> Tensor:
        """Sums `values` over the processes; the gradient does not flow."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        with self._hearing():
            distributed.all_reduce(total)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """Averages `values` over the processes; the gradient does not flow."""
        return values if self.size == 1 else self.sum(values) / self.size

    def all_rows(self, rows: Tensor) -> Tensor:
        """Collects the rows of the whole batch [N, ...] in order, differentiable in all of them.

        A loss of all rows is the same in every process. The mean over the processes of its
        gradients is then the gradient in one process.
        """
        if self.size == 1:
            return rows
        whole: Tensor = _AllRows.apply(rows, self)
        return whole

    def any(self, flag: bool) -> bool:
        """Tells if the flag is set in any process."""
        return self.each(flag)[0]

    def each(self, *flags: bool) -> tuple[bool, ...]:
        """Tells of each flag if it is set in any process."""
        if self.size == 1:
            return flags
        counted = self.sum(torch.tensor(flags, dtype=torch.float32, device=self._device()))
        return tuple(count > 0 for count in counted.tolist())

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            with self._hearing():
                distributed.barrier()

    def check_same(self, named: Iterable[tuple[str, Tensor]]) -> None:
        """Fails (our bug, exit code 1), naming a tensor, if the processes hold different ones.

        NaN agrees with NaN.
        """
        if self.size == 1:
            return
        sums = {name: tensor.detach().double().sum() for name, tensor in named}
        names, found = list(sums), torch.stack(list(sums.values()))
        # Compared by their bits: a minimum of a number and NaN may be either.
        low = torch.where(found.isnan(), torch.nan, found).view(torch.int64)
        high = low.clone()
        with self._hearing():
            distributed.all_reduce(low, distributed.ReduceOp.MIN)
            distributed.all_reduce(high, distributed.ReduceOp.MAX)
        apart = torch.nonzero(low != high).flatten().tolist()
        if apart:
            raise Failure(
                f"the {self.size} processes of this training hold different weights, in "
                f"{len(apart)} of {len(names)} tensors, first {names[apart[0]]}"
            )

    def gather(self, rows: Tensor) -> list[Tensor]:
        """Collects the rows of every process, in their order; the gradient does not flow."""
        if self.size == 1:
            return [rows]
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        with self._hearing():
            distributed.all_gather(parts, rows.contiguous())
        return parts

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """Raises `MissingEnvironment` (exit code 4) if another process ended or stays silent."""
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise MissingEnvironment(
                f"process {self.rank} of {self.size} no longer hears the others: "
                + f"{error}".partition("\n")[0],
                remedy="look at their last messages; the same command, in as many processes, goes "
                "on from the saved state",
            ) from error

    def _device(self) -> torch.device:
        nccl = distributed.get_backend() == "nccl"
        return torch.device("cuda" if nccl else "cpu")


class _AllRows(torch.autograd.Function):
    """`World.all_rows`: the gradient of own rows is the sum of their gradients in all processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        ctx.world = world
        return torch.stack(world.gather(rows), dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.world.own(ctx.world.sum(gradients[0])), None


@contextmanager
def joined(device: str, stop: StopRequest = NEVER) -> Iterator[World]:
    """Joins the world that torchrun's environment describes, for as long as the context lasts.

    Without torchrun it is a world of one. `device` "cuda" takes the GPU of LOCAL_RANK and NCCL,
    else gloo. `stop` ends the wait for the others. A process whose torchrun ends is told to stop.
    """
    if not several():
        yield World()
        return
    size, rank = number_in("WORLD_SIZE", 1), number_in("RANK", 0)
    if rank >= size:
        raise UsageFailure(
            f"RANK={rank} is no process of WORLD_SIZE={size}: they count from 0", remedy=_TOGETHER
        )
    if by_torchrun():
        # If torchrun dies by a signal that it does not handle, its processes would train on.
        end_with_parent()
    # Its functions take the process group at the time of import as a default. Imported later, by
    # the first step of Adam, they would keep its threads until the interpreter ends; a thread that
    # comes too late there aborts a process that has finished.
    importlib.import_module("torch.distributed.nn")
    own = None
    try:
        if device.startswith("cuda"):
            own = torch.device("cuda", number_in("LOCAL_RANK", 0))
            torch.cuda.set_device(own)
            # Otherwise a lost process ends the others by SIGABRT, before they can stop cleanly.
            os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        backend = "gloo" if own is None else "nccl"
        distributed.init_process_group(
            backend,
            timeout=_PATIENCE,
            device_id=own,
            store=_meeting(rank, size, stop),
            rank=rank,
            world_size=size,
        )
    except (RuntimeError, ValueError, TimeoutError) as error:
        failure = MissingEnvironment(
            f"process {rank} of {size} could not join the others: " + f"{error}".partition("\n")[0],
            remedy=_TOGETHER,
        )
        failure.of_one_process = True
        raise failure from error
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    except MissingEnvironment as error:
        error.of_one_process = True
        raise
    finally:
        distributed.destroy_process_group()


_TOGETHER = (
    "start all of them with torchrun, on a GPU at most one for each GPU, and look at the messages "
    "of the others"
)


def _meeting(rank: int, size: int, stop: StopRequest) -> distributed.Store:
    """Waits until all processes have reported, and returns their common store.

    `MissingEnvironment` (exit code 4) names those that do not report within `_START`. A process
    group would only count them, and would hear no signal while it waits.
    """
    host, port = os.environ.get("MASTER_ADDR", "localhost"), number_in("MASTER_PORT", 29500)
    # torchrun may keep the store itself.
    keeps = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    who = f"process {rank} of {size} waited {_START.total_seconds():g} s for"
    if not (keeps or _comes_true(lambda: _listens(host, port), stop)):
        raise MissingEnvironment(f"{who} process 0 at {host}:{port}", remedy=_TOGETHER)
    store = distributed.TCPStore(
        host, port, is_master=keeps, timeout=_START, wait_for_workers=False, multi_tenant=True
    )
    there = [f"stylegan-mix/there/{one}" for one in range(size)]
    store.set(there[rank], "")
    if not _comes_true(lambda: store.check(there), stop):
        missing = [f"{one}" for one in range(size) if not store.check([there[one]])]
        raise MissingEnvironment(
            f"{who} others that never came: {', '.join(missing)}", remedy=_TOGETHER
        )
    return store


def _comes_true(condition: Callable[[], bool], stop: StopRequest) -> bool:
    """Waits for a condition up to `_START`; raises the failure of `stop` if that comes first."""
    until = time.monotonic() + _START.total_seconds()
    while not condition():
        if stop.requested:
            raise stop.failure(saved=False, what="the processes had not met")
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
