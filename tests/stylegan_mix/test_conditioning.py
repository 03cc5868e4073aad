"""Where the label enters: UTLO and transitional conditioning, against the equations by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kernels import setup_filter, upfirdn2d
from stylegan_mix.banks.write import Decoder
from stylegan_mix.latents import decoding, plan, spaces
from stylegan_mix.latents.plan import Mixing
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.networks import Discriminator, Generator, to_uint8
from stylegan_mix.networks.layers import normalize_second_moment
from stylegan_mix.networks.mapping import Mapping
from stylegan_mix.rng import Draws
from stylegan_mix.training.ema import update_ema

LOW = (4, 8)  # of networks of 16 pixels
SIZES = {
    "resolution": 16,
    "image_channels": 1,
    "classes": 3,
    "channel_base": 128,
    "channel_max": 8,
}
LABEL = torch.tensor([0, 2, 1, 0])


def generator(**changes: Any) -> Generator:
    """A small generator in evaluation mode, whose noise and average of w show."""
    torch.manual_seed(0)
    network = Generator(**{**SIZES, "z_dim": 6, "w_dim": 9, **changes}).eval()
    for name, one in [*network.named_parameters(), *network.named_buffers()]:
        if name.endswith(("noise_strength", "bias")) or "w_avg" in name:
            one.data.normal_()
    return network


def discriminator(**changes: Any) -> Discriminator:
    torch.manual_seed(1)
    return Discriminator(**{**SIZES, **changes})


def silent(network: torch.nn.Module) -> set[str]:
    """The parameters that no gradient has reached, none or zero."""
    grads = {name: one.grad for name, one in network.named_parameters()}
    return {name for name, grad in grads.items() if grad is None or not grad.any()}


def fresh_names(changed: torch.nn.Module, plain: torch.nn.Module) -> set[str]:
    return set(changed.state_dict()) - set(plain.state_dict())


# --------------------------------------------------------------------- UTLO: the generator


def code_without_label(network: Generator, z: Tensor) -> Tensor:
    """w_u by hand: the mapping's layers over normalised z and zeros."""
    x = torch.cat([normalize_second_moment(z), torch.zeros(len(z), 9)], dim=1)
    for layer in (network.mapping.fc0, network.mapping.fc1):
        x = functional.linear(x, layer.weight * 0.01 / x.shape[1] ** 0.5, layer.bias * 0.01)
        x = functional.leaky_relu(x, 0.2) * 2**0.5
    return x


def images_by_hand(network: Generator, w_c: Tensor, w_u: Tensor, low: int) -> list[Tensor]:
    """The skip architecture written out, with w_u up to resolution `low`: every sum of to-RGBs."""
    x, image, images = None, None, []
    for size in (4, 8, 16):
        block, w = (network.synthesis.get_submodule(f"b{size}"), w_u if size <= low else w_c)
        if x is None:
            x = block.const.expand(len(w), -1, -1, -1)
        else:
            x = block.conv0(x, w, noise="const")
        x = block.conv1(x, w, noise="const")
        rgb = block.torgb(x, w)
        taps = block.resample_filter
        up = image is not None and upfirdn2d(image, taps, up=2, padding=(2, 1, 2, 1), gain=4)
        image = rgb if image is None else up + rgb
        images.append(image)
    return images


@pytest.mark.parametrize("low", LOW)
@torch.no_grad()
def test_blocks_up_to_the_low_resolution_take_the_code_of_z_alone(low: int) -> None:
    network, z = generator(utlo_resolution=low), torch.randn(4, 6)
    w_u, w_c = code_without_label(network, z), network.mapping(z, LABEL)
    expected = images_by_hand(network, w_c, w_u, low)
    image, small = network.synthesis.with_low(network.ws(z, LABEL), noise="const")
    assert small is not None
    torch.testing.assert_close(image, expected[-1])
    torch.testing.assert_close(small, expected[LOW.index(low)])
    assert torch.equal(network(z, LABEL, noise="const"), image)


@torch.no_grad()
def test_the_low_resolution_image_knows_no_label() -> None:
    network, z = generator(utlo_resolution=8), torch.randn(4, 6)
    both = [
        network.synthesis.with_low(network.ws(z, label), noise="const")
        for label in (LABEL, LABEL.flip(0))
    ]
    assert torch.equal(both[0][1], both[1][1])
    assert not torch.allclose(both[0][0], both[1][0], atol=1e-3)


def test_every_w_reaches_its_image_and_no_other() -> None:
    network = generator(utlo_resolution=8)
    assert (network.num_ws, network.synthesis.low_ws) == (7, 4)
    ws = network.ws(torch.randn(4, 6), LABEL).detach().requires_grad_()
    image, low = network.synthesis.with_low(ws, noise="const")
    (by_low,) = torch.autograd.grad(low.square().sum(), ws, retain_graph=True)
    (by_image,) = torch.autograd.grad(image.square().sum(), ws)
    assert by_low.any(dim=2).tolist() == [[True] * 4 + [False] * 3] * 4
    assert by_image.any(dim=2).all()


def test_gradients_of_the_low_image_stay_below_it_and_leave_the_label_alone() -> None:
    network = generator(utlo_resolution=8)
    _, low = network.synthesis.with_low(network.ws(torch.randn(4, 6), LABEL), noise="const")
    low.square().sum().backward()
    names = dict(network.named_parameters())
    assert silent(network) == {
        name for name in names if name.startswith(("mapping.embed.", "synthesis.b16."))
    }


def test_both_codes_have_their_average_and_are_truncated_to_it() -> None:
    network = generator(utlo_resolution=8)
    ws = network.ws(torch.randn(4, 6), LABEL).detach()
    means = {"low": network.w_avg_low.clone(), "label": network.mapping.w_avg.clone()}
    half = network.truncate(ws, 0.5)
    torch.testing.assert_close(half[:, :4], (ws[:, :4] + means["low"]) / 2)
    torch.testing.assert_close(half[:, 4:], (ws[:, 4:] + means["label"]) / 2)
    cut = network.truncate(ws, 0.5, layers=2)
    torch.testing.assert_close(cut, torch.cat([half[:, :2], ws[:, 2:]], dim=1))
    network.update_w_avg(ws)
    near = {"atol": 1e-6, "rtol": 1e-4}
    moved = 0.995 * means["low"] + 0.005 * ws[:, 0].mean(dim=0)
    torch.testing.assert_close(network.w_avg_low, moved, **near)
    moved = 0.995 * means["label"] + 0.005 * ws[:, -1].mean(dim=0)
    torch.testing.assert_close(network.mapping.w_avg, moved, **near)


def test_label_noise_is_not_in_the_code_without_a_label() -> None:
    network = generator(utlo_resolution=8, label_noise=0.5).train()
    z = torch.randn(4, 6)
    one, other = (
        network.ws(z, LABEL, draws=Draws(torch.Generator().manual_seed(seed))) for seed in (0, 1)
    )
    assert torch.equal(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4:], other[:, 4:])


def test_a_plain_network_has_one_code_and_no_low_image() -> None:
    network, z = generator(), torch.randn(4, 6)
    assert torch.equal(network.ws(z, LABEL), network.broadcast(network.mapping(z, LABEL)))
    assert network.synthesis.with_low(network.ws(z, LABEL), noise="const")[1] is None
    assert fresh_names(generator(utlo_resolution=8), network) == {"w_avg_low"}


# The compiler's own way with autograd functions, which the slow operators are.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("changes", [{"utlo_resolution": 8}, {"transitional": True}])
@torch.no_grad()
def test_the_forward_is_one_graph(changes: dict[str, Any]) -> None:
    network, z = generator(**changes), torch.randn(4, 6)

    def forward(z: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
        return network.synthesis.with_low(network.ws(z, label), noise="const")

    compiled = torch.compile(forward, backend="aot_eager", fullgraph=True)
    for found, expected in zip(compiled(z, LABEL), forward(z, LABEL), strict=True):
        torch.testing.assert_close(found, expected)


# --------------------------------------------------------------------- mixing


def rows_of(space: str) -> spaces.Latents:
    return decoding.latents(plan.block(Mixing(3, 6, space=space), 0), "cpu")


@torch.no_grad()
def test_mixing_in_w_mixes_both_codes() -> None:
    network, rows = generator(utlo_resolution=8), rows_of("w")
    mixed, lam = spaces.SPACES["w"].ws(network, rows, 1.0), rows.lam
    free = lam * code_without_label(network, rows.z_a)
    free = free + (1 - lam) * code_without_label(network, rows.z_b)
    told = lam * network.mapping(rows.z_a, rows.a) + (1 - lam) * network.mapping(rows.z_b, rows.b)
    for layer in range(7):
        torch.testing.assert_close(mixed[:, layer], free if layer < 4 else told)


@torch.no_grad()
def test_a_bank_of_a_utlo_generator_has_both_codes_mixed(ask: Callable[..., Any]) -> None:
    network, rows = generator(utlo_resolution=8), rows_of("w")
    decoder = Decoder(network, ask(resolution=16, truncation=0.5, seed=0))
    written = decoder.block(0).images()
    first, second = (
        network.truncate(network.ws(z, label), 0.5)
        for z, label in ((rows.z_a, rows.a), (rows.z_b, rows.b))
    )
    ws = rows.lam[:, :, None] * first + (1 - rows.lam[:, :, None]) * second
    one_code = ws.clone()
    one_code[:, :4] = first[:, :4]
    images = [expected_block(network, mixed) for mixed in (ws, one_code)]
    np.testing.assert_array_equal(written, images[0])
    assert (written != images[1]).mean() > 0.1


def expected_block(network: Generator, ws: Tensor) -> np.ndarray:
    from stylegan_mix import rng

    draws = rng.Draws(rng.torch_generator(0, "mix.noise", 0))
    return to_uint8(network.synthesis(ws, draws=draws)).numpy()


@pytest.mark.parametrize("truncation", [1.0, 0.7])
@pytest.mark.parametrize("space", ["w", "z", "label", "none", "pixel"])
@torch.no_grad()
def test_plain_networks_decode_to_the_bits_of_one_mixed_w(space: str, truncation: float) -> None:
    """The path before there were several codes: w is mixed once, then broadcast.

    w of 33: rows whose stride is no multiple of a vector are where products differ.
    """
    network, rows = generator(w_dim=33), rows_of(space)

    def w(z: Tensor, label: Tensor) -> Tensor:
        return network.truncate(network.mapping(z, label), truncation)

    def images(w: Tensor) -> Tensor:
        return network.synthesis(network.broadcast(w), noise="const")

    lam, soft = rows.lam, spaces._soft(network, rows)
    ends = w(rows.z_a, rows.a), w(rows.z_b, rows.b)
    if space == "pixel":
        first, second = (images(end).clamp(-1, 1) for end in ends)
        expected = lam[..., None, None] * first + (1 - lam[..., None, None]) * second
    else:
        unit = [spaces._unit(z) for z in (rows.z_a, rows.z_b)]
        one = {
            "w": lambda: lam * ends[0] + (1 - lam) * ends[1],
            "z": lambda: w(lam * unit[0] + (1 - lam) * unit[1], soft),
            "label": lambda: w(rows.z_a, soft),
            "none": lambda: ends[0],
        }
        expected = images(one[space]())
    found = decoding.decode(
        network, rows, space=SPACES[space], truncation=truncation, noise="const"
    )
    assert torch.equal(found, expected)


# --------------------------------------------------------------------- UTLO: the discriminator


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@torch.no_grad()
def test_low_images_enter_the_shared_blocks(architecture: Any, low: int) -> None:
    network = discriminator(architecture=architecture, utlo_resolution=low)
    images = torch.randn(4, 1, low, low)
    x = functional.conv2d(images, network.fromrgb_low.weight, network.fromrgb_low.bias)
    x = functional.leaky_relu(x, 0.2) * 2**0.5
    if low == 8:
        x, _ = network.b8(x, None)
    features = network.b4(x, None)
    head = network.out_low
    expected = features @ head.weight[0] / math.sqrt(8) + head.bias
    torch.testing.assert_close(network.low(images), expected)


@pytest.mark.parametrize("low", LOW)
def test_gradients_of_each_judgement_reach_what_it_uses(low: int) -> None:
    network = discriminator(utlo_resolution=low)
    names = dict(network.named_parameters())
    network.low(torch.randn(4, 1, low, low)).square().sum().backward()
    above = ("b16.",) if low == 8 else ("b16.", "b8.")
    unused = (*above, "mapping.", "b4.out.")
    assert silent(network) == {name for name in names if name.startswith(unused)}
    network.zero_grad(set_to_none=True)
    network(torch.randn(4, 1, 16, 16), LABEL).square().sum().backward()
    assert silent(network) == {name for name in names if "_low" in name}


def test_reals_are_lowered_by_repeated_halving() -> None:
    network, images = discriminator(utlo_resolution=4), torch.randn(2, 1, 16, 16)
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    expected = images
    for _ in range(2):
        expected = functional.conv2d(expected, torch.outer(taps, taps)[None, None], None, 2, 1)
    torch.testing.assert_close(network.lowered(images), expected)
    torch.testing.assert_close(torch.outer(taps, taps), setup_filter((1, 3, 3, 1)))


def test_low_images_of_a_wrong_size_are_an_error() -> None:
    network = discriminator(utlo_resolution=8)
    with pytest.raises(ValueError, match=r"\[N, 1, 8, 8\], got \[4, 1, 16, 16\]"):
        network.low(torch.zeros(4, 1, 16, 16))


@pytest.mark.parametrize("changes", [{}, {"utlo_resolution": 8}, {"transitional": True}])
def test_heads_beside_the_projection_are_all_that_is_new(changes: dict[str, Any]) -> None:
    plain, changed = discriminator(), discriminator(**changes)
    new = {"utlo_resolution": {"fromrgb_low", "out_low"}, "transitional": {"out_free"}}
    expected = new[next(iter(changes))] if changes else set()
    assert {name.split(".")[0] for name in fresh_names(changed, plain)} == expected
    changed.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(4, 1, 16, 16)
    assert torch.equal(changed(images, LABEL), plain(images, LABEL))


# --------------------------------------------------------------------- transitional conditioning


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_label_is_added_behind_the_first_layer(share: float) -> None:
    settings = {"z_dim": 6, "classes": 3, "w_dim": 9, "layers": 2, "transitional": True}
    network = Mapping(**settings, label_weight=0.4, label_noise=0.5)
    network.transition.fill_(share)
    z, draws = torch.randn(4, 6), Draws(torch.Generator().manual_seed(3))
    found = network(z, LABEL, draws=draws)
    noise = torch.randn(4, 9, generator=torch.Generator().manual_seed(3))
    e = network.embed.weight.T[LABEL] / math.sqrt(3) + network.embed.bias
    e = 0.4 * normalize_second_moment(e + 0.5 * noise)
    label = e @ network.fc_label.weight.T * (0.01 / 3) + 0.01 * network.fc_label.bias
    hidden = network.fc0(normalize_second_moment(z)) + share * label
    torch.testing.assert_close(found, network.fc1(hidden))


@torch.no_grad()
def test_without_transition_images_know_no_label() -> None:
    network, z = generator(transitional=True), torch.randn(4, 6)
    images = [network(z, label, noise="const") for label in (LABEL, LABEL.flip(0))]
    assert torch.equal(*images)
    network.set_transition(0.5)
    images = [network(z, label, noise="const") for label in (LABEL, LABEL.flip(0))]
    assert not torch.allclose(*images, atol=1e-3)


def test_the_transition_is_state_that_the_average_takes_over() -> None:
    network, average = generator(transitional=True), generator(transitional=True)
    network.set_transition(0.75)
    update_ema(average, network, 0.5)
    assert average.mapping.transition == 0.75
    twin = generator(transitional=True)
    twin.load_state_dict(network.state_dict())
    assert twin.mapping.transition == 0.75
    names = fresh_names(network, generator())
    assert names == {"mapping.fc_label.weight", "mapping.fc_label.bias", "mapping.transition"}


@torch.no_grad()
def test_two_heads_look_at_the_same_features() -> None:
    network, images = discriminator(transitional=True), torch.randn(4, 1, 16, 16)
    passes: list[Tensor] = []
    network.b4.register_forward_hook(lambda _, __, features: passes.append(features))
    free, conditional = network.both(images, LABEL)
    assert len(passes) == 1
    head = network.out_free
    expected = passes[0] @ head.weight[0] / math.sqrt(8) + head.bias
    torch.testing.assert_close(free, expected)
    assert torch.equal(conditional, network(images, LABEL))


def test_the_unconditional_head_leaves_the_label_alone() -> None:
    network = discriminator(transitional=True)
    free, _ = network.both(torch.randn(4, 1, 16, 16), LABEL)
    free.square().sum().backward()
    names = dict(network.named_parameters())
    assert silent(network) == {name for name in names if name.startswith(("mapping.", "b4.out."))}


# --------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"utlo_resolution": 16}, "0 or a power of 2 from 4 to 8, got 16"),
        ({"utlo_resolution": 6}, "0 or a power of 2 from 4 to 8, got 6"),
        ({"utlo_resolution": 2}, "0 or a power of 2 from 4 to 8, got 2"),
        ({"utlo_resolution": 8, "transitional": True}, "utlo_resolution 8 and .*: choose one"),
        ({"utlo_resolution": 8, "classes": 0}, "utlo_resolution needs classes"),
        ({"transitional": True, "classes": 0}, "transitional conditioning needs classes"),
    ],
)
def test_conditioning_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    for build in (generator, discriminator):
        with pytest.raises(ValueError, match=message):
            build(**changes)


@pytest.mark.parametrize("architecture", ["orig", "resnet"])
def test_only_the_skip_architecture_has_a_low_image(architecture: str) -> None:
    with pytest.raises(ValueError, match=f"needs the skip architecture.*got '{architecture}'"):
        generator(architecture=architecture, utlo_resolution=8)
