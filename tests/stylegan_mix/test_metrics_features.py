"""The probe and other spaces of features: deterministic, stored by hash, run only on request."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_mix import datasets
from stylegan_mix.datasets import Part
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.metrics import probe
from stylegan_mix.metrics.features import of_probe, of_script, script_hash
from stylegan_mix.metrics.probe import SmallNet, answers, ensure_probe, find_probe, probe_key

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps in place of hundreds."""
    monkeypatch.setattr(probe, "schedule_for", lambda _: probe.Schedule(steps=40))


# The probe


@pytest.mark.parametrize(
    ("resolution", "channels"), [(8, 1), (16, 3), (28, 1), (32, 3), (64, 4), (100, 3)]
)
def test_the_network_takes_any_size(resolution: int, channels: int) -> None:
    network = SmallNet(resolution=resolution, channels=channels, classes=7).eval()
    features, logits = network(torch.zeros(2, channels, resolution, resolution))
    assert features.shape == (2, probe.WIDTH)
    assert logits.shape == (2, 7)


def test_the_probe_is_trained_once_and_is_the_same_everywhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = datasets.load("digits_lt")
    first = ensure_probe(digits, 0, CPU)
    with monkeypatch.context() as patched:
        patched.setattr(probe, "train_classifier", lambda *_, **__: 1 / 0)
        assert ensure_probe(digits, 0, CPU) == first
    assert find_probe(digits, 1) is None
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "second"))
    assert ensure_probe(digits, 0, CPU).hash == first.hash
    assert ensure_probe(digits, 1, CPU).hash != first.hash
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "third"))
    monkeypatch.setenv("STYLEGAN_MIX_SHARED", str(home))
    found = find_probe(digits, 0)
    assert found is not None
    assert found.hash == first.hash


def test_the_probe_learns_and_says_so_on_its_card(home: Path) -> None:
    digits = datasets.load("digits_lt")
    made = ensure_probe(digits, 0, CPU)
    said = answers(made.network(CPU), digits.test.images).said
    accuracy = float((said == digits.test.labels).mean())
    assert accuracy > 0.5
    assert made.card["test_accuracy_mean"] == pytest.approx(accuracy)
    assert f"{100 * accuracy:.1f} %" in (made.folder / "PROBE_CARD.md").read_text()


def test_the_probe_has_seen_the_training_part_alone(home: Path) -> None:
    digits = datasets.load("digits_lt")
    other = dataclasses.replace(digits, test=Part(digits.test.images[::-1], digits.test.labels))
    assert ensure_probe(digits, 0, CPU).hash == ensure_probe(other, 0, CPU).hash
    assert probe_key(digits, 0) != probe_key(datasets.load("digits_lt", imbalance=10), 0)


def test_an_altered_probe_is_refused_with_its_place(home: Path) -> None:
    made = ensure_probe(datasets.load("digits_lt"), 0, CPU)
    data = made.folder / "data.h5"
    data.chmod(0o644)
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    with pytest.raises(InvalidInput, match="altered") as error:
        made.network(CPU)
    assert str(made.folder) in str(error.value.remedy)


def test_classes_without_images_are_never_answered(home: Path) -> None:
    digits = datasets.load("digits_lt")
    some = np.flatnonzero(np.isin(digits.train.labels, [2, 5]))
    network = probe.train_classifier(
        Part(digits.train.images[some], digits.train.labels[some]),
        classes=10,
        flip=True,
        schedule=probe.Schedule(steps=60),
        seed=0,
        device=CPU,
        label="two classes",
    )
    assert set(answers(network, digits.test.images).said.tolist()) == {2, 5}


def test_augmentation_shifts_and_mirrors_whole_images() -> None:
    images = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(200, 1, 1, 1)
    for flip in (False, True):
        found = probe._augmented(images, flip, torch.Generator().manual_seed(0))
        steps = found[:, 0, 4, 4] - found[:, 0, 4, 3]
        assert set(steps.tolist()) == ({1.0, -1.0} if flip else {1.0})
        assert len({tuple(one.flatten().tolist()) for one in found}) == (18 if flip else 9)


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [probe.Schedule(steps=100).rate(step) for step in range(100)]
    assert max(rates) == rates[10] == pytest.approx(0.1)
    assert rates[0] == pytest.approx(0.01)
    assert rates[-1] < 0.002


# TorchScript


class Means(torch.nn.Module):
    """Means of each channel, and that of all: [N,4]."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        channels = images.float().mean(dim=(2, 3))
        return torch.cat([channels, channels.mean(dim=1, keepdim=True)], dim=1)


class Named(torch.nn.Module):
    """As the published Inception network: features are returned where they are asked for."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        means = images.double().mean(dim=(1, 2, 3))
        return means[:, None] if return_features else means[:, None].repeat(1, 1008)


class Wrong(torch.nn.Module):
    """Answers with something else than features."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.what == "flat":
            return images.float().mean(dim=(1, 2, 3))
        if self.what == "whole":
            return images.flatten(1)
        if self.what == "one":
            return images[:1].float().flatten(1)
        if self.what == "nan":
            return images.float().flatten(1) * float("nan")
        return images.float() @ torch.ones(5, 5)


def scripted(module: torch.nn.Module, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_script_gets_uint8_of_three_channels_and_gives_float64(tmp_path: Path) -> None:
    path = tmp_path / "means.pt"
    backbone = of_script(path, scripted(Means(), path), CPU)
    grey = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 1)).astype(np.uint8)
    features = backbone.features(grey)
    assert (features.shape, features.dtype) == ((70, 4), np.float64)
    np.testing.assert_allclose(features[:, 1], grey.mean(axis=(1, 2, 3)), rtol=1e-6)
    assert backbone.name == "means"


def test_a_script_with_return_features_is_asked_for_them(tmp_path: Path) -> None:
    path = tmp_path / "inception.pt"
    backbone = of_script(path, scripted(Named(), path), CPU)
    assert backbone.features(np.zeros((3, 4, 4, 3), np.uint8)).shape == (3, 1)


@pytest.mark.parametrize("what", ["flat", "whole", "one", "nan", "raises"])
def test_a_script_that_gives_no_features_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "wrong.pt"
    backbone = of_script(path, scripted(Wrong(what), path), CPU)
    with pytest.raises(InvalidInput, match=r"wrong\.pt"):
        backbone.features(np.zeros((3, 4, 4, 3), np.uint8))


def test_a_file_is_run_only_with_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "means.pt"
    sha256 = scripted(Means(), path)
    with pytest.raises(UsageFailure, match="program") as error:
        script_hash(path, None)
    assert sha256 in str(error.value.remedy)
    assert script_hash(path, sha256.upper()) == sha256
    with pytest.raises(InvalidInput, match="not the file that was named"):
        script_hash(path, "0" * 64)
    with pytest.raises(UsageFailure, match="64 hexadecimal"):
        script_hash(path, "abc")
    with pytest.raises(UsageFailure, match="cannot read"):
        script_hash(tmp_path / "none.pt", sha256)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InvalidInput, match="changed"):
        of_script(path, sha256, CPU)


def test_what_is_no_script_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.pt"
    path.write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(InvalidInput, match="not a TorchScript file"):
        of_script(path, hashlib.sha256(path.read_bytes()).hexdigest(), CPU)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(InvalidInput, match="not a TorchScript file"):
        of_script(path, hashlib.sha256(path.read_bytes()).hexdigest(), CPU)


def test_the_space_of_the_probe_has_its_name_and_hash() -> None:
    network = SmallNet(resolution=8, channels=1, classes=3).eval()
    backbone = of_probe(network, "ab" * 32)
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1)).astype(np.uint8)
    features = backbone.features(images)
    assert (backbone.name, backbone.sha256) == ("probe", "ab" * 32)
    assert features.dtype == np.float64
    np.testing.assert_allclose(backbone.features(images[290:]), features[290:], rtol=1e-4)
