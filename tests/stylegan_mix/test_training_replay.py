"""Steps that a CPU replays: the bits of the steps themselves, and what cannot be replayed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import SCHEDULED, SWITCHES, StopAfter, small_game, small_preset, tiny_plan
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from kernels.registration import short_way
from stylegan_mix.errors import Stopped
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals
from stylegan_mix.training import captured_steps, operator_lists
from stylegan_mix.training.captured_steps import GraphedPlayer
from stylegan_mix.training.operator_lists import OperatorLists
from stylegan_mix.training.run import run_training
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step import Facts, train_step
from stylegan_mix.training.step_inputs import Game

WIDE = {"channel_base": 128, "channel_max": 16}
# The compiled convolution takes 16 channels and more, in float32.
REPLAYED: dict[str, dict[str, Any]] = {
    "nothing": {},
    **SWITCHES,
    "every average": {"more_ema": "0.05,1000", "ema_ramp": 0.0},
    "16 channels": {**WIDE, "path_weight": 2.0, "path_interval": 2},
    "bfloat16": {**WIDE, "precision": "bfloat16", "path_weight": 2.0, "path_interval": 2},
    "float16": {"precision": "float16"},
}


def _player(game: Game) -> GraphedPlayer:
    player = captured_steps.player_of(game, graphs=True)
    assert isinstance(player, GraphedPlayer)
    return player


def _replays(player: GraphedPlayer) -> int:
    """How many steps a player has replayed, as it counts them: all after the fourth of a kind."""
    return sum(max(kind.seen - 4, 0) for kind in player._kinds.values() if kind.replay)


def _same(one: Any, two: Any) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in zip(tree_leaves(one), tree_leaves(two), strict=True)
    )


def _replaying(**changes: Any) -> tuple[TrainState, Game, GraphedPlayer]:
    """A training that has come to the replay of its plain steps."""
    state, game = small_game(small_preset(r1_interval=100, **changes))
    player = _player(game)
    for _ in range(6):
        train_step(state, game, player)
    assert _replays(player) == 1
    return state, game, player


def _check_replayed(changes: dict[str, Any], steps: int = 26) -> None:
    plain, game = small_game(small_preset(**changes))
    replayed, _ = small_game(small_preset(**changes))
    player = _player(game)
    for _ in range(steps):
        facts, expected = train_step(replayed, game, player), train_step(plain, game)
        assert facts.keys() == expected.keys()
        assert all(torch.equal(facts[key], expected[key]) for key in facts)
    assert player.failure is None
    assert _replays(player) >= 8
    assert _same(replayed.state_dict(), plain.state_dict())


@pytest.mark.parametrize("name", REPLAYED)
def test_a_replayed_training_has_the_bits_of_the_training(name: str) -> None:
    _check_replayed({"r1_interval": 4, **REPLAYED[name], **SCHEDULED.get(name, {})})


def test_operators_of_pytorch_are_replayed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "reference")
    _check_replayed({"r1_interval": 4, **WIDE, "path_weight": 2.0, "path_interval": 2})


def test_a_training_that_is_replayed_and_stopped_is_published_with_the_same_bits(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(merged_r1=True)
    with StopSignals() as stop:
        (played,) = run_training(plan, Session(stop), graphs=False)
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "second"))
    with pytest.raises(Stopped):
        run_training(plan, Session(StopAfter(9)))
    with StopSignals() as stop:
        (replayed,) = run_training(plan, Session(stop))
    assert replayed.hash == played.hash


# --------------------------------------------------------------------- around a replay


def _profiled() -> AbstractContextManager[Any]:
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])


@pytest.mark.parametrize("around", [_profiled, torch.inference_mode, torch.no_grad, nullcontext])
def test_what_surrounds_a_replay_changes_nothing(
    around: Callable[[], AbstractContextManager[Any]],
) -> None:
    state, game, player = _replaying()
    plain, _, other = _replaying()
    for _ in range(2):
        with around():
            facts = player(state, game)
        assert _same(facts, other(plain, game))
    assert _same(state.state_dict(), plain.state_dict())


def test_a_profiler_sees_the_operators_of_a_replay_by_name() -> None:
    state, game, player = _replaying(**WIDE)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as watched:
        player(state, game)
    names = {event.key for event in watched.key_averages()}
    ours = {"epilogue", "epilogue_backward", "upfirdn2d", "conv3x3", "conv3x3_gradient"}
    assert {f"kernels::{name}" for name in ours} | {"aten::_fused_adam_"} <= names


def test_our_operators_are_replayed_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def noted(operator: Any) -> Callable[..., Any]:
        short = short_way(operator)

        def call(*values: Any, **named: Any) -> Any:
            called.append(operator.name())
            return short(*values, **named)

        return operator if short is operator else call

    monkeypatch.setattr(operator_lists, "short_way", noted)
    state, game, player = _replaying(**WIDE)
    called.clear()
    player(state, game)
    assert {"kernels::epilogue", "kernels::upfirdn2d", "kernels::conv3x3"} <= set(called)


class Ends(TorchDispatchMode):
    """As Ctrl-C at an operator of a step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("steps", [4, 6])
def test_a_step_that_is_broken_off_leaves_the_player_as_it_was(steps: int) -> None:
    state, game = small_game(small_preset(r1_interval=100))
    plain, _ = small_game(small_preset(r1_interval=100))
    player = _player(game)
    for _ in range(steps):
        train_step(state, game, player)
        train_step(plain, game)
    tensors = list(captured_steps._changing(state))
    before = [tensor.detach().clone() for tensor in tensors]
    with pytest.raises(KeyboardInterrupt), Ends(1000):  # in the capture, in the replay
        player(state, game)
    assert torch._C._len_torch_dispatch_stack() == 0
    assert state.step == steps
    assert not _same(before, tensors)
    captured_steps._put_back(tensors, before)
    if steps == 4:  # as of any step that is broken off
        state.generator.zero_grad()
        state.discriminator.requires_grad_(True).zero_grad()
    assert all(p.grad is None for p in state.generator.parameters())
    assert all(p.requires_grad and p.grad is None for p in state.discriminator.parameters())
    for _ in range(4):
        assert _same(train_step(state, game, player), train_step(plain, game))
    assert player.failure is None
    assert _same(state.state_dict(), plain.state_dict())


class Peak(TorchDispatchMode):
    """The most bytes that lived at once of what was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.calls = 0, 0
        self.living: dict[StorageWeakRef, int] = {}
        self.given: set[StorageWeakRef] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.given |= self._storages(args).keys() - self.living.keys()
        result = func(*args, **(kwargs or {}))
        computed = self._storages(result)
        self.living |= {ref: computed[ref] for ref in computed.keys() - self.given}
        self.calls += 1
        self.living = {ref: size for ref, size in self.living.items() if not ref.expired()}
        self.bytes = max(self.bytes, sum(self.living.values()))
        return result

    @staticmethod
    def _storages(values: Any) -> dict[StorageWeakRef, int]:
        found = [v.untyped_storage() for v in tree_leaves(values) if isinstance(v, Tensor)]
        return {StorageWeakRef(storage): storage.nbytes() for storage in found}


def test_a_replay_needs_no_more_memory_and_fewer_operators_than_the_step() -> None:
    state, game, player = _replaying(batch=64)
    with Peak() as played:
        captured_steps.play(state, game)
    with Peak() as replayed:
        player(state, game)
    assert replayed.bytes <= played.bytes
    assert 0.5 * played.calls < replayed.calls < 0.9 * played.calls
    with Peak() as left:
        player(state, game)
        torch.zeros(1)
    assert sum(left.living.values()) <= 100


# --------------------------------------------------------------------- what is recorded


def _captured(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def named() -> Facts:
        return {"result": run()}

    again = OperatorLists().capture(named)
    return lambda: again()["result"]


def test_a_recording_reads_what_lies_in_memory_when_it_is_replayed() -> None:
    x, total = torch.ones(3), torch.zeros(3)

    def run() -> Tensor:
        y = x.expand(2, 3) * 2
        y[0] += 1
        total.add_(y[0])
        parts = torch.cat([y, *y.split(1)])
        return torch.stack([*parts.unbind(), x]).sum(dim=0)

    again = _captured(run)
    assert total.tolist() == [3, 3, 3]  # capturing runs
    x.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert again().tolist() == run().tolist() == [11, 20, 29]
    assert total.tolist() == [3 + 2 * 3, 3 + 2 * 5, 3 + 2 * 7]
    first, second = again(), again()
    assert first.data_ptr() != second.data_ptr()


def test_recording_holds_no_gradient_that_autograd_would_then_copy(dispatched: type) -> None:
    weight = torch.nn.Parameter(torch.ones(4))

    def run() -> Tensor:
        (weight * 3).square().sum().backward()
        gradient, weight.grad = weight.grad, None
        assert gradient is not None
        return gradient

    again = _captured(run)
    with dispatched() as seen:
        assert again().tolist() == [18] * 4
    names = [one.name for one in seen.calls]
    assert "aten.mul.Tensor" in names
    assert not {"aten.clone.default", "aten.detach.default"} & set(names)


def test_what_nobody_reads_is_not_computed_again(dispatched: type) -> None:
    x = torch.ones(3)

    def run() -> Tensor:
        x.exp().log()
        values, _ = (x * 2).sort()
        return values

    again = _captured(run)
    with dispatched() as seen:
        assert again().tolist() == [2, 2, 2]
    assert [one.name for one in seen.calls] == ["aten.mul.Tensor", "aten.sort.default"]


def _unseen(x: Tensor) -> Tensor:
    y = x * 2
    with _disable_current_modes():
        alias = y.detach()
    return alias + 1


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda x: x * float(x.sum()), "_local_scalar_dense.default reads a number"),
        (lambda x: x * x.equal(x), "aten.equal.default reads a number"),
        (lambda x: x + torch.randn(3), "aten.randn.default draws numbers"),
        (lambda x: torch.dropout(x, 0.5, train=True), "draws numbers"),
        (lambda x: (x * 2).unsqueeze_(0), "unsqueeze_.default changes the shape"),
        (lambda x: torch.add(x, 1, out=torch.zeros(3)), "add.out takes a tensor by name"),
        (_unseen, "shares memory with a computed one"),
    ],
)
def test_what_would_not_be_the_same_again_is_refused(
    run: Callable[[Tensor], Tensor], reason: str
) -> None:
    x = torch.ones(3)
    with pytest.raises(RuntimeError, match=reason):
        _captured(lambda: run(x))


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("labels", lambda self, name, step, batch: torch.arange(batch) * step % 10),
        ("number", lambda self, step, of: torch.tensor(of(step))),
    ],
)
def test_what_a_list_would_freeze_is_found_and_the_training_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, frozen: Any
) -> None:
    monkeypatch.setattr(Game, name, frozen)
    preset = small_preset(augment="ada", strength="1", ada_kimg=0.3, r1_interval=100)
    state, game = small_game(preset)
    plain, _ = small_game(preset)
    player = _player(game)
    for _ in range(7):
        train_step(state, game, player)
        train_step(plain, game)
    assert capsys.readouterr().err.count("steps run as usual, and are not replayed: ") == 1
    assert player.failure
    assert _same(state.state_dict(), plain.state_dict())


def test_a_fact_must_have_the_same_bits_and_no_number_is_itself() -> None:
    agree, one = OperatorLists().agree, torch.tensor(1.0)
    assert agree("loss_g", one, one.clone())
    assert not agree("sign_fake", one, one + 1e-6)
    assert agree("loss_g", one * torch.nan, one * torch.nan)
    assert not agree("loss_g", one, one * torch.nan)
