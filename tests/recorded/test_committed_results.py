"""Committed results keep their names: every key in them follows from what stands beside it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stylegan_mix import datasets
from stylegan_mix.banks.request import Request as BankRequest
from stylegan_mix.metrics.probe import probe_key
from stylegan_mix.metrics.request import Request as ReportRequest
from stylegan_mix.numerics import Numerics
from stylegan_mix.presets import preset_of
from stylegan_mix.training.plan import TrainPlan
from trainer.spec import RunSpec

Named = dict[str, dict[str, Any]]

# Resolution and channels, and whether a mirrored image keeps its label.
IMAGES = {"digits_lt": (8, 1, False), "cifar10_lt": (32, 3, True)}
DIGITS = "51e030806adf549ad50f220e820bd051c2edb338542ad0d042f42a83ee37de2b"

# The operators that drew the banks of a folder; those of digits_lt are of another library.
OPERATORS = {
    "cifar10_lt": "native-avx512-78c11c8e0237",
    "cifar10_lt_diffaugment": "reference",
    "digits_lt_reference": "reference",
}


@pytest.fixture(scope="module")
def committed(repo_root: Path) -> Named:
    """Every JSON object of tools/results by its path there."""
    folder = repo_root / "tools" / "results"
    files = sorted(folder.rglob("*.json"))
    found = {str(path.relative_to(folder)): json.loads(path.read_text()) for path in files}
    return {name: one for name, one in found.items() if isinstance(one, dict)}


@pytest.fixture(scope="module")
def results(committed: Named) -> Named:
    """The results of runs."""
    found = {
        name: one for name, one in committed.items() if one.get("schema") == "trainer-result/1"
    }
    assert len(found) >= 130
    return found


def bank_request(result: dict[str, Any]) -> BankRequest:
    """The request for the bank that a run has used."""
    data, bank = result["dataset"], result["bank"]
    resolution, channels, _ = IMAGES[data["name"]]
    return BankRequest(
        generator=bank["generator"],
        split_id=data["split_id"],
        classes=len(data["classes"]),
        resolution=resolution,
        channels=channels,
        n=bank["n"],
        space=bank["space"],
        alpha=bank["alpha"] or 1.0,
    )


def test_a_result_is_named_by_the_key_of_its_run(results: Named) -> None:
    keys = {name: RunSpec.from_plain(one["config"]).key for name, one in results.items()}
    assert [
        f"{name} now has key {key}" for name, key in keys.items() if f"-{key}-" not in name
    ] == []


def test_a_bank_of_a_result_has_its_request_key(results: Named) -> None:
    with_bank = {name: one for name, one in results.items() if one["bank"]}
    keys = {name: bank_request(one).key for name, one in with_bank.items()}
    assert keys == {name: one["bank"]["request_key"] for name, one in with_bank.items()}


def test_a_bank_of_a_result_has_its_exact_key(results: Named) -> None:
    known = {
        name: one
        for name, one in results.items()
        if one["bank"] and name.split("/")[0] in OPERATORS
    }
    assert known
    keys = {}
    for name, one in known.items():
        operators, torch = OPERATORS[name.split("/")[0]], one["environment"]["torch"]
        numerics = Numerics("cpu-AVX512", "float32", operators, torch, numpy="2.4.6")
        keys[name] = bank_request(one).exact_key(numerics)
    assert keys == {name: one["bank"]["key"] for name, one in known.items()}


def test_a_card_of_a_generator_has_the_key_of_its_training(committed: Named) -> None:
    cards = {name: one for name, one in committed.items() if "training" in one}
    assert cards
    keys = {}
    for name, card in cards.items():
        data: Any = SimpleNamespace(split_id=card["split_id"])
        preset = preset_of(card["preset"])
        plan = TrainPlan(data, preset, card["kimg"], card["seed"], "cpu", card["command"])
        keys[name] = plan.key
    assert keys == {name: card["training"] for name, card in cards.items()}


def test_a_report_has_the_key_of_its_request(committed: Named) -> None:
    reports = {
        name: one for name, one in committed.items() if one.get("schema") == "stylegan-mix-metrics"
    }
    assert reports
    keys = {}
    for name, report in reports.items():
        request = {**report["request"]}
        del request["report"], request["algorithm"]
        listed = {field: tuple(request[field]) for field in ("against", "seeds")}
        keys[name] = ReportRequest(**{**request, **listed}).key
    assert keys == {name: report["key"] for name, report in reports.items()}


def test_a_judged_generator_has_the_key_of_its_probe(committed: Named) -> None:
    judged = {name: one for name, one in committed.items() if isinstance(one.get("probe"), str)}
    assert len(judged) >= 40
    keys = {}
    for name, one in judged.items():
        resolution, _, flip = IMAGES["digits_lt" if one["split_id"] == DIGITS else "cifar10_lt"]
        data: Any = SimpleNamespace(split_id=one["split_id"], flip=flip, resolution=resolution)
        keys[name] = probe_key(data, 0)
    assert keys == {name: one["probe"] for name, one in judged.items()}


def test_the_digits_of_a_result_are_drawn_again(results: Named) -> None:
    digits = [one for one in results.values() if one["dataset"]["name"] == "digits_lt"]
    said = {
        json.dumps(one["config"]["data"]): (one["dataset"]["split_id"], one["dataset"]["test_id"])
        for one in digits
    }
    assert said
    for draw, ids in said.items():
        data = datasets.load(**json.loads(draw))
        assert (data.split_id, data.test_id) == ids, draw
