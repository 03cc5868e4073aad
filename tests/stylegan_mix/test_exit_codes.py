"""The exit codes of the page: every kind of end through a command, and one line for each code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from stylegan_mix import errors

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("dataset list", 0),
        ("generators list", 0),
        ("bank list", 0),
        # The command is wrong.
        ("trian", 2),
        ("train --nosuch", 2),
        ("train --dataset nosuch", 2),
        ("train --dataset digits_lt --preset nosuch", 2),
        ("train --dataset digits_lt --config nosuch.toml", 2),
        ("generate --n 0", 2),
        ("metrics --against nothing", 2),
        ("bank verify", 2),
        # An input is not there: a generator, a bank, a training, a file.
        ("metrics --dataset digits_lt", 3),
        ("metrics abc", 3),
        ("metrics --bank abc", 3),
        ("generate --dataset digits_lt --no-train", 3),
        ("generate --generator abc", 3),
        ("train --dataset digits_lt --publish", 3),
        ("generators show abc", 3),
        ("generators remove abc", 3),
        ("bank show abc", 3),
        ("bank card abc", 3),
        ("bank preview abc", 3),
        ("bank judge abc", 3),
        ("bank verify abc", 3),
        ("bank remove abc", 3),
        ("import-generator nosuch.pkl", 3),
        ("dataset prepare mine --from nosuch", 3),
        # The machine lacks something.
        ("train --dataset cifar10_lt", 4),
        ("generate --dataset cifar10_lt", 4),
        ("train --dataset digits_lt --device cuda:99", 4),
    ],
)
def test_each_kind_of_end_has_its_code(home: Path, run: Run, command: str, code: int) -> None:
    ended, _, err = run(*shlex.split(command))
    assert ended == code, err


def test_the_page_has_a_line_for_each_code(repo_root: Path) -> None:
    page = (repo_root / "stylegan_mix" / "README.md").read_text()
    table = page[page.index("| exit code | meaning |") :].partition("\n\n")[0]
    told = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    failures = [
        errors.Failure,
        errors.UsageFailure,
        errors.InvalidInput,
        errors.MissingEnvironment,
        errors.Diverged,
        errors.Stopped,
    ]
    assert told == [0, *(failure.code for failure in failures), 130]
