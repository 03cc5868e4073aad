"""The slow twins of the benchmark compute what they are compared with."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
import torch

import kernels
from kernels import NativeUnavailable
from stylegan_mix.networks import Discriminator, Generator
from stylegan_mix.presets import PRESETS, Preset
from stylegan_mix.training import captured_steps
from stylegan_mix.training.operator_lists import OperatorLists


@pytest.fixture(scope="module")
def twins() -> ModuleType:
    """The script; tools is a folder beside the packages."""
    import importlib
    import sys

    before = list(sys.path)
    try:
        return importlib.import_module("tools.bench.twins")
    finally:
        sys.path[:] = before


@pytest.mark.parametrize("name", ["unfused", "grouped"])
def test_twins_give_the_same_images_logits_and_gradients(twins: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    sizes = {"resolution": 16, "image_channels": 3, "classes": 2, "channel_base": 128}
    generator = Generator(**sizes, channel_max=16, z_dim=8, w_dim=8)
    discriminator = Discriminator(**sizes, channel_max=16)
    slow = copy.deepcopy(generator), copy.deepcopy(discriminator)
    for network in slow:
        twins._slow(network, getattr(twins, name))
    ws, label = torch.randn(4, generator.num_ws, 8), torch.tensor([0, 1, 0, 1])
    outcomes = []
    cases = (((generator, discriminator), nullcontext), (slow, twins.composed))
    for (g, d), operators in cases:
        with operators():
            images = g.synthesis(ws, noise="const")
            logits = d(images, label)
        (gradient,) = torch.autograd.grad(logits.sum(), g.synthesis.b8.conv0.weight)
        outcomes.append((images, logits, gradient))
    assert twins.layers.upfirdn2d is kernels.upfirdn2d
    for one, two in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    assert slow[0].synthesis.b16.layout == torch.contiguous_format


def test_the_work_of_convolutions_is_that_counted_by_hand() -> None:
    from tools.bench.work import convolution_work

    # `cifar` at 512 channels takes 8.04 GFLOP a pass of either network
    work = convolution_work(PRESETS["cifar"], torch.device("cpu"))
    assert work["generator"] / 1e9 == pytest.approx(8.04, rel=0.02)
    assert work["discriminator"] / 1e9 == pytest.approx(8.04, rel=0.02)
    # Of 3x3 convolutions, transposed ones by their input, and the three channels of to-RGB.
    c, sizes = 512, (4, 8, 16, 32)
    convolutions = sum(9 * c * c * n * n for n in sizes) + sum(
        9 * c * c * n * n for n in sizes[:-1]
    )
    assert work["generator"] == 2 * (convolutions + sum(3 * c * n * n for n in sizes))


def test_the_rate_of_training_has_r1_at_its_share() -> None:
    from tools.bench.generator import rates

    preset = PRESETS["cpu32"]
    found = rates({"generation": 2.0, "step": 1.0, "step with R1": 1.8}, preset)
    assert found["generation"] == 32
    assert found["training"] == pytest.approx(32 / (1.0 + 0.8 / 16))


def test_the_table_of_the_page_is_that_of_the_file(twins: ModuleType, repo_root: Path) -> None:
    file = repo_root / "tools" / "results" / "kernels" / "twins-cpu.json"
    printed = twins.table(json.loads(file.read_text())["rows"])
    assert printed in (repo_root / "kernels" / "README.md").read_text()


@pytest.fixture
def generator(twins: ModuleType) -> ModuleType:
    """The script that makes the jobs."""
    module = sys.modules[twins.jobs.__module__]
    assert module.__name__ == "tools.bench.generator"
    return module


def _small() -> Preset:
    small = {"channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8, "batch": 4}
    return dataclasses.replace(PRESETS["cpu32"], **small)


def test_what_is_timed_of_ours_is_a_replay_and_of_slow_twins_is_not(
    twins: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: twins.variant(name, _small()) for name in ("float32", "unfused")}

    def played(*_: object) -> None:
        raise AssertionError("played")

    monkeypatch.setattr(captured_steps, "play", played)
    for job in ("generation", "step", "step with R1"):
        made["float32"][job]()
        made["unfused"][job]()


def test_settings_that_share_networks_replay_operators_of_their_own(
    generator: ModuleType, dispatched: type
) -> None:
    preset, device = _small(), torch.device("cpu")
    state, game = generator.begun(preset, device), generator.game_of_noise(preset, device)
    names = {}
    for setting in ("native", "reference"):
        within = functools.partial(generator.forced, setting)
        try:
            names[setting] = generator.replayed_jobs(state, game, within)
        except NativeUnavailable as error:
            pytest.skip(f"no compiled operators here: {error}")
    for setting, made in names.items():
        with dispatched() as seen:
            made["step"]()
        called = {one.name for one in seen.calls}
        assert ("kernels.epilogue.default" in called) is (setting == "native")


def test_a_benchmark_whose_steps_are_not_replayed_ends(
    generator: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: OperatorLists, run: object) -> None:
        raise RuntimeError("a number was read")

    monkeypatch.setattr(OperatorLists, "capture", refused)
    preset, device = _small(), torch.device("cpu")
    state, game = generator.begun(preset, device), generator.game_of_noise(preset, device)
    with pytest.raises(RuntimeError, match="not replayed: a number was read"):
        generator.replayed_jobs(state, game, nullcontext)
