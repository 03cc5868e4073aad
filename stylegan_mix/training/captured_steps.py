"""Steps that are captured once and repeated: on a GPU as graphs, on a CPU as lists of operators.

Steps with the same `Due` run the same operators. So each kind of step is one graph: both phases,
their backward passes and the optimisers. Values that change between steps go through a `Tape`. The
first steps of a kind run as usual, the next is recorded on a tape, and the one after that is
captured. On a GPU a graph is one launch. On a CPU it is thousands, but without autograd and
modules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stylegan_mix.progress import say
from stylegan_mix.training.operator_lists import OperatorLists
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step import Due, Facts, play
from stylegan_mix.training.step_inputs import Game
from stylegan_mix.training.step_values import Tape

__all__ = ["CudaGraphs", "GraphedPlayer", "Recorder", "player_of"]

# Steps of a kind before one is recorded: libraries choose their algorithms in the first.
_WARM = 2
# Largest difference between the losses of a first replay and of the step itself. They differ in the
# order of sums, on a GPU even between two runs.
_RELATIVE, _ABSOLUTE = 0.02, 0.01
# Shares of a batch, which are not compared: a single logit near 0 moves them by more than that.
_COUNTED = ("sign_real", "sign_fake")


class Recorder(Protocol):
    """A device's way to make graphs."""

    def warm(self, run: Callable[[], Facts]) -> Facts:
        """Runs in a way that allows to capture it later."""
        ...

    def capture(self, run: Callable[[], Facts]) -> Callable[[], Facts]:
        """Returns a function that repeats the operators of `run` on the same memory.

        A recorder may run them in doing so, and so change their tensors, or may not. RuntimeError
        if `run` cannot be captured.
        """
        ...

    def agree(self, name: str, replayed: Tensor, played: Tensor) -> bool:
        """Compares a fact of a step, as exactly as two runs of the device allow."""
        ...


class CudaGraphs:
    """Graphs of one GPU; they share a pool of memory, since only one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._aside = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm(self, run: Callable[[], Facts]) -> Facts:
        """Runs on a stream of its own.

        Autograd remembers streams, and a capture cannot use the default one.
        """
        main = torch.cuda.current_stream()
        self._aside.wait_stream(main)
        with torch.cuda.stream(self._aside):
            facts = run()
        main.wait_stream(self._aside)
        return facts

    def capture(self, run: Callable[[], Facts]) -> Callable[[], Facts]:
        """Captures a `torch.cuda.CUDAGraph` of `run`."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._aside):
            facts = run()

        def replay() -> Facts:
            graph.replay()
            return {name: fact.clone() for name, fact in facts.items()}

        return replay

    def agree(self, name: str, replayed: Tensor, played: Tensor) -> bool:
        """Compares a fact within tolerances; shares of a batch always agree."""
        return name in _COUNTED or torch.allclose(replayed, played, rtol=_RELATIVE, atol=_ABSOLUTE)


@dataclass
class _Kind:
    """The progress of one kind of step towards its graph."""

    seen: int = 0
    tape: Tape | None = None
    replay: Callable[[], Facts] | None = None


class GraphedPlayer:
    """A player like `step.play`, which replays a graph from the fifth step of a kind on.

    Two steps run as usual, the third is recorded, the fourth is captured and compared with the step
    itself. If capturing fails or the two disagree, one message says so and all later steps run as
    usual.

    A graph writes to the memory that it was captured with. So a training whose state was replaced
    needs a new player.
    """

    def __init__(self, recorder: Recorder, say: Callable[[str], None] = say) -> None:
        self._recorder, self._say = recorder, say
        self._kinds: dict[Due, _Kind] = {}
        self.failure: str | None = None

    def __call__(self, state: TrainState, game: Game) -> Facts:
        """Plays the phases of a step, in place; returns facts to log."""
        if self.failure:
            return play(state, game)
        kind = self._kinds.setdefault(Due.at(state.step, game), _Kind())
        kind.seen += 1
        if kind.seen <= _WARM:
            return self._recorder.warm(lambda: play(state, game))
        if kind.tape is None:
            kind.tape = Tape(state.step)
            taped = dataclasses.replace(game, tape=kind.tape)
            return self._recorder.warm(lambda: play(state, taped))
        if kind.replay is None:
            return self._first_replay(kind, kind.tape, state, game)
        kind.tape.refill(state.step)
        return kind.replay()

    def _first_replay(self, kind: _Kind, tape: Tape, state: TrainState, game: Game) -> Facts:
        """Captures a step whose tape is ready, compares both ways, and takes the usual one.

        The captured step is an earlier one of the kind. If its graph had frozen a draw or a number,
        the two would disagree.
        """
        taped = dataclasses.replace(game, tape=tape)

        def run() -> Facts:
            tape.rewind()
            return play(state, taped)

        tensors = list(_changing(state))
        before = [tensor.detach().clone() for tensor in tensors]
        found: Facts = {}
        try:
            state.step, now = tape.step, state.step
            try:
                replay = self._recorder.capture(run)
            finally:
                state.step = now
                tape.refill(now)
            _put_back(tensors, before)
            found = {**replay(), **_sizes(state)}
        except RuntimeError as error:
            self._give_up(state, f"{error}".partition("\n")[0])
        _put_back(tensors, before)
        facts = self._recorder.warm(run)
        expected = {**facts, **_sizes(state)}
        for name, value in found.items():
            if not self._recorder.agree(name, value, expected[name]):
                self._give_up(state, f"{name} was {float(value)}, not {float(expected[name])}")
                break
        if not self.failure:
            kind.replay = replay
        return facts

    def _give_up(self, state: TrainState, reason: str) -> None:
        self.failure = self.failure or reason
        self._kinds.clear()
        for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
            optimizer.zero_grad(set_to_none=True)
        state.discriminator.requires_grad_(True)
        self._say(f"steps run as usual, and are not replayed: {reason}")


def player_of(
    game: Game, graphs: bool, say: Callable[[str], None] = say
) -> Callable[[TrainState, Game], Facts]:
    """Chooses the player of a training: one that replays steps, if a single process trains.

    With more processes, or without `graphs`, it is the usual one. If steps cannot be replayed,
    `say` is told the reason.
    """
    if not graphs or game.world.size > 1:
        return play
    recorder = CudaGraphs(game.device) if game.device.type == "cuda" else OperatorLists()
    return GraphedPlayer(recorder, say)


def _changing(state: TrainState) -> Iterator[Tensor]:
    """Lists every tensor that the phases of a step change in place."""
    for network in (state.generator, state.discriminator):
        yield from network.parameters()
        yield from network.buffers()
    for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
        for known in optimizer.state.values():
            yield from (value for value in known.values() if isinstance(value, Tensor))
    yield from state.running.values()


@torch.no_grad()
def _put_back(tensors: list[Tensor], before: list[Tensor]) -> None:
    torch._foreach_copy_(tensors, before)


@torch.no_grad()
def _sizes(state: TrainState) -> Facts:
    """Computes the norm of all parameters of each network, to compare two ways of training."""
    networks = {"generator": state.generator, "discriminator": state.discriminator}
    return {
        f"size of the {name}": torch.stack(torch._foreach_norm(list(network.parameters()))).sum()
        for name, network in networks.items()
    }
