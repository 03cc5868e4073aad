"""The test suite's own machinery: slices, the seed in a report, the guard around a test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SUITE = """
import os
import random
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5))
def test_slow(number):
    pass


def test_a_that_leaves_traces(monkeypatch, tmp_path):
    os.environ["STYLEGAN_MIX_SHARED"] = "/left"
    os.environ["PATH"] = "/left"
    os.chdir(tmp_path)


def test_b_finds_no_traces(request):
    assert "STYLEGAN_MIX_SHARED" not in os.environ
    assert os.environ["PATH"] != "/left"
    assert Path.cwd() == request.config.rootpath
    assert not Path(os.environ["STYLEGAN_MIX_HOME"]).exists()
    assert "users-own" not in os.environ["STYLEGAN_MIX_HOME"]


def test_c_draws():
    print("drawn", random.random())


def test_d_draws():
    print("drawn", random.random())
    assert "SEED" not in os.environ.get("FAIL", ""), "as asked"


@pytest.mark.cuda
def test_on_a_card():
    import torch

    assert torch.cuda.is_available()


def test_home_is_fresh(home, tmp_path):
    assert os.environ["STYLEGAN_MIX_HOME"] == str(home)
    assert not home.exists()
    assert Path.cwd() == tmp_path


def test_shared(shared_data):
    assert (shared_data / "data").is_dir()
"""


@pytest.fixture
def suite(repo_root: Path, tmp_path: Path) -> Path:
    """A project of one test file, with this one's conftest and settings."""
    (tmp_path / "tests").mkdir()
    shutil.copy(repo_root / "tests" / "conftest.py", tmp_path / "tests" / "conftest.py")
    shutil.copy(repo_root / "setup.cfg", tmp_path / "setup.cfg")
    (tmp_path / "tests" / "test_it.py").write_text(SUITE, encoding="utf-8")
    return tmp_path


def outcomes(suite: Path, *words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-rA", "-p", "no:hypothesispytest", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=suite,
        env={**os.environ, "STYLEGAN_MIX_HOME": "users-own", **environment},
    )
    return f"{done.stdout}{done.stderr}status {done.returncode}"


@pytest.fixture(scope="module")
def conftest(repo_root: Path, load_file: Callable[[Path], ModuleType]) -> ModuleType:
    return load_file(repo_root / "tests" / "conftest.py")


def test_slices_part_the_slow_tests(conftest: ModuleType) -> None:
    names = [f"tests/test_a.py::test_{number}" for number in range(11)]
    slices = [conftest.in_slice(names[::-1], part, 4) for part in (1, 2, 3, 4)]
    assert sorted(name for part in slices for name in part) == sorted(names)
    assert {len(part) for part in slices} == {2, 3}


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4"])
def test_a_slice_that_is_none_is_refused(text: str, conftest: ModuleType) -> None:
    with pytest.raises(ValueError, match="a slice is i/n"):
        conftest.parse_slice(text)


WORKERS = ("--numprocesses", "2", "--dist", "worksteal")


@pytest.mark.parametrize("workers", [(), WORKERS], ids=["alone", "workers"])
def test_a_slice_leaves_the_other_slow_tests_out(suite: Path, workers: tuple[str, ...]) -> None:
    said = outcomes(suite, "-m", "slow", "--slice", "2/2", *workers)
    passed = re.findall(r"^PASSED .*::(\S+)", said, re.MULTILINE)
    assert sorted(passed) == ["test_slow[1]", "test_slow[3]"]
    said = outcomes(suite, "-m", "slow", "--slice", "6/6", *workers)
    assert re.search(r"^=+ (no tests ran|12 deselected) in [0-9.]+s", said, re.MULTILINE)
    assert said.endswith("status 5"), "which .ci/run knows as an empty slice"


def test_a_slice_that_is_none_is_refused_by_the_command(suite: Path) -> None:
    assert "--slice: a slice is i/n" in outcomes(suite, "--slice", "3/2")


@pytest.mark.parametrize("workers", [(), WORKERS], ids=["alone", "workers"])
def test_a_test_starts_clean_with_the_seed_and_leaves_no_trace(
    suite: Path, workers: tuple[str, ...]
) -> None:
    words = ("-k", "traces or home or draws", *workers)
    said = outcomes(suite, *words, STYLEGAN_MIX_SHARED="/somewhere")
    assert "5 passed" in said
    assert len(set(re.findall("^drawn .*", said, re.MULTILINE))) == 1


def test_a_failure_tells_its_seed_and_another_seed_draws_others(suite: Path) -> None:
    def drawn(said: str) -> str:
        return said.partition("drawn ")[2].partition("\n")[0]

    words = ("-k", "test_d_draws")
    said = outcomes(suite, *words, FAIL="SEED", STYLEGAN_MIX_TEST_SEED="7")
    assert " seed ---" in said[said.index("as asked") :], "the report has a section for it"
    assert "STYLEGAN_MIX_TEST_SEED=7 ./tools/test" in said
    assert drawn(said) != drawn(outcomes(suite, *words)) != ""


def test_what_a_machine_lacks_is_skipped_with_a_reason(suite: Path) -> None:
    import torch

    said = outcomes(suite, "-k", "card or shared", STYLEGAN_MIX_TEST_DATA=str(suite / "none"))
    assert "no reference data in" in said
    assert ("no CUDA device on this machine" in said) != torch.cuda.is_available()
    (suite / "given" / "data").mkdir(parents=True)
    said = outcomes(suite, "-k", "shared", STYLEGAN_MIX_TEST_DATA=str(suite / "given"))
    assert "1 passed" in said
