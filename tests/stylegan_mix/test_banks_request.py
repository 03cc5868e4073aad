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
        {"fill": "balance", "counts": (9, 5, 1)},
        {"pairs": "same"},
        {"pairs": "head-tail", "counts": (9, 5, 1)},
        {"pairs": "near", "judge": "e" * 64},
        {"pairs": "listed", "listed": ((0, 1, 1.0),)},
        {"unmixed": 0.5},
        {"lam": "fixed"},
        {"lam": "window:0.2,0.8"},
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
    full = ask(
        fill="balance",
        pairs="listed",
        unmixed=0.5,
        lam="fixed",
        counts=(9, 5, 1),
        listed=((0, 1, 1.0),),
        listed_in="pairs.csv",
    )
    near = ask(pairs="near", judge="e" * 64)
    # The name of a file says nothing of its content, which is there.
    assert named - {"listed_in"} <= {*full.spec(), *near.spec()}
    assert full.key == dataclasses.replace(full, listed_in="other.csv").key


def test_counts_and_lists_are_named_where_they_are_read(ask: Callable[..., Request]) -> None:
    counts, listed = {"counts": (9, 5, 1)}, {"listed": ((0, 1, 1.0),)}
    assert ask(**counts, **listed).key == ask().key
    for asked in ({"fill": "balance"}, {"pairs": "head-tail"}):
        assert ask(**asked, **counts).key != ask(**asked, counts=(9, 5, 2)).key
    near = ask(pairs="near", judge="e" * 64)
    assert near.key != ask(pairs="near", judge="f" * 64).key
    # Its pairs follow from the judge, and are not known before it is trained.
    assert dataclasses.replace(near, **listed).key == near.key
    assert ask(judge="e" * 64).key == ask().key
    assert ask(pairs="listed", **listed).key != ask(pairs="listed", listed=((0, 1, 2.0),)).key


def test_the_same_law_typed_otherwise_has_the_same_key(ask: Callable[..., Request]) -> None:
    assert ask(lam="fixed").key == ask(lam="fixed:0.50").key
    assert ask(lam="grid:1").key != ask(lam="fixed:1").key


@pytest.mark.parametrize("lam", ["fixed", "grid"])
def test_alpha_is_no_part_of_a_law_that_does_not_read_it(
    ask: Callable[..., Request], lam: str
) -> None:
    assert ask(lam=lam, alpha=0.5).key == ask(lam=lam, alpha=2.0).key
    assert ask(lam="window", alpha=0.5).key != ask(lam="window", alpha=2.0).key


def test_what_an_unmixed_space_does_not_read_is_no_part_of_its_key(
    ask: Callable[..., Request],
) -> None:
    plain = ask(space="none")
    for unread in ({"pairs": "same"}, {"unmixed": 0.5}, {"lam": "fixed"}):
        assert ask(space="none", **unread).key == plain.key
    assert ask(space="none", fill="balance", counts=(9, 5, 1)).key != plain.key


def test_a_balance_of_equal_classes_is_refused(ask: Callable[..., Request]) -> None:
    with pytest.raises(UsageFailure, match="every class has 7 training images"):
        ask(fill="balance", counts=(7, 7, 7))


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
        ask(
            n=0,
            space="wx",
            alpha=float("nan"),
            truncation=float("inf"),
            fill="balanced",
            pairs="sam",
            unmixed=float("nan"),
            lam="fixed:2",
        )
    text = str(caught.value)
    for part in (
        "--n must be from 1",
        "no space 'wx'; did you mean",
        "--alpha must be",
        "--truncation must",
        "no fill 'balanced'; did you mean 'balance'",
        "no pairing 'sam'; did you mean 'same'",
        "--unmixed must be from 0 to 1",
        "--lam fixed:2: fixed takes numbers from 0 to 1",
    ):
        assert part in text


@pytest.mark.parametrize("bad", [{"n": -1}, {"n": 2**63 + 1}, {"alpha": 0.0}, {"alpha": -1.0}])
def test_impossible_numbers_are_refused(ask: Callable[..., Request], bad: dict[str, Any]) -> None:
    with pytest.raises(UsageFailure):
        ask(**bad)


def test_blocks_and_bytes_of_a_cut_last_block(ask: Callable[..., Request]) -> None:
    assert [ask(n=n).blocks for n in (1, 64, 65, 128)] == [1, 1, 2, 2]
    assert ask(n=65).bytes == 65 * (4 * 4 * 1 + 4 + 4 + 4)
