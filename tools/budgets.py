"""Length and repetition budgets: ceilings fail, rules are counted.

    .venv/bin/python tools/budgets.py [--root FOLDER] [--rules]

| what                              | rule | ceiling               |
| --------------------------------- | ---- | --------------------- |
| columns of a line                 |      | 100                   |
| lines of a function               | 40   | 80                    |
| lines of a file                   | 400  | 600 (a test file 500, |
|                                   |      | one of a package 450) |
| arguments                         | 8    | 12                    |
| nested blocks                     | 3    | 5                     |
| lines that repeat others          |      | 1 %                   |
| a file called utils, misc, ...    |      | none                  |

A docstring does not count as lines of its function, nor `self` as an argument, nor the options of
a command, which click hands over one by one. A repeated line is one inside a window of four
statements that stands elsewhere in the same form. Commented-out code is ruff's (ERA001).
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("kernels", "stylegan_mix", "trainer", "tests", "tools")
SUFFIXES = (".py", ".h", ".cpp", ".cu", ".cuh", "")  # none: shell scripts
REFUSED_NAMES = {"utils", "util", "misc", "helpers", "common", "core", "manager"}
COLUMNS = 100
TEST_FILE_LINES = 500
PACKAGES = ("kernels", "stylegan_mix", "trainer")
PACKAGE_FILE_LINES = 450
REPEATED_SHARE = 0.01
WINDOW = 4

# kind -> (rule, ceiling)
LIMITS = {
    "function": (40, 80),
    "file": (400, 600),
    "arguments": (8, 12),
    "nesting": (3, 5),
}

# (kind, "path" or "path::name") -> why this one may exceed its ceiling. An entry that nothing
# needs any more is an error too.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("arguments", "stylegan_mix/networks/generator.py::Generator.__init__"): (
        "a network is built from the published numbers, each under its own name"
    ),
}

BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.AsyncFor, ast.AsyncWith)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Finding:
    """A count beyond a limit. `hard`: beyond a ceiling, not only beyond a rule."""

    kind: str
    where: str  # path, or path::name
    line: int
    text: str
    hard: bool

    def __str__(self) -> str:
        return f"{self.where.split('::')[0]}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Source:
    """A file: its path from the root, its lines, and its tree if it is Python."""

    path: str
    lines: list[str]
    tree: ast.Module | None

    @property
    def is_test(self) -> bool:
        return self.path.startswith("tests/")

    @property
    def is_of_a_package(self) -> bool:
        """True for Python that is installed."""
        return self.tree is not None and self.path.split("/")[0] in PACKAGES


# --------------------------------------------------------------------- one file


def judge(source: Source) -> Iterator[Finding]:
    """Finds everything in one file that is beyond a rule or a ceiling."""
    yield from judge_file(source)
    for name, function in functions(source.tree) if source.tree else ():
        where = f"{source.path}::{name}"
        counts = {"function": length(function), "nesting": depth(function.body)}
        if not is_command(function):
            counts["arguments"] = arguments(function)
        for kind, count in counts.items():
            yield from beyond(kind, count, where, function.lineno, f"{name}: {kind} {count}")


def judge_file(source: Source) -> Iterator[Finding]:
    for number, line in enumerate(source.lines, 1):
        if len(line) > COLUMNS:
            yield Finding("line", source.path, number, f"{len(line)} columns, at most 100", True)
    stem = Path(source.path).stem
    if stem in REFUSED_NAMES:
        yield Finding("name", source.path, 1, f"a file is named by what it holds, not {stem}", True)
    count = len(source.lines)
    if source.is_test and count > TEST_FILE_LINES:
        yield Finding("file", source.path, 1, f"test file of {count} lines, at most 500", True)
    elif source.is_of_a_package and count > PACKAGE_FILE_LINES:
        text = f"file of a package with {count} lines, at most {PACKAGE_FILE_LINES}"
        yield Finding("file", source.path, 1, text, True)
    elif not source.is_test:
        yield from beyond("file", count, source.path, 1, f"file of {count} lines")


def beyond(kind: str, count: int, where: str, line: int, text: str) -> Iterator[Finding]:
    rule, ceiling = LIMITS[kind]
    if count > rule:
        text = f"{text}, rule {rule}, at most {ceiling}"
        yield Finding(kind, where, line, text, count > ceiling)


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Lists all functions with their dotted names, inner ones included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            name = f"{prefix}{node.name}"
            if isinstance(node, FUNCTIONS):
                yield name, node
            yield from functions(node, f"{name}.")
        else:
            yield from functions(node, prefix)


def length(function: Function) -> int:
    """Counts lines from `def` to the end, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if is_docstring(first):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def arguments(function: Function) -> int:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    extra = [name for name in (given.vararg, given.kwarg) if name is not None]
    return len([name for name in named if name.arg not in ("self", "cls")]) + len(extra)


def is_command(function: Function) -> bool:
    """Tells if click passes the arguments, one for each option."""
    names = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(".command" in name or "click." in name for name in names)


def depth(body: list[ast.stmt]) -> int:
    """Measures the deepest nesting of blocks in `body`; `elif` is no deeper than its `if`."""
    return max((depth_of(node) for node in body), default=0)


def depth_of(node: ast.AST) -> int:
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return 0
    inner = 0
    for child in ast.iter_child_nodes(node):
        is_elif = isinstance(node, ast.If) and [child] == node.orelse and isinstance(child, ast.If)
        inner = max(inner, depth_of(child) - is_elif)
    return inner + isinstance(node, BLOCKS)


# --------------------------------------------------------------------- repetition


@dataclass(frozen=True)
class Window:
    """Four neighbouring statements of one block."""

    path: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path}:{self.first}-{self.last}"


def windows(source: Source) -> Iterator[tuple[str, Window]]:
    """Lists every window of four statements, with the form that makes two equal."""
    for block in blocks(source.tree) if source.tree else ():
        told = [(ast.dump(node), node) for node in block if not is_boilerplate(node)]
        for start in range(len(told) - WINDOW + 1):
            chosen = told[start : start + WINDOW]
            first, last = chosen[0][1], chosen[-1][1]
            place = Window(source.path, first.lineno, last.end_lineno or last.lineno)
            yield "\n".join(form for form, _ in chosen), place


def blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and len(block) >= WINDOW:
                yield block


def is_boilerplate(node: ast.stmt) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom)) or is_docstring(node)


def repetition(sources: list[Source]) -> tuple[list[tuple[Window, Window]], float]:
    """Finds pairs (a later window, the first of its form), and the share of lines they cover."""
    seen: dict[str, list[Window]] = defaultdict(list)
    for source in sources:
        for form, window in windows(source):
            seen[form].append(window)
    pairs = [(later, same[0]) for same in seen.values() for later in same[1:]]
    covered = {
        (later.path, line) for later, _ in pairs for line in range(later.first, later.last + 1)
    }
    total = sum(len(source.lines) for source in sources if source.tree)
    return pairs, len(covered) / max(total, 1)


# --------------------------------------------------------------------- the whole tree


def read(root: Path) -> list[Source]:
    """Reads the project's own source files below `root`, in order of their paths."""
    sources = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in SUFFIXES or not path.is_file():
                continue
            text = path.read_text(encoding="utf-8")
            if not path.suffix and not text.startswith("#!"):
                continue
            tree = ast.parse(text, str(path)) if path.suffix == ".py" else None
            sources.append(Source(path.relative_to(root).as_posix(), text.splitlines(), tree))
    return sources


def excused(
    found: list[Finding], exceptions: dict[tuple[str, str], str]
) -> tuple[list[Finding], list[str]]:
    """Selects the hard findings without an entry, and complains about unneeded entries."""
    hard = [finding for finding in found if finding.hard]
    left = [finding for finding in hard if (finding.kind, finding.where) not in exceptions]
    used = {(finding.kind, finding.where) for finding in hard}
    stale = [f"exception {key} is not needed any more" for key in exceptions if key not in used]
    return left, stale


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Length and repetition budgets.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--rules", action="store_true", help="list what is beyond a rule, too")
    options = parser.parse_args(arguments)

    sources = read(options.root)
    found = [finding for source in sources for finding in judge(source)]
    pairs, share = repetition(sources)
    failures, stale = excused(found, EXCEPTIONS)
    complaints = [*map(str, failures), *stale]
    if share > REPEATED_SHARE:
        complaints += [f"{later} repeats {first}" for later, first in pairs]
        complaints.append(f"{share:.1%} of the lines repeat others, at most {REPEATED_SHARE:.0%}")
    if options.rules:
        print(*(finding for finding in found if not finding.hard), sep="\n")
        print(*(f"{later} repeats {first}" for later, first in pairs), sep="\n")
    print(*complaints, sep="\n", end="\n" if complaints else "")
    lines = sum(len(source.lines) for source in sources)
    soft = [finding.kind for finding in found if not finding.hard]
    counts = ", ".join(f"{kind} {soft.count(kind)}" for kind in LIMITS)
    print(
        f"budgets: {len(sources)} files, {lines} lines, {share:.2%} repeated; "
        f"beyond a rule: {counts}; beyond a ceiling: {len(complaints)}"
    )
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
