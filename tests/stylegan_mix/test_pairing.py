"""The draws of the classes of a row, of its share, and the file of pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stylegan_mix.banks.pair_file import read_pairs
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.latents import plan
from stylegan_mix.latents.pairing import FILLS, Pairing, deficits, partners_of
from stylegan_mix.latents.plan import Mixing
from stylegan_mix.latents.shares import Law, law_of
from stylegan_mix.rng import stream

COUNTS = (500, 300, 120, 40, 10)
NAMES = ("cat", "dog", "ship", "truck", "7")


def drawn(pairing: Pairing, law: Law = Law(), alpha: float = 1.0) -> plan.Rows:
    return plan.rows(Mixing(5, 1, alpha=alpha, pairing=pairing, law=law), 0, 19_968)


def shares(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels, minlength=5) / len(labels)


def close(found: np.ndarray, expected: np.ndarray, rows: int) -> None:
    """Six standard errors of a share of so many rows."""
    np.testing.assert_allclose(found, expected, atol=6 * (0.25 / rows) ** 0.5)


def test_balance_draws_both_classes_by_their_deficit() -> None:
    assert deficits(COUNTS) == (0, 200, 380, 460, 490)
    rows = drawn(Pairing(deficits(COUNTS)))
    expected = np.array(deficits(COUNTS)) / sum(deficits(COUNTS))
    for side in (0, 1):
        close(shares(rows.pair[:, side]), expected, len(rows))
        assert not (rows.pair[:, side] == 0).any()
    together = (rows.pair[:, 0] == 4) & (rows.pair[:, 1] == 4)
    assert together.mean() == pytest.approx(expected[4] ** 2, abs=0.015)


def test_a_fill_of_equal_weights_is_even_and_the_default_is_as_ever() -> None:
    close(shares(drawn(Pairing((3, 3, 3, 3, 3))).pair[:, 0]), np.full(5, 0.2), 19_968)
    pair = stream(0, "mix.pair", 2).integers(0, 5, size=(64, 2), dtype=np.int32)
    np.testing.assert_array_equal(plan.block(Mixing(5, 1), 2).pair, pair)


def test_same_pairs_a_class_with_itself_and_leaves_lam() -> None:
    rows = drawn(Pairing(partners=partners_of("same", 5)))
    np.testing.assert_array_equal(rows.pair[:, 0], rows.pair[:, 1])
    assert len(np.unique(rows.lam)) > 19_000


def test_head_and_tail_are_halves_by_images_not_by_place() -> None:
    partners = partners_of("head-tail", 5, (40, 500, 10, 300, 120))
    assert partners is not None
    # The two largest of five are the head.
    assert [[b for b, _ in one] for one in partners] == [
        [1, 3],
        [0, 2, 4],
        [1, 3],
        [0, 2, 4],
        [1, 3],
    ]
    rows = drawn(Pairing(partners=partners))
    head = np.isin(rows.pair, [1, 3])
    assert (head.sum(axis=1) == 1).all()
    of_tail = rows.pair[rows.pair[:, 0] == 1, 1]
    close(shares(of_tail), np.array([1, 0, 1, 0, 1]) / 3, len(of_tail))


def test_a_single_class_is_its_own_head_and_tail() -> None:
    assert partners_of("head-tail", 1, (9,)) == (((0, 1.0),),)


def test_listed_pairs_go_both_ways_by_their_weights() -> None:
    partners = partners_of("listed", 5, (), ((0, 1, 3.0), (0, 2, 1.0), (3, 3, 1.0)))
    assert partners == (((1, 3.0), (2, 1.0)), ((0, 3.0),), ((0, 1.0),), ((3, 1.0),), ((4, 1.0),))
    rows = drawn(Pairing(partners=partners))
    of_first = rows.pair[rows.pair[:, 0] == 0, 1]
    close(shares(of_first), np.array([0, 0.75, 0.25, 0, 0]), len(of_first))


def test_unmixed_rows_are_of_one_class_alone_and_change_no_others() -> None:
    plain, some = drawn(Pairing()), drawn(Pairing(unmixed=0.3))
    alone = (some.lam == 1) & (some.pair[:, 0] == some.pair[:, 1])
    close(alone.mean(), np.array(0.3), len(some))
    np.testing.assert_array_equal(some.pair[:, 0], plain.pair[:, 0])
    np.testing.assert_array_equal(some.pair[~alone], plain.pair[~alone])
    np.testing.assert_array_equal(some.lam[~alone], plain.lam[~alone])
    every = drawn(Pairing(unmixed=1.0))
    assert (every.lam == 1).all()


def test_rows_of_every_pairing_depend_on_their_number_alone() -> None:
    pairing = Pairing(deficits(COUNTS), partners_of("head-tail", 5, COUNTS), 0.5)
    mixing = Mixing(5, 2, pairing=pairing, law=law_of("window"))
    whole, part = plan.rows(mixing, 0, 300), plan.rows(mixing, 70, 200)
    np.testing.assert_array_equal(part.pair, whole.pair[70:200])
    np.testing.assert_array_equal(part.lam, whole.lam[70:200])


# --------------------------------------------------------------------- lam


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("beta", Law("beta")),
        ("fixed", Law("fixed", (0.5,))),
        ("fixed:0.7", Law("fixed", (0.7,))),
        ("grid:0,1", Law("grid", (0.0, 1.0))),
        ("window", Law("window", (0.25, 0.75))),
    ],
)
def test_a_law_is_read_and_typed_again(typed: str, read: Law) -> None:
    assert law_of(typed) == read
    assert law_of(str(read)) == read


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("bete", "no law 'bete'; did you mean 'beta'"),
        ("beta:1", "takes no numbers"),
        ("fixed:", "not a list of numbers"),
        ("fixed:a", "not a list of numbers"),
        ("fixed:0.1,0.2", "takes 1 number"),
        ("fixed:1.1", "from 0 to 1, got 1.1"),
        ("grid:nan", "from 0 to 1, got nan"),
        ("grid:-0.1", "from 0 to 1"),
        ("window:0.5", "takes 2 numbers"),
        ("window:0.7,0.3", "a smaller and a larger"),
    ],
)
def test_an_impossible_law_is_refused(typed: str, text: str) -> None:
    with pytest.raises(UsageFailure, match=text):
        law_of(typed)


def test_a_fixed_lam_and_a_grid() -> None:
    assert (drawn(Pairing(), law_of("fixed:0.7")).lam == np.float32(0.7)).all()
    lam = drawn(Pairing(), law_of("grid:0.2,0.4,0.9")).lam
    values, counts = np.unique(lam, return_counts=True)
    np.testing.assert_array_equal(values, np.float32([0.2, 0.4, 0.9]))
    close(counts / len(lam), np.full(3, 1 / 3), len(lam))


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_a_window_is_the_beta_between_its_ends(alpha: float) -> None:
    lam = drawn(Pairing(), law_of("window:0.2,0.6"), alpha).lam
    assert lam.min() >= np.float32(0.2)
    assert lam.max() <= np.float32(0.6)
    beta = stats.beta(alpha, alpha)
    low, high = beta.cdf(0.2), beta.cdf(0.6)
    found = stats.kstest(lam[:4000], lambda x: (beta.cdf(x) - low) / (high - low))
    assert found.pvalue > 1e-4


# --------------------------------------------------------------------- the file


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("head", ["", "a,b,weight\n", "\ufeffa,b\n"])
def test_pairs_are_read_by_name_or_number(tmp_path: Path, head: str) -> None:
    path = file(tmp_path, head + "ship, dog,2\n\ncat,3\n7,0\n")
    # The class that is named 7 is number 4.
    assert read_pairs(path, NAMES) == ((0, 3, 1.0), (2, 1, 2.0), (4, 0, 1.0))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("cat,dgo\n", "line 1: no class 'dgo'; did you mean 'dog'"),
        ("cat,dog\ncat\n", "line 2: expected a,b"),
        ("cat,5\n", "no class '5'"),
        ("cat,-1\n", "no class '-1'"),
        ("cat,dog,0\n", "a weight must be a positive number, got '0'"),
        ("cat,dog,nan\n", "positive number"),
        ("cat,dog,inf\n", "positive number"),
        ("a,b\n", "lists no pair"),
        ("", "lists no pair"),
        ('"' + "x" * 200_000 + '",1\n', "no CSV file"),
    ],
)
def test_a_line_that_fits_nothing_is_named(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(InvalidInput, match=error) as caught:
        read_pairs(file(tmp_path, text), NAMES)
    assert "pairs.csv" in str(caught.value)


def test_other_bytes_than_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"\xff\xfe\x00cat")
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_pairs(path, NAMES)


def test_every_fill_gives_a_weight_a_class() -> None:
    for fill in FILLS.values():
        assert fill.weights is None or len(fill.weights(COUNTS)) == 5
