"""What tests share: a network of a few exact operations, banks made with it, foreign files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stylegan_mix.rng import Draws

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="session")
def files(load_file: Callable[[Path], ModuleType], repo_root: Path) -> Any:
    """The writer of foreign files."""
    return load_file(repo_root / "tests" / "stylegan_mix" / "foreign_files.py")


@pytest.fixture(scope="session")
def weights(files: Any) -> dict[str, Any]:
    """A small published state."""
    from stylegan_mix.interop import nvlabs
    from stylegan_mix.networks import Generator

    blank = Generator(**nvlabs.generator_settings(files.SMALL))
    own = blank.state_dict()
    return {
        name: (own[name] if name in own else blank.get_buffer(name)).numpy()
        for name in nvlabs.published_names(blank)
    }


@pytest.fixture
def sound(tmp_path: Path, files: Any, weights: Any) -> Path:
    """A small network pickle."""
    return files.network_pickle(tmp_path / "sound.pkl", weights, files.SMALL)


@pytest.fixture
def port(tmp_path: Path, files: Any, weights: Any) -> Path:
    """The same as a checkpoint of the PyTorch port."""
    return files.port_file(tmp_path / "sound.pt", files.port_content(files.port_state(weights)))


@pytest.fixture
def refused(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`refused(content)` is the message with which the command refuses it, all checks made."""
    from stylegan_mix import console
    from stylegan_mix.cli import group

    def refusing(content: bytes, name: str = "bad.pkl") -> str:
        Path(name).write_bytes(content)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            console.main(group, "stylegan-mix", ["import-generator", name])
        out, err = capsys.readouterr()
        assert (end.value.code, out) == (3, ""), err
        assert f"{name} is refused: " in err
        assert len(err) < 2000
        assert "Traceback" not in err
        assert not home.exists()
        assert not Path("executed").exists()
        return err

    return refusing


@pytest.fixture
def toy() -> Any:
    """A generator of 3 classes and 4x4 grey images whose arithmetic is exact on every machine.

    Its noise is one of two levels per pixel, from integer draws; class c adds c / 4 to w.
    """
    import torch

    class Mapping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("w_avg", torch.full((4,), 0.25))

        def forward(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            if not label.is_floating_point():
                label = torch.nn.functional.one_hot(label, len(CLASSES)).float()
            level = (label * torch.arange(len(CLASSES)) / 4).sum(dim=1, keepdim=True)
            return (z * 8).round() / 32 + level

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.z_dim, self.w_dim, self.classes = 4, 4, len(CLASSES)
            self.mapping = Mapping()
            self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)
            self.batches: list[int] = []

        def centre(self) -> torch.Tensor:
            return self.mapping.w_avg.expand(2, -1)

        def truncate(self, ws: torch.Tensor, truncation: float) -> torch.Tensor:
            return self.mapping.w_avg + truncation * (ws - self.mapping.w_avg)

        def ws(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return self.mapping(z, label)[:, None, :].expand(-1, 2, -1)

        def synthesis(self, ws: torch.Tensor, *, noise: str, draws: Draws) -> torch.Tensor:
            self.batches.append(len(ws))
            images = (ws[:, 0, :, None] + ws[:, 1, None, :])[:, None] * self.weight
            if noise == "random":
                images = images + draws.integers(0, 2, *images.shape) / 16
            return images

    return Toy().eval()


@pytest.fixture
def card() -> dict[str, Any]:
    """The card of a generator that the toy stands for."""
    return {
        "dataset": "letters",
        "profile": "exp",
        "imbalance": 10.0,
        "split_seed": 0,
        "split_id": "5" * 64,
        "test_id": "7" * 64,
        "classes": list(CLASSES),
        "counts": [30, 10, 3],
        "resolution": 4,
        "channels": 1,
        "preset": {"name": "toy"},
        "kimg": 1.5,
        "seed": 0,
        "diversity": [0.9, 0.8, None],
    }


@pytest.fixture
def published(card: dict[str, Any], tmp_path: Path) -> Any:
    """The toy as if it had been trained."""
    from stylegan_mix.generators.store import Published

    return Published(hash="ab" * 32, folder=tmp_path / "generator", card=card)


@pytest.fixture
def ask(published: Any) -> Callable[..., Any]:
    """`ask(n=100, space="w", ...)` is a request for a bank of the toy's images."""
    from stylegan_mix.banks.request import Request

    def request(**changes: Any) -> Request:
        plain = Request(published.hash, published.card["split_id"], 3, 4, 1, n=100)
        return dataclasses.replace(plain, **changes)

    return request


@pytest.fixture
def write(home: Path, toy: Any, published: Any, ask: Callable[..., Any]) -> Callable[..., Path]:
    """`write(n=100, ...)` writes such a bank into the store and returns its folder."""
    from stylegan_mix.banks.write import write_bank
    from stylegan_mix.numerics import numerics_class
    from stylegan_mix.session import Session

    def written(network: Any = None, session: Session = Session(), **changes: Any) -> Path:
        numerics = numerics_class("cpu", "float32")
        return write_bank(ask(**changes), published, numerics, network or toy, session)

    return written


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`run("metrics", ...)` is (exit code, stdout, stderr)."""
    from stylegan_mix import console
    from stylegan_mix.cli import group

    def running(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            console.main(group, "stylegan-mix", [str(word) for word in words])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return running


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifiers of a few steps."""
    from stylegan_mix.metrics import cost, measure, probe

    for module in (probe, measure, cost):
        monkeypatch.setattr(module, "schedule_for", lambda _: probe.Schedule(steps=20))


@pytest.fixture
def generator(home: Path) -> Any:
    """A tiny generator of the digits with random weights, in the store."""
    import torch
    from PIL import Image
    from tiny_training import TINY

    from stylegan_mix import datasets
    from stylegan_mix.generators import store as generator_store
    from stylegan_mix.presets import PRESETS, Preset
    from stylegan_mix.training.state import TrainState

    digits = datasets.load("digits_lt")
    preset = Preset(**{**PRESETS["tiny8"].plain(), **TINY, "kimg": 1.0})
    state = TrainState.fresh(
        preset,
        resolution=8,
        channels=1,
        counts=digits.counts,
        seed=0,
        device=torch.device("cpu"),
    )
    card = {
        "dataset": digits.name,
        "split_id": digits.split_id,
        "test_id": digits.test_id,
        "profile": digits.profile,
        "imbalance": digits.imbalance,
        "split_seed": digits.split_seed,
        "classes": list(digits.classes),
        "counts": digits.counts.tolist(),
        "resolution": 8,
        "channels": 1,
        "training": "0" * 64,
        "preset": {**preset.plain(), "kimg": 1.0},
        "kimg": 0.0,
        "seed": 0,
        "diversity": [None] * 10,
        "command": "stylegan-mix train",
    }
    return generator_store.publish(state.average.state_dict(), card, Image.new("L", (8, 8)))


@pytest.fixture
def stored(home: Path, toy: Any, published: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The toy as the only generator of the store; its `network` is counted."""
    from stylegan_mix.generators import store as generator_store

    def find(*, split_id: str | None = None) -> list[Any]:
        return [published] if split_id in (None, published.card["split_id"]) else []

    def load(reference: str, others: Any = generator_store.load) -> Any:
        return published if published.hash.startswith(reference) else others(reference)

    monkeypatch.setattr(generator_store, "find", find)
    monkeypatch.setattr(generator_store, "load", load)
    monkeypatch.setattr(generator_store, "network", lambda *_, **__: toy)
    return published
