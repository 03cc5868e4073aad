"""Texts that the code prints and pages tell: their commands exist, their units are words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest

from stylegan_mix.cli import group as stylegan_mix_group
from trainer.cli import group as trainer_group

ROOT = Path(__file__).resolve().parent.parent
GROUPS: dict[str, click.Command] = {
    "stylegan-mix": stylegan_mix_group,
    "trainer": trainer_group,
}
# A place that is filled while the program runs.
HOLE = "\N{MIDDLE DOT}"
COMMAND = re.compile(r"(?<![\w./-])(stylegan-mix|trainer) (?=[a-z])")
# The end of a command in a sentence.
ENDS = re.compile(r"[;:()`\n]|, |\. |\.$|\bor\b")
# Sentences in which the word is not a command.
PROSE = {"trainer reads", "trainer which"}
# Options of torchrun and of tar, and one that every command has.
OF_OTHERS = {"--nproc-per-node", "--dereference", "--help"}


def texts(source: str, *, helps: bool) -> list[str]:
    """The texts of a file; neighbours that Python joins are one, and f-strings have holes.

    Docstrings of functions are among them where they are `helps`.
    """
    tree = ast.parse(source)
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)} - {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if helps and isinstance(node, ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [
                str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values
            ]
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in documented | inside:
                found.append(node.value)
        elif isinstance(node, ast.List):  # commands that are composed of words
            words = [
                one.value if isinstance(one, ast.Constant) else HOLE
                for one in node.elts
                if not isinstance(one, ast.Starred)
            ]
            if words and words[0] in GROUPS:
                found.append(" ".join(map(str, words)))
    return found


def commands(text: str) -> list[list[str]]:
    """The commands in a text, as words, each up to the end of its clause."""
    found = []
    for match in COMMAND.finditer(text):
        rest = text[match.start() :]
        end = ENDS.search(rest)
        words = rest[: end.start()].split() if end else rest.split()
        if " ".join(words[:2]) not in PROSE:
            found.append(words)
    return found


def wrong(words: list[str]) -> str:
    """The reason why a command cannot be typed, or ""."""
    command = GROUPS[words[0]]
    rest = words[1:]
    while isinstance(command, click.Group):
        context = click.Context(command)
        if not rest:
            return "no verb"
        if HOLE in rest[0]:
            return ""
        if rest[0].startswith("-"):
            break
        inner = command.get_command(context, rest[0])
        if inner is None:
            return f"no command '{rest[0]}'"
        command, rest = inner, rest[1:]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    named = [word.partition("=")[0] for word in rest if word.startswith("--")]
    unknown = [name for name in named if name not in known | {"--help"} and HOLE not in name]
    return f"no option {unknown[0]}" if unknown else ""


def printed() -> list[tuple[str, str]]:
    """(file, text) of all texts that may be printed."""
    return [
        (path.relative_to(ROOT).as_posix(), text)
        for folder in ("kernels", "stylegan_mix", "trainer")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for text in texts(path.read_text(encoding="utf-8"), helps=path.parent.name == "commands")
    ]


def hints() -> list[tuple[str, list[str]]]:
    return [(place, words) for place, text in printed() for words in commands(text)]


def test_every_command_in_a_message_exists() -> None:
    found = hints()
    assert len(found) > 40  # the search finds them
    assert [(place, " ".join(words), wrong(words)) for place, words in found if wrong(words)] == []


def options() -> set[str]:
    """The options of all commands."""
    waiting: list[click.Command] = [*GROUPS.values()]
    found: set[str] = set()
    while waiting:
        command = waiting.pop()
        found |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        if isinstance(command, click.Group):
            context = click.Context(command)
            inner = (command.get_command(context, name) for name in command.list_commands(context))
            waiting += [one for one in inner if one is not None]
    return found


def test_every_option_in_a_message_is_that_of_some_command() -> None:
    found = {
        (place, name)
        for place, text in printed()
        if place.startswith(("stylegan_mix/", "trainer/"))
        and place != "stylegan_mix/drawing/page.py"  # a style sheet
        for name in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?![\w-])", text)
    }
    assert found
    assert {(place, name) for place, name in found if name not in options() | OF_OTHERS} == set()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stylegan-mix bank lst shows the banks", "no command 'lst'"),
        ("make one: trainer run --augmented hybrid", "no option --augmented"),
        ("first stylegan-mix train --dataset x; then trainer repor", "no command 'repor'"),
        ("stylegan-mix generate --dataset x --n 50000 makes one", ""),
    ],
)
def test_the_search_sees_a_wrong_command(text: str, reason: str) -> None:
    assert [wrong(words) for words in commands(text) if wrong(words)] == (
        [reason] if reason else []
    )


# "kimg" is the name of an option and of a field; as a unit, images are counted in thousands.
UNIT = re.compile(r"(?<![-\n\w.{\[\"'/])[Kk]img\b(?![=\"'/\]-])")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
PAGES = [
    page
    for folder in ("", "kernels", "stylegan_mix", "trainer", "tests", "tools")
    for page in sorted((ROOT / folder).glob("**/*.md" if folder else "*.md"))
]


def test_images_are_counted_in_thousands_and_in_words() -> None:
    found = [(place, text) for place, text in printed() if " " in text and UNIT.search(text)]
    assert found == []
    told = {page.name: CODE.sub("", page.read_text(encoding="utf-8")) for page in PAGES}
    assert [name for name, text in told.items() if UNIT.search(text)] == []


@pytest.mark.parametrize("text", ["at 3 kimg", "Start, in kimg.", f"{HOLE} kimg on"])
def test_the_search_sees_another_unit(text: str) -> None:
    assert UNIT.search(text)
    assert not UNIT.search("the --kimg of --ada-kimg, or kimg=3")
