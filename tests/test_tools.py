"""The scripts of tools/: budgets notice what they count, scripts run, pins are complete."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

STATEMENTS = "first = 1\nsecond = first + 1\nthird = [first, second]\nfourth = sum(third)\n"


@pytest.fixture(scope="module")
def budgets(repo_root: Path, load_file: Callable[[Path], ModuleType]) -> ModuleType:
    module = load_file(repo_root / "tools" / "budgets.py")
    module.EXCEPTIONS.clear()  # they are about the real tree
    return module


def nested(levels: int) -> str:
    opening = "".join(f"{'    ' * (level + 1)}if x:\n" for level in range(levels))
    return f"def f(x):\n{opening}{'    ' * (levels + 1)}pass\n"


def numbered(lines: int) -> str:
    """Statements of which no two are alike."""
    return "".join(f"    x{number} = {number}\n" for number in range(lines))


# --------------------------------------------------------------------- budgets

PLANTED = {
    "columns": ("trainer/a.py", "x = " + "1" * 100, "columns"),
    "columns of C++": ("kernels/csrc/a.cpp", "// " + "-" * 100, "columns"),
    "columns of a script": ("tools/run", "#!/bin/sh\n: " + "-" * 100, "columns"),
    "function": ("trainer/a.py", "def f():\n" + "    pass\n" * 80, "function 81"),
    "method": ("trainer/a.py", "class A:\n  def f():\n" + "    pass\n" * 80, "A.f: function"),
    "file": ("tools/a.py", "\n" * 601, "file of 601 lines"),
    "package file": ("trainer/a.py", "\n" * 451, "file of a package with 451 lines"),
    "test file": ("tests/test_a.py", "\n" * 501, "test file of 501 lines"),
    "arguments": (
        "trainer/a.py",
        "def f(a, b, c, d, n, *, e, g, h, i, j, k, l, m): ...",
        "arguments 13",
    ),
    "nesting": ("trainer/a.py", nested(6), "nesting 6"),
    "name": ("trainer/utils.py", "", "not utils"),
}


def findings(budgets: ModuleType, root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What budgets says about a tree; its status must agree."""
    status = budgets.main(["--root", str(root)])
    *complaints, summary = capsys.readouterr().out.splitlines()
    assert (status == 0) == (complaints == []) == summary.endswith("beyond a ceiling: 0")
    return "\n".join(complaints)


def plant(root: Path, path: str, text: str) -> Path:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("kind", PLANTED)
def test_budgets_catch(
    kind: str, budgets: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, text, said = PLANTED[kind]
    complaint = findings(budgets, plant(tmp_path, path, text), capsys)
    assert complaint.startswith(f"{path}:")
    assert said in complaint


def test_budgets_catch_four_statements_that_stand_elsewhere(
    budgets: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, "trainer/a.py", STATEMENTS)
    plant(tmp_path, "kernels/b.py", "import os\n" + STATEMENTS)
    assert "trainer/a.py:1-4 repeats kernels/b.py:2-5" in findings(budgets, tmp_path, capsys)


def test_budgets_pass_what_is_at_the_ceiling(
    budgets: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docstring = '    """\n' + "    more\n" * 50 + '    """\n'
    plant(tmp_path, "trainer/a.py", "def f():\n" + docstring + numbered(79))
    plant(tmp_path, "trainer/b.py", "x = " + "1" * 96 + "\n" * 450)
    plant(tmp_path, "tools/b.py", "\n" * 600)
    plant(tmp_path, "trainer/c.py", nested(5) + "\n" + STATEMENTS)
    elifs = "".join(f"    elif x == {number}:\n        pass\n" for number in range(9))
    plant(tmp_path, "trainer/d.py", f"def g(x):\n    if x:\n        pass\n{elifs}")
    options = ",\n".join(f"option_{number}" for number in range(20))
    plant(tmp_path, "trainer/e.py", f"@click.command()\ndef run({options}): ...")
    assert findings(budgets, tmp_path, capsys) == ""


def test_an_exception_excuses_its_finding_and_a_needless_one_is_told(budgets: ModuleType) -> None:
    found = [budgets.Finding("file", "trainer/a.py", 1, "file of 700 lines", True)]
    assert budgets.excused(found, {("file", "trainer/a.py"): "a table"}) == ([], [])
    left, stale = budgets.excused(found, {("file", "trainer/b.py"): "a table"})
    assert left == found
    assert len(stale) == 1


def test_the_linter_catches_commented_out_code(repo_root: Path, tmp_path: Path) -> None:
    plant(tmp_path, "a.py", "# loss = loss.mean() + 0.1 * penalty\nx = 1\n")
    settings = str(repo_root / "tools" / "ruff.toml")
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", settings]
    done = subprocess.run(
        [*command, str(tmp_path)], check=False, capture_output=True, text=True, timeout=600
    )
    assert "ERA001" in done.stdout


# --------------------------------------------------------------------- scripts and pins


@pytest.mark.parametrize(
    "path", [".ci/run", "tools/check", "tools/environment", "tools/quickstart", "tools/test"]
)
def test_scripts_are_executable_bash(path: str, repo_root: Path) -> None:
    script = repo_root / path
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=600)


def canonical(requirement: str) -> str:
    """The normal form of a distribution's name, without version, extras and markers."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", requirement.strip())[0]).lower()


def test_every_dependency_is_pinned_exactly(repo_root: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(repo_root / "setup.cfg")
    listed = "\n".join(
        [settings["options"]["install_requires"], *settings["options.extras_require"].values()]
    )
    needed = {canonical(line) for line in listed.splitlines() if line.strip()}
    text = (repo_root / "tools" / "constraints.txt").read_text(encoding="utf-8")
    pins = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    assert needed - {canonical(pin) for pin in pins} == set()


@pytest.fixture
def checkout(repo_root: Path, tmp_path: Path) -> Path:
    """A copy of what tools/environment reads, without an environment."""
    for path in ("setup.cfg", "pyproject.toml", "tools/constraints.txt", "tools/environment"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(repo_root / path, tmp_path / path)
    return tmp_path


def environment(checkout: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """tools/environment with only the programs of `path` and of /usr/bin that bash needs."""
    for name in ("bash", "dirname", "cat", "head", "cmp", "flock", "touch", "rm", "mv"):
        found = shutil.which(name)
        if found is not None and not (path / name).exists():
            (path / name).symlink_to(found)
    return subprocess.run(
        ["bash", str(checkout / "tools" / "environment")],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={"PATH": str(path)},
    )


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def test_environment_names_the_python_that_is_too_old(checkout: Path) -> None:
    version = '[ "$1" = --version ] && echo "Python 3.9.2" && exit 0; exit 1'
    program(checkout / "bin" / "python3", version)
    done = environment(checkout, checkout / "bin")
    assert done.returncode == 4
    assert "python3 (Python 3.9.2)" in done.stderr


# A stand-in for Python: makes "environments" out of itself, and notes every installation.
STAND_IN = """
case "$1 $2 $3" in
"-m venv --clear") rm -f "$4/.installing"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"
    echo "version = 3.11" >"$4/pyvenv.cfg"; echo new >>"{log}" ;;
"-m pip install") echo install >>"{log}"; [ ! -e "{log}.killed" ] ;;
"--version  ") echo "Python 3.11.0" ;;
esac
"""


def test_environment_installs_once_and_again_after_a_change(checkout: Path) -> None:
    log, path = checkout / "log", checkout / "bin"
    program(path / "python3.11", STAND_IN.replace("{log}", str(log)))
    for name in ("cp", "mkdir"):
        (path / name).symlink_to(str(shutil.which(name)))

    def told() -> list[str]:
        done = environment(checkout, path)
        words = log.read_text(encoding="utf-8").split() if log.exists() else []
        log.unlink(missing_ok=True)
        return [str(done.returncode), *words]

    assert told() == ["0", "new", "install"]
    assert told() == ["0"]
    with (checkout / "setup.cfg").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    (checkout / "log.killed").touch()
    assert told() == ["1", "install"], "a change installs into what is there"
    (checkout / "log.killed").unlink()
    assert told() == ["0", "new", "install"], "an interrupted installation starts afresh"
    assert told() == ["0"]


# --------------------------------------------------------------------- tools/test


@pytest.mark.parametrize(
    ("words", "several"),
    [
        ([], True),
        (["tests/kernels", "-x"], True),
        (["--slow", "2/4"], True),
        (["tests/test_a.py"], False),
        (["-x", "tests/test_a.py::test_b[c d]"], False),
        (["tests/kernels", "-k", "fir"], False),
        (["--slow", "--pdb"], False),
    ],
)
def test_all_cores_test_unless_single_tests_are_named(
    words: list[str], several: bool, repo_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "tools").mkdir()
    shutil.copy(repo_root / "tools" / "test", tmp_path / "tools" / "test")
    program(tmp_path / "tools" / "environment", "")
    program(tmp_path / ".venv" / "bin" / "python", 'printf "<%s> " "$@"')
    done = subprocess.run(
        [str(tmp_path / "tools" / "test"), *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    given = re.findall("<(.*?)>", done.stdout)
    marked = ["-m", "slow" if "--slow" in words else "not slow"]
    assert given[:4] == ["-m", "pytest", *marked]
    assert ("--slice" in given) == ("2/4" in words)
    assert ("--numprocesses" in given) == several
    last = [word for word in words if word not in ("--slow", "2/4")]
    assert given[len(given) - len(last) :] == last, "so that they win"


# --------------------------------------------------------------------- .ci/run

STAND_IN_TEST = """
if [ "$1" = --slow ]; then
    echo "slice $2"; echo "== 3 passed, 9 deselected in 1.50s =="; exit {slow}
fi
echo "2 workers [6 items] in all"; echo "[gw0] [ 16%] PASSED tests/test_a.py::test_b"
echo "== 5 passed, 1 skipped in 83.40s (0:01:23) =="; exit {quick}
"""


def ci(repo_root: Path, folder: Path, *, quick: int, slow: int) -> tuple[int, list[str]]:
    """Status and lines of .ci/run, where the scripts it calls are stand-ins."""
    (folder / ".ci").mkdir(exist_ok=True)
    shutil.copy(repo_root / ".ci" / "run", folder / ".ci" / "run")
    program(folder / "tools" / "environment", "")
    text = STAND_IN_TEST.replace("{slow}", str(slow)).replace("{quick}", str(quick))
    program(folder / "tools" / "test", text)
    done = subprocess.run(
        [str(folder / ".ci" / "run")], check=False, capture_output=True, text=True, timeout=600
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("quick", "slow", "passes"), [(0, 0, True), (1, 0, False), (0, 1, False), (0, 5, True)]
)
def test_ci_fails_when_a_part_does_and_ends_with_the_closing_lines(
    quick: int, slow: int, passes: bool, repo_root: Path, tmp_path: Path
) -> None:
    status, lines = ci(repo_root, tmp_path, quick=quick, slow=slow)
    assert (status == 0) == passes
    assert lines[-2] == "tests: == 5 passed, 1 skipped in 83.40s (0:01:23) =="
    assert re.fullmatch(r"slow [1-4]/4: == 3 passed, 9 deselected in 1.50s ==", lines[-1])


@pytest.mark.skipif(shutil.which("git") is None, reason="no git on PATH")
def test_ci_takes_the_next_slice_with_every_commit(repo_root: Path, tmp_path: Path) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    commit = ["git", *author, "-C", str(tmp_path), "commit", "-q", "--allow-empty", "-m", "x"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=600)
    slices = []
    for _ in range(5):
        subprocess.run(commit, check=True, timeout=600)
        _, lines = ci(repo_root, tmp_path, quick=0, slow=0)
        slices += [line for line in lines if line.startswith("slice ")]
    assert slices == [f"slice {part}/4" for part in (2, 3, 4, 1, 2)]

    cut_off = tmp_path / "cut-off"
    clone = ["git", "clone", "-q", "--depth", "1", f"file://{tmp_path}", str(cut_off)]
    subprocess.run(clone, check=True, timeout=600)
    status, lines = ci(repo_root, cut_off, quick=0, slow=0)
    assert status == 0
    assert any(re.fullmatch(r"slice [1-4]/4", line) for line in lines)
