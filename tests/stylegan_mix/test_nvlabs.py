"""Published weights in our networks give the published numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan_mix.errors import InvalidInput
from stylegan_mix.interop import nvlabs
from stylegan_mix.networks import Discriminator, Generator

GOLDEN = ("network_cond32", "network_uncond16")

# --------------------------------------------------------------------- golden files


class Golden:
    """One golden file: settings, the states of both networks, inputs and outputs."""

    def __init__(self, path: Path) -> None:
        archive = np.load(path)
        self.meta = json.loads(bytes(archive["meta"]))
        parts: dict[str, dict[str, np.ndarray]] = {"G": {}, "D": {}, "io": {}}
        for key in archive.files:
            part, _, name = key.partition("/")
            if name:
                parts[part][name] = archive[key]
        self.g, self.d = parts["G"], parts["D"]
        self.io = {name: torch.from_numpy(array) for name, array in parts["io"].items()}
        self.label = self.io["c"] if self.meta["c_dim"] else None


@pytest.fixture(params=GOLDEN)
def golden(request: pytest.FixtureRequest, shared_data: Path) -> Golden:
    return Golden(shared_data / "golden" / f"{request.param}.npz")


def check(found: Tensor, expected: Tensor) -> None:
    """Within 1e-4 of the largest magnitude, the tolerance that comes with the golden files."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
def test_golden_mapping_and_truncation(golden: Golden) -> None:
    network = nvlabs.generator(golden.g, golden.meta)
    assert not network.training
    ws = network.broadcast(network.mapping(golden.io["z"], golden.label))
    check(ws, golden.io["ws"])
    check(network.truncate(ws, 0.7), golden.io["ws_psi07"])
    check(network.truncate(ws, 0.5, layers=2), golden.io["ws_psi05_cut2"])


@torch.no_grad()
def test_golden_images(golden: Golden) -> None:
    network, io = nvlabs.generator(golden.g, golden.meta), golden.io
    z, label = io["z"], golden.label
    check(network(z, label, noise="const"), io["img"])
    check(network(z, label, noise="const", truncation=0.7), io["img_psi07"])
    check(network(z, label, noise="none"), io["img_nonoise"])
    check(network.synthesis(io["ws_mix"], noise="const"), io["img_mix"])


@torch.no_grad()
def test_golden_logits(golden: Golden) -> None:
    network = nvlabs.discriminator(golden.d, golden.meta)
    check(network(golden.io["img"], golden.label)[:, None], golden.io["logits"])


def test_errors_name_what_is_missing_unexpected_or_misshapen(golden: Golden) -> None:
    state = dict(golden.g)
    del state["mapping.fc1.bias"]
    state["synthesis.b4.conv0.weight"] = np.zeros((1,), np.float32)
    state["mapping.fc0.bias"] = np.zeros((5,), np.float32)
    state["mapping.fc0.weight"] = state["mapping.fc0.weight"] * np.nan
    state["synthesis.b8.resample_filter"] = np.ones((4, 4), np.float32) / 16
    with pytest.raises(InvalidInput) as caught:
        nvlabs.generator(state, golden.meta)
    for part in (
        "missing mapping.fc1.bias",
        "unexpected synthesis.b4.conv0.weight",
        "mapping.fc0.bias has shape [5] instead of",
        "mapping.fc0.weight is not made of finite",
        "synthesis.b8.resample_filter is not the filter 1, 3, 3, 1",
    ):
        assert part in str(caught.value)


def test_settings_without_counterpart_are_errors(golden: Golden) -> None:
    meta = json.loads(json.dumps(golden.meta))
    meta["D"]["freeze_layers"] = 3
    with pytest.raises(InvalidInput, match="settings D .*freeze_layers; known: architecture"):
        nvlabs.discriminator(golden.d, meta)
    del meta["G"]
    with pytest.raises(InvalidInput, match="settings lack G"):
        nvlabs.generator(golden.g, meta)


# --------------------------------------------------------------------- recorded values

FORMULA = {
    "c_dim": 3,
    "resolution": 16,
    "img_channels": 3,
    "G": {
        "z_dim": 8,
        "w_dim": 8,
        "mapping_kwargs": {"num_layers": 2},
        "synthesis_kwargs": {"channel_base": 128, "channel_max": 16, "conv_clamp": 256},
    },
    "D": {
        "architecture": "orig",
        "channel_base": 128,
        "channel_max": 16,
        "conv_clamp": 256,
        "epilogue_kwargs": {"mbstd_group_size": 2},
    },
}
LABEL = torch.tensor([0, 1, 2, 0])
Z = (0.5 * torch.arange(32, dtype=torch.float64)).sin().float().reshape(4, 8)


def by_formula(network: Generator | Discriminator) -> dict[str, np.ndarray]:
    """The k-th published name, sorted, has the values sin(0.37 i + 1 + k), scaled by its kind."""
    own = network.state_dict()
    state = {}
    for k, name in enumerate(nvlabs.published_names(network)):
        if name.endswith("resample_filter"):
            state[name] = network.get_buffer(name).numpy()
            continue
        shape = tuple(own[name].shape)
        values = np.sin(0.37 * np.arange(own[name].numel()) + 1 + k).reshape(shape)
        values *= 0.1 if name.endswith("noise_strength") else 1
        values *= 100 if "mapping.fc" in name else 1
        state[name] = values.astype(np.float32)
    return state


@pytest.fixture(scope="module")
def formula_generator() -> Generator:
    blank = Generator(
        resolution=16,
        image_channels=3,
        classes=3,
        z_dim=8,
        w_dim=8,
        channel_base=128,
        channel_max=16,
    )
    state = by_formula(blank)
    assert len(state) == 58
    return nvlabs.generator(state, FORMULA)


def formula_discriminator(architecture: str, **epilogue: Any) -> Discriminator:
    blank = Discriminator(
        resolution=16,
        image_channels=3,
        classes=3,
        channel_base=128,
        channel_max=16,
        architecture=architecture,
    )
    state = by_formula(blank)
    assert len(state) == (42 if architecture == "orig" else 46)
    settings: dict[str, Any] = {**FORMULA["D"], "architecture": architecture}
    if epilogue:
        settings["epilogue_kwargs"] = epilogue
    return nvlabs.discriminator(state, {**FORMULA, "D": settings})


def near(found: Tensor, expected: Any) -> None:
    """Equal to all printed digits (at least 5 significant ones)."""
    torch.testing.assert_close(found, torch.tensor(expected), rtol=3e-5, atol=1e-5)


@torch.no_grad()
def test_formula_w(formula_generator: Generator) -> None:
    w = formula_generator.mapping(Z, LABEL)
    near(
        w[:, :4],
        [
            [-0.47263, -0.03382, -0.31861, 0.50194],
            [-0.58435, 1.0642, -0.6921, 2.94211],
            [-0.21513, -0.2047, -0.23998, 0.58293],
            [-0.58409, 0.46996, -0.45857, 1.23947],
        ],
    )
    ws = formula_generator.broadcast(w)
    near_average = formula_generator.truncate(ws, 0.5, layers=2)
    near(near_average[0, 0, :4], [0.09218, 0.42566, 0.33745, 0.73467])
    assert torch.equal(near_average[:, 2:], ws[:, 2:])


@torch.no_grad()
def test_formula_images(formula_generator: Generator) -> None:
    plain = formula_generator(Z, LABEL, noise="none")
    near(plain.mean(), 6.718367)
    near(plain.std(), 23.805731)
    near(plain.abs().mean(), 19.737818)
    near(
        plain[0, :, 0, 0:3],
        [
            [-4.68551, -7.36093, -9.32387],
            [-1.06707, -1.17273, -0.93574],
            [1.99912, 2.51866, 3.0787],
        ],
    )
    near(
        plain[3, :, 15, 13:16],
        [
            [-35.6372, -29.86879, -19.36692],
            [42.56013, 35.41308, 22.84249],
            [-27.61709, -23.26281, -14.42036],
        ],
    )
    noisy = formula_generator(Z, LABEL, noise="const")
    near(noisy.mean(), 6.742289)
    near(noisy.std(), 23.917543)
    near(noisy[0, 0, 0, 0:3], [-4.58147, -7.23187, -9.19317])


@pytest.mark.parametrize(
    ("architecture", "logits"),
    [
        ("orig", (317.95673, 10395.94043, -302.58545, -500.90143)),
        ("resnet", (40875.89, 42847.76, 20178.37, 26656.02)),
    ],
)
@torch.no_grad()
def test_formula_logits(
    architecture: str, logits: tuple[float, ...], formula_generator: Generator
) -> None:
    images = formula_generator(Z, LABEL, noise="none")
    near(formula_discriminator(architecture)(images, LABEL), logits)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, 6])
def test_no_size_of_a_minibatch_std_group_means_the_whole_batch(rows: int) -> None:
    """Published settings say so with null; 6 rows are no multiple of the default, 4."""
    images, label = torch.randn(rows, 3, 16, 16), torch.eye(3)[torch.arange(rows) % 3]
    whole = formula_discriminator("orig", mbstd_group_size=None)
    same = formula_discriminator("orig", mbstd_group_size=rows)
    assert torch.equal(whole(images, label), same(images, label))


@pytest.mark.parametrize("size", [0, -1, 2.0, "4", True])
def test_a_minibatch_std_group_of_no_size_is_refused(size: Any) -> None:
    with pytest.raises(
        InvalidInput, match="mbstd_group_size must be a whole number from 1 or null"
    ):
        formula_discriminator("orig", mbstd_group_size=size)


def test_formula_r1_and_its_gradients(formula_generator: Generator) -> None:
    images = formula_generator(Z, LABEL, noise="none").detach().requires_grad_(True)
    network = formula_discriminator("orig")
    logits = network(images, LABEL)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    penalty = gradient.square().sum(dim=[1, 2, 3])
    near(penalty.detach(), (4412.67, 1674.863, 209.3227, 1131.695))
    (0.5 * penalty.mean()).backward()
    norms = {
        "b16.fromrgb.weight": 2494.497,
        "b8.conv0.weight": 196.2725,
        "b4.out.weight": 362.1020,
        "mapping.fc7.weight": 3.600260,
        "mapping.embed.weight": 367.7098,
    }
    for name, norm in norms.items():
        near(network.get_parameter(name).grad.norm(), norm)
