"""Applies deliberate faults of recipes and arms, one at a time; reports those that no test catches.

    .venv/bin/python tools/faults.py                 all of them
    .venv/bin/python tools/faults.py gcl mislas      some

The faults stand in tools/faults.toml. A fault is one edit of a source file. No file is changed:
each fault has a process of its own, in which Python reads the edited text, and which runs the
tests of the recipe until one fails. They pass without a fault, or the script says so and ends
with code 2. Ends with code 1 if a fault survives.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
import tomllib
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FAULTS = ROOT / "tools" / "faults.toml"
DEFINITION = (
    "tests/trainer/engine/test_recipes.py::"
    "test_a_recipe_keeps_its_definition_until_it_takes_a_new_version[{}]"
)
# pytest: all passed; some failed, or a module could not be imported.
PASSED, CAUGHT = 0, (1, 2)
NOT_RUN = 70
# Plugins are imported before pytest could rewrite their assertions.
QUIET = "ignore::pytest.PytestAssertRewriteWarning"
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-W", QUIET)


@dataclass(frozen=True)
class Fault:
    """An edit of a source file of a recipe: `old`, which stands in it once, becomes `new`."""

    recipe: str
    file: str
    old: str
    new: str

    def text(self, root: Path = ROOT) -> str:
        """Makes the edited source; `ValueError` unless `old` stands there once."""
        source = (root / self.file).read_text(encoding="utf-8")
        if (count := source.count(self.old)) != 1:
            raise ValueError(f"{self.file} holds {count} times, not once: {self.old!r}")
        if self.old == self.new:
            raise ValueError(f"{self.file}: a fault that changes nothing: {self.old!r}")
        return source.replace(self.old, self.new)

    def __str__(self) -> str:
        return f"{self.recipe}: {self.file}: {self.old.strip()!r} -> {self.new.strip()!r}"


@dataclass(frozen=True)
class Plan:
    """The faults of a recipe and the tests that should catch them."""

    recipe: str
    tests: tuple[str, ...]
    faults: tuple[Fault, ...]


def read(file: Path = FAULTS) -> dict[str, Plan]:
    """Reads the faults of every recipe, of some arms and of the policies, by their names."""
    found = {}
    for recipe, table in tomllib.loads(file.read_text(encoding="utf-8")).items():
        other = table.get("arm") or table.get("policies")
        definition = () if other else (DEFINITION.format(recipe),)
        tests = (*definition, *table["tests"])
        faults = tuple(Fault(recipe, *edit) for edit in table["faults"])
        found[recipe] = Plan(recipe, tests, faults)
    return found


def warm() -> None:
    """Imports what the tests need from others, once, before all processes are copies of this."""
    import hypothesis
    import pytest
    import torch

    from trainer.engine import run

    torch.set_num_threads(1)
    del hypothesis, pytest, run  # kept by Python


def edited(file: Path, text: str) -> None:
    """Makes this process read `text` where it imports `file`, and import all of ours anew."""
    plain = SourceFileLoader.get_code
    for name in [one for one in sys.modules if one.split(".")[0] in ("trainer", "stylegan_mix")]:
        del sys.modules[name]

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if Path(self.path) == file:
            return compile(text, self.path, "exec", dont_inherit=True)
        return plain(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]


def status_of(tests: Sequence[str], fault: Fault | None, root: Path = ROOT) -> int:
    """Runs tests in a process of their own, with a fault; returns the status of pytest."""
    text = fault.text(root) if fault else ""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = NOT_RUN
    try:
        import pytest

        os.chdir(root)
        sys.path.insert(0, str(root))
        if fault:
            edited(root / fault.file, text)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            status = int(pytest.main([*OPTIONS, *tests]))
    finally:
        if status == NOT_RUN:
            traceback.print_exc()
        os._exit(status)


def survivors(plan: Plan, say: Any = print) -> list[Fault]:
    """Applies every fault of a recipe; returns those with which all tests pass.

    Raises `RuntimeError` if tests fail without a fault, or cannot be run.
    """
    if (status := status_of(plan.tests, None)) != PASSED:
        raise RuntimeError(f"the tests of {plan.recipe} end with {status} without any fault")
    found = []
    for fault in plan.faults:
        status = status_of(plan.tests, fault)
        if status not in (PASSED, *CAUGHT):
            raise RuntimeError(f"the tests end with {status}: {fault}")
        if status == PASSED:
            found.append(fault)
            say(f"survives  {fault}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Reports the survivors of the recipes that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help="names of recipes; all without any")
    asked = parser.parse_args(arguments).recipes
    plans = read()
    if unknown := set(asked) - set(plans):
        parser.error(f"no faults of {', '.join(sorted(unknown))}; known: {', '.join(plans)}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(ROOT))
    warm()
    found: list[Fault] = []
    try:
        for name in asked or plans:
            began = time.monotonic()
            left = survivors(plans[name])
            found += left
            caught = len(plans[name].faults) - len(left)
            seconds = time.monotonic() - began
            print(
                f"{name}: {caught} of {len(plans[name].faults)} caught, {seconds:.0f} s", flush=True
            )
    except (RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
