"""One bad entry stops no store, and no text of a file acts on the terminal or is to be typed."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_targets
from mutation import seal
from targets import command, image_folder

from stylegan_mix import showing, store

EVIL = "touch executed; stylegan-mix generate --n 5"

# How facts or cards are changed: each ended a command with exit code 1, or reached the terminal.
CHANGES: dict[str, Any] = {
    "a list": lambda _: ["facts"],
    "empty": lambda _: {},
    "no classes": lambda facts: {**facts, "classes": None},
    "classes of numbers": lambda facts: {**facts, "classes": [1] * 10},
    "an imbalance of text": lambda facts: {**facts, "imbalance": "20"},
    "text for a count": lambda facts: {**facts, "n": "64", "kimg": "1", "seed": "0"},
    "a truth for a text": lambda facts: {**facts, "dataset": True},
    "an object for a text": lambda facts: {**facts, "dataset": {"a": 1}, "space": {"a": 1}},
    "control characters": lambda facts: {**facts, "dataset": "\x1b[2J\x1b]0;title\x07"},
    "two lines": lambda facts: {**facts, "dataset": "a\nstylegan-mix: all is well"},
    "a list for a number": lambda facts: {**facts, "alpha": [1], "split_seed": [0]},
    "a split of an object": lambda facts: {**facts, "split_id": {}},
}


def change_facts(folder: Path, by: Callable[[Any], Any]) -> None:
    """Changes a container's facts, or those inside a checkpoint's, and seals it again."""
    path = folder / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    if set(manifest["facts"]) == {"state", "facts"}:
        manifest["facts"]["facts"] = by(manifest["facts"]["facts"])
    else:
        manifest["facts"] = by(manifest["facts"])
    path.chmod(0o644)
    path.write_text(seal(manifest))


@pytest.fixture
def recorded(home: Path) -> Path:
    """A store with some banks and a generator of the digits."""
    with zipfile.ZipFile(store_targets.RECORDED) as stored:
        stored.extractall(home)
    return home


@pytest.mark.parametrize("name", CHANGES)
def test_a_bad_bank_is_listed_as_damaged_and_the_others_work(name: str, recorded: Path) -> None:
    banks = sorted((recorded / "banks").iterdir())
    change_facts(banks[0], CHANGES[name])
    listed = command("bank", "list")
    assert listed.startswith("0 ")
    (line,) = [one for one in listed.splitlines() if banks[0].name[:12] in one]
    assert "damaged" in line
    assert all(bank.name[:12] in listed for bank in banks[1:])
    assert command("bank", "list", "--json").startswith("0 ")
    assert command("bank", "verify", banks[1].name).startswith("0 ")
    assert command("bank", "verify", "--all").startswith("3 ")
    asked = ("--dataset", "digits_lt", "--n", 64, "--no-train", "--dry-run")
    assert command("generate", *asked).startswith("0 ")
    hybrid = command(
        "run", "--aug", "hybrid", "--dataset", "digits_lt", "--dry-run", package="trainer"
    )
    assert hybrid.startswith("0 ")
    for verb in ("show", "card", "verify"):
        assert command("bank", verb, banks[0].name).startswith("3 ")


@pytest.mark.parametrize("name", CHANGES)
def test_a_bad_generator_is_listed_as_damaged(name: str, recorded: Path) -> None:
    (generator,) = (recorded / "generators").iterdir()
    shutil.copytree(generator, recorded / "generators" / ("0" * 64))
    change_facts(generator, CHANGES[name])
    listed = command("generators", "list")
    assert listed.startswith("0 ")
    assert "damaged" in listed
    assert "0" * 12 in listed


@pytest.mark.parametrize("name", CHANGES)
def test_a_bad_data_set_is_listed_as_damaged(name: str, home: Path) -> None:
    source = image_folder(home.parent / "source")
    for one in ("tiny", "other"):
        command("dataset", "prepare", one, "--from", source)
    changed = {"dataset": "name", "kimg": "head", "n": "train_images", "alpha": "notes"}

    def by(facts: Any) -> Any:
        odd = CHANGES[name](facts)
        if not isinstance(odd, dict):
            return odd
        return {changed.get(key, key): value for key, value in odd.items()} if odd else odd

    change_facts(home / "datasets" / "tiny", by)
    listed = command("dataset", "list")
    assert listed.startswith("0 ")
    assert "other" in listed
    for words in (("show", "tiny", "--no-sheet"), ("verify", "tiny"), ("prepare", "tiny")):
        assert command("dataset", *words)[0] in "03"


def test_a_fifo_or_an_unreadable_folder_is_an_entry_like_others(recorded: Path) -> None:
    for kind in ("banks", "generators", "datasets"):
        place = recorded / kind / ("a" * 64)
        place.mkdir(parents=True)
        os.mkfifo(place / "MANIFEST.json")
        (recorded / kind / ("b" * 64)).write_text("a file")
        (recorded / kind / ("c" * 64)).symlink_to("/nowhere")
    for kind in ("bank", "generators", "dataset"):
        assert command(kind, "list").startswith("0 ")


@pytest.fixture
def results(home: Path, load_file: Any, repo_root: Path) -> Path:
    """Two results of runs."""
    made = load_file(repo_root / "tests" / "trainer" / "conftest.py")
    for seed in (0, 1):
        store.write_json(Path(f"runs/a/seed-{seed}/result.json"), made.make_record(seed=seed))
    return Path("runs")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[" * 1000 + "]" * 1000, '{"schema": "trainer-result/1"}', "9" * 5000, None],
)
def test_a_damaged_result_is_told_and_the_others_are_reported(
    content: str | None, results: Path
) -> None:
    path = results / "a/seed-0/result.json"
    path.unlink()
    if content is None:
        os.mkfifo(path)
    else:
        path.write_text(content)
    told = command("report", results, package="trainer")
    assert told.startswith("3 ")
    assert "left out: runs/a/seed-0/result.json" in told
    assert "none" in told.split("left out")[1]
    assert "92." in told or "87" in told, "the other seed's table is there"
    assert command("report", path, package="trainer").startswith("3 ")


def test_a_command_in_a_file_is_never_to_be_typed(recorded: Path, results: Path) -> None:
    banks = sorted((recorded / "banks").iterdir())
    change_facts(banks[0], lambda facts: {**facts, "command": EVIL})
    for words in (("show",), ("card",)):
        told = command("bank", *words, banks[0].name)
        assert told.startswith("0 ")
    (banks[0] / "BANK_CARD.md").write_text(EVIL)
    command("bank", "card", banks[0].name)
    path = banks[0] / "bank.h5"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    told = command("bank", "verify", banks[0].name) + command("bank", "show", banks[0].name)
    assert "make it again: stylegan-mix generate --dataset NAME" in told
    (generator,) = (recorded / "generators").iterdir()
    change_facts(generator, lambda card: {**card, "command": EVIL})
    assert command("generators", "show", generator.name).startswith("0 ")
    record = store.read_json(results / "a/seed-0/result.json")
    store.write_json(results / "a/seed-0/result.json", {**record, "command": EVIL})
    for form in ("table", "md", "html", "json"):
        assert command("report", results, "--format", form, package="trainer").startswith("0 ")


def test_the_command_of_a_sound_bank_is_still_told(recorded: Path) -> None:
    bank = sorted((recorded / "banks").iterdir())[0]
    facts = store.read_json(bank / "MANIFEST.json")["facts"]
    assert facts["command"] in command("bank", "show", bank.name)
    for option in ("--n 65", "--device cuda", "--config evil.toml"):
        name = option.split()[0]
        words = [word for word in facts["command"].split(" --") if not f"--{word}".startswith(name)]
        changed = " --".join(words) + f" {option}"
        change_facts(bank, lambda facts, text=changed: {**facts, "command": text})
        assert option not in command("bank", "show", bank.name)


@pytest.mark.parametrize(
    "name", ["\x1b[31mred", "a\x07", "\x9b2J", "a\rb", "line\u2028two", "\x7f", "a\u202eb"]
)
def test_names_of_files_are_shown_escaped(name: str, home: Path) -> None:
    source = image_folder(home.parent / "source")
    (source / "train" / "ant").rename(source / "train" / name)
    (source / "test" / "ant").rename(source / "test" / name)
    told = command("dataset", "prepare", "tiny", "--from", source)
    assert not set(told) & set("\x1b\x07\x9b\r\x7f\u2028\u202e")
    (home.parent / f"{name}.toml").write_text("x")
    told = command("train", "--config", home.parent / f"{name}.toml")
    assert not set(told) & set("\x1b\x07\x9b\r\x7f\u202e")


def test_markup_in_names_is_text_in_cards_and_reports(results: Path) -> None:
    names = ["<script>alert(1)</script>", "a | b", "`x`", "[x](javascript:1)", "$x$", "&amp;"]
    record = store.read_json(results / "a/seed-0/result.json")
    data = {**record["dataset"], "name": names[0], "classes": [*names, *"6789"]}
    config = {**record["config"], "data": {**record["config"]["data"], "name": names[0]}}
    for seed in (0, 1):
        path = results / f"a/seed-{seed}/result.json"
        changed = {**record, "dataset": data, "config": {**config, "seed": seed}, "seed": seed}
        store.write_json(path, changed)
    for form in ("md", "html"):
        told = command("report", results, "--format", form, package="trainer")
        assert told.startswith("0 "), told
        assert "<script" not in told
    assert [showing.for_markdown(name) for name in names] == [
        "&#60;script>alert(1)&#60;/script>",
        "a &#124; b",
        "&#96;x&#96;",
        "[x]&#40;javascript:1)",
        "&#36;x&#36;",
        "&#38;amp;",
    ]
    assert (
        showing.for_markdown("few < 20 & more_of *it* [1, 2]") == "few < 20 & more_of *it* [1, 2]"
    )


def test_json_stays_json_whatever_the_names_are(recorded: Path) -> None:
    odd = {"dataset": "a\u202eb \x7f"}
    bank = sorted((recorded / "banks").iterdir())[0]
    change_facts(bank, lambda facts: {**facts, "space": "a\u202eb", "extra": odd})
    told = command("bank", "show", bank.name, "--json")
    assert json.loads(told[2:])["extra"] == odd


def test_votes_and_reports_of_another_type_are_left_out(home: Path) -> None:
    store_targets.Votes().build(home)
    folder = next(home.glob("annotations/*/votes"))
    for change in (lambda _: [], lambda _: {}, lambda facts: {**facts, "views": 4}):
        change_facts(folder, change)
        assert command("queries", package="trainer").startswith("0 ")


def test_arrays_that_do_not_fit_a_sealed_set_are_refused(home: Path) -> None:
    """A position out of range, an array left out, another shape: exit code 3."""
    from stylegan_mix import arrays

    source = image_folder(home.parent / "source")
    command("dataset", "prepare", "tiny", "--from", source)
    folder = home / "datasets" / "tiny"
    sound = arrays.open_container(folder, kind="stylegan-mix-dataset")
    whole = {name: np.array(sound[name]) for name in sound.names}
    changes: dict[str, dict[str, np.ndarray | None]] = {
        "positions beyond the end": {"position": whole["position"] + 100},
        "positions below 0": {"position": whole["position"] - 4},
        "positions that fall": {"position": whole["position"][::-1].copy()},
        "labels beyond the classes": {"labels": whole["labels"] + 5},
        "no hashes": {"hashes": None},
        "hashes of other rows": {"hashes": whole["hashes"][:-1]},
        "flat images": {"images": whole["images"].reshape(len(whole["labels"]), -1)},
        "images of floats": {"images": whole["images"].astype("f4")},
        "no test images": {"test_images": whole["test_images"][:0]},
    }
    for name, change in changes.items():
        changed = {**whole, **change}
        shutil.rmtree(folder)
        given = {key: value for key, value in changed.items() if value is not None}
        arrays.write(folder, given, kind="stylegan-mix-dataset", facts=sound.facts)
        told = command("dataset", "show", "tiny", "--no-sheet")
        assert told.startswith("3 "), (name, told)
        assert command("train", "--dataset", "tiny", "--dry-run").startswith("3 "), name
