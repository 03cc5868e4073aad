"""The list of bad inputs names tests that exist, or a reason."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

PAGE = Path(__file__).parent / "BAD_INPUTS.md"
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
ROWS = {int(number): held for number, _, held in ROW.findall(PAGE.read_text(encoding="utf-8"))}
NUMBERS = [*range(1, 26), *range(48, 81)]


@lru_cache
def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_number_has_its_row() -> None:
    assert sorted(ROWS) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_a_row_names_tests_that_exist_or_says_why_there_is_none(number: int) -> None:
    held = ROWS[number]
    if held.startswith("left out: "):
        assert len(held) > 40, "a reason, not a word"
        return
    for name in held.split(", "):
        file, _, test = name.strip("`").partition("::")
        assert test in named_in(PAGE.parent / file), name
