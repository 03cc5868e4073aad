"""The Markdown pages: their Python runs, their commands parse, their links and files are there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("kernels", "stylegan_mix", "trainer", "tests", "tools")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for one in FOLDERS for page in (ROOT / one).rglob("*.md"))]
)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
README_LINES = 160
COLUMNS = 100

GENERATED = re.compile(
    r"^<!-- block ([^\s:]+):.*?^<!-- end of block \1 -->$", re.DOTALL | re.MULTILINE
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Names that a reader has given, in the examples of arms and recipes of one's own.
OF_A_READER = {("--recipe", "mine")}
# What stands for a value of the reader's own, or is made while the commands run.
OWN_FILES = {"README.md", "bank.h5", "report.html", "report.md", "shown/index.html"}


def source(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def by_hand(page: Path) -> str:
    """The text without its generated tables."""
    return GENERATED.sub("", source(page))


def fences(page: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(source(page)) if found == language]


def spans(page: Path) -> list[str]:
    """The words in backquotes, outside of code blocks."""
    return SPAN.findall(FENCE.sub("", by_hand(page)))


# --------------------------------------------------------------------- form


def test_the_front_page_is_short_and_answers_first() -> None:
    lines = source(ROOT / "README.md").splitlines()
    assert len(lines) <= README_LINES
    answer = next(number for number, line in enumerate(lines, 1) if line.startswith("| hybrid |"))
    assert answer <= 30


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_lines_outside_of_tables_and_code_are_short(page: Path) -> None:
    text = FENCE.sub("", by_hand(page))
    long = [
        line
        for line in text.splitlines()
        if len(line) > COLUMNS and not line.startswith(("|", "!["))
    ]
    assert long == []


# --------------------------------------------------------------------- links and files


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", source(page)), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", head.lower()) for head in heads)
    return {head.replace(" ", "-") for head in kept}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(source(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths from the root or the page's folder; names of sources anywhere in that folder."""
    ours = tuple(f"{folder}/" for folder in FOLDERS)
    words = {word.rstrip(",.:;") for span in spans(page) for word in span.split()}
    for word in {word.partition("::")[0] for word in words}:  # a test is named FILE::TEST
        if word in OWN_FILES:
            continue
        if word.startswith(ours):
            assert (ROOT / word).exists() or (page.parent / word).exists(), word
        elif re.fullmatch(r"[\w/]+\.(py|toml|cpp|h)", word):
            assert list(page.parent.rglob(word)), word
    for tree in fences(page, "text"):
        for word in re.findall(r"[\w/]+\.py\b", tree):
            assert list(page.parent.rglob(word)), word


def test_no_source_cites_a_paper_that_readers_do_not_have() -> None:
    """The project grew from papers of its own; what readers need of them stands on the pages."""
    papers = r"house|perf|aesthetics|reliability|longtail|methods/\w+"
    absent = re.compile(
        rf"DESIGN\b|[Dd]ossier|reliability (\d|notes)|notes on reliability|\b({papers})\.md"
    )
    sources = [
        file
        for one in FOLDERS
        for kind in ("*.py", "*.h", "*.cpp", "*.cu", "*.cuh", "*.md")
        for file in (ROOT / one).rglob(kind)
    ]
    found = [
        str(file) for file in sources if file != Path(__file__) and absent.search(source(file))
    ]
    assert found == []


# --------------------------------------------------------------------- commands


def of_blocks(page: Path) -> Iterator[list[str]]:
    """The commands of a page's shell blocks, and those that wrote its generated tables."""
    lines = "\n".join(fences(page, "bash")).replace("\\\n", " ").splitlines()
    parts = (part for line in lines for part in re.split(r";|\bdo\b", line.partition("#")[0]))
    written = re.findall(r"^<!-- block [^\s:]+: written by `(.*)` -->$", source(page), re.MULTILINE)
    variables: dict[str, str] = {}
    for line in (*parts, *written):
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        words = shlex.split(line)
        while words and (assigned := re.fullmatch(r"([A-Z_a-z]+)=(.*)", words[0])):
            variables[assigned[1]], words = assigned[2], words[1:]
        if words:
            yield words


def of_prose(page: Path) -> Iterator[list[str]]:
    """What stands in backquotes, as the words of a command."""
    yield from (span.split() for span in spans(page))


def parse(program: click.Group, words: list[str]) -> None:
    """Parses a command line as click would; nothing runs."""
    command: click.Command | None = program
    while isinstance(command, click.Group) and words:
        name, *words = words
        command = command.get_command(click.Context(command), name)
        assert command is not None, f"no command '{name}'"
    if command is not None and not isinstance(command, click.Group):
        with contextlib.suppress(click.exceptions.Exit):  # --help
            command.make_context(command.name, words)


def programs() -> dict[str, click.Group]:
    from stylegan_mix.cli import group as stylegan_mix
    from trainer.cli import group as trainer

    return {"stylegan-mix": stylegan_mix, "trainer": trainer}


def of_program(words: list[str]) -> tuple[click.Group, list[str]] | None:
    """The program of ours that a command starts, and its arguments."""
    known = programs()
    if words[0] in known:
        return known[words[0]], words[1:]
    if "-m" in words[:-1]:
        at = words.index("-m") + 1
        if (name := words[at].replace("_", "-")) in known:
            return known[name], words[at + 1 :]
    return None


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_of_the_programs_parse(page: Path) -> None:
    for words in (*of_blocks(page), *of_prose(page)):
        if (found := of_program(words)) is None:
            continue
        try:
            parse(*found)
        except click.MissingParameter:
            assert words in list(of_prose(page)), words  # there a verb may stand alone
        except click.ClickException as error:
            pytest.fail(f"{shlex.join(words)}: {error.format_message()}")


def is_name(option: str, value: str) -> bool:
    """True if the trainer knows a value of an option that takes a name."""
    from trainer.engine.arms import ARMS
    from trainer.engine.augmentation.policies import policy
    from trainer.models import MODELS
    from trainer.recipes.catalogue import RECIPES

    known = {"--aug": ARMS, "--recipe": RECIPES, "--model": MODELS}
    if option == "--augment":
        return policy(value) is not None
    return option not in known or value in known[option]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_arms_recipes_networks_and_policies_in_commands_are_known(page: Path) -> None:
    found = (*of_blocks(page), *of_prose(page))
    said = (pair for words in found if words[:1] != ["stylegan-mix"] for pair in pairwise(words))
    unknown = {pair for pair in said if pair[1].islower() and not is_name(*pair)}
    assert unknown - OF_A_READER == set()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_scripts_that_are_called_exist_and_know_their_options(page: Path) -> None:
    for words in of_blocks(page):
        file = next((word for word in words[:2] if word.startswith(("tools/", "./tools/"))), None)
        if words[:2] == ["python", "-m"] and words[2].startswith("kernels."):
            file = words[2].replace(".", "/") + ".py"
        if file is None or words[0] not in ("python", file):
            continue
        path = ROOT / file
        assert path.is_file(), words
        code = path.read_text(encoding="utf-8")
        for option in (word for word in words if word.startswith("--")):
            assert f'"{option}"' in code, f"{option} of {file}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_of_commands_are_shell(page: Path) -> None:
    for block in fences(page, "bash"):
        done = subprocess.run(
            ["bash", "-n"], input=block, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------- what a user looks up


def in_backquotes(page: str) -> set[str]:
    return {word for span in spans(ROOT / page) for word in span.split()}


@pytest.mark.parametrize("name", ["stylegan-mix", "trainer"])
def test_every_command_stands_in_the_table_of_its_package(name: str) -> None:
    folder = name.replace("-", "_")
    told = in_backquotes(f"{folder}/README.md")
    program = programs()[name]
    for verb in program.list_commands(click.Context(program)):
        command = program.get_command(click.Context(program), verb)
        inner = command.commands if isinstance(command, click.Group) else ()
        assert {verb, *inner} <= told, verb


def test_every_arm_stands_on_both_pages_and_every_recipe_on_that_of_recipes() -> None:
    from trainer.engine.arms import ARMS
    from trainer.recipes.catalogue import RECIPES

    for page, names in (
        ("README.md", ARMS),
        ("trainer/README.md", ARMS),
        ("trainer/recipes/README.md", RECIPES),
    ):
        assert set(names) <= {word.strip(",") for word in in_backquotes(page)}, page


def test_every_preset_space_and_exit_code_stands_on_the_page() -> None:
    from stylegan_mix import errors
    from stylegan_mix.latents.plan import SPACES
    from stylegan_mix.presets import PRESETS

    assert {*SPACES, *PRESETS, "auto"} <= in_backquotes("stylegan_mix/README.md")
    codes = {kind.code for kind in errors.Failure.__subclasses__()} - {errors.Failure.code}
    table = re.findall(
        r"^\| ([\d, ]+) \|", source(ROOT / "stylegan_mix" / "README.md"), re.MULTILINE
    )
    assert codes <= {int(code) for cell in table for code in cell.split(",")}


def test_every_environment_variable_of_ours_stands_on_a_page() -> None:
    ours = re.compile(r"\b(?:STYLEGAN_MIX|KERNELS)(?:_[A-Z]+)*\b")
    lines = (
        line
        for folder in FOLDERS[:3]
        for file in (ROOT / folder).rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if "environ" in line
    )
    told = set().union(*(in_backquotes(name) for name in NAMES))
    assert {name for line in lines for name in ours.findall(line)} <= told


# --------------------------------------------------------------------- Python

BLOCKS = [
    (name, number)
    for name, page in zip(NAMES, PAGES, strict=True)
    for number in range(len(fences(page, "python")))
]


@pytest.fixture
def bank(home: Path) -> Path:
    """A small bank of the digits in the store; its folder."""
    from stylegan_mix import arrays, datasets

    data = datasets.load("digits_lt")
    draws = np.random.default_rng(0)
    rows = 12
    arrays_of_it = {
        "images": draws.integers(0, 256, (rows, 8, 8, 1)).astype(np.uint8),
        "pair": draws.integers(0, 10, (rows, 2)).astype(np.int32),
        "lam": draws.random(rows).astype(np.float32),
    }
    names = {
        name: hashlib.sha256(name.encode()).hexdigest()
        for name in ("key", "request_key", "generator")
    }
    facts = {
        "schema_version": 1,
        **names,
        "split_id": data.split_id,
        "dataset": data.name,
        "classes": list(data.classes),
        "space": "w",
        "n": rows,
        "image_shape": [8, 8, 1],
        "command": "stylegan-mix generate --dataset digits_lt",
    }
    folder = home / "banks" / names["key"]
    arrays.write(folder, arrays_of_it, kind="hybrid-bank", facts=facts, file="bank.h5")
    return folder


@pytest.mark.parametrize(("page", "number"), BLOCKS)
def test_python_of_the_pages_runs(page: str, number: int, bank: Path) -> None:
    os.chdir(bank)
    code = fences(ROOT / page, "python")[number]
    names: dict[str, object] = {"__name__": "__page__"}
    exec(compile(code, page, "exec"), names)


def test_batches_of_the_front_page_are_half_real_half_of_the_bank(bank: Path) -> None:
    names: dict[str, Any] = {}
    exec(fences(ROOT / "README.md", "python")[0], names)
    loader = names["HybridLoader"](names["data"], names["bank"], batch=128)
    images, labels = next(iter(loader))
    assert images.shape == (128, 1, 8, 8)
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    assert (labels[:64].max(1).values == 1).all()
    assert (labels[64:].max(1).values < 1).any()
    assert names["model"][1].weight.grad.abs().sum() > 0
