"""A check of the committed tables against the output of their commands; `--fix` rewrites them.

    .venv/bin/python tools/tables.py [--fix] [--root FOLDER]

A table stands in a Markdown page between two comments; the first names its command:

    <!-- block NAME: written by `COMMAND` -->
    ...
    <!-- end of block NAME -->

COMMAND is `trainer report` or a script of tools/, and reads committed files only. A command with
`--into` fills its block itself, and has `--check` for this; the output of any other is the block.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from trainer.reports import markdown_blocks

FOLDERS = ("kernels", "stylegan_mix", "trainer", "tests", "tools")
ALLOWED = (["trainer", "report"], ["python"])


def pages(root: Path) -> Iterator[Path]:
    """Lists the Markdown pages of the project."""
    yield from sorted(root.glob("*.md"))
    for folder in FOLDERS:
        yield from sorted((root / folder).rglob("*.md"))


def run(words: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    """Runs a block's command in `root` with this interpreter and these packages."""
    python = [sys.executable, *(["-m"] if words[0] == "trainer" else [])]
    rest = words if words[0] == "trainer" else words[1:]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [*python, *rest], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def problem(root: Path, page: Path, name: str, command: str, *, fix: bool) -> str:
    """Describes the fault of a block, or "" if it has none; with `fix` it is written again."""
    words = shlex.split(command)
    if not any(words[: len(start)] == start for start in ALLOWED):
        return f"`{command}` is no command of a table"
    fills = "--into" in words
    if fills:
        there = ["--into", page.relative_to(root).as_posix(), "--block", name]
        if not any(words[at : at + 4] == there for at in range(len(words))):
            return f"its command fills another block: `{command}`"
        words += [] if fix else ["--check"]
    done = run(words, root)
    if done.returncode:
        return (done.stderr.strip() or f"status {done.returncode}") + f"\n  {command}"
    if fills:
        return ""
    if fix:
        markdown_blocks.fill(page, name, done.stdout, command=command)
    fresh = markdown_blocks.is_fresh(page, name, done.stdout, command=command)
    return "" if fresh else f"stale; tools/check --fix writes it again\n  {command}"


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each stale table; returns 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fix", action="store_true", help="write stale tables again")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    options = parser.parse_args(arguments)
    count = stale = 0
    for page in pages(options.root):
        for name, command in markdown_blocks.commands(page):
            found = problem(options.root, page, name, command, fix=options.fix)
            count, stale = count + 1, stale + bool(found)
            if found:
                print(f"{page.relative_to(options.root)}: block '{name}': {found}")
    print(f"{count} tables, {stale} stale")
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main())
