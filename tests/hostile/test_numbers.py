"""No number on a command line or in a file of options ends a command with exit code 1."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from confined import RETURNED, confined
from targets import command

from stylegan_mix.training import cost

NUMBERS = ("9" * 5000, "1" + "0" * 400, "1e400", "-1e400", "nan", "-1", "0", str(1 << 63))
NUMBERS += (str(1 << 31), str(-(1 << 70)), "1e-320", "1e308")

# Command -> its words with which nothing is computed.
DRY = {
    "stylegan_mix train": "--dataset digits_lt --dry-run",
    "stylegan_mix generate": "--dataset digits_lt --dry-run --no-train",
    "stylegan_mix metrics": "--dry-run 12345678",
    "stylegan_mix dataset show": "digits_lt --no-sheet",
    "stylegan_mix dataset prepare": "x --from nothing --dry-run",
    "trainer run": "--dataset digits_lt --dry-run",
    "trainer sweep": "sweep.toml --dry-run",
    "trainer predict": "nothing",
    "trainer eval": "nothing",
    "trainer compare": "none none",
}


def found(words: str) -> click.Command:
    package, *names = words.split()
    one: Any = import_module(f"{package}.cli").group
    for name in names:
        one = one.get_command(click.Context(one), name)
    return one


def numeric(one: click.Command) -> list[str]:
    """The options that take a number."""
    kinds = (click.types.IntParamType, click.types.FloatParamType)
    options = (option for option in one.params if isinstance(option, click.Option))
    return [option.opts[0] for option in options if isinstance(option.type, kinds)]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine so slow that a dry run times no step of a training."""
    monkeypatch.setattr(cost, "_operations_a_second", lambda *_: 1e8)


# Some two hundred commands each, with a data set to load.
LONG = ("stylegan_mix train", "trainer run")
MANY = [pytest.param(words, marks=pytest.mark.slow) for words in LONG]


@pytest.mark.parametrize("words", [*MANY, *sorted(set(DRY) - set(LONG))])
def test_odd_numbers_on_a_command_line_are_refused(words: str, home: Path, slow: None) -> None:
    package, *names = words.split()
    Path("sweep.toml").write_text('[base]\ndataset = "digits_lt"\n[[runs]]\naug = "none"\n')
    one = found(words)

    def read() -> None:
        for option in numeric(one):
            for number in NUMBERS:
                command(*names, *DRY[words].split(), f"{option}={number}", package=package)

    assert confined(read, memory=4 << 30, seconds=600) == RETURNED


@pytest.mark.parametrize("value", [NUMBERS[1], NUMBERS[7], "inf", "1979-05-27", "[1e400]", '"x"'])
@pytest.mark.parametrize("words", ["stylegan_mix train", "trainer run", "trainer sweep"])
def test_odd_values_in_a_file_of_options_are_refused(
    words: str, value: str, home: Path, slow: None
) -> None:
    package, *names = words.split()
    runs = found("trainer run")
    one = runs if names == ["sweep"] else found(words)
    dry = DRY[words].split()

    def read() -> None:
        for option in numeric(one):
            line = f"{option.lstrip('-')} = {value}\n"
            if names == ["sweep"]:
                base = f'[base]\ndataset = "digits_lt"\n{line}[[runs]]\naug = "mixup"\n'
                Path("sweep.toml").write_text(base)
                command(*names, *dry, package=package)
            else:
                Path("a.toml").write_text(line)
                command(*names, *dry, "--config", "a.toml", package=package)

    assert confined(read, memory=4 << 30, seconds=600) == RETURNED
