"""Who may import whom, and what must answer without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGES = ("kernels", "stylegan_mix", "trainer")

# Of ours, what each package may import beside itself.
MAY_IMPORT = {
    "kernels": (),
    "stylegan_mix": ("kernels",),
    "trainer": (
        "kernels",
        "stylegan_mix.columns",
        "stylegan_mix.console",
        "stylegan_mix.errors",
        "stylegan_mix.estimates",
        "stylegan_mix.output",
        "stylegan_mix.progress",
        "stylegan_mix.reading",
        "stylegan_mix.showing",
        "stylegan_mix.fields",
        "stylegan_mix.launched",
        "stylegan_mix.numerics",
        "stylegan_mix.session",
        "stylegan_mix.special_files",
        "stylegan_mix.stopping",
        "stylegan_mix.process",
        "stylegan_mix.world",
        "stylegan_mix.rng",
        "stylegan_mix.store",
        "stylegan_mix.arrays",
        "stylegan_mix.checkpoint",
        "stylegan_mix.drawing",
        "stylegan_mix.datasets",
        "stylegan_mix.banks.policy",
        "stylegan_mix.banks.reader",
        "stylegan_mix.banks.store",
        "stylegan_mix.judging.annotations",
    ),
}

# These answer at once: importing them must not import torch, nor anything that does.
WITHOUT_TORCH = (
    "stylegan_mix.columns",
    "stylegan_mix.console",
    "stylegan_mix.errors",
    "stylegan_mix.estimates",
    "stylegan_mix.fields",
    "stylegan_mix.output",
    "stylegan_mix.pickles",
    "stylegan_mix.progress",
    "stylegan_mix.reading",
    "stylegan_mix.session",
    "stylegan_mix.showing",
    "stylegan_mix.special_files",
    "stylegan_mix.stopping",
    "stylegan_mix.process",
    "stylegan_mix.rng",
    "stylegan_mix.store",
    "stylegan_mix.arrays",
    "stylegan_mix.drawing",
    "stylegan_mix.datasets",
    "stylegan_mix.banks.reader",
    "stylegan_mix.banks.store",
    "stylegan_mix.cli",
    "stylegan_mix.commands",
    "trainer.cli",
    "trainer.commands",
    "trainer.objectives",
    "trainer.plan",
    "trainer.recipes",
    "trainer.reports.records",
    "trainer.reports.tables",
    "trainer.sweep",
)


# --------------------------------------------------------------------- reading imports


@dataclass(frozen=True)
class Module:
    """One source file as `import` names it."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        """What a relative import starts from."""
        is_package = self.path.name == "__init__.py"
        return self.name if is_package else self.name.rpartition(".")[0]


def modules(root: Path) -> dict[str, Module]:
    """All modules of the three packages below `root`, by name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def names_of(node: ast.AST, module: Module) -> Iterator[str]:
    """Dotted names that one statement imports; `from a import b` gives `a.b`.

    A string "package.module:attribute", which a lazy group imports later, counts too.
    """
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            start = module.package.split(".")
            start = start[: len(start) - node.level + 1]
            base = ".".join([*start, *filter(None, [base])])
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        target, colon, attribute = node.value.partition(":")
        if colon and attribute.isidentifier() and target.split(".")[0] in PACKAGES:
            yield target


def all_imports(module: Module) -> Iterator[tuple[str, int]]:
    """(name, line) of every import, inside functions as well."""
    for node in ast.walk(module.tree):
        for name in names_of(node, module):
            yield name, getattr(node, "lineno", 1)


def imports_on_import(module: Module) -> Iterator[str]:
    """Names imported when the module itself is: not in functions, not for type checkers only."""
    return imports_outside(module, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


def imports_outside(module: Module, left_out: tuple[type[ast.AST], ...] = ()) -> Iterator[str]:
    """Names that running code imports, but for what is inside nodes that are `left_out`."""
    waiting: list[ast.AST] = list(module.tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, left_out):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from names_of(node, module)
        waiting += ast.iter_child_nodes(node)


# --------------------------------------------------------------------- the rules


def wrong_directions(root: Path) -> list[str]:
    """Imports that go where the importing package may not look."""
    wrong = []
    for module in modules(root).values():
        package = module.name.split(".")[0]
        for name, line in all_imports(module):
            top = name.split(".")[0]
            if top in ("tests", "tools"):
                wrong.append(f"{module.name}:{line} imports {name}: only people run {top}")
            if top not in PACKAGES or top == package:
                continue
            if not any(within(name, allowed) for allowed in MAY_IMPORT[package]):
                wrong.append(f"{module.name}:{line} imports {name}: {package} must not know it")
    return wrong


def ways_to_torch(root: Path) -> list[str]:
    """Of the modules that must do without torch, the chains of imports that end at it."""
    known = modules(root)
    wrong = []
    for name in known:
        if any(within(name, prefix) for prefix in WITHOUT_TORCH):
            chain = chain_to_torch(name, known)
            if chain:
                wrong.append(" -> ".join(chain))
    return wrong


def chain_to_torch(start: str, known: dict[str, Module]) -> list[str]:
    """start, ..., "torch": the shortest chain of imports, or nothing."""
    chains = {start: [start]}
    waiting = [start]
    while waiting:
        current = waiting.pop(0)
        for imported in reached_by(current, known):
            if imported in chains:
                continue
            chains[imported] = [*chains[current], imported]
            if imported == "torch":
                return chains[imported]
            waiting.append(imported)
    return []


def reached_by(name: str, known: dict[str, Module]) -> Iterator[str]:
    """Our modules, and torch, that importing one module imports; parent packages come along."""
    if name in known:
        for imported in imports_on_import(known[name]):
            parts = imported.split(".")
            if parts[0] == "torch":
                yield "torch"
            prefixes = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
            yield from (prefix for prefix in prefixes if prefix in known)
    parent = name.rpartition(".")[0]
    if parent:
        yield parent


def circles(root: Path) -> list[str]:
    """The groups of modules that need one another, imports inside functions included."""
    known = modules(root)
    needs = {
        name: {found for one in imports_outside(module) if (found := owner(one, known))} - {name}
        for name, module in known.items()
    }
    # Whoever imports nothing that is left, or is imported by nothing that is left, is in no circle.
    left = set(needs)
    while True:
        needed = set().union(*(needs[name] & left for name in left))
        inner = {name for name in left & needed if needs[name] & left}
        if inner == left:
            break
        left = inner
    return [f"{name} -> {other}" for name in sorted(left) for other in sorted(needs[name] & left)]


def commands_that_import_commands(root: Path) -> list[str]:
    """Imports of one command by another: what two commands share belongs below them."""
    return [
        f"{module.name}:{line} imports {name}"
        for module in modules(root).values()
        for name, line in all_imports(module)
        if ".commands." in module.name and ".commands." in f"{name}."
    ]


def owner(name: str, known: dict[str, Module]) -> str:
    """The module of ours that an imported name is, or is in; "" where there is none."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def test_no_modules_import_one_another_in_a_circle(repo_root: Path) -> None:
    assert circles(repo_root) == []


def test_no_command_imports_another(repo_root: Path) -> None:
    assert commands_that_import_commands(repo_root) == []


def test_imports_go_only_where_the_design_lets_them(repo_root: Path) -> None:
    assert wrong_directions(repo_root) == []


def test_no_chain_of_imports_leads_the_quick_modules_to_torch(repo_root: Path) -> None:
    assert ways_to_torch(repo_root) == []


# --------------------------------------------------------------------- and in a real process

TELL = "import sys; print(sorted({'torch', 'kernels'} & set(sys.modules)))"
COMMAND = """
import sys
from {module} import main
sys.argv = {argv!r}
try:
    main()
except SystemExit:
    pass
sys.stdout.flush()
"""


def loaded_by(code: str) -> str:
    """Which of torch and kernels a new process has loaded after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{TELL}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "argv",
    [
        ["stylegan-mix", "--help"],
        ["stylegan-mix", "train", "--help"],
        ["stylegan-mix", "generate", "--help"],
        ["stylegan-mix", "metrics", "--help"],
        ["stylegan-mix", "bank", "list"],
        ["stylegan-mix", "dataset", "list"],
        ["trainer", "--help"],
        ["trainer", "run", "--help"],
        ["trainer", "recipes", "--help"],
        ["trainer", "report"],
    ],
    ids=" ".join,
)
def test_quick_commands_load_no_torch(argv: list[str], home: Path) -> None:
    module = {"stylegan-mix": "stylegan_mix.cli", "trainer": "trainer.cli"}[argv[0]]
    assert loaded_by(COMMAND.format(module=module, argv=argv)) == "[]"


EVERY_HELP = """
import sys
from {module} import group
for name in group.list_commands(None):
    try:
        group.main([name, "--help"], prog_name="help", standalone_mode=False)
    except SystemExit:
        pass
    assert {slow} & set(sys.modules) == set(), name
"""


@pytest.mark.parametrize("module", ["stylegan_mix.cli", "trainer.cli"])
def test_help_loads_nothing_slow(module: str) -> None:
    """Importing any of these takes as long as all else that a help text needs."""
    slow = {"torch", "numpy", "scipy", "PIL", "h5py", "matplotlib"}
    assert loaded_by(EVERY_HELP.format(module=module, slow=slow)) == "[]"


def test_quick_modules_load_no_torch(repo_root: Path) -> None:
    known = modules(repo_root)
    quick = [name for name in known if any(within(name, prefix) for prefix in WITHOUT_TORCH)]
    missing = [name for name in WITHOUT_TORCH if name not in known]
    assert not missing, "the rules name modules that do not exist"
    assert loaded_by("\n".join(f"import {name}" for name in quick)) == "[]"


def test_a_process_that_loads_torch_is_noticed() -> None:
    assert loaded_by("import torch") == "['torch']"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_imported_package_is_this_checkout(package: str, repo_root: Path) -> None:
    """Other distributions own import names `kernels` and `trainer`."""
    imported = __import__(package)
    assert Path(imported.__file__).resolve().parent == repo_root / package


def test_importing_the_operators_compiles_nothing(tmp_path: Path) -> None:
    """With no compiler on PATH and an empty cache, the import works and writes nothing."""
    code = (
        f"import os; os.environ['PATH'] = {str(tmp_path)!r}\n"
        f"os.environ['STYLEGAN_MIX_HOME'] = os.environ['HOME'] = {str(tmp_path / 'home')!r}\n"
        "import kernels"
    )
    assert "kernels" in loaded_by(code)
    assert not (tmp_path / "home").exists()


# --------------------------------------------------------------------- the checks can fail


def tree(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("kernels/a.py", "import stylegan_mix.networks"),
        ("kernels/a.py", "def f():\n    from trainer import loop"),
        ("stylegan_mix/a.py", "from trainer.engine.loop import run"),
        ("stylegan_mix/commands/a.py", 'LAZY = {"run": "trainer.cli:run"}'),
        ("trainer/a.py", "import tools.bench"),
        ("trainer/a.py", "from stylegan_mix import networks"),
        ("trainer/a.py", "from stylegan_mix.banks import blocks"),
        ("trainer/a.py", "import stylegan_mix"),
        ("trainer/models/a.py", "from ...stylegan_mix.networks import layers"),
        ("trainer/a.py", "from tests.conftest import ROOT"),
        ("kernels/a.py", "import tools.budgets"),
    ],
)
def test_a_wrong_direction_is_caught(tmp_path: Path, path: str, text: str) -> None:
    assert len(wrong_directions(tree(tmp_path, {path: text}))) == 1


def test_allowed_directions_pass(tmp_path: Path) -> None:
    files = {
        "stylegan_mix/networks/a.py": "from kernels import bias_act\nfrom . import layers",
        "trainer/a.py": "from stylegan_mix.banks import reader\nfrom . import loop\nimport torch",
        "trainer/b.py": "from stylegan_mix.datasets.splits import counts\nimport kernelspec",
        "trainer/models/c.py": "from kernels import conv3x3",
    }
    assert wrong_directions(tree(tmp_path, files)) == []


@pytest.mark.parametrize(
    "files",
    [
        {"stylegan_mix/store.py": "import torch"},
        {"stylegan_mix/store.py": "from torch.nn import functional"},
        {"stylegan_mix/datasets/cifar.py": "try:\n    import torch\nexcept ImportError:\n    pass"},
        {
            "trainer/reports/tables.py": "from ..engine.loop import run",
            "trainer/engine/loop.py": "import torch",
        },
        {
            "stylegan_mix/banks/__init__.py": "from . import blocks",
            "stylegan_mix/banks/blocks.py": "import torch",
            "stylegan_mix/banks/reader.py": "import numpy",
        },
        {"trainer/cli.py": "class Lazy:\n    import torch"},
    ],
)
def test_a_way_to_torch_is_caught(tmp_path: Path, files: dict[str, str]) -> None:
    assert ways_to_torch(tree(tmp_path, files)) != []


def test_torch_inside_functions_and_for_types_passes(tmp_path: Path) -> None:
    lines = ["if TYPE_CHECKING:", "    import torch", "def run():", "    import torch"]
    assert ways_to_torch(tree(tmp_path, {"trainer/commands/run.py": "\n".join(lines)})) == []


@pytest.mark.parametrize(
    "files",
    [
        {"kernels/a.py": "from kernels import b", "kernels/b.py": "from kernels.a import f"},
        {
            "trainer/a.py": "def f():\n    from trainer.b import g",
            "trainer/b.py": "class C:\n    def g(self):\n        import trainer.a",
        },
        {
            "stylegan_mix/a.py": "from stylegan_mix import b",
            "stylegan_mix/b.py": "from stylegan_mix.c import d",
            "stylegan_mix/c.py": "def f():\n    from . import a",
            "stylegan_mix/d.py": "from stylegan_mix import a",
        },
    ],
)
def test_a_circle_is_caught(tmp_path: Path, files: dict[str, str]) -> None:
    assert len(circles(tree(tmp_path, files))) == len(set(files) - {"stylegan_mix/d.py"})


def test_a_command_that_imports_another_is_caught(tmp_path: Path) -> None:
    files = {
        "trainer/commands/a.py": "def f():\n    from trainer.commands.b import g",
        "trainer/commands/b.py": "from trainer import commands_of",
        "stylegan_mix/commands/a.py": "from . import b",
        "stylegan_mix/cli.py": 'LAZY = {"a": "stylegan_mix.commands.a:a"}',
    }
    assert len(commands_that_import_commands(tree(tmp_path, files))) == 2


def test_a_stair_and_imports_for_types_are_no_circle(tmp_path: Path) -> None:
    files = {
        "trainer/a.py": "from trainer import b, c",
        "trainer/b.py": "from trainer import c",
        "trainer/c.py": "if TYPE_CHECKING:\n    from trainer import a\nimport torch",
    }
    assert circles(tree(tmp_path, files)) == []
