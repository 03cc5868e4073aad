"""The cost of a training: on any machine it is told without a step that takes minutes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny_training import tiny_plan

from stylegan_mix import datasets, estimates
from stylegan_mix.datasets import Part
from stylegan_mix.estimates import Span
from stylegan_mix.presets import PRESETS, Preset, preset_named
from stylegan_mix.training import cost
from stylegan_mix.training.plan import TrainPlan


def plan_of(preset: Preset) -> TrainPlan:
    """A training of the preset on black images of its size."""
    digits, size = datasets.load("digits_lt"), preset.resolution
    black = np.zeros((len(digits.train), size, size, 3), np.uint8)
    data = dataclasses.replace(digits, train=Part(black, digits.train.labels))
    preset = dataclasses.replace(preset, precision="float32")
    return TrainPlan(data, preset, preset.kimg, 0, "cpu", "")


@pytest.mark.parametrize("name", ["auto", "gpu128", "cpu128"])
def test_at_128_pixels_on_a_slow_machine_no_step_is_tried(
    home: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(cost, "_operations_a_second", lambda *_: 1e8)
    monkeypatch.setattr(cost, "train_step", None)
    found = cost.estimate(plan_of(preset_named(name, 128)))
    assert found.whole.says_something
    assert found.whole.low > 86400
    assert found.bytes > 10e6


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_range_from_its_arithmetic_alone(
    home: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(cost, "_operations_a_second", lambda *_: 1e6)
    monkeypatch.setattr(cost, "train_step", None)
    assert cost.estimate(plan_of(PRESETS[name])).whole.says_something


def test_arithmetic_grows_as_the_networks_do() -> None:
    small, wide = (
        cost._operations(dataclasses.replace(PRESETS["cpu32"], channel_base=base, channel_max=most))
        for base, most in ((2048, 64), (4096, 128))
    )
    assert wide == 4 * small
    # Both convolutions of the blocks at 4, 8, 16 and 32 pixels have 64 channels.
    sizes = 16 + 64 + 256 + 1024
    assert small == 12 * 9 * 64 * (2 * 64 * sizes - 64 * 16)


def test_the_speed_of_a_convolution_is_measured_in_one_thread_and_none_is_lost() -> None:
    torch.set_num_threads(2)
    assert cost._operations_a_second(PRESETS["cpu32"], torch.device("cpu")) > 0
    assert torch.get_num_threads() == 2


def test_steps_are_timed_on_few_images_and_leave_the_plan_alone(
    home: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    begin = cost.begin

    def noted(preset: Preset, dataset: datasets.Dataset, **given: object) -> object:
        seen.append((preset.batch, len(dataset.train)))
        return begin(preset, dataset, **given)

    monkeypatch.setattr(cost, "begin", noted)
    monkeypatch.setattr(cost, "_guess", lambda *_: None)
    found = cost.step_seconds(tiny_plan(), allowance=0.0)
    assert seen == [(4, 10)]
    assert 0 < found.low < found.high


def test_all_other_work_of_a_training_widens_the_range(
    home: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "measured", lambda *_, **__: Span(1.0, 1.0))
    monkeypatch.setattr(cost, "_guess", lambda *_: None)
    found = cost.estimate(tiny_plan(), start=0.16)
    assert found.whole.low < 1.1 * found.steps < 1.3 * found.steps < found.whole.high
    assert found.left == found.whole.times(0.5)


def test_a_measurement_before_a_plan_is_short() -> None:
    assert 0 < estimates.ALLOWANCE <= 10
