"""What the networks promise: sizes, shapes, conditioning, noise, precision, derivatives."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import reference
from stylegan_mix.networks import (
    Discriminator,
    Generator,
    discriminator,
    layers,
    mapping,
    synthesis,
    to_uint8,
)
from stylegan_mix.networks.mapping import Mapping
from stylegan_mix.rng import Draws

ARCHITECTURES = ("orig", "skip", "resnet")


def small_generator(**changes: Any) -> Generator:
    """A 16x16 grey generator of 4 classes with 16 channels, and noise that shows."""
    settings = {
        "resolution": 16,
        "image_channels": 1,
        "classes": 4,
        "z_dim": 8,
        "w_dim": 12,
        "channel_base": 256,
        "channel_max": 16,
    }
    torch.manual_seed(0)
    network = Generator(**{**settings, **changes})
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)
    return network


def small_discriminator(**changes: Any) -> Discriminator:
    settings = {
        "resolution": 16,
        "image_channels": 1,
        "classes": 4,
        "channel_base": 256,
        "channel_max": 16,
    }
    torch.manual_seed(1)
    return Discriminator(**{**settings, **changes})


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# --------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("resolution", "classes", "base", "architecture", "generator", "discriminator"),
    [
        (32, 10, 32768, "orig", 20_215_315, 23_089_664),
        (32, 10, 32768, "resnet", 20_215_315, 23_876_096),
        (32, 0, 32768, "orig", 19_947_539, 20_720_641),
        (32, 100, 32768, "orig", 20_261_395, 23_135_744),
        (64, 0, 16384, "resnet", 22.24e6, 23.41e6),
        (128, 0, 16384, "resnet", 22.95e6, 23.88e6),
        (256, 0, 16384, "resnet", 23.19e6, 24.00e6),
    ],
)
def test_parameter_counts_are_the_published_ones(
    resolution: int,
    classes: int,
    base: int,
    architecture: str,
    generator: float,
    discriminator: float,
) -> None:
    sizes = {"resolution": resolution, "image_channels": 3, "classes": classes}
    with torch.device("meta"):
        g = Generator(**sizes, channel_base=base)
        d = Discriminator(**sizes, channel_base=base, architecture=architecture)
    tolerance = 0 if isinstance(generator, int) else 0.005e6
    assert abs(parameters(g) - generator) <= tolerance
    assert abs(parameters(d) - discriminator) <= tolerance


@pytest.mark.parametrize(
    ("resolution", "num_ws"), [(8, 4), (32, 8), (64, 10), (128, 12), (256, 14), (1024, 18)]
)
def test_number_of_w(resolution: int, num_ws: int) -> None:
    with torch.device("meta"):
        assert small_generator(resolution=resolution, channel_base=1024).num_ws == num_ws


@pytest.mark.parametrize("resolution", [4, 12, 0, -8])
def test_resolutions_that_cannot_be(resolution: int) -> None:
    with pytest.raises(ValueError, match=rf"power of 2 from 8 on, got {resolution}"):
        small_generator(resolution=resolution)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("resolution", [8, 32])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shapes_of_every_architecture(architecture: str, resolution: int, channels: int) -> None:
    sizes = {"resolution": resolution, "image_channels": channels, "architecture": architecture}
    g, d = small_generator(**sizes), small_discriminator(**sizes)
    label = torch.tensor([0, 3])
    images = g(torch.randn(2, 8), label)
    assert images.shape == (2, channels, resolution, resolution)
    assert images.dtype == torch.float32
    logits = d(images, label)
    assert logits.shape == (2,)
    logits.sum().backward()
    for network in (g, d):
        silent = [name for name, one in network.named_parameters() if one.grad is None]
        assert silent == []


def test_every_w_moves_the_image_and_only_in_its_own_layers() -> None:
    network = small_generator()
    ws = network.broadcast(network.mapping(torch.randn(1, 8), torch.tensor([1]))).clone()
    plain = network.synthesis(ws, noise="none")
    for layer in range(network.num_ws):
        changed = ws.clone()
        changed[:, layer] += 1
        assert not torch.allclose(network.synthesis(changed, noise="none"), plain)


@torch.no_grad()
def test_resnet_synthesis_adds_both_branches_with_half_their_power() -> None:
    block = small_generator(architecture="resnet").synthesis.b8
    x, ws = torch.randn(2, 16, 4, 4), torch.randn(2, 3, 12)
    found, _ = block(x, None, ws, noise="none", draws=Draws())
    styled = block.conv1(block.conv0(x, ws[:, 0], noise="none"), ws[:, 1], noise="none")
    torch.testing.assert_close(found, (styled + block.skip(x)) * 0.5**0.5)


def test_unknown_architecture_is_an_error() -> None:
    for build in (small_generator, small_discriminator):
        with pytest.raises(ValueError, match="orig, skip, resnet, got 'unet'"):
            build(architecture="unet")


def test_inputs_of_a_wrong_shape_are_errors() -> None:
    g, d = small_generator(), small_discriminator()
    label = torch.tensor([0])
    with pytest.raises(ValueError, match=r"z must have shape \[N, 8\], got \[1, 9\]"):
        g.mapping(torch.zeros(1, 9), label)
    with pytest.raises(ValueError, match=r"ws must have shape \[N, 6, 12\], got \[1, 12\]"):
        g.synthesis(torch.zeros(1, 12))
    with pytest.raises(ValueError, match="noise must be one of random, const, none, got 'off'"):
        g.synthesis(torch.zeros(1, 6, 12), noise="off")
    with pytest.raises(ValueError, match=r"\[N, 1, 16, 16\], got \[1, 3, 16, 16\]"):
        d(torch.zeros(1, 3, 16, 16), label)


# --------------------------------------------------------------------- labels


def test_soft_labels_extend_integer_labels() -> None:
    network, z = small_generator().eval(), torch.randn(2, 8)
    hard = network.mapping(z, torch.tensor([1, 3]))
    assert torch.equal(network.mapping(z, torch.eye(4)[[1, 3]]), hard)
    half = network.mapping(z, (torch.eye(4)[[1, 3]] + torch.eye(4)[[0, 2]]) / 2)
    assert not torch.allclose(half, hard)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([4]), "labels must lie in 0 to 3, got 4 to 4"),
        (torch.tensor([-1]), "labels must lie in 0 to 3, got -1 to -1"),
        (torch.zeros(1, 3), r"weights \[N, 4\], got torch.float32 \[1, 3\]"),
        (torch.zeros(1, 4, dtype=torch.int64), r"weights \[N, 4\], got torch.int64 \[1, 4\]"),
        (None, "4 classes needs a label, got None"),
    ],
)
def test_labels_that_do_not_fit(label: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_generator().mapping(torch.zeros(1, 8), label)


def test_networks_without_classes_take_no_label() -> None:
    g, d = small_generator(classes=0), small_discriminator(classes=0)
    images = g(torch.randn(2, 8), None)
    assert d(images, None).shape == (2,)
    with pytest.raises(ValueError, match="takes no label"):
        g.mapping(torch.randn(2, 8), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="takes no label"):
        d(images, torch.tensor([0, 0]))


def test_label_weight_scales_the_normalised_embedding_behind_z() -> None:
    settings = {"z_dim": 3, "classes": 2, "w_dim": 5, "layers": 1}
    plain, weighed = Mapping(**settings), Mapping(**settings, label_weight=0.2)
    weighed.load_state_dict(plain.state_dict())
    seen: list[Tensor] = []
    for network in (plain, weighed):
        network.fc0.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        network(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    for x, weight in zip(seen, (1.0, 0.2), strict=True):
        length = x[:, 3:].square().mean(dim=1).sqrt()
        torch.testing.assert_close(length, torch.full((4,), weight), rtol=1e-5, atol=1e-5)


def test_generator_hands_label_weight_to_its_mapping() -> None:
    z, label = torch.randn(1, 8), torch.tensor([[0], [1]])
    spread = []
    for weight in (1.0, 0.0):
        network = small_generator(label_weight=weight)
        one, other = (network.mapping(z, one) for one in label)
        spread.append((one - other).abs().max().item())
    assert spread[0] > 0.1
    assert spread[1] == 0


def test_label_noise_is_drawn_in_training_only_from_the_given_generator() -> None:
    network, z, label = small_generator(label_noise=0.3), torch.randn(2, 8), torch.tensor([0, 1])

    def w(seed: int) -> Tensor:
        return network.mapping(z, label, draws=Draws(torch.Generator().manual_seed(seed)))

    assert torch.equal(w(0), w(0))
    assert not torch.equal(w(0), w(1))
    network.eval()
    assert torch.equal(w(0), w(1))


def test_label_noise_has_its_standard_deviation_before_the_normalisation() -> None:
    network = Mapping(z_dim=0, classes=2, w_dim=1000, layers=1, label_noise=0.3)
    network.embed.weight.data.zero_()
    seen: list[Tensor] = []
    network.embed.bias.data.fill_(2.0)
    network.fc0.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(None, torch.zeros(20, dtype=torch.int64), draws=Draws(torch.Generator().manual_seed(0)))
    x = seen[
        0
    ].detach()  # (2 + 0.3 noise) / sqrt(mean square), whose ratio of spread to mean is 0.3 / 2
    assert math.isclose(x.std() / x.mean(), 0.15, rel_tol=0.03)


# --------------------------------------------------------------------- w_avg, truncation, noise


def test_w_avg_moves_only_when_it_is_told_to() -> None:
    network = small_generator()
    z, label = torch.randn(64, 8), torch.zeros(64, dtype=torch.int64)
    network(z, label)
    assert network.mapping.w_avg.eq(0).all()
    w = network.mapping(z, label)
    mean = w.detach().mean(dim=0)
    network.update_w_avg(network.broadcast(w))
    torch.testing.assert_close(network.mapping.w_avg, 0.005 * mean)
    network.mapping.update_w_avg(w)
    torch.testing.assert_close(network.mapping.w_avg, (1 - 0.995**2) * mean)


def test_full_truncation_is_the_average_image() -> None:
    network = small_generator().eval()
    network.mapping.w_avg.normal_()
    mean = network.synthesis(network.broadcast(network.mapping.w_avg[None]), noise="none")
    found = network(torch.randn(3, 8), torch.tensor([0, 1, 2]), truncation=0, noise="none")
    torch.testing.assert_close(found, mean.expand_as(found))


def test_random_noise_comes_from_the_given_generator_alone() -> None:
    network, ws = small_generator(), torch.randn(1, 6, 12).expand(2, -1, -1)

    def images(seed: int) -> Tensor:
        return network.synthesis(ws, draws=Draws(torch.Generator().manual_seed(seed)))

    def drawn(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return network(torch.ones(2, 8), torch.tensor([0, 1]), draws=Draws(generator))

    state = torch.get_rng_state()
    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
    assert torch.equal(images(0), images(0))
    assert not torch.equal(images(0), images(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(images(0)[0], images(0)[1])


def test_const_noise_is_the_same_for_every_image_and_call() -> None:
    network, ws = small_generator(), torch.randn(1, 6, 12).expand(2, -1, -1)
    images = network.synthesis(ws, noise="const")
    torch.testing.assert_close(images[0], images[1])
    assert torch.equal(images, network.synthesis(ws, noise="const"))
    assert not torch.allclose(images, network.synthesis(ws, noise="none"))


def test_batches_do_not_mix_images() -> None:
    g, ws = small_generator(), torch.randn(5, 6, 12)
    together = g.synthesis(ws, noise="const")
    alone = torch.cat([g.synthesis(one, noise="const") for one in ws.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------- precision and derivatives


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_half_precision_stays_near_float32(architecture: str, dtype: torch.dtype) -> None:
    """Each of about 8 convolutions rounds at 2**-8 (bfloat16) or 2**-11, independently."""
    exact, half = (
        small_generator(architecture=architecture, compute_dtype=one, conv_clamp=256).eval()
        for one in (torch.float32, dtype)
    )
    z, label = torch.randn(16, 8), torch.arange(16) % 4
    images = [network(z, label, noise="const") for network in (exact, half)]
    assert images[1].dtype == torch.float32
    drift = (images[0] - images[1]).std() / images[0].std()
    assert 0 < drift < 8 * torch.finfo(dtype).eps / 2

    judges = [
        small_discriminator(architecture=architecture, compute_dtype=one, conv_clamp=256)
        for one in (torch.float32, dtype)
    ]
    logits = [judge(images[0], label) for judge in judges]
    assert logits[1].dtype == torch.float32
    drift = (logits[0] - logits[1]).std() / logits[0].std()
    assert 0 < drift < 16 * torch.finfo(dtype).eps / 2


def test_only_blocks_above_4x4_run_in_half_precision() -> None:
    g = small_generator(compute_dtype=torch.bfloat16)
    d = small_discriminator(compute_dtype=torch.bfloat16)
    parts = {
        name: network.get_submodule(name)
        for network, names in (
            (g, ("synthesis.b4.conv1", "synthesis.b4.torgb", "synthesis.b8.conv0")),
            (d, ("b8.conv1", "b4.conv")),
        )
        for name in names
    }
    seen: dict[str, torch.dtype] = {}
    for name, part in parts.items():
        part.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y.dtype}))
    label = torch.arange(4)
    d(g(torch.randn(4, 8), label), label)
    half = [name for name, dtype in seen.items() if dtype == torch.bfloat16]
    assert half == ["synthesis.b8.conv0", "b8.conv1"]
    assert len(seen) == 5


def test_float16_without_a_clamp_gets_the_published_one() -> None:
    half = small_generator(compute_dtype=torch.float16)
    assert half.synthesis.b8.conv0.clamp == 256
    assert small_generator().synthesis.b8.conv0.clamp is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_r1_reaches_every_weight(architecture: str, dtype: torch.dtype) -> None:
    network = small_discriminator(architecture=architecture, compute_dtype=dtype)
    images = torch.randn(4, 1, 16, 16, requires_grad=True)
    logits = network(images, torch.arange(4))
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    # The image's gradient depends on biases through signs alone: they get none.
    weights = {name: one for name, one in network.named_parameters() if name.endswith("weight")}
    assert [name for name, one in weights.items() if one.grad is None] == []
    assert all(one.grad.isfinite().all() and one.grad.any() for one in weights.values())


def test_r1_in_bfloat16_is_near_that_in_float32() -> None:
    images, label = torch.randn(8, 1, 16, 16), torch.arange(8) % 4
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        network = small_discriminator(compute_dtype=dtype)
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(x, label).sum(), x, create_graph=True)
        gradient.square().sum().backward()
        found.append(network.b16.conv0.weight.grad)
    drift = (found[0] - found[1]).norm() / found[0].norm()
    assert drift < 0.1


def slow_upfirdn2d(x: Tensor, f: Tensor, **arguments: Any) -> Tensor:
    """The slow twin with the short forms of up, down and padding written out."""
    full: dict[str, Any] = {"up": 1, "down": 1, "padding": 0, **arguments}
    for name, length in (("up", 2), ("down", 2), ("padding", 4)):
        full[name] = (full[name],) * length if isinstance(full[name], int) else full[name]
    return reference.upfirdn2d(x, f, **full)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_slow_operators_give_the_same_networks_and_derivatives(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything() -> list[Tensor]:
        g = small_generator(architecture=architecture)
        d = small_discriminator(architecture=architecture)
        torch.manual_seed(2)
        label = torch.arange(4)
        images = g(torch.randn(4, 8), label, noise="const")
        logits = d(images, label)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        (logits.mean() + gradient.square().mean()).backward()
        both = [*g.named_parameters(), *d.named_parameters()]
        grads = [one.grad for name, one in both if name.endswith("weight")]
        return [images.detach(), logits.detach(), gradient.detach(), *grads]

    fast = everything()
    twins = {
        "bias_act": reference.bias_act,
        "modulated_bias_act": reference.modulated_bias_act,
        "upfirdn2d": slow_upfirdn2d,
    }
    for module in (layers, synthesis, discriminator, mapping):
        for name, slow in twins.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, slow)
    for one, other in zip(fast, everything(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


# --------------------------------------------------------------------- the rest


def test_copies_and_states_carry_everything() -> None:
    network = small_generator().eval()
    network.mapping.w_avg.normal_()
    twin = small_generator().eval()
    for parameter in twin.parameters():
        parameter.data.zero_()
    twin.load_state_dict(network.state_dict())
    z, label = torch.randn(2, 8), torch.tensor([0, 1])
    expected = network(z, label, truncation=0.5, noise="const")
    for same in (twin, copy.deepcopy(network)):
        assert torch.equal(same(z, label, truncation=0.5, noise="const"), expected)


def test_to_uint8_truncates() -> None:
    values = torch.tensor([-2, -1, -1 + 1 / 127.5, 0, 0.5, 1, 3]).reshape(1, 1, 1, -1)
    found = to_uint8(values.expand(1, 3, 1, -1))
    assert found.dtype == torch.uint8
    assert found.shape == (1, 1, 7, 3)
    assert found[0, 0, :, 2].tolist() == [0, 0, 1, 128, 191, 255, 255]
