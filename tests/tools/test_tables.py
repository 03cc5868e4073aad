"""The check of committed tables: stale ones are named, and repaired on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = "import sys\nprint('| ' + ' | '.join(sys.argv[1:]) + ' |')\n"
PAGE = """# Page

<!-- block one: written by `{command}` -->
old
<!-- end of block one -->

More.
"""


@pytest.fixture
def tables(repo_root: Path, load_file: Callable[[Path], ModuleType]) -> ModuleType:
    """The script."""
    return load_file(repo_root / "tools" / "tables.py")


@pytest.fixture
def page(tmp_path: Path) -> Callable[[str], Path]:
    """Writes tools/page.md with one block of that command, beside a script that prints a row."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "row.py").write_text(SCRIPT)

    def make(command: str) -> Path:
        path = folder / "page.md"
        path.write_text(PAGE.format(command=command))
        return path

    return make


def test_a_stale_table_is_named_and_repaired_by_what_its_command_prints(
    tables: ModuleType, page: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = page("python tools/row.py a 'b c'")
    before = path.read_text()
    assert tables.main(["--root", str(tmp_path)]) == 1
    assert "tools/page.md: block 'one': stale" in capsys.readouterr().out
    assert path.read_text() == before
    assert tables.main(["--root", str(tmp_path), "--fix"]) == 0
    assert path.read_text() == before.replace("old\n", "\n| a | b c |\n\n")
    assert tables.main(["--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("1 tables, 0 stale\n")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("rm -r tools", "is no command of a table"),
        ("trainer run --aug none", "is no command of a table"),
        ("python tools/absent.py", "No such file"),
        ("trainer report runs --into README.md --block one", "fills another block"),
        ("trainer report runs --into tools/page.md --block two", "fills another block"),
    ],
)
def test_a_command_that_cannot_be_that_of_the_table_is_told(
    tables: ModuleType,
    page: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    command: str,
    told: str,
) -> None:
    before = page(command).read_text()
    for fix in ([], ["--fix"]):
        assert tables.main(["--root", str(tmp_path), *fix]) == 1
        assert told in capsys.readouterr().out
        assert (tmp_path / "tools" / "page.md").read_text() == before


def test_a_block_that_trainer_report_fills_is_checked_by_trainer_report(
    tables: ModuleType,
    page: Callable[[str], Path],
    tmp_path: Path,
    repo_root: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    results = repo_root / "tools" / "results" / "digits_lt"
    path = page(f"trainer report {results} --into tools/page.md --block one")
    assert tables.main(["--root", str(tmp_path)]) == 1
    assert "block 'one' is stale" in capsys.readouterr().out
    assert tables.main(["--root", str(tmp_path), "--fix"]) == 0
    assert "| hybrid | one-hot |" in path.read_text()
    assert tables.main(["--root", str(tmp_path)]) == 0
