"""`trainer report --per-class`: each class beside its images, a column an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.reports import records


def test_a_class_is_a_line_and_an_experiment_a_column(places: Path, trainer: Any) -> None:
    code, out, _ = trainer("report", "--per-class")
    assert code == 0
    title, _, head, *lines = out.splitlines()
    assert title == "digits_lt, imbalance 20, 12 epochs"
    assert head.split() == ["class", "group", "training", "test", "none", "hybrid"]
    result = records.collect([Path("runs")])[0]
    data = result.dataset
    cells = [line.split() for line in lines[:10]]
    assert [line[0] for line in cells] == data["classes"]
    assert [line[1] for line in cells] == ["many"] * 3 + ["medium"] * 4 + ["few"] * 3
    assert [int(line[2]) for line in cells] == data["counts"]
    assert [int(line[3]) for line in cells] == result.test_counts
    # (40 + 50) / 2 of 74; a half of the difference, times the root of two.
    assert lines[9].split()[4:] == ["60.8", "±", "9.6", "60.8", "±", "9.6"]
    assert "Runs: none: 2, hybrid: 2." in out


def test_the_same_as_markdown_and_into_a_page(places: Path, trainer: Any) -> None:
    code, out, _ = trainer("report", "--per-class", "--format", "md")
    assert code == 0
    assert "| class | group | training | test | none | hybrid |" in out
    assert "| --- | --- | ---: | ---: | ---: | ---: |" in out
    page = places / "page.md"
    page.write_text("# A page\n<!-- block results: -->\n<!-- end of block results -->\n")
    code, _, err = trainer("report", "runs", "--per-class", "--into", "page.md")
    assert code == 0, err
    assert "--per-class --into" in page.read_text() and "| 60.8 ± 9.6 |" in page.read_text()


@pytest.mark.parametrize(
    "more", [("--json",), ("--oracle",), ("--summary", "none"), ("--pairs", "none:hybrid")]
)
def test_no_other_table_at_once(places: Path, trainer: Any, more: tuple[str, ...]) -> None:
    code, _, err = trainer("report", "--per-class", *more)
    assert code == 2 and "--per-class is a table of its own" in err and "per_class" in err
