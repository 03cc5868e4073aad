"""The same command makes the same run: a newer bank changes nothing that was begun."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix.errors import InvalidInput, MissingEnvironment
from trainer import choices, sweep
from trainer.choices import Choice
from trainer.plan import Asked, Plan, decide, requested
from trainer.reports.records import Result, collect

Banks = Callable[..., str]


def taken(plan: Plan) -> str:
    assert plan.spec.bank is not None
    return plan.spec.bank.key


def begun(asked: Asked) -> Plan:
    """The plan of a command that ran."""
    plan = decide(asked)
    plan.keep_choice()
    return plan


@pytest.mark.parametrize("word", [None, "w", "unmixed"])
@pytest.mark.parametrize("aug", ["bank", "hybrid"])
def test_a_command_keeps_its_bank_and_says_how_to_take_the_newer(
    bank: Banks, word: str | None, aug: str
) -> None:
    space = "none" if word == "unmixed" else "w"
    first = bank(space, name="first")
    asked = Asked(dataset="digits_lt", aug=aug, bank=word)
    before = begun(asked)
    assert taken(before) == first and "newer" not in str(before.why)
    newer = bank(space, name="newer")
    again = decide(asked)
    assert again.spec == before.spec and again.folder(0) == before.folder(0)
    assert f"as this command took it before; a newer one is there, --bank {newer[:12]}" in str(
        again.why
    )
    assert taken(decide(replace(asked, bank=newer[:12]))) == newer
    # The choice of the one command is not that of another.
    assert taken(decide(replace(asked, epochs=7))) == newer
    assert taken(decide(replace(asked, out="elsewhere"))) == newer


def test_more_seeds_and_named_defaults_are_the_same_command(bank: Banks) -> None:
    first = bank(name="first")
    begun(Asked(dataset="digits_lt", aug="hybrid"))
    bank(name="newer")
    for more in ({"seeds": 3}, {"seed": 5}, {"epochs": 100}, {"model": "resnet8"}, {"lr": 0.1}):
        plan = decide(Asked(**{"dataset": "digits_lt", "aug": "hybrid", **more}))
        assert taken(plan) == first, more


def test_a_named_bank_is_no_choice_that_is_kept(bank: Banks) -> None:
    old = bank(name="old")
    begun(Asked(dataset="digits_lt", aug="hybrid", bank=old))
    newer = bank(name="newer")
    assert taken(decide(Asked(dataset="digits_lt", aug="hybrid"))) == newer
    assert not list(Path().glob("runs/.choices/*"))


@pytest.mark.parametrize("aug", ["none", "hybrid"])
def test_the_data_set_of_the_newest_bank_is_kept_too(bank: Banks, aug: str) -> None:
    bank(name="first", imbalance=10.0)
    before = begun(Asked(aug=aug))
    bank(name="newer", imbalance=5.0, split_seed=3)
    again = decide(Asked(aug=aug))
    assert again.spec == before.spec
    assert "data set digits_lt: as this command took it before (choose with --dataset)" in again.why


def test_the_digits_that_were_taken_without_a_bank_are_kept(bank: Banks) -> None:
    before = begun(Asked())
    bank(imbalance=10.0)
    assert decide(Asked()).spec == before.spec


def test_a_bank_that_is_gone_is_told(bank: Banks, home: Path) -> None:
    first = bank(name="first")
    begun(Asked(dataset="digits_lt", aug="hybrid"))
    newer = bank(name="newer")
    (home / "banks" / first).rename(home / "away")
    plan = decide(Asked(dataset="digits_lt", aug="hybrid"))
    assert taken(plan) == newer
    assert f"bank {first[:12]}, which this command took before, does not fit or is gone" in str(
        plan.why
    )


def test_nothing_is_written_by_deciding(bank: Banks, tmp_path: Path) -> None:
    bank()
    decide(Asked(aug="hybrid"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": "trainer-choice/1", "draw": {"lr": 1}, "bank": null}',
        '{"schema": "trainer-choice/1", "draw": {"dataset": 5}, "bank": null}',
        '{"schema": "trainer-choice/1", "draw": {}, "bank": 5}',
        '{"schema": "trainer-choice/1", "draw": {}, "bank": null, "annotations": 5}',
    ],
)
def test_a_file_without_a_choice_is_refused_with_its_name(
    bank: Banks, tmp_path: Path, text: str
) -> None:
    bank()
    plan = begun(Asked(aug="hybrid"))
    (path,) = (tmp_path / "runs/.choices").iterdir()
    path.write_text(text)
    with pytest.raises(InvalidInput) as error:
        decide(plan.asked if plan.asked.dataset is None else Asked(aug="hybrid"))
    assert f"remove {Path('runs/.choices') / path.name}" in str(error.value.remedy)


def test_a_choice_is_written_once(tmp_path: Path) -> None:
    request, choice = {"aug": "hybrid"}, Choice({"dataset": "digits_lt"}, "key")
    choices.keep(tmp_path, request, choice, "trainer run")
    (path,) = (tmp_path / ".choices").iterdir()
    before = path.stat().st_ino
    choices.keep(tmp_path, request, choice, "trainer run")
    assert path.stat().st_ino == before
    assert choices.recall(tmp_path, request) == choice
    assert choices.recall(tmp_path, {"aug": "bank"}) is None


def test_requests_of_any_values_have_a_hash() -> None:
    for value in (float("nan"), float("inf"), 0.1):
        assert requested(Asked(lr=value)) != requested(Asked(lr=0.2))


# Sweeps

GRID = [
    Asked(dataset="digits_lt", aug=aug, bank=word, model="resnet8", epochs=12, seed=seed)
    for aug, word in (("hybrid", None), ("bank", None), ("hybrid", "unmixed"))
    for seed in (0, 1)
]


def test_all_runs_of_a_sweep_keep_the_banks_of_its_beginning(bank: Banks) -> None:
    banks = {space: bank(space, name="first") for space in ("w", "none")}
    for one in sweep.settle(GRID, [], out="runs"):
        assert one.plan is not None
        one.plan.keep_choice()
    for space in banks:
        bank(space, name="newer")
    added = Asked(dataset="digits_lt", aug="hybrid", recipe="balanced-softmax")
    for one in sweep.settle([*GRID, added], [], out="runs"):
        assert one.plan is not None
        wanted = banks["none" if one.asked.bank else "w"]
        assert taken(one.plan) == wanted, one.asked
    # With another place for its runs it is another sweep.
    assert {taken(one.plan) for one in sweep.settle(GRID, [], out="new") if one.plan}.isdisjoint(
        banks.values()
    )


def result_of(plan: Plan, record: Any) -> Result:
    """A made-up result of a plan, with the bank that it has."""
    bank = plan.spec.bank
    assert bank is not None
    one = record(plan.spec.aug, seed=plan.spec.seed, space=bank.space)
    one["config"] = plan.spec.plain()
    names = ("key", "request_key", "content_sha256", "space")
    one["bank"] = {**one["bank"], **{name: getattr(bank, name) for name in names}}
    ids = {"split_id": plan.data.split_id, "test_id": plan.data.test_id}
    one["dataset"] = {**one["dataset"], **ids}
    return Result(one)


def test_a_newer_bank_lists_no_result_of_a_folder_again(bank: Banks, record: Any) -> None:
    first = bank(name="first")
    bank("none", name="first")
    plans = [one.plan for one in sweep.settle(GRID, [], out="runs")]
    known = [result_of(plan, record) for plan in plans[:1] if plan]
    bank(name="newer")
    settled = sweep.settle(GRID, known, out="runs")
    assert settled[0].found is known[0]
    # The others have no result yet; they get the bank of those that have one.
    for one in settled[1:4]:
        assert one.plan is not None and taken(one.plan) == first


def test_the_commands_of_a_sweep_name_their_banks(bank: Banks) -> None:
    first = bank(name="first")
    told = sweep.commands(GRID, [], out="runs")
    assert [f"--bank {first[:12]}" in one for one in told] == [True] * 4 + [False] * 2
    assert "--bank unmixed" in told[-1]  # there is none yet
    control = bank("none")
    assert f"--bank {control[:12]}" in sweep.commands(GRID, [], out="runs")[-1]


def test_the_commands_of_a_sweep_need_neither_data_nor_banks(home: Path) -> None:
    asked = Asked(dataset="no such set", aug="hybrid")
    assert sweep.commands([asked], [], out="runs") == [asked.command()]


def test_the_files_of_choices_are_no_results(bank: Banks, tmp_path: Path) -> None:
    bank()
    begun(Asked(aug="hybrid"))
    for path in (tmp_path / "runs/.choices").iterdir():
        path.write_text("damaged")
    assert collect([tmp_path / "runs"]) == []


def test_a_finished_run_is_shown_where_nothing_can_be_written(
    bank: Banks, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise MissingEnvironment("no permission to write")

    bank()
    words = ("run", "--aug", "hybrid", "--epochs", "1", "--bn-refresh-batches", "1")
    assert trainer(*words)[0] == 0
    monkeypatch.setattr(choices, "keep", refuse)
    assert trainer(*words)[0] == 0
    assert trainer(*words, "--seeds", "2")[0] == 4


def test_the_whole_command_keeps_its_run(bank: Banks, tmp_path: Path, trainer: Any) -> None:
    first = bank(name="first")
    words = ("run", "--aug", "hybrid", "--epochs", "1", "--bn-refresh-batches", "1", "--json")
    code, out, _ = trainer(*words)
    assert code == 0
    newer = bank(name="newer", imbalance=10.0)
    code, again, err = trainer(*words)
    assert code == 0 and json.loads(again) == json.loads(out)
    assert "finished before" in err and f"bank {first[:12]}" in err
    same_split = bank(name="newest")
    code, _, err = trainer(*words)
    assert f"a newer one is there, --bank {same_split[:12]} takes it" in err
    assert newer[:12] not in err
    assert len(list((tmp_path / "runs").glob("digits_lt-*"))) == 1
