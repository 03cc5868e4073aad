"""The mixing plan as a function of the row, and what each space makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylegan_mix.latents import decoding, plan, spaces
from stylegan_mix.latents.plan import BLOCK, Mixing
from stylegan_mix.latents.spaces import SPACES

TEN = Mixing(classes=10, z_dim=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 400), st.integers(1, 200), st.integers(0, 5))
def test_a_row_depends_on_its_number_alone(start: int, count: int, seed: int) -> None:
    mixing = Mixing(classes=5, z_dim=2, seed=seed)
    part, whole = plan.rows(mixing, start, start + count), plan.rows(mixing, 0, 640)
    cut = slice(start, start + count)
    np.testing.assert_array_equal(part.pair, whole.pair[cut])
    np.testing.assert_array_equal(part.lam, whole.lam[cut])
    np.testing.assert_array_equal(part.z, whole.z[:, cut])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_lam_follows_its_beta_distribution_row_by_row(alpha: float) -> None:
    lam = plan.rows(Mixing(classes=10, z_dim=1, alpha=alpha), 0, 10_000).lam
    assert abs(lam.mean() - 0.5) < 0.01
    # The fourth central moment of a Beta is below 1/80: six standard errors.
    assert abs(lam.var() - 1 / (4 * (2 * alpha + 1))) < 6 * (1 / 80 / len(lam)) ** 0.5
    assert len(np.unique(lam)) > 9_000
    assert lam.dtype == np.float32


def test_classes_are_balanced_and_independent() -> None:
    rows = plan.rows(TEN, 0, 50_048)
    mass = np.bincount(rows.pair[:, 0], rows.lam, 10) + np.bincount(
        rows.pair[:, 1], 1 - rows.lam, 10
    )
    assert mass.sum() == pytest.approx(len(rows))
    np.testing.assert_allclose(mass / len(rows), 0.1, rtol=0.02)
    assert (rows.pair[:, 0] == rows.pair[:, 1]).mean() == pytest.approx(0.1, abs=0.006)
    together = np.histogram2d(rows.pair[:, 0], rows.pair[:, 1], bins=10)[0] / len(rows)
    np.testing.assert_allclose(together, 0.01, atol=6 * (0.01 / len(rows)) ** 0.5)


def test_latents_are_standard_normal_and_independent() -> None:
    z = plan.rows(TEN, 0, 6400).z.reshape(2, -1)
    np.testing.assert_allclose(z.mean(axis=1), 0, atol=6 / z.shape[1] ** 0.5)
    np.testing.assert_allclose(np.cov(z), np.eye(2), atol=9 / z.shape[1] ** 0.5)


def test_seed_changes_everything_and_alpha_only_lam() -> None:
    plain = plan.block(TEN, 3)
    other = plan.block(Mixing(classes=10, z_dim=3, seed=1), 3)
    softer = plan.block(Mixing(classes=10, z_dim=3, alpha=0.5), 3)
    assert (plain.pair != other.pair).any()
    assert (plain.lam != other.lam).all()
    assert (plain.z != other.z).all()
    np.testing.assert_array_equal(plain.pair, softer.pair)
    np.testing.assert_array_equal(plain.z, softer.z)
    assert (plain.lam != softer.lam).mean() > 0.9


@pytest.mark.parametrize("space", SPACES)
def test_every_space_has_the_same_rows(space: str) -> None:
    plain, other = (plan.block(TEN, 2), plan.block(Mixing(10, 3, space=space, w_dim=5), 2))
    np.testing.assert_array_equal(plain.z, other.z)
    if space == "none":
        np.testing.assert_array_equal(other.pair, plain.pair[:, [0, 0]])
        assert (other.lam == 1).all()
    else:
        np.testing.assert_array_equal(plain.pair, other.pair)
        np.testing.assert_array_equal(plain.lam, other.lam)


def test_a_path_keeps_its_latents_and_goes_from_a_to_b() -> None:
    path = plan.path(TEN, (4, 7), 0, 11)
    assert (path.pair == [4, 7]).all()
    assert (path.z == path.z[:, :1]).all()
    np.testing.assert_allclose(path.lam, np.linspace(1, 0, 11), atol=1e-6)
    samples = plan.path(Mixing(10, 3, space="none"), (4, 7), 0, 11)
    assert (samples.pair == 4).all()
    assert len(np.unique(samples.z[0], axis=0)) == 11


def test_an_empty_range_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="range"):
        plan.rows(TEN, 5, 5)


# What spaces make of a plan


def rows_of(mixing: Mixing, lam: float | None = None) -> spaces.Latents:
    rows = plan.block(mixing, 0)
    if lam is not None:
        rows = replace(rows, lam=np.full(len(rows), lam, np.float32))
    return decoding.latents(rows, "cpu")


@pytest.fixture
def real() -> Any:
    """A small generator of the project with random weights, conditional on 3 classes."""
    from stylegan_mix.networks import Generator

    torch.manual_seed(0)
    built = Generator(
        resolution=8,
        image_channels=1,
        classes=3,
        z_dim=16,
        w_dim=16,
        channel_base=64,
        channel_max=8,
    )
    return built.eval().requires_grad_(False)


def decoded(network: Any, rows: spaces.Latents, space: str, **more: Any) -> torch.Tensor:
    prepared = SPACES[space].prepared(network)
    return decoding.decode(network, rows, space=prepared, noise="const", **more)


@pytest.mark.parametrize("space", SPACES)
def test_every_space_decodes_a_block(real: Any, space: str) -> None:
    images = decoded(real, rows_of(Mixing(3, 16, space=space, w_dim=16)), space)
    assert images.shape == (BLOCK, 1, 8, 8)
    assert images.dtype == torch.float32
    assert images.std() > 0


def test_the_ends_of_a_path_in_w_are_the_unmixed_images_exactly(real: Any) -> None:
    mixing = Mixing(3, 16)
    for lam, side in ((1.0, "a"), (0.0, "b")):
        rows = rows_of(mixing, lam)
        z, label = getattr(rows, f"z_{side}"), getattr(rows, side)
        unmixed = real.synthesis(real.broadcast(real.mapping(z, label)), noise="const")
        assert torch.equal(decoded(real, rows, "w"), unmixed)
        assert torch.equal(decoded(real, rows, "pixel"), unmixed.clamp(-1, 1))


def test_the_middle_of_a_path_in_w_is_neither_the_pixel_mix_nor_an_end(real: Any) -> None:
    rows = rows_of(Mixing(3, 16), 0.5)
    middle = decoded(real, rows, "w")
    for other in ("pixel", "none", "z", "label"):
        assert not torch.allclose(middle, decoded(real, rows, other), atol=1e-4), other


def test_label_and_z_spaces_at_lam_one_are_class_a(real: Any) -> None:
    rows = rows_of(Mixing(3, 16), 1.0)
    unmixed = decoded(real, rows, "none")
    torch.testing.assert_close(decoded(real, rows, "label"), unmixed)
    torch.testing.assert_close(decoded(real, rows, "z"), unmixed, rtol=1e-3, atol=1e-4)


def test_the_label_space_never_uses_the_second_latent(real: Any) -> None:
    rows = rows_of(Mixing(3, 16), 0.5)
    other = spaces.Latents(rows.z_a, -rows.z_b, rows.a, rows.b, rows.lam)
    assert torch.equal(decoded(real, rows, "label"), decoded(real, other, "label"))
    assert not torch.equal(decoded(real, rows, "z"), decoded(real, other, "z"))


def test_pixels_are_mixed_in_float_before_rounding() -> None:
    from stylegan_mix.networks import to_uint8

    levels = torch.tensor([0.0, 200.0])  # of class 0 and class 1

    class Constant:
        classes = 2

        def ws(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return ((levels[label] - 127.5) / 127.5)[:, None, None]

        def truncate(self, ws: torch.Tensor, _: float) -> torch.Tensor:
            return ws

        def synthesis(self, ws: torch.Tensor, **_: Any) -> torch.Tensor:
            return ws[..., None].expand(-1, 3, 2, 2)

    one = torch.ones(1, dtype=torch.int64)
    rows = spaces.Latents(
        torch.zeros(1, 1), torch.zeros(1, 1), one * 0, one, torch.tensor([[0.25]])
    )
    mixed = decoding.decode(Constant(), rows, space=SPACES["pixel"])  # type: ignore[arg-type]
    torch.testing.assert_close(mixed * 127.5 + 127.5, torch.full((1, 3, 2, 2), 150.0))
    assert (to_uint8(mixed) == 150).all()


def test_no_truncation_gives_every_row_the_mean_w(real: Any) -> None:
    real.mapping.w_avg.fill_(0.5)
    mean = real.synthesis(real.broadcast(real.mapping.w_avg[None]), noise="const")
    images = decoded(real, rows_of(Mixing(3, 16)), "none", truncation=0.0)
    torch.testing.assert_close(images, mean.expand_as(images))
    half = decoded(real, rows_of(Mixing(3, 16)), "w", truncation=0.5)
    assert not torch.allclose(half, decoded(real, rows_of(Mixing(3, 16)), "w"))


def test_soft_labels_sum_to_one_also_when_both_classes_are_the_same(toy: Any) -> None:
    rows = rows_of(Mixing(3, 4))
    soft = spaces._soft(toy, rows)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(BLOCK))
    same = rows.a == rows.b
    assert same.any()
    assert (soft[same].max(dim=1).values == 1).all()


# --------------------------------------------------------------------- more spaces


@pytest.mark.parametrize("space", ["w-spread", "w+", "channels"])
@pytest.mark.parametrize("truncation", [1.0, 0.6])
def test_the_ends_of_other_paths_are_the_unmixed_images(
    real: Any, space: str, truncation: float
) -> None:
    mixing = Mixing(3, 16, space=space, w_dim=16)
    for lam, side in ((1.0, "a"), (0.0, "b")):
        rows = rows_of(mixing, lam)
        ws = real.ws(getattr(rows, f"z_{side}"), getattr(rows, side))
        unmixed = real.synthesis(real.truncate(ws, truncation), noise="const")
        found = decoded(real, rows, space, truncation=truncation)
        torch.testing.assert_close(found, unmixed, rtol=1e-4, atol=1e-5)


def ws_of(network: Any, rows: spaces.Latents, space: str) -> torch.Tensor:
    prepared: torch.Tensor = SPACES[space].prepared(network).ws(network, rows, 1.0)
    return prepared


def test_a_crossover_takes_coarse_layers_from_a(real: Any) -> None:
    rows = rows_of(Mixing(3, 16), 0.6)
    first, second = real.ws(rows.z_a, rows.a), real.ws(rows.z_b, rows.b)
    layers = real.num_ws
    coarse = round(0.6 * layers)
    assert 0 < coarse < layers
    found = ws_of(real, rows, "w+")
    assert torch.equal(found[:, :coarse], first[:, :coarse])
    assert torch.equal(found[:, coarse:], second[:, coarse:])


def test_masked_channels_come_from_a_in_a_share_lam_and_in_every_layer(real: Any) -> None:
    rows = rows_of(Mixing(3, 16, space="channels", w_dim=16), 0.25)
    first, second = real.ws(rows.z_a, rows.a), real.ws(rows.z_b, rows.b)
    found = ws_of(real, rows, "channels")
    of_a = found == first
    assert torch.equal(of_a | (found == second), torch.ones_like(of_a))
    assert (of_a == of_a[:, :1]).all()
    # Of 64 rows with 16 channels each: six standard errors.
    share = of_a[:, 0].double().mean().item()
    assert share == pytest.approx(0.25, abs=6 * (0.25 * 0.75 / 1024) ** 0.5)
    assert len(torch.unique(of_a[:, 0], dim=0)) > 60


def test_a_mask_is_drawn_row_by_row_and_only_where_it_is_read() -> None:
    mixing = Mixing(10, 3, space="channels", w_dim=7)
    whole, part = plan.rows(mixing, 0, 200), plan.rows(mixing, 63, 130)
    assert whole.mask is not None
    assert part.mask is not None
    assert whole.mask.shape == (200, 7)
    np.testing.assert_array_equal(part.mask, whole.mask[63:130])
    assert plan.rows(TEN, 0, 10).mask is None
    path = plan.path(mixing, (1, 2), 0, 5)
    assert path.mask is not None
    assert path.mask.shape == (5, 7)
    assert (path.mask == path.mask[:1]).all()


def test_the_lerp_with_spread_varies_as_much_as_unmixed_codes(real: Any) -> None:
    blocks = [plan.block(Mixing(3, 16, seed=seed), 0) for seed in range(60)]
    rows = decoding.latents(
        plan.Rows(
            np.tile(np.array([0, 1], np.int32), (60 * BLOCK, 1)),
            np.full(60 * BLOCK, 0.5, np.float32),
            np.concatenate([block.z for block in blocks], axis=1),
        ),
        "cpu",
    )
    spread = {one: ws_of(real, rows, one).var(dim=0).mean().item() for one in ("w", "w-spread")}
    first = real.ws(rows.z_a, rows.a).var(dim=0).mean().item()
    second = real.ws(rows.z_b, rows.b).var(dim=0).mean().item()
    assert spread["w"] == pytest.approx((first + second) / 4, rel=0.05)
    assert spread["w-spread"] == pytest.approx((first + second) / 2, rel=0.05)
    middle = ws_of(real, rows, "w-spread").mean(dim=0)
    torch.testing.assert_close(middle, ws_of(real, rows, "w").mean(dim=0), atol=0.05, rtol=0)
