"""A bank without a generator: the training before it begins by itself only if it is short."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix import datasets
from stylegan_mix.estimates import Span
from stylegan_mix.training import cost

Run = Callable[..., tuple[int, str, str]]

HOUR = 3600.0


class Begun(Exception):
    """The beginning of a training, which a test ends there."""


@pytest.fixture
def generate(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """`generate(name, left, ...)` asks for a bank whose training takes `left` on this machine."""

    def begin(*_: Any, **__: Any) -> None:
        raise Begun

    monkeypatch.setattr("stylegan_mix.training.run.run_training", begin)

    def generating(name: str, left: Span, *words: str) -> tuple[int, str, str]:
        digits = datasets.load("digits_lt")
        data = dataclasses.replace(digits, name=name)
        monkeypatch.setattr("stylegan_mix.datasets.asked.load", lambda *_, **__: data)

        def estimate(plan: Any, *, start: float) -> cost.Cost:
            return cost.Cost(100, 3200, left.times(2), left, 1)

        monkeypatch.setattr(cost, "estimate", estimate)
        return run("generate", "--dataset", name, "--n", "50", *words)

    return generating


def begun(err: str) -> bool:
    return "a bug of ours: Begun" in err


@pytest.mark.parametrize(
    ("left", "begins"),
    [
        (Span(60, 120), True),
        (Span(2 * HOUR, 4 * HOUR), True),
        (Span(2 * HOUR, 4.01 * HOUR), False),
        (Span(20 * HOUR, 90 * HOUR), False),
        (Span(1.0, 90 * HOUR), False),
    ],
)
def test_no_training_of_more_than_four_hours_begins_unasked(
    generate: Any, left: Span, begins: bool
) -> None:
    code, out, err = generate("birds", left)
    assert begun(err) == begins
    if begins:
        return
    assert (code, out) == (3, "")
    assert "no finished generator of birds, and to train one takes" in err
    assert "generate trains for up to 4 hours" in err
    assert "  stylegan-mix train --dataset birds" in err
    assert "--train insists" in err


def test_the_estimate_is_named_in_the_refusal_unless_it_says_nothing(generate: Any) -> None:
    assert (
        "takes 20 to 40 hours on this machine" in generate("birds", Span(20 * HOUR, 40 * HOUR))[2]
    )
    assert "takes an unknown time on this machine" in generate("birds", Span(1, 40 * HOUR))[2]


@pytest.mark.parametrize("name", ["digits_lt", "cifar10_lt"])
def test_the_training_of_a_built_in_set_begins_as_typed_and_is_not_measured(
    generate: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, err = generate(name, Span(20 * HOUR, 40 * HOUR))
    assert begun(err)
    assert "from the beginning" not in err


def test_train_insists_and_no_train_forbids(generate: Any) -> None:
    long = Span(20 * HOUR, 40 * HOUR)
    assert begun(generate("birds", long, "--train")[2])
    for name in ("birds", "digits_lt"):
        code, _, err = generate(name, Span(1, 2), "--no-train")
        assert (code, begun(err)) == (3, False)
        assert "without --no-train this command does it first" in err


def test_what_counts_is_the_rest_of_a_training_that_has_begun(generate: Any) -> None:
    # The whole takes twice as long in these tests.
    assert begun(generate("birds", Span(2 * HOUR, 3 * HOUR))[2])


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_dry_run_tells_the_cost_and_refuses_what_the_command_refuses(
    generate: Any, words: tuple[str, ...]
) -> None:
    code, out, err = generate("birds", Span(20 * HOUR, 40 * HOUR), "--dry-run", *words)
    assert code == 3
    assert "--train insists" in err
    if words:
        assert json.loads(out)["cost"]["seconds_left"] == [20 * HOUR, 40 * HOUR]
    else:
        assert "40 to 80 hours" not in err.splitlines()[-2]
        assert "then a bank of 50 images" in err
    assert generate("birds", Span(20 * HOUR, 40 * HOUR), "--dry-run", "--train", *words)[0] == 0
    assert generate("birds", Span(1, 2), "--dry-run", *words)[0] == 0
