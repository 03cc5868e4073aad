"""`decide` of banks and reports: plain data, no printing, and a command that asks for the same."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from stylegan_mix.banks import plan as banks
from stylegan_mix.datasets.asked import AskedDraw
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.generators.store import Published
from stylegan_mix.metrics import plan as reports

Run = Callable[..., tuple[int, str, str]]
Capture = pytest.CaptureFixture[str]

ROWS = {"n": 70, "space": "z", "alpha": 1 / 3, "truncation": 0.7, "seed": -4}


def silent(capsys: Capture) -> bool:
    out, err = capsys.readouterr()
    return out == err == ""


def test_the_command_of_a_bank_asks_for_the_same_rows(
    generator: Published, run: Run, capsys: Capture
) -> None:
    plan = banks.decide(banks.Asked(precision="bfloat16", **ROWS))
    assert silent(capsys)
    assert (plan.published, plan.training, plan.existing) == (generator, None, None)
    assert plan.means is not None and plan.means.numerics.compute == "bfloat16"
    assert plan.why[0].startswith("data set digits_lt: the default")
    program, *words = plan.command()
    assert program == "stylegan-mix"
    code, out, err = run(*words, "--dry-run", "--json")
    assert code == 0, err
    cost = json.loads(out)
    assert cost["request_key"] == plan.request.key
    assert cost["key"] == plan.request.exact_key(plan.means.numerics)


def test_a_bank_that_exists_is_found_without_means_to_make_it(
    generator: Published, run: Run
) -> None:
    asked = banks.Asked(generator=generator.hash[:9], **ROWS)
    assert run(*banks.decide(asked).command()[1:])[0] == 0
    plan = banks.decide(asked)
    assert plan.existing is not None and plan.existing.request_key == plan.request.key
    assert plan.means is None


def test_a_plan_without_a_generator_trains_one_and_its_command_does_so_too(
    home: object, run: Run, capsys: Capture
) -> None:
    draw = AskedDraw("digits_lt", imbalance=10.0, split_seed=2)
    plan = banks.decide(banks.Asked(draw, **ROWS))
    assert silent(capsys)
    assert plan.published is None and plan.training is not None
    assert (plan.training.plan.preset.name, plan.training.start) == ("tiny8", 0.0)
    assert plan.why[-1] == "no finished generator of digits_lt: this one is trained first"
    words = plan.command()
    assert "--generator" not in words
    told = json.loads(run(*words[1:], "--dry-run", "--json")[1])
    assert (told["state"], told["bytes"]) == ("no generator", plan.request.bytes)
    assert told["train"]["split_id"] == plan.request.split_id
    with pytest.raises(InvalidInput, match="no finished generator of digits_lt, split"):
        banks.decide(banks.Asked(draw, train=False))


def test_bounds_are_checked_before_a_generator_is_looked_for(home: object) -> None:
    with pytest.raises(UsageFailure, match="--n must be .*; --alpha must be"):
        banks.decide(banks.Asked(n=0, alpha=0.0, generator="absent"))


def test_the_command_of_a_report_asks_for_the_same_report(
    generator: Published, run: Run, capsys: Capture
) -> None:
    asked = reports.Asked(
        generator=generator.hash[:9],
        draw=AskedDraw("digits_lt", imbalance=20.0),
        against="train",
        labels="frequency",
        n=60,
        seeds=2,
        truncation=0.5,
        cas=False,
        seed=7,
    )
    plan = reports.decide(asked)
    assert silent(capsys)
    assert (plan.found, plan.probe, list(plan.references)) == (None, None, ["train"])
    program, *words = plan.command()
    assert (program, words[:2]) == ("stylegan-mix", ["metrics", generator.hash[:9]])
    code, out, err = run(*words, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["key"] == plan.request.key


def test_all_that_cannot_be_asked_of_a_report_is_told_at_once(home: object) -> None:
    asked = reports.Asked(generator="a", bank="b", labels="uniform", features_sha256="c")
    with pytest.raises(UsageFailure) as refused:
        reports.decide(asked)
    assert str(refused.value).split("; ") == asked.problems()
    assert len(asked.problems()) == 3
