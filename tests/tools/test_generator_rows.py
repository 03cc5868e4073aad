"""The table of generators: rows as commands, records as a table, differences over seeds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def rows(repo_root: Path, load_file: Callable[[Path], ModuleType]) -> ModuleType:
    """The script."""
    return load_file(repo_root / "tools" / "experiments" / "generator_rows.py")


def _record(row: str, seed: int, frechet: float) -> dict[str, Any]:
    figure = {"figure": "frechet", "against": "test", "value": [frechet, 1.0], "floor": [0.5, 0.1]}
    cas = {"figure": "cas", "against": None, "value": [0.4, None], "floor": [0.9, 0.8]}
    return {"row": row, "seed": seed, "scopes": ["all", "few"], "figures": [figure, cas]}


@pytest.fixture
def small(rows: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with a table of three columns."""
    columns = (("frechet", "test", ("all", "few"), 2), ("cas", None, ("all",), 1))
    monkeypatch.setattr(rows, "COLUMNS", columns)
    return rows


def test_options_become_words(rows: ModuleType) -> None:
    found = rows.options_of({"label_power": 0.5, "cas": True, "dataset": "x"})
    assert found == ["--label-power", "0.5", "--cas", "--dataset", "x"]


def test_the_table_has_means_spread_and_floor_and_only_rows_that_are_there(
    small: ModuleType,
) -> None:
    records = [_record("plain", 0, 2.0), _record("plain", 1, 4.0), _record("twins", 0, 1.0)]
    names = [{"name": name} for name in ("plain", "absent", "twins")]
    assert small.table(records, names).splitlines() == [
        "| row | seeds | frechet all | frechet few | cas all |",
        "|---|---|---|---|---|",
        "| plain | 2 | 3.00 ± 1.41 | 1.00 ± 0.00 | 40.0 ± 0.0 |",
        "| twins | 1 | 1.00 | 1.00 | 40.0 |",
        "| *real images* | | 0.50 | 0.10 | 90.0 |",
    ]


def test_equivalence_takes_five_seeds_and_a_narrow_interval(small: ModuleType) -> None:
    close = [_record("a", seed, 2.0 + seed) for seed in range(5)]
    close += [_record("b", seed, 2.0 + seed + 0.01 * (seed % 2)) for seed in range(5)]
    line = small.comparison(close, "a", "b").splitlines()[2]
    # differences 0, .01, 0, .01, 0: mean .004, t(4) .95 = 2.132, sd .00548: +- .00522
    assert line.startswith("| frechet all | 4.000 ± 1.581 | 4.004 ± 1.58")
    assert line.endswith("| +0.004 ± 0.005 | yes |")
    far = [one for one in close if one["row"] == "a"]
    far += [_record("b", seed, 2.0 + seed + (-1) ** seed) for seed in range(5)]
    assert small.comparison(far, "a", "b").splitlines()[2].endswith("| not shown |")
    with pytest.raises(SystemExit, match="share 4 seeds"):
        small.comparison(close[1:], "a", "b")


def test_finished_rows_are_not_run_again(
    rows: ModuleType, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = repo_root / "tools" / "experiments" / "cifar10_lt_generators.toml"
    asked: list[tuple[str, int]] = []

    def finish(row: dict[str, Any], plan: dict[str, Any], seed: int, threads: int) -> Any:
        asked.append((row["name"], seed))
        return {"row": row["name"]}

    monkeypatch.setattr(rows, "finish", finish)
    arguments = [str(plan), "--results", str(tmp_path), "--only", "plain", "--only", "twins"]
    monkeypatch.setattr(sys, "argv", ["generator_rows.py", *arguments])
    rows.main()
    assert asked == [("plain", 0), ("twins", 0)]
    (tmp_path / "plain-seed0.json").unlink()
    rows.main()
    assert asked[2:] == [("plain", 0)]
    assert json.loads((tmp_path / "twins-seed0.json").read_text()) == {"row": "twins"}


def test_every_row_of_the_files_names_options_of_train(rows: ModuleType, repo_root: Path) -> None:
    import tomllib

    from stylegan_mix.commands.train import train

    known = {parameter.name for parameter in train.params}
    for path in (repo_root / "tools" / "experiments").glob("*.toml"):
        plan = tomllib.loads(path.read_text())
        if "metrics" not in plan:  # of another script
            continue
        for row in plan["rows"]:
            options = {*plan["base"], *row} - {"name", "about"}
            assert options <= known, path
