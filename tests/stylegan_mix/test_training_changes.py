"""Changes of a training that save time or change the game: growing, a small critic, the probe."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import StopAfter, small_game, small_preset, tiny_plan

from kernels import upfirdn2d
from stylegan_mix import datasets, store
from stylegan_mix.errors import Stopped, UsageFailure
from stylegan_mix.estimates import Span
from stylegan_mix.metrics.probe import SmallNet, find_probe
from stylegan_mix.networks import Discriminator, Generator
from stylegan_mix.presets import PRESETS
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals
from stylegan_mix.training import cost, preset_checks, run
from stylegan_mix.training.disk_room import disk_bytes
from stylegan_mix.training.memory import least_bytes
from stylegan_mix.training.pace import Pace, pace_of
from stylegan_mix.training.probe_features import PROBE_SEED, features_of, multiplications
from stylegan_mix.training.run import run_training
from stylegan_mix.training.schedules import half_steps, is_half, warming_share
from stylegan_mix.training.step import train_step

Run = Callable[..., tuple[int, str, str]]

SMALL = {"resolution": 16, "image_channels": 2, "classes": 3, "channel_base": 64, "channel_max": 8}
LABEL = torch.tensor([0, 1, 2, 0])


def generator(**changes: Any) -> Generator:
    torch.manual_seed(0)
    network = Generator(z_dim=6, w_dim=6, **{**SMALL, **changes}).eval()
    return network.requires_grad_(False)


def discriminator(*, grows: bool = False, **changes: Any) -> Discriminator:
    torch.manual_seed(0)
    network = Discriminator(mapping_layers=1, **{**SMALL, **changes})
    if grows:
        network.begin_at_half()
    return network.requires_grad_(False)


def shown(size: int = 16) -> torch.Tensor:
    return torch.randn(4, 2, size, size, generator=torch.Generator().manual_seed(1))


# --------------------------------------------------------------------- growing


def test_a_generator_draws_the_enlarged_half_image_at_first_and_a_plain_one_s_at_last() -> None:
    network, plain = generator(grows=True), generator()
    ws = network.ws(torch.randn(4, 6), LABEL)
    half, _ = network.synthesis.with_low(ws, noise="const", half=True)
    assert half.shape == (4, 2, 8, 8)
    taps = network.synthesis.b16.resample_filter
    enlarged = upfirdn2d(half, taps, up=2, padding=(2, 1, 2, 1), gain=4)
    assert torch.equal(network.synthesis(ws, noise="const"), enlarged)
    network.set_growth(1.0)
    whole = network.synthesis(ws, noise="const")
    assert torch.equal(whole, plain.synthesis(ws, noise="const"))
    network.set_growth(0.25)
    quarter = network.synthesis(ws, noise="const")
    torch.testing.assert_close(quarter, enlarged.lerp(whole, 0.25))


@pytest.mark.parametrize("architecture", ["orig", "resnet"])
def test_a_discriminator_judges_the_halved_image_at_first_and_as_a_plain_one_at_last(
    architecture: str,
) -> None:
    network, plain = (discriminator(grows=on, architecture=architecture) for on in (True, False))
    images = shown()
    assert network.at_half(images).shape == (4, 2, 8, 8)
    of_half = network(network.at_half(images), LABEL)
    assert torch.equal(network(images, LABEL), of_half)
    network.set_growth(1.0)
    assert torch.equal(network(images, LABEL), plain(images, LABEL))
    with pytest.raises(ValueError, match=r"must have shape \[N, 2, 16, 16\], got \[4, 2, 4, 4\]"):
        network(shown(4), LABEL)
    with pytest.raises(ValueError, match=r"must have shape \[N, 2, 16, 16\], got \[4, 2, 8, 8\]"):
        plain(shown(8), LABEL)


def test_only_networks_with_an_image_at_half_the_size_grow() -> None:
    with pytest.raises(ValueError, match="growing needs the skip architecture"):
        generator(grows=True, architecture="orig")
    for changes in ({"architecture": "skip"}, {"utlo_resolution": 4}):
        with pytest.raises(ValueError, match="only an orig or resnet discriminator"):
            discriminator(grows=True, **changes)


def test_the_last_block_rests_while_images_are_half_the_size_and_its_moments_begin_then() -> None:
    preset = small_preset(grow_start=0.064, grow_end=0.128)
    state, game = small_game(preset)
    assert half_steps(preset) == 4
    blocks = (state.generator.synthesis.b8, state.discriminator.b8)
    before = [[weight.clone() for weight in block.parameters()] for block in blocks]

    def rests() -> bool:
        return all(
            torch.equal(weight, old)
            for block, kept in zip(blocks, before, strict=True)
            for weight, old in zip(block.parameters(), kept, strict=True)
        )

    for _ in range(4):
        assert is_half(preset, state.step)
        train_step(state, game)
    assert rests()
    known = [len(one.state) for one in (state.generator_optimizer, state.discriminator_optimizer)]
    assert _moments(state.structure(4)) == known
    for _ in range(4):
        train_step(state, game)
    assert not rests()
    assert 0 < float(state.generator.synthesis.growth) < 1
    assert torch.equal(state.generator.synthesis.growth, state.average.synthesis.growth)
    train_step(state, game)
    assert float(state.generator.synthesis.growth) == float(state.discriminator.growth) == 1
    whole = [len(list(one.parameters())) for one in (state.generator, state.discriminator)]
    assert _moments(state.structure(9)) == whole


def _moments(structure: dict[str, Any]) -> list[int]:
    return [len(structure[f"{who}_optimizer"]["state"]) for who in ("generator", "discriminator")]


# --------------------------------------------------------------------- every change, interrupted

INTERRUPTED: dict[str, dict[str, Any]] = {
    "growing": {"grow_start": 0.12, "grow_end": 0.24, "critic_channels": 0.5},
    "probe": {"probe_weight": 1.0, "lr_warmup": 0.2, "augment": "ada:blit", "ada_groups": "shot"},
}


@pytest.mark.parametrize("name", INTERRUPTED)
def test_a_change_stopped_anywhere_gives_the_same_generator(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plan = tiny_plan(**INTERRUPTED[name])
    with StopSignals() as stop:
        (whole,) = run_training(plan, Session(stop))
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "second"))
    for steps in (3, 4, 5):
        with pytest.raises(Stopped, match="thousand images"):
            _train_until(plan, steps)
        # The probe is part of the state: its loss on the way changes nothing.
        shutil.rmtree(store.home() / "probes", ignore_errors=True)
        monkeypatch.setattr("stylegan_mix.training.probe_features.ensure_probe", None)
    with StopSignals() as stop:
        (pieces,) = run_training(plan, Session(stop))
    assert pieces.hash == whole.hash


def _train_until(plan: Any, steps: int) -> None:
    """Trains so many steps; the training of the probe is not stopped."""
    real = run.train_on_plan

    def begun(plan: Any, session: Session, *rest: Any) -> Any:
        return real(plan, Session(StopAfter(steps), session.reporter), *rest)

    with pytest.MonkeyPatch.context() as patch:
        take = "stylegan_mix.training.probe_features.take_probe"
        patch.setattr(take, _unstopped(take))
        patch.setattr(run, "train_on_plan", begun)
        run_training(plan)


def _unstopped(name: str) -> Callable[..., None]:
    from stylegan_mix.training.probe_features import take_probe

    def taken(critic: Any, dataset: Any, device: Any, session: Session) -> None:
        take_probe(critic, dataset, device, Session(reporter=session.reporter))

    return taken


def test_options_at_their_defaults_change_no_key() -> None:
    new = {"critic_channels", "grow_start", "grow_end", "probe_weight", "lr_warmup"}
    for preset in PRESETS.values():
        assert not new & set(preset.plain())
    base = tiny_plan().key
    changed = {
        "critic_channels": {"critic_channels": 0.5},
        "grow_end": {"grow_end": 0.1},
        "grow_start": {"grow_start": 0.1, "grow_end": 0.1},
        "probe_weight": {"probe_weight": 1.0},
        "lr_warmup": {"lr_warmup": 1.0},
    }
    assert len({base, *(tiny_plan(**one).key for one in changed.values())}) == 1 + len(changed)


def test_the_learning_rate_rises_in_a_straight_line_and_stays() -> None:
    preset = small_preset(lr_warmup=0.064)
    assert [warming_share(preset, step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    state, game = small_game(preset)
    full = [one.param_groups[0]["lr"] for one in (state.generator_optimizer,)]
    rates = []
    for _ in range(6):
        train_step(state, game)
        rates.append(state.generator_optimizer.param_groups[0]["lr"] / full[0])
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert warming_share(small_preset(), 0) == 1.0


# --------------------------------------------------------------------- a small critic


def test_the_discriminator_alone_is_made_narrower() -> None:
    state, _ = small_game(small_preset(critic_channels=0.5))
    assert state.discriminator.b8.conv0.weight.shape[:2] == (4, 4)
    assert state.generator.synthesis.b8.conv1.weight.shape[:2] == (8, 8)


def test_a_narrow_discriminator_costs_less_and_needs_less_memory() -> None:
    cpu32 = PRESETS["cpu32"]
    narrow = dataclasses.replace(cpu32, critic_channels=0.5)
    # All blocks have 64 channels: a network of half the channels has a quarter of the arithmetic.
    whole = cost._operations(cpu32)
    assert cost._operations(narrow) == whole * (4 + 8 / 4) / 12
    # Weights, gradients and two moments of both networks, and one average.
    assert least_bytes(narrow, 0) == pytest.approx(least_bytes(cpu32, 0) * (5 + 4 / 4) / 9)
    saved = least_bytes(cpu32, 1) - least_bytes(cpu32, 0)
    assert least_bytes(narrow, 1) - least_bytes(narrow, 0) == saved / 2


# --------------------------------------------------------------------- the probe


def test_frozen_features_are_those_of_the_classifier_before_its_mean() -> None:
    torch.manual_seed(0)
    network = SmallNet(resolution=16, channels=2, classes=3).train()
    for _ in range(3):
        network(shown())  # moves the statistics
    network.eval()
    expected = network.body(shown())
    torch.testing.assert_close(features_of(network)(shown()), expected, rtol=1e-4, atol=1e-5)
    assert not list(features_of(network).parameters())


def test_a_training_takes_the_probe_of_its_split_and_never_moves_it(home: Path) -> None:
    plan = tiny_plan(probe_weight=1.0)
    with StopSignals() as stop:
        run_training(plan, Session(stop))
    probe = find_probe(plan.dataset, PROBE_SEED)
    assert probe is not None
    from stylegan_mix.training.saves import Saves

    found = Saves(plan.folder).newest(print)
    assert found is not None
    saved = found[1][1]["discriminator"]
    for name, value in features_of(probe.network(torch.device("cpu"))).state_dict().items():
        assert torch.equal(saved[f"feature_head.features.{name}"], value), name
    fresh, _ = small_game(small_preset(probe_weight=1.0))
    head = fresh.discriminator.state_dict()["feature_head.fc.weight"]
    assert not torch.equal(saved["feature_head.fc.weight"], head)


def test_the_head_on_features_has_its_weight_in_both_losses() -> None:
    from stylegan_mix.training.critic_heads import judge

    state, _ = small_game(small_preset(probe_weight=3.0))
    images, label = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    verdict = judge(state.discriminator, images, label, probe_weight=3.0)
    (one, plain), (other, seen) = verdict.terms
    assert (one, other) == (0.25, 0.75)
    assert torch.equal(verdict.judged, plain)
    assert state.discriminator.feature_head is not None
    assert torch.equal(seen, state.discriminator.feature_head(images, label))
    assert not torch.equal(seen, plain)


# --------------------------------------------------------------------- cost


def test_half_a_size_is_a_fraction_of_the_arithmetic_and_features_add_theirs() -> None:
    cpu32 = PRESETS["cpu32"]
    small = dataclasses.replace(cpu32, grow_start=1.0, grow_end=2.0)
    assert cost._operations(small) == cost._operations(dataclasses.replace(cpu32, resolution=16))
    grown = dataclasses.replace(small, grow_start=0.0)
    assert cost._operations(grown) == cost._operations(cpu32)
    more = cost._operations(dataclasses.replace(cpu32, probe_weight=0.5)) - cost._operations(cpu32)
    # At 32 pixels: 3 to 24 channels; to 48 at 16 pixels, 48 to 48; to 64 at 8, 64 to 64.
    inside = 16**2 * (24 * 48 + 48 * 48) + 8**2 * (48 * 64 + 64 * 64)
    assert more == 4 * multiplications(32) == 4 * 9 * (32**2 * 3 * 24 + inside)


def test_a_plan_that_grows_is_as_long_as_its_two_parts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(plan: Any, **_: Any) -> Span:
        return Span(1.0, 2.0) if is_half(plan.preset, 0) else Span(4.0, 8.0)

    plan = tiny_plan(grow_start=0.08, grow_end=0.16)  # 5 of 20 steps
    monkeypatch.setattr(cost, "step_seconds", measure)
    found = cost.estimate(plan, start=0.032)
    assert found.whole == Span(5 * 1 + 15 * 4, 5 * 2 + 15 * 8)
    assert found.left == Span(3 * 1 + 15 * 4, 3 * 2 + 15 * 8)
    pace = pace_of(plan, measure)
    assert pace == Pace(Span(4, 8), Span(1, 2), 5)
    assert pace_of(tiny_plan(grow_end=0.16), measure) == Pace(Span(4, 8))
    assert pace_of(tiny_plan(), measure) == Pace(Span(4, 8))


@pytest.mark.parametrize(
    ("seconds", "after", "steps"),
    [(2, 0, 2), (5, 0, 5), (9, 0, 6), (6, 3, 3), (4, 7, 1), (0, 0, 0)],
)
def test_a_time_allows_so_many_steps(seconds: float, after: int, steps: float) -> None:
    pace = Pace(Span(4.0, 4.0), Span(1.0, 1.0), 5)
    assert pace.steps_in(seconds, after=after) == steps
    first, last = after, after + steps
    assert pace.between(first, int(last)).low == seconds


def test_steps_of_both_sizes_are_timed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_guess", lambda *_: None)
    seen: list[bool] = []
    real = cost.train_step

    def noted(state: Any, game: Any, player: Any) -> Any:
        seen.append(is_half(game.preset, state.step))
        return real(state, game, player)

    monkeypatch.setattr(cost, "train_step", noted)
    found = cost.estimate(tiny_plan(grow_start=0.08, grow_end=0.16))
    assert found.whole.low > 0
    assert set(seen) == {True, False}
    assert found.bytes == disk_bytes(tiny_plan(grow_end=0.16))


def test_a_dry_run_with_the_probe_trains_none(home: Path, run: Run) -> None:
    options = ("--batch", "16", "--channel-base", "64", "--channel-max", "8", "--device", "cpu")
    code, out, err = run(
        *("train", "--dataset", "digits_lt", *options, "--kimg", "0.16", "--dry-run", "--json"),
        *("--probe-weight", "0.5", "--critic-channels", "0.5"),
    )
    assert code == 0, err
    assert json.loads(out)["preset.probe_weight"] == 0.5
    assert not (store.home() / "probes").exists()
    assert not (store.home() / "training").exists()


# --------------------------------------------------------------------- what cannot go together


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grow_start": 2.0, "grow_end": 1.0}, "--grow-start 2 lies behind --grow-end 1"),
        ({"grow_start": 2.0}, "--grow-start 2 lies behind --grow-end 0"),
        ({"grow_end": 1.0, "utlo_resolution": 4}, "cannot go with --utlo-resolution"),
        ({"grow_end": 1.0, "transition_end": 4.0}, "cannot go with --transition-end"),
        ({"grow_end": 1.0, "probe_weight": 1.0}, "cannot go with --probe-weight"),
        ({"grow_end": 1.0, "discriminator": "skip"}, "cannot go with --discriminator skip"),
        ({"grow_end": 1.0, "augment": "ada"}, "cannot move images of 4 pixels, half the size"),
        ({"probe_weight": 1.0, "utlo_resolution": 4}, "--probe-weight and --utlo-resolution"),
        ({"probe_weight": 1.0, "transition_end": 1.0}, "--probe-weight and --transition-end"),
        ({"critic_channels": 0.001}, "leaves the discriminator no channel at 8 pixels"),
    ],
)
def test_settings_that_cannot_go_together_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageFailure, match=message) as end:
        preset_checks.check(dataclasses.replace(PRESETS["tiny8"], **changes))
    assert end.value.remedy or "lies behind" in str(end.value)


def test_a_budget_that_does_not_reach_the_full_size_is_announced() -> None:
    preset = small_preset(grow_start=1.0, grow_end=2.0)
    assert preset_checks.beyond(preset, 2.0) == []
    (part,) = preset_checks.beyond(preset, 1.5)
    assert "the last block counts in full with a longer --kimg alone" in part
    (all_small,) = preset_checks.beyond(preset, 1.0)
    assert "every image is drawn at half the size, enlarged" in all_small


def test_every_change_trains_on_colour_at_16_pixels(home: Path) -> None:
    digits = datasets.load("digits_lt")
    images = np.repeat(np.repeat(np.repeat(digits.train.images, 2, 1), 2, 2), 3, 3)
    part = dataclasses.replace(digits.train, images=images)
    data = dataclasses.replace(digits, train=part)
    from stylegan_mix.training.step_inputs import begin

    for changes in ({"grow_start": 0.03, "grow_end": 0.05}, {"probe_weight": 1.0}):
        preset = small_preset(resolution=16, precision="bfloat16", augment="ada", **changes)
        state, game = begin(preset, data, seed=0, device=torch.device("cpu"))
        for _ in range(4):
            facts = train_step(state, game)
        assert all(torch.isfinite(value) for value in facts.values())
