"""Every command in surroundings in which nothing can be read or written as usual.

Each ends with an exit code that says so (0, 2, 3 or 4), in a child of its own.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from confined import RETURNED, confined
from targets import command
from test_mutants import LOADED

from stylegan_mix import cli
from trainer import cli as trainer_cli

GROUPS = {"stylegan_mix": cli.group, "trainer": trainer_cli.group}
STORE = "STYLEGAN_MIX_HOME"


def commands(one: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Lists command lines of a command and those below it: its help, and a plain use of it."""
    yield (*words, "--help")
    if isinstance(one, click.Group):
        for name in one.list_commands(click.Context(one)):
            below = one.get_command(click.Context(one), name)
            assert below is not None
            yield from commands(below, (*words, name))
        return
    options = [p for p in one.params if isinstance(p, click.Option)]
    names = {name for option in options for name in option.opts}
    given = ["x" for p in one.params if isinstance(p, click.Argument) and p.required]
    given += [word for option in options if option.required for word in (option.opts[0], "x")]
    given += ["--dry-run"] if "--dry-run" in names else []
    yield (*words, *given)
    if "--out" in names:
        yield (*words, *given, "--out", "elsewhere/out.png")


def without_a_home() -> None:
    import pwd

    def nobody(_: object) -> None:
        raise KeyError("getpwuid(): uid not found")

    pwd.getpwuid = nobody  # type: ignore[assignment]
    for name in ("HOME", STORE, "XDG_CACHE_HOME"):
        os.environ.pop(name, None)


def in_a_removed_folder() -> None:
    Path("gone").mkdir(exist_ok=True)
    os.chdir("gone")
    Path.cwd().rmdir()


def in_a_store_that_is_a_file() -> None:
    Path("file").touch()
    os.environ[STORE] = str(Path("file").absolute())


def in_a_store_below_a_file() -> None:
    Path("file").touch()
    os.environ[STORE] = str(Path("file/store").absolute())


def in_a_store_of_fifos() -> None:
    for name in ("banks", "generators", "training", "datasets", "annotations"):
        path = Path("fifos", name)
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            os.mkfifo(path)
    os.environ[STORE] = str(Path("fifos").absolute())


def in_a_store_behind_a_loop_of_links() -> None:
    if not Path("loop").is_symlink():
        Path("loop").symlink_to("loop")
    os.environ[STORE] = str(Path("loop").absolute())


def in_a_store_with_a_name_of_other_bytes() -> None:
    os.environ[STORE] = "/tmp/" + os.fsdecode(b"\xff\xfe")


def without_a_byte_to_write() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def with_few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))


@pytest.mark.slow
@pytest.mark.parametrize(
    "surrounded",
    [
        *(without_a_home, in_a_removed_folder, in_a_store_that_is_a_file, in_a_store_below_a_file),
        *(in_a_store_of_fifos, in_a_store_behind_a_loop_of_links),
        *(in_a_store_with_a_name_of_other_bytes, without_a_byte_to_write, with_few_descriptors),
    ],
)
def test_every_command_ends_as_it_should(surrounded: Callable[[], None], home: Path) -> None:
    for name in (*LOADED, "stylegan_mix.training.cost", "trainer.engine.cost"):
        import_module(name)  # once, and not in every child
    wrong = []
    for package, group in GROUPS.items():
        for words in commands(group):

            def run(package: str = package, words: tuple[str, ...] = words) -> None:
                surrounded()
                command(*words, package=package)

            told = confined(run, memory=8 << 30, seconds=120)
            if told != RETURNED:
                wrong.append(f"{package} {' '.join(words)}: {told[:300]}")
    assert not wrong, "\n".join(wrong)
