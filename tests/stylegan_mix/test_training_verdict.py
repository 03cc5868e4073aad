"""What the players are told: the terms of every kind of network, and which logit is judged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stylegan_mix.networks import Discriminator, Generator
from stylegan_mix.training import losses
from stylegan_mix.training.critic_heads import judge, judged_logits
from stylegan_mix.training.schedules import faded_in

LABEL = torch.tensor([0, 2, 1, 0])


def discriminator(**changes: Any) -> Discriminator:
    torch.manual_seed(1)
    return Discriminator(
        resolution=16, image_channels=1, classes=3, channel_base=128, channel_max=8, **changes
    )


def shown(size: int = 16) -> Tensor:
    return torch.randn(4, 1, size, size, generator=torch.Generator().manual_seed(size))


def gradients(network: Discriminator, loss: Tensor) -> list[Tensor]:
    network.zero_grad(set_to_none=True)
    loss.mean().backward()
    return [one.grad for one in network.parameters() if one.grad is not None]


def test_a_plain_verdict_is_the_logit_to_the_bit() -> None:
    network, images = discriminator(), shown()
    verdict, logits = judge(network, images, LABEL), network(images, LABEL)
    ((weight, told),) = verdict.terms
    assert weight == 1
    assert told is verdict.judged
    assert torch.equal(told, logits)
    for of in (losses.fool_loss, losses.spot_fake_loss):
        assert torch.equal(verdict.loss(of), of(logits))
    before = gradients(network, losses.spot_real_loss(network(images, LABEL)))
    after = gradients(network, judge(network, images, LABEL).loss(losses.spot_real_loss))
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("weight", "shares"), [(1.0, (0.5, 0.5)), (3.0, (0.25, 0.75))])
@torch.no_grad()
def test_utlo_divides_one_game_between_both_resolutions(
    weight: float, shares: tuple[float, float]
) -> None:
    network, images, low = discriminator(utlo_resolution=8), shown(), shown(8)
    verdict = judge(network, images, LABEL, low=low, utlo_weight=weight)
    full, small = network(images, LABEL), network.low(low)
    expected = shares[0] * losses.fool_loss(full) + shares[1] * losses.fool_loss(small)
    torch.testing.assert_close(verdict.loss(losses.fool_loss), expected)
    assert torch.equal(verdict.judged, full)


@pytest.mark.parametrize("share", [0.0, 0.25, torch.tensor(1.0)])
@torch.no_grad()
def test_a_transition_adds_the_conditional_game_slowly(share: float | Tensor) -> None:
    network, images = discriminator(transitional=True), shown()
    verdict = judge(network, images, LABEL, transition=share)
    free, conditional = network.both(images, LABEL)
    expected = losses.fool_loss(free) + share * losses.fool_loss(conditional)
    torch.testing.assert_close(verdict.loss(losses.fool_loss), expected)
    assert torch.equal(verdict.judged, free)


@pytest.mark.parametrize("changes", [{}, {"utlo_resolution": 8}, {"transitional": True}])
def test_what_r1_looks_at_is_what_is_judged(changes: dict[str, Any]) -> None:
    network, images = discriminator(**changes), shown().requires_grad_()
    low = shown(8) if network.utlo_resolution else None
    logits = judged_logits(network, images, LABEL)
    assert torch.equal(logits, judge(network, images, LABEL, low=low).judged)
    losses.r1_penalty(logits, images).sum().backward()
    reached = {name for name, one in network.named_parameters() if one.grad is not None}
    assert any(name.startswith("mapping.") for name in reached) != network.transitional
    assert not any("_low" in name for name in reached)


@pytest.mark.parametrize("changes", [{}, {"utlo_resolution": 8}, {"transitional": True}])
def test_both_players_learn_with_every_weight(changes: dict[str, Any]) -> None:
    network, sizes = discriminator(**changes), {"resolution": 16, "image_channels": 1, "classes": 3}
    generator = Generator(**sizes, z_dim=6, w_dim=9, channel_base=128, channel_max=8, **changes)
    if generator.mapping.transitional:
        generator.set_transition(0.5)
    images, low = generator.synthesis.with_low(generator.ws(torch.randn(4, 6), LABEL))
    verdict = judge(network, images, LABEL, low=low, transition=0.5)
    verdict.loss(losses.fool_loss).mean().backward()
    for player in (generator, network):
        for name, one in player.named_parameters():
            assert one.grad is not None, name
            assert one.grad.any(), name


@pytest.mark.parametrize(
    ("resolution", "low", "message"),
    [
        (8, None, "utlo_resolution 8 was given low-resolution images none"),
        (0, shown(8), r"utlo_resolution 0 was given low-resolution images \[4, 1, 8, 8\]"),
    ],
)
def test_low_images_go_with_utlo(resolution: int, low: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge(discriminator(utlo_resolution=resolution), shown(), LABEL, low=low)


def test_the_transition_is_linear_between_its_ends() -> None:
    at = [faded_in(kimg, 2000, 4000) for kimg in (0, 2000, 2500, 3999, 4000, 1e5)]
    assert at == [0, 0, 0.25, 0.9995, 1, 1]
    assert [faded_in(kimg, 10, 10) for kimg in (9.9, 10)] == [0, 1]
    for start, end in ((5, 4), (-1, 4)):
        with pytest.raises(ValueError, match=f"got {start} to {end}"):
            faded_in(0, start, end)
