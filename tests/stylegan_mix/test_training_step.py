"""One step of the game under every switch: what it draws, what it moves, what it logs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import SCHEDULED, SWITCHES, small_game, small_preset

from stylegan_mix import datasets, rng
from stylegan_mix.datasets.class_weights import inverse_effective_number
from stylegan_mix.presets import PRESETS, Preset
from stylegan_mix.training import captured_steps, step, step_inputs
from stylegan_mix.training.captured_steps import CudaGraphs, GraphedPlayer
from stylegan_mix.training.ema import ema_decay
from stylegan_mix.training.operator_lists import OperatorLists
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step import train_step
from stylegan_mix.training.step_inputs import Game
from stylegan_mix.training.step_values import Tape
from stylegan_mix.world import World

CPU = torch.device("cpu")
# Only a column of the table sets these.
UNASKED = {"z_dim", "w_dim", "minibatch_std_group"}


def _after(steps: int, **changes: Any) -> tuple[TrainState, dict[str, torch.Tensor]]:
    state, game = small_game(small_preset(**changes))
    facts: dict[str, torch.Tensor] = {}
    for _ in range(steps):
        facts |= train_step(state, game)
    return state, facts


def test_float16_bounds_gradients_and_tells_what_share_it_lost() -> None:
    network = torch.nn.Linear(3, 1)
    network.weight.grad = torch.tensor([[float("inf"), float("-inf"), float("nan")]])
    network.bias.grad = torch.tensor([2.0])
    assert float(step._bound_gradients(network)) == 0.75
    assert network.weight.grad.tolist() == [[1e5, -1e5, 0.0]]
    assert network.bias.grad.tolist() == [2.0]


def test_r1_in_the_pass_on_reals_gives_the_gradients_of_passes_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gradients(merged: bool) -> dict[str, torch.Tensor]:
        """Those of the discriminator, summed over what it is stepped by at the first step."""
        found: dict[str, torch.Tensor] = {}
        steps = []

        def noted(player: str, _: Game, network: torch.nn.Module, optimizer: Any) -> dict:
            if player == "d":
                steps.append(player)
                for name, weight in network.named_parameters():
                    if weight.grad is not None:
                        found[name] = found.get(name, 0) + weight.grad.clone()
            optimizer.zero_grad(set_to_none=True)
            return {}

        monkeypatch.setattr(step, "_step", noted)
        _after(1, merged_r1=merged, r1_gamma=3.0, r1_interval=5)
        assert len(steps) == (1 if merged else 2)
        return found

    torch.testing.assert_close(gradients(True), gradients(False), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_changes_the_training_and_keeps_it_finite(name: str) -> None:
    plain, _ = _after(6)
    other, facts = _after(6, **SWITCHES[name])
    assert all(torch.isfinite(value) for value in facts.values())
    assert not torch.equal(
        plain.generator.synthesis.b8.conv0.weight, other.generator.synthesis.b8.conv0.weight
    )


def test_all_that_can_be_combined_trains_together_and_logs_what_it_adds() -> None:
    combined: dict[str, Any] = {}
    for name, changes in SWITCHES.items():
        if name not in ("transition", "growing", "probe", "ada", "diffaugment"):
            combined |= changes
    _, facts = _after(5, **combined)
    assert {"twins", "gsr", "path_length", "r1", "sign_real"} <= set(facts)
    assert all(torch.isfinite(value) for value in facts.values())


def test_twins_share_z_and_class_and_differ_in_their_noise() -> None:
    state, game = small_game(small_preset(twins=0.01))
    latents = step._latents(state, game, "g", 16)
    assert latents.twins
    assert torch.equal(latents.z[:8], latents.z[8:])
    assert torch.equal(latents.labels[:8], latents.labels[8:])
    assert len(torch.unique(latents.z, dim=0)) == 8
    w = step._fakes(state, game, "g", latents).w
    assert not torch.allclose(w[:8], w[8:])
    assert not step._latents(state, game, "d", 16).twins
    later, game = small_game(small_preset(twins=0.01, twins_kimg=1.0))
    assert not step._latents(later, game, "g", 16).twins


def test_twins_are_compared_before_their_styles_are_mixed() -> None:
    state, game = small_game(small_preset(twins=0.01, style_mixing=1.0))
    state.generator.mapping.label_noise = 0.0
    latents = step._latents(state, game, "g", 16)
    fakes = step._fakes(state, game, "g", latents)
    assert torch.equal(fakes.w[:8], fakes.w[8:])
    assert not torch.allclose(fakes.ws[:8, -1], fakes.ws[8:, -1])


def test_mixed_styles_are_one_w_up_to_a_layer_and_another_of_the_class_from_there() -> None:
    state, game = small_game(small_preset(style_mixing=1.0, label_noise=0.0))
    latents = step._latents(state, game, "g", 16)
    plain = state.generator.ws(latents.z, latents.labels)
    mixed = step._mixed_styles(state, game, "g", latents, plain)
    same = (mixed == plain).all(dim=2)
    first_other = same.long().sum(dim=1)
    assert same[:, 0].all()
    assert not same[:, -1].any()
    assert set(first_other.tolist()) == {1, 2, 3}
    for row, first in enumerate(first_other.tolist()):
        assert (mixed[row, first:] == mixed[row, -1]).all()
    state, game = small_game(small_preset())
    assert step._mixed_styles(state, game, "g", latents, plain) is plain


def test_noise_on_the_label_grows_with_rarity_in_both_networks() -> None:
    state, _ = small_game(small_preset(noise_beta=0.99, critic_label_noise=0.5))
    counts = datasets.load("digits_lt").counts
    expected = torch.from_numpy(inverse_effective_number(counts, 0.99)).float()
    for mapping in (state.generator.mapping, state.discriminator.mapping):
        torch.testing.assert_close(mapping.label_noise_scale, expected)
    assert state.discriminator.mapping.label_noise == 0.5
    assert "mapping.label_noise_scale" not in state.generator.state_dict()


def test_every_average_has_its_own_half_life() -> None:
    preset = small_preset(more_ema="0.05,1000", ema_ramp=0.0)
    state, game = small_game(preset)
    weights = [state.generator.mapping.fc0.weight.detach().clone()]
    for _ in range(4):
        train_step(state, game)
        weights.append(state.generator.mapping.fc0.weight.detach().clone())
    for average, kimg in state.averages(preset):
        expected = weights[0]
        for now in weights[1:]:
            expected = expected.lerp(now, 1 - ema_decay(16, 10**9, kimg * 1000, 0.0))
        torch.testing.assert_close(average.mapping.fc0.weight.detach(), expected)
    assert len(state.averages(preset)) == 3


def test_lecam_remembers_the_usual_logits_and_begins_when_told() -> None:
    state, game = small_game(small_preset(lecam=0.3))
    train_step(state, game)
    assert float(state.running["lecam.real"]) != 0
    logits = torch.tensor([2.0, -1.0])
    seen: list[torch.Tensor] = []

    def penalty(given: torch.Tensor, usual: torch.Tensor) -> torch.Tensor:
        seen.append(usual)
        return given

    assert float(step._lecam(state, game, "real", logits, penalty)) == pytest.approx(0.3 * 0.5)
    torch.testing.assert_close(seen[0], state.running["lecam.real"] / 0.01, rtol=1e-4, atol=0)
    waiting = dataclasses.replace(game, preset=small_preset(lecam=0.3, lecam_kimg=1.0))
    assert step._lecam(state, waiting, "real", logits, penalty) == 0.0


def test_the_label_fades_in_and_the_average_keeps_how_far() -> None:
    preset = small_preset(transition_start=0.032, transition_end=0.096)
    state, game = small_game(preset)
    shares = []
    for _ in range(8):
        train_step(state, game)
        shares.append(float(state.average.mapping.transition))
    assert shares == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1])


def test_adaptive_strength_rises_for_the_groups_whose_reals_are_known() -> None:
    preset = small_preset(augment="ada", ada_kimg=0.64, ada_groups="shot", real_power=0.0)
    state, game = small_game(preset)
    assert state.running["ada.p"].tolist() == [0, 0, 0]
    groups = game.groups.tolist()
    assert groups == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    calm, rare = torch.tensor([0, 3]), torch.tensor([9])
    for _ in range(4):
        step.observe(state.running, -torch.ones(2), game.groups[calm])
        step.observe(state.running, torch.ones(8), game.groups[rare.repeat(8)])
    step.adjust(state.running, game.feedback, batch=16)
    p = step._strength(state, game, torch.tensor([0, 3, 9]))
    np.testing.assert_allclose(p, [0, 0, 0.1], atol=1e-6)


def test_r1_is_applied_lazily_and_a_published_interval_corrects_the_optimiser() -> None:
    _, facts = _after(1)
    assert "r1" in facts
    state, game = small_game(small_preset())
    train_step(state, game)
    assert "r1" not in train_step(state, game)
    # The published `cifar` rates are .002 and .0023529
    cifar = dataclasses.replace(
        PRESETS["cifar"], channel_base=64, channel_max=8, precision="float32"
    )
    state = TrainState.fresh(
        cifar, resolution=32, channels=3, counts=np.ones(2), seed=0, device=CPU
    )
    g, d = (o.param_groups[0] for o in (state.generator_optimizer, state.discriminator_optimizer))
    assert (g["lr"], d["lr"]) == pytest.approx((0.002, 0.0023529), rel=1e-4)
    assert (g["betas"][1], d["betas"][1]) == pytest.approx((0.99199, 0.990585), rel=1e-5)


def test_without_a_weight_there_is_no_r1_and_no_step_for_it() -> None:
    state, facts = _after(2, r1_gamma=0.0)
    assert "r1" not in facts
    (steps,) = {int(known["step"]) for known in state.discriminator_optimizer.state.values()}
    assert steps == 2


@pytest.mark.parametrize(("precision", "finite"), [("float16", True), ("bfloat16", False)])
def test_a_gradient_that_float16_cannot_hold_does_not_end_in_the_weights(
    monkeypatch: pytest.MonkeyPatch, precision: str, finite: bool
) -> None:
    state, rules = small_game(small_preset(precision=precision))

    def overflows(parameters: Iterator[torch.nn.Parameter]) -> None:
        grad = next(parameters).grad
        assert grad is not None
        grad.view(-1)[:3] = torch.tensor([torch.inf, -torch.inf, torch.nan])

    monkeypatch.setattr(World, "reduce_gradients", lambda self, parameters: overflows(parameters))
    assert state.is_finite()
    train_step(state, rules)
    assert state.is_finite() is finite


def test_every_option_of_the_command_is_a_field_of_thesmall_preset() -> None:
    from stylegan_mix.commands.train import _CHANGES

    fields = {field.name for field in dataclasses.fields(Preset)}
    assert {name for name, _, _ in _CHANGES} == fields - {"name", "resolution", "kimg"} - UNASKED


class Frozen:
    """Records as a GPU does: what is replayed runs at the step it was captured at, for ever.

    And as on a GPU, nothing makes a generator of random numbers inside.
    """

    def __init__(self, state: TrainState) -> None:
        self.state, self.replays = state, 0

    def warm(self, run: Callable[[], step.Facts]) -> step.Facts:
        return run()

    def capture(self, run: Callable[[], step.Facts]) -> Callable[[], step.Facts]:
        captured = self.state.step

        def replay() -> step.Facts:
            now, self.state.step = self.state.step, captured
            self.replays += 1
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch, "Generator", None)
                facts = run()
            self.state.step = now
            return facts

        return replay

    agree = CudaGraphs.agree


@pytest.mark.parametrize("name", ["nothing", *SWITCHES])
def test_a_replayed_step_is_the_step_whatever_changes_between_steps(name: str) -> None:
    changes = {"r1_interval": 4, **SWITCHES.get(name, {}), **SCHEDULED.get(name, {})}
    plain, rules = small_game(small_preset(**changes))
    graphed, _ = small_game(small_preset(**changes))
    recorder = Frozen(graphed)
    player = GraphedPlayer(recorder)
    for _ in range(26):
        facts, expected = train_step(graphed, rules, player), train_step(plain, rules)
        assert facts.keys() == expected.keys()
        assert all(torch.equal(facts[key], expected[key]) for key in facts)
    assert player.failure is None
    assert recorder.replays >= 8
    for one, other in ((plain.generator, graphed.generator), (plain.average, graphed.average)):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key
    assert all(torch.equal(value, graphed.running[key]) for key, value in plain.running.items())


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["nothing", *SWITCHES])
def test_a_gpu_replays_steps_as_graphs_and_trains_as_without(name: str) -> None:
    device, data = torch.device("cuda"), datasets.load("digits_lt")
    preset = small_preset(r1_interval=4, **SWITCHES.get(name, {}), **SCHEDULED.get(name, {}))
    plain, rules = step_inputs.begin(preset, data, seed=0, device=device)
    graphed, _ = step_inputs.begin(preset, data, seed=0, device=device)
    player = GraphedPlayer(CudaGraphs(device))
    for _ in range(26):
        facts, expected = train_step(graphed, rules, player), train_step(plain, rules)
        assert facts.keys() == expected.keys()
    assert player.failure is None
    for key, value in plain.generator.state_dict().items():
        torch.testing.assert_close(
            graphed.generator.state_dict()[key], value, rtol=0.05, atol=0.01, msg=key
        )


def _crosses(name: str, tensors: list[torch.Tensor]) -> bool:
    """Whether an operator lies between the CPU and another device, or waits for a number."""
    devices = {t.device.type for t in tensors if t.ndim or "copy" in name}
    return len(devices) > 1 or name == "aten._local_scalar_dense.default"


@pytest.mark.parametrize("name", ["nothing", *SWITCHES])
def test_what_a_gpu_captures_stays_on_it_and_waits_for_no_number(
    monkeypatch: pytest.MonkeyPatch, name: str, dispatched: type
) -> None:
    monkeypatch.setenv("KERNELS", "reference")
    # A device without memory, for which Adam has no fused step and torch no generator.
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)
    monkeypatch.setattr(Game, "draws", lambda self, *_: self.tape.answered(rng.Draws()))
    preset = small_preset(r1_interval=1, **SWITCHES.get(name, {}))
    data = datasets.load("digits_lt")
    state, rules = step_inputs.begin(preset, data, seed=0, device=torch.device("meta"))
    tape = Tape(state.step)
    taped = dataclasses.replace(rules, tape=tape)
    with dispatched() as recorded:
        step.play(state, taped)
    tape.rewind()
    with dispatched() as captured:
        step.play(state, taped)
    # Rows and labels come from the CPU.
    assert sum(_crosses(*one) for one in recorded.calls) >= 2
    assert [one.name for one in captured.calls if _crosses(*one)] == []


@pytest.mark.parametrize(("fact", "given_up"), [("sign_fake", False), ("loss_g", True)])
def test_one_logit_of_another_sign_gives_no_graph_up_and_another_loss_does(
    monkeypatch: pytest.MonkeyPatch, fact: str, given_up: bool
) -> None:
    state, rules = small_game(small_preset())
    recorder = Frozen(state)
    capture = recorder.capture

    def differs(run: Callable[[], step.Facts]) -> Callable[[], step.Facts]:
        replay = capture(run)
        return lambda: {k: v + 2 / 16 if k == fact else v for k, v in replay().items()}

    monkeypatch.setattr(recorder, "capture", differs)
    player = GraphedPlayer(recorder)
    for _ in range(6):
        train_step(state, rules, player)
    assert (player.failure is not None) is given_up


def test_a_number_that_a_graph_would_freeze_is_found_at_its_first_replay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def frozen(self: Game, step: int, of: Callable[[int], float]) -> torch.Tensor:
        return torch.tensor(of(step))

    monkeypatch.setattr(Game, "number", frozen)
    preset = small_preset(augment="ada", strength="1", ada_kimg=0.05)
    state, rules = small_game(preset)
    recorder = Frozen(state)
    player = GraphedPlayer(recorder)
    monkeypatch.setattr(captured_steps, "_RELATIVE", 0.0)
    monkeypatch.setattr(captured_steps, "_ABSOLUTE", 1e-6)
    for _ in range(6):
        train_step(state, rules, player)
    assert player.failure is not None
    assert "steps run as usual, and are not replayed: " in capsys.readouterr().err


def test_where_nothing_can_be_captured_training_goes_on_as_usual(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, rules = small_game(small_preset())
    state, _ = small_game(small_preset())
    recorder = Frozen(state)

    def fails(run: Callable[[], step.Facts]) -> Callable[[], step.Facts]:
        run()  # changes everything before it fails
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(recorder, "capture", fails)
    player = GraphedPlayer(recorder)
    for _ in range(7):
        train_step(state, rules, player)
        train_step(plain, rules)
    said = capsys.readouterr().err
    assert said.count("operation not permitted when stream is capturing") == 1
    for key, value in plain.discriminator.state_dict().items():
        assert torch.equal(value, state.discriminator.state_dict()[key]), key


def test_only_one_process_replays_steps_and_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    _, rules = small_game(small_preset())
    monkeypatch.setattr(captured_steps, "CudaGraphs", lambda device: device)
    gpu = dataclasses.replace(rules, device=torch.device("cuda"))
    for own, kind in ((rules, OperatorLists), (gpu, torch.device)):
        player = captured_steps.player_of(own, graphs=True)
        assert isinstance(player, GraphedPlayer)
        assert isinstance(player._recorder, kind)
        assert captured_steps.player_of(own, graphs=False) is step.play
        two = dataclasses.replace(own, world=World(rank=0, size=2))
        assert captured_steps.player_of(two, graphs=True) is step.play
