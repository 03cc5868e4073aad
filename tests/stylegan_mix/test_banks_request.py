"""The two keys of a bank: what is in them, what is not, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from stylegan_mix import store
from stylegan_mix.banks.request import Request
from stylegan_mix.errors import UsageFailure
from stylegan_mix.numerics import Numerics

HERE = Numerics("cpu-AVX2", "float32", "reference", "2.13.0", "2.4.0")


def test_the_same_request_spelt_otherwise_has_the_same_key(ask: Callable[..., Request]) -> None:
    plain = ask()
    assert ask(alpha=1, truncation=1).key == plain.key
    assert ask(truncation=-0.0).key == ask(truncation=0.0).key
    turned = dict(reversed(plain.spec().items()))
    assert store.digest(turned) == plain.key


@pytest.mark.parametrize(
    "change",
    [
        {"generator": "cd" * 32},
        {"split_id": "6" * 64},
        {"classes": 4},
        {"resolution": 8},
        {"channels": 3},
        {"n": 101},
        {"space": "pixel"},
        {"alpha": 0.5},
        {"truncation": 0.7},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_a_request_changes_both_keys(
    ask: Callable[..., Request], change: dict[str, Any]
) -> None:
    plain, other = ask(), ask(**change)
    assert other.key != plain.key
    assert other.exact_key(HERE) != plain.exact_key(HERE)


def test_a_request_has_no_field_that_the_key_forgets(ask: Callable[..., Request]) -> None:
    named = {field.name for field in dataclasses.fields(Request)}
    assert named <= set(ask().spec())


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Numerics)])
def test_numerics_name_bytes_and_not_requests(ask: Callable[..., Request], field: str) -> None:
    other = dataclasses.replace(HERE, **{field: "other"})
    assert ask().exact_key(other) != ask().exact_key(HERE)


def test_alpha_is_no_part_of_an_unmixed_bank(ask: Callable[..., Request]) -> None:
    assert ask(space="none", alpha=0.5).key == ask(space="none", alpha=2.0).key


def test_keys_stay_what_they_were(ask: Callable[..., Request]) -> None:
    # Changing these makes every bank in every store unknown: raise an ALGORITHM version instead
    # if what is generated has changed, and nothing if it has not.
    assert ask().key == "678e4be532aa442f4f02a78e89c6cf2b56cf29d0e88ac4f48f476632863c7ecb"
    assert (
        ask().exact_key(HERE) == "fb894719f1f11bb8088803169b05dd3fdaecb5f5b85005b76625b0c7938e8ccc"
    )


def test_everything_out_of_bounds_is_named_at_once(ask: Callable[..., Request]) -> None:
    with pytest.raises(UsageFailure) as caught:
        ask(n=0, space="wx", alpha=float("nan"), truncation=float("inf"))
    text = str(caught.value)
    for part in (
        "--n must be from 1",
        "no space 'wx'; did you mean",
        "--alpha must be",
        "--truncation must",
    ):
        assert part in text


@pytest.mark.parametrize("bad", [{"n": -1}, {"n": 2**63 + 1}, {"alpha": 0.0}, {"alpha": -1.0}])
def test_impossible_numbers_are_refused(ask: Callable[..., Request], bad: dict[str, Any]) -> None:
    with pytest.raises(UsageFailure):
        ask(**bad)


def test_blocks_and_bytes_of_a_cut_last_block(ask: Callable[..., Request]) -> None:
    assert [ask(n=n).blocks for n in (1, 64, 65, 128)] == [1, 1, 2, 2]
    assert ask(n=65).bytes == 65 * (4 * 4 * 1 + 4 + 4 + 4)
