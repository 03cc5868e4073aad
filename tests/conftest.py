"""Shared fixtures, markers and the slicing of slow tests."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("STYLEGAN_MIX_TEST_SEED", "0"))
OURS = "STYLEGAN_MIX_"
KEPT = "STYLEGAN_MIX_TEST_"


# --------------------------------------------------------------------- slices and markers


def parse_slice(text: str) -> tuple[int, int]:
    """`"2/4"` -> (2, 4); the first slice is 1. ValueError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"a slice is i/n with 1 <= i <= n, got {text!r}")
    return int(match[1]), int(match[2])


def in_slice(slow: list[str], part: int, parts: int) -> set[str]:
    """The node ids of slice `part` of `parts`: every `parts`-th of the sorted ids."""
    return set(sorted(slow)[part - 1 :: parts])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slice", metavar="I/N", help="of the tests marked slow, keep those of slice I of N"
    )


def pytest_configure(config: pytest.Config) -> None:
    # nohup leaves SIGHUP ignored, also in children; tests of signals want its ordinary effect.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    text = config.getoption("--slice")
    if text is not None:
        try:
            parse_slice(text)
        except ValueError as error:
            raise pytest.UsageError(f"--slice: {error}") from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    text = config.getoption("--slice")
    if text is None:
        return
    slow = [item.nodeid for item in items if item.get_closest_marker("slow")]
    chosen = in_slice(slow, *parse_slice(text))
    dropped = [item for item in items if item.nodeid in set(slow) - chosen]
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=dropped)


# --------------------------------------------------------------------- the state of a process


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Global generators start from the seed; torch, where a test imports it, has one thread."""
    if item.get_closest_marker("cuda"):
        skip_without_cuda()
    random.seed(SEED)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(SEED)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(SEED)
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)


def skip_without_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        again = f'STYLEGAN_MIX_TEST_SEED={SEED} ./tools/test "{item.nodeid}"'
        report.sections.append(("seed", f"seed {SEED}; again with: {again}"))
    return report


@pytest.fixture(autouse=True)
def _same_process_after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every test starts without our variables, away from the user's store, and leaves no trace."""
    before, folder = dict(os.environ), Path.cwd()
    for name in before:
        if name.startswith(OURS) and not name.startswith(KEPT):
            del os.environ[name]
    os.environ["STYLEGAN_MIX_HOME"] = str(tmp_path_factory.getbasetemp() / "store-nobody-asked-for")
    yield
    os.chdir(folder)
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


# --------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def load_file() -> Callable[[Path], ModuleType]:
    """Imports a Python file that belongs to no package, such as a script in tools/."""

    def load(path: Path) -> ModuleType:
        name = f"loaded_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with `data/` and `golden/`, which the project does not commit."""
    named = os.environ.get("STYLEGAN_MIX_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(
            f"no reference data in {folder}: set STYLEGAN_MIX_TEST_DATA to a folder with "
            "data/ and golden/"
        )
    return folder.resolve()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh, empty store; the working directory is `tmp_path`."""
    folder = tmp_path / "home"
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(folder))
    monkeypatch.delenv("STYLEGAN_MIX_SHARED", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def dispatched(repo_root: Path, load_file: Callable[[Path], ModuleType]) -> type:
    """A mode that notes what PyTorch's dispatcher calls (tests/dispatched.py)."""
    mode: type = load_file(repo_root / "tests" / "dispatched.py").Dispatched
    return mode
