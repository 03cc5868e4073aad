"""Mutants of every file that is read: no crash, no hang, no wrong data, and never exit code 1.

Each mutant is read in a child with limits on memory and time. By hand, any number of them, from
any seed, of all targets or of one:

    export STYLEGAN_MIX_TEST_SEED=7 STYLEGAN_MIX_TEST_MUTANTS=20000
    tools/test --slow tests/hostile/test_mutants.py
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import label_targets
import mutation
import pytest
import source_targets
import store_targets
import text_targets
from confined import confined
from targets import CODES, Target, Wrong

from stylegan_mix.errors import Failure

SEED = int(os.environ.get("STYLEGAN_MIX_TEST_SEED", "0"))
MUTANTS = int(os.environ.get("STYLEGAN_MIX_TEST_MUTANTS", "2000"))
FEW = 4  # mutants of each target in the quick test
MEMORY = 1 << 30
SECONDS = 5

# What a first mutant would import would count as its time.
LOADED = (
    *("stylegan_mix.cli", "stylegan_mix.generators.store", "stylegan_mix.interop.rosinality"),
    *("stylegan_mix.interop.network_pickles", "stylegan_mix.training.saves", "trainer.cli"),
    *("stylegan_mix.commands.bank", "stylegan_mix.commands.generators", "trainer.engine.folder"),
    *("stylegan_mix.commands.dataset", "stylegan_mix.datasets.prepare", "trainer.reports.tables"),
    *("trainer.commands.report", "trainer.commands.sweep", "trainer.commands.queries"),
    *(
        "stylegan_mix.commands.generate",
        "stylegan_mix.commands.train",
        "stylegan_mix.pictures.grid",
    ),
    *("stylegan_mix.commands.export_generator", "stylegan_mix.commands.import_generator"),
    "stylegan_mix.interop.exported",
    *("trainer.commands.run", "trainer.reports.page", "trainer.reports.plots", "sklearn.datasets"),
    *("stylegan_mix.datasets.loose", "stylegan_mix.judging.annotations", "trainer.inputs"),
    *("stylegan_mix.training.plan", "kernels.libraries", "stylegan_mix.pictures.history"),
)

TARGETS: dict[str, Target] = {
    kind.__name__: kind()
    for module in (store_targets, text_targets, source_targets, label_targets)
    for kind in vars(module).values()
    if isinstance(kind, type) and kind is not Target and issubclass(kind, Target)
}


# --------------------------------------------------------------------- the tests


@pytest.fixture(scope="module", autouse=True)
def _loaded(load_file: Callable[[Path], ModuleType], repo_root: Path) -> None:
    """Everything that a mutant needs is loaded before the first one."""
    makers = load_file(repo_root / "tests" / "trainer" / "conftest.py")
    text_targets.MAKERS["results"] = makers
    for name in LOADED:
        import_module(name)


@pytest.fixture(scope="module")
def sound(
    _loaded: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, str | None]]:
    """`sound(name)` gives a target's sound files and their content, made once."""
    made: dict[str, tuple[Path, str | None]] = {}

    def make(name: str) -> tuple[Path, str | None]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            TARGETS[name].build(folder)
            copy = folder.with_name(f"{folder.name}.read")
            shutil.copytree(folder, copy)
            here = Path.cwd()
            made[name] = folder, TARGETS[name].use(copy)
            os.chdir(here)
        return made[name]

    return make


def ended(name: str, seed: int, sound: Any, place: Path) -> str:
    """Makes a mutant, reads it in a child, and returns "" if its end is allowed."""
    target, (folder, content) = TARGETS[name], sound(name)
    mutant = place / f"{name}-{seed}"
    shutil.copytree(folder, mutant)
    target.change(mutation.Mutator(seed), mutant)

    def read() -> None:
        try:
            found = target.use(mutant)
        except Failure as error:
            if error.code not in CODES:
                raise Wrong(f"code {error.code}: {error}") from error
            return
        if target.exact and found != content:
            raise Wrong(f"wrong data: {found!r:.300}")

    told = confined(read, memory=MEMORY, seconds=SECONDS)
    shutil.rmtree(mutant)
    return "" if told == "returned" else f"{name} {seed}: {told}"


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_mutants_of_every_file(name: str, sound: Any, tmp_path: Path) -> None:
    seeds = range(SEED, SEED + FEW)
    told = [ended(name, seed, sound, tmp_path) for seed in seeds]
    assert not any(told), "\n".join(told)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_mutants_of_every_file(name: str, sound: Any, tmp_path: Path) -> None:
    count = -(-MUTANTS // len(TARGETS))
    seeds = range(1000 + SEED * MUTANTS, 1000 + SEED * MUTANTS + count)
    told = [ended(name, seed, sound, tmp_path) for seed in seeds]
    wrong = [one for one in told if one]
    sys.stdout.write(f"{name}: {count} mutants, {len(wrong)} wrong\n")
    assert not wrong, "\n".join(wrong[:20])
