"""The deliberate faults of recipes fit their sources, and the script tells survivors."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from trainer.engine.arms import ARMS
from trainer.recipes.catalogue import RECIPES

# Recipes, the arms that have faults, and the policies of augmentation.
NAMES = [*RECIPES, "cmo", "unimix", "lob-mixup", "augmentation"]


@pytest.fixture(scope="module")
def script(load_file: Callable[[Path], ModuleType], repo_root: Path) -> ModuleType:
    return load_file(repo_root / "tools" / "faults.py")


def test_every_recipe_has_faults(script: ModuleType) -> None:
    plans = script.read()
    assert set(plans) == set(NAMES) and set(NAMES) <= {*RECIPES, *ARMS, "augmentation"}
    assert all(len(plan.faults) >= 2 for plan in plans.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_is_an_edit_that_python_can_read(name: str, script: ModuleType) -> None:
    for fault in script.read()[name].faults:
        ast.parse(fault.text())


@pytest.mark.parametrize("name", NAMES)
def test_the_tests_of_a_recipe_are_there(name: str, script: ModuleType, repo_root: Path) -> None:
    for test in script.read()[name].tests:
        file, _, function = test.partition("::")
        source = (repo_root / file).read_text(encoding="utf-8")
        assert f"def {function.partition('[')[0]}(" in source if function else source


def small(root: Path, test: str) -> None:
    """A project of one function and one test."""
    (root / "code.py").touch()
    (root / "of_mine.py").write_text("def double(x):\n    return 2 * x\n")
    (root / "test_of_mine.py").write_text(f"from of_mine import double\n\n\n{test}\n")


def plan_of(script: ModuleType, *edits: tuple[str, str]) -> object:
    faults = tuple(script.Fault("mine", "of_mine.py", old, new) for old, new in edits)
    return script.Plan("mine", ("test_of_mine.py",), faults)


@pytest.mark.parametrize(
    ("test", "left"),
    [
        ("def test_double():\n    assert double(3) == 6", []),
        ("def test_double():\n    assert double(2) == 4", ["x ** 2"]),
        ("def test_double():\n    assert double(0) == 0", ["x ** 2", "3 * x"]),
    ],
)
def test_survivors_are_the_faults_with_which_all_tests_pass(
    test: str, left: list[str], script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path, test)
    status_of = script.status_of
    monkeypatch.setattr(script, "status_of", lambda *words: status_of(*words, root=tmp_path))
    monkeypatch.delitem(sys.modules, "of_mine", raising=False)
    said: list[str] = []
    plan = plan_of(script, ("2 * x", "x ** 2"), ("2 * x", "3 * x"), ("def double", "def doubled"))
    found = script.survivors(plan, said.append)
    assert [fault.new for fault in found] == left
    assert len(said) == len(left) and all(line.startswith("survives  mine: ") for line in said)
    assert (tmp_path / "of_mine.py").read_text() == "def double(x):\n    return 2 * x\n"


def test_tests_that_fail_without_a_fault_are_told(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path, "def test_double():\n    assert double(3) == 7")
    status_of = script.status_of
    monkeypatch.setattr(script, "status_of", lambda *words: status_of(*words, root=tmp_path))
    with pytest.raises(RuntimeError, match="end with 1 without any fault"):
        script.survivors(plan_of(script))


@pytest.mark.parametrize(("old", "new"), [("3 * x", "x"), ("x", "y"), ("2 * x", "2 * x")])
def test_an_edit_that_does_not_fit_is_an_error(
    old: str, new: str, script: ModuleType, tmp_path: Path
) -> None:
    small(tmp_path, "")
    with pytest.raises(ValueError, match=r"of_mine\.py"):
        script.Fault("mine", "of_mine.py", old, new).text(tmp_path)


def test_an_unknown_recipe_is_refused(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["focall"])
    assert ended.value.code == 2 and "no faults of focall" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_fault_survives(name: str, repo_root: Path) -> None:
    command = [sys.executable, str(repo_root / "tools" / "faults.py"), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
