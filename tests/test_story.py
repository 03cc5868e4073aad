"""The story of the README, in miniature: from the checkout, and from a wheel with no compiler."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

# What makes a command of the README one of seconds; a later option wins over an earlier one.
MINIATURE = {
    "stylegan-mix train": "--kimg 1",
    "stylegan-mix generate": "--n 256",
    "trainer run": "--seeds 2 --epochs 2",
}
SOURCES = ("kernels", "stylegan_mix", "trainer")
# The operators are built where they are used: an installation needs their sources.
PLANTED = ("kernels/csrc/planted.h", "kernels/csrc/cpu/planted.cpp")


def story(repo_root: Path) -> list[str]:
    """The six commands of the README, as they stand there."""
    text = (repo_root / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## The story in six commands\n+```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None, "README.md has lost its story"
    return [line.partition("#")[0].strip() for line in block[1].splitlines()]


def in_miniature(command: str) -> list[str]:
    extra = [more for start, more in MINIATURE.items() if command.startswith(start)]
    return shlex.split(" ".join([command, *extra]))


def run(command: list[str], folder: Path, **environment: str) -> str:
    """stdout of a command that must succeed; the environment holds nothing but what is given."""
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
        cwd=folder,
        env={"HOME": str(folder), "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, f"$ {shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_readme_tells_the_story_in_six_commands(repo_root: Path) -> None:
    commands = story(repo_root)
    assert len(commands) == 6
    assert {start for start in MINIATURE if any(c.startswith(start) for c in commands)} == {
        *MINIATURE
    }


# --------------------------------------------------------------------- from a wheel


@pytest.fixture(scope="module")
def wheel(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays clean."""
    source = tmp_path_factory.mktemp("source")
    for name in (*SOURCES, "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (repo_root / name).is_dir():
            left_out = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(repo_root / name, source / name, ignore=left_out)
        else:
            shutil.copy(repo_root / name, source / name)
    for path in PLANTED:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).touch()
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    run([*command, str(source)], source, PATH=os.environ["PATH"])
    return next(out.glob("*.whl"))


def test_a_wheel_holds_every_source_and_nothing_else(wheel: Path, repo_root: Path) -> None:
    wanted = {
        path.relative_to(repo_root).as_posix()
        for package in SOURCES
        for path in (repo_root / package).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so")
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == wanted | {*PLANTED}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment: the wheel, and the dependencies of this one by path."""
    folder = tmp_path_factory.mktemp("installed")
    run([sys.executable, "-m", "venv", str(folder)], folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--no-index", "--no-deps"]
    run([*pip, str(wheel)], folder)
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    # A line in a .pth adds a folder without running the .pth files in it: the checkout, which
    # this environment holds as editable, stays unknown there.
    Path(purelib, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.mark.slow
def test_the_story_runs_from_a_wheel_without_a_compiler(
    installed: Path, repo_root: Path, tmp_path: Path
) -> None:
    path = str(installed / "bin")
    python = shutil.which("python", path=path)
    where = "import kernels, stylegan_mix, trainer; print(kernels.__file__, trainer.__file__)"
    for file in run([str(python), "-c", where], tmp_path, PATH=path).split():
        assert Path(file).is_relative_to(installed)
    for command in story(repo_root):
        program, *words = in_miniature(command)
        said = run(
            [str(installed / "bin" / program), *words],
            tmp_path,
            PATH=path,
            STYLEGAN_MIX_HOME=str(tmp_path / "home"),
        )
        assert said.strip(), f"{command} told nothing"
    assert "hybrid" in said


# --------------------------------------------------------------------- from the checkout


@pytest.mark.slow
def test_quickstart_ends_with_the_table_and_the_picture(repo_root: Path, tmp_path: Path) -> None:
    command = [str(repo_root / "tools" / "quickstart"), "--fast", str(tmp_path)]
    said = run(command, repo_root, PATH=os.environ["PATH"])
    table = said[said.rindex("$ trainer report") :]
    for arm in ("none", "mixup", "bank", "hybrid"):
        assert arm in table
    preview = re.search(r"^ *(/.*/preview\.png)$", said, re.MULTILINE)
    assert preview is not None
    assert Path(preview[1]).read_bytes().startswith(b"\x89PNG")
    assert Path(preview[1]).is_relative_to(tmp_path)
    again = run(command, repo_root, PATH=os.environ["PATH"])
    assert table.splitlines()[:8] == again[again.rindex("$ trainer report") :].splitlines()[:8]
