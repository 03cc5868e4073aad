"""The pieces of generator training, each against a hand-made case."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from stylegan_mix import rng
from stylegan_mix.datasets import Part
from stylegan_mix.datasets.class_weights import class_probabilities
from stylegan_mix.errors import UsageFailure
from stylegan_mix.generators.diversity import diversity_ratios, mean_pairwise_distance
from stylegan_mix.presets import PRESETS, Preset, default_preset, preset_named
from stylegan_mix.training import losses
from stylegan_mix.training.augmentation.diffaugment import DIFFAUGMENT
from stylegan_mix.training.augmentation.policies import augmentation_named
from stylegan_mix.training.batches import RealImages, draw_labels
from stylegan_mix.training.ema import ema_decay, update_ema
from stylegan_mix.training.plan import resolve_precision
from stylegan_mix.training.preset_checks import check


def test_losses_are_the_logistic_game_per_sample() -> None:
    logits = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    sigmoid = torch.sigmoid(logits)
    torch.testing.assert_close(losses.fool_loss(logits), -sigmoid.log())
    torch.testing.assert_close(losses.spot_real_loss(logits), -sigmoid.log())
    torch.testing.assert_close(losses.spot_fake_loss(logits), -(1 - sigmoid).log())


def test_r1_of_a_quadratic_critic_is_known_and_differentiable() -> None:
    weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    images = torch.randn(4, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    logits = (weight * images.square() / 2).sum(dim=[1, 2, 3])
    penalty = losses.r1_penalty(logits, images)
    squares = images.detach().square().sum(dim=[1, 2, 3])
    torch.testing.assert_close(penalty, weight.detach() ** 2 * squares)
    penalty.sum().backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach() * squares.sum())


def test_published_ema_decays() -> None:
    # By hand: 0.5 ** (batch / half-life).
    assert ema_decay(64, 10**9, 500_000, 0.05) == pytest.approx(0.99991128, abs=1e-8)
    assert ema_decay(64, 10**9, 20_000, 0.05) == pytest.approx(0.99778434, abs=1e-7)
    assert ema_decay(64, 64, 500_000, 0.05) < 1e-5


def test_ema_moves_parameters_and_copies_buffers() -> None:
    average, network = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(5.0)
    update_ema(average, network, 0.75)
    torch.testing.assert_close(average.weight.detach(), torch.full((2,), 1.5))
    torch.testing.assert_close(average.running_mean, torch.full((2,), 5.0))


@pytest.mark.parametrize("name", [*DIFFAUGMENT, "color,translation,cutout"])
def test_augmentations_are_drawn_per_image_repeatable_and_differentiable(name: str) -> None:
    images = torch.full((64, 3, 8, 8), 0.5).requires_grad_(True)
    one, two, other = (_shown(name, images, seed) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert len(torch.unique(one.detach().flatten(1), dim=0)) > 3
    one.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def _shown(policy: str, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    draws = rng.Draws(rng.torch_generator(seed, "a"))
    return augmentation_named(policy)(images, torch.ones(len(images)), draws)


def test_no_policy_changes_nothing() -> None:
    images = torch.randn(2, 1, 8, 8)
    assert _shown("none", images) is images


def test_translation_moves_whole_images_and_cutout_zeroes_at_most_a_quarter() -> None:
    images = torch.arange(1.0, 65.0).view(1, 1, 8, 8).expand(200, 1, 8, 8)
    moved = _shown("translation", images)
    shifts = {(int(m[0].argmax()) // 8, int(m[0].argmax()) % 8) for m in moved if m.max() == 64}
    assert shifts == {(6, 6), (6, 7), (7, 6), (7, 7)}
    cut = _shown("cutout", images)
    holes = (cut == 0).sum(dim=[1, 2, 3])
    assert holes.max() == 16
    assert holes.min() >= 4


def test_class_power_interpolates_between_data_and_uniform() -> None:
    counts = np.array([100, 25])
    np.testing.assert_allclose(class_probabilities(counts, 1.0), [0.8, 0.2])
    np.testing.assert_allclose(class_probabilities(counts, 0.5), [2 / 3, 1 / 3])
    np.testing.assert_allclose(class_probabilities(counts, 0.0), [0.5, 0.5])
    labels = draw_labels(counts, 0.5, 30_000, seed=0, name="x", index=(0,))
    assert abs((labels == 0).mean() - 2 / 3) < 4 * math.sqrt(2 / 9 / 30_000)


def _part() -> Part:
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    return Part(images=images, labels=np.array([0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]))


def test_real_batches_pair_images_with_their_labels_and_reach_every_image() -> None:
    part = _part()
    reals = RealImages(part, classes=2, power=0.0, device=torch.device("cpu"))
    images, labels = reals.at(reals.rows(500, seed=0, index=(3,)))
    rows = ((images[:, 0, 0, 0] + 1) * 127.5).round().long()
    assert torch.equal(torch.from_numpy(part.labels)[rows], labels)
    assert set(rows.tolist()) == set(range(12))
    again, _ = reals.at(reals.rows(500, seed=0, index=(3,)))
    assert torch.equal(images, again)


def test_diversity_is_one_for_the_data_and_zero_for_a_single_picture() -> None:
    part = _part()
    real = {label: torch.from_numpy(part.images[part.labels == label]) for label in (0, 1)}
    assert diversity_ratios(real, part) == pytest.approx({0: 1.0, 1: 1.0})
    same = {1: real[1][:1].expand(5, -1, -1, -1)}
    assert diversity_ratios(same, part) == pytest.approx({1: 0.0})
    single = Part(images=part.images[:1], labels=part.labels[:1])
    assert diversity_ratios({0: real[0]}, single) == {0: None}
    assert mean_pairwise_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0]])) == pytest.approx(5.0)


def test_cifar_is_the_published_configuration() -> None:
    # StyleGAN2-ADA's `cifar`; what is not named there is off, and so at its default.
    published = {
        "name": "cifar",
        "resolution": 32,
        "channel_base": 32768,
        "channel_max": 512,
        "z_dim": 512,
        "w_dim": 512,
        "mapping_layers": 2,
        "discriminator": "orig",
        "minibatch_std_group": 32,
        "label_weight": 1.0,
        "label_noise": 0.0,
        "batch": 64,
        "lr": 0.0025,
        "r1_gamma": 0.01,
        "r1_interval": 16,
        "path_interval": 4,
        "ema_kimg": 500.0,
        "ema_ramp": 0.05,
        "augment": "ada",
        "real_power": 1.0,
        "label_power": 1.0,
        "precision": "mixed",
    }
    assert PRESETS["cifar"].plain() == published
    assert PRESETS["cifar"].ada_target == 0.6
    assert PRESETS["cifar"].kimg == 100_000


def test_presets_are_found_by_name_and_resolution() -> None:
    assert default_preset(8).name == "tiny8"
    assert default_preset(32).name == "cpu32"
    assert resolve_precision(PRESETS["cifar"], "cpu") == "float32"
    assert PRESETS["cpu32"].precision == "float32"
    asked = dataclasses.replace(PRESETS["cifar"], precision="bfloat16")
    assert resolve_precision(asked, "cpu") == "bfloat16"
    assert default_preset(32, "cuda").name == "cifar-lt"
    with pytest.raises(UsageFailure, match="did you mean 'tiny8'"):
        preset_named("tiny9", 8)
    with pytest.raises(UsageFailure, match="'cifar' is for 32 pixels, the data set has 64"):
        preset_named("cifar", 64)
    for wrong in (48, 512, 4):
        with pytest.raises(UsageFailure, match="8, 16, 32"):
            default_preset(wrong)


# The sizes that have presets of their own, by device.
DEFAULTS = {
    "cpu": {8: "tiny8", 16: "cpu16", 32: "cpu32", 64: "cpu64", 128: "cpu128", 256: "auto"},
    "cuda": {8: "gpu8", 16: "gpu16", 32: "cifar-lt", 64: "gpu64", 128: "gpu128", 256: "auto"},
}


@pytest.mark.parametrize("device", DEFAULTS)
def test_the_default_preset_follows_the_size_and_the_machine(device: str) -> None:
    for size, name in DEFAULTS[device].items():
        preset = default_preset(size, f"{device}:1" if device == "cuda" else device)
        assert (preset.name, preset.resolution) == (name, size)
        check(preset)
    assert default_preset(8, device, dataset="digits_lt").name == "tiny8"


def test_presets_for_a_cpu_take_float32_and_their_steps_few_channels() -> None:
    for size in (16, 32, 64, 128):
        preset = default_preset(size, "cpu")
        assert preset.precision == "float32"
        assert preset.channel_base // size <= 2048 // size
        assert preset.kimg <= 400


def test_presets_for_a_gpu_above_32_pixels_follow_the_published_heuristics() -> None:
    same = ("channel_base", "channel_max", "z_dim", "w_dim", "mapping_layers", "discriminator")
    same += ("batch", "lr", "r1_interval", "path_weight", "path_interval", "style_mixing")
    for size in (64, 128):
        preset, published = default_preset(size, "cuda"), preset_named("auto", size)
        for name in (*same, "minibatch_std_group", "ema_kimg", "ema_ramp", "precision"):
            assert getattr(preset, name) == getattr(published, name), (size, name)
        assert preset.r1_gamma == pytest.approx(published.r1_gamma)
        assert preset.label_weight == PRESETS["cifar-lt"].label_weight


def test_auto_follows_the_published_heuristics() -> None:
    # StyleGAN2-ADA on one GPU: batch, and gamma by 0.0002 R^2 / batch
    found = {size: preset_named("auto", size) for size in (64, 128, 256)}
    assert {size: preset.batch for size, preset in found.items()} == {64: 32, 128: 32, 256: 16}
    gammas = {64: 0.0256, 128: 0.1024, 256: 0.8192}
    for size, preset in found.items():
        assert preset.name == "auto"
        assert preset.r1_gamma == pytest.approx(gammas[size])
        assert preset.ema_kimg == pytest.approx(preset.batch * 10 / 32)
    assert preset_named("auto", 32).resolution == 32


def test_the_name_of_a_training_leaves_out_the_budget_and_switches_that_are_off() -> None:
    plain = PRESETS["cpu32"].plain()
    assert "kimg" not in plain
    assert "twins" not in plain
    assert plain["label_noise"] == 0.3
    on = dataclasses.replace(PRESETS["cpu32"], twins=0.01).plain()
    assert on == {**plain, "twins": 0.01}
    assert Preset(**on, kimg=1.0).twins == 0.01


def test_further_half_lives_are_positive_numbers() -> None:
    assert dataclasses.replace(PRESETS["tiny8"], more_ema="5,80").half_lives() == [5.0, 80.0]
    for wrong in ("5,x", "0", "-1", "inf", "nan"):
        with pytest.raises(UsageFailure, match=r"positive numbers \(thousands of images\)"):
            dataclasses.replace(PRESETS["tiny8"], more_ema=wrong).half_lives()
