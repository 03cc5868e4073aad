"""Runs on the rows of a bank that its judge keeps."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from judged_banks import judged

from stylegan_mix import arrays
from stylegan_mix.banks import store as banks
from stylegan_mix.banks.reader import Bank, open_bank
from stylegan_mix.errors import InvalidInput, UsageFailure
from trainer.asked import Asked
from trainer.engine.batches import Batches
from trainer.inputs import accepted_rows, open_inputs
from trainer.plan import decide
from trainer.recipes.catalogue import RECIPES

MakeBank = Callable[..., str]
Trainer = Callable[..., tuple[int, str, str]]


def asked(key: str, **more: Any) -> Asked:
    return Asked(dataset="digits_lt", aug="hybrid", bank=key, **more)


def test_only_kept_rows_come_into_a_batch(bank: MakeBank) -> None:
    key = bank()
    judged(key, lambda rows: rows % 3 == 0)
    spec = decide(asked(key, accept="clean", batch=32)).spec
    inputs = open_inputs(spec)
    assert inputs.accepted is not None
    assert inputs.accepted.tolist() == list(range(0, 64, 3))
    made = Batches(
        spec,
        inputs.data,
        stage=RECIPES["ce"].stages[0],
        number=0,
        bank=inputs.bank,
        steps=20,
        device=torch.device("cpu"),
        accepted=inputs.accepted,
    )
    seen: set[int] = set()
    for step in range(10):
        batch = made(step)
        source = next(one for one in batch.sources if one.bank)
        seen |= set(batch.index[source.rows].tolist())
    assert seen == set(range(0, 64, 3))


def test_a_run_on_kept_rows_has_an_arm_a_key_and_a_record_of_its_own(
    bank: MakeBank, trainer: Trainer
) -> None:
    key = bank()
    judged(key, lambda rows: rows < 40)
    words = ("run", "--dataset", "digits_lt", "--aug", "hybrid", "--epochs", "1", "--json")
    for accept in ("all", "clean"):
        code, _, err = trainer(*words, "--accept", accept)
        assert code == 0, err
    folders = sorted(Path("runs").glob("digits_lt-*"))
    assert [folder.name.rpartition("-")[0] for folder in folders] == [
        "digits_lt-ce-hybrid",
        "digits_lt-ce-hybrid-clean",
    ]
    record = json.loads((folders[1] / "seed-0" / "result.json").read_text())
    assert (record["arm"], record["bank"]["n"], record["bank"]["accepted"]) == (
        "hybrid-clean",
        64,
        40,
    )
    code, out, _ = trainer("report", "runs")
    assert code == 0
    assert "hybrid-clean" in out
    assert "rows of the bank that its judge keeps" in out
    # The default as it is typed is the same run.
    assert decide(asked(key, epochs=1, accept="all")).spec == decide(asked(key, epochs=1)).spec


def test_a_bank_that_was_not_judged_is_refused_with_the_command(
    bank: MakeBank, trainer: Trainer
) -> None:
    key = bank()
    code, _, err = trainer(
        "run", "--dataset", "digits_lt", "--aug", "hybrid", "--accept", "clean", "--dry-run"
    )
    assert code == 3
    assert f"stylegan-mix bank judge {key[:12]}" in err


def test_an_unknown_choice_of_rows_is_refused(bank: MakeBank) -> None:
    with pytest.raises(UsageFailure, match="accept 'cleen' is unknown; did you mean 'clean'"):
        decide(asked(bank(), accept="cleen"))
    with pytest.raises(UsageFailure, match="--aug mixup reads no accept"):
        decide(Asked(dataset="digits_lt", aug="mixup", accept="clean"))


def test_other_annotations_than_a_run_began_with_are_refused(bank: MakeBank) -> None:
    key = bank()
    place = judged(key, lambda rows: rows < 40)
    spec = decide(asked(key, accept="clean")).spec
    assert spec.accept is not None
    shutil.rmtree(place)
    judged(key, lambda rows: rows < 41)
    with pytest.raises(InvalidInput, match="other annotations than this run began with"):
        accepted_rows(open_bank(banks.resolve(key)), spec.accept)
    assert decide(asked(key, accept="clean")).spec.key != spec.key


def test_a_judge_that_keeps_nothing_is_told(bank: MakeBank) -> None:
    key = bank()
    judged(key, lambda rows: rows < 0)
    spec = decide(asked(key, accept="clean")).spec
    with pytest.raises(InvalidInput, match="keeps none of the 64 rows"):
        open_inputs(spec)


def test_the_newest_annotations_are_taken(bank: MakeBank) -> None:
    key = bank()
    old = judged(key, lambda rows: rows < 10)
    os.utime(old / arrays.MANIFEST, (1, 1))
    judged(key, lambda rows: rows < 20, judge="f" * 64)
    opened: Bank = open_bank(banks.resolve(key))
    accept = decide(asked(key, accept="clean")).spec.accept
    assert accept is not None
    assert len(accepted_rows(opened, accept)) == 20


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("words", [{"accept": "clean"}, {"label": "judge"}, {"label": 0.5}])
def test_newer_annotations_do_not_turn_the_same_command_into_another_run(
    bank: MakeBank, words: dict[str, Any], named: bool
) -> None:
    key = bank()
    old = judged(key, lambda rows: rows < 30)
    os.utime(old / arrays.MANIFEST, (1, 1))
    command = asked(key, **words) if named else Asked("digits_lt", aug="hybrid", **words)
    first = decide(command)
    first.keep_choice()
    judged(key, lambda rows: rows < 20, judge="f" * 64)
    again = decide(command)
    assert again.spec == first.spec
    assert "a newer one is there, another --out takes it" in str(again.why)
    other = decide(replace(command, out="elsewhere"))
    assert other.spec.key != first.spec.key
    shutil.rmtree(old)
    assert decide(command).spec == other.spec, "what is gone is not taken"
