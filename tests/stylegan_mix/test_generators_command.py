"""`generators` as a user types it: what it lists and shows, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from stylegan_mix.generators.store import Published

Run = Callable[..., tuple[int, str, str]]

HEADER = [
    "generator",
    "dataset",
    "imbalance",
    "preset",
    "thousand",
    "images",
    "diversity",
    "size",
    "age",
    "state",
]


def test_an_empty_store_says_how_to_fill_it(home: Path, run: Run) -> None:
    code, out, err = run("generators", "list")
    assert (code, out) == (0, "")
    assert "stylegan-mix train --dataset digits_lt" in err
    assert json.loads(run("generators", "list", "--json")[1]) == []


def test_list_shows_what_is_there_and_the_damaged_beside_it(
    generator: Published, home: Path, run: Run
) -> None:
    damaged = home / "generators" / ("f" * 64)
    damaged.mkdir()
    (damaged / "MANIFEST.json").write_text("{")
    (row, other) = json.loads(run("generators", "list", "--json")[1])
    assert row["generator"] == generator.hash
    assert (row["dataset"], row["imbalance"], row["preset"], row["state"]) == (
        "digits_lt",
        20.0,
        "tiny8",
        "published",
    )
    assert row["size"] == (generator.folder / "data.h5").stat().st_size
    assert 0 <= row["age"] < 600
    assert (other["generator"], other["state"], other["folder"]) == (
        "f" * 64,
        "damaged",
        str(damaged),
    )
    header, first, second = run("generators", "list")[1].splitlines()
    assert header.split() == HEADER
    assert first.split()[:4] == [generator.hash[:12], "digits_lt", "20", "tiny8"]
    assert first.split()[4:8] == ["0", "of", "1", "-"]
    assert second.split() == ["f" * 12, *"-------", "damaged"]


def test_list_of_another_data_set_is_empty(generator: Published, run: Run) -> None:
    assert generator.hash[:12] in run("generators", "list", "--dataset", "digits_lt")[1]
    assert run("generators", "list", "--dataset", "letters")[1] == ""


def test_show_gives_origin_settings_and_classes(generator: Published, run: Run) -> None:
    code, out, err = run("generators", "show", generator.hash[:8])
    assert code == 0, err
    told = [line.split() for line in out.splitlines()]
    assert ["generator", generator.hash] in told
    assert ["training", "split", "id", generator.card["split_id"]] in told
    assert ["trained", "for", *["0", "of", "1", "thousand", "images"]] in told
    assert ["channel_max", "8"] in told
    assert ["0", "100", "n/a"] in told
    assert ["9", "5", "n/a"] in told
    facts = json.loads(run("generators", "show", generator.hash, "--json")[1])
    assert facts["hash"] == generator.hash
    assert facts["folder"] == str(generator.folder)
    assert facts["preset"]["batch"] == 16


def test_what_is_not_there_or_damaged_is_error_3(generator: Published, run: Run) -> None:
    code, out, err = run("generators", "show", "0123")
    assert (code, out) == (3, "")
    assert "no generator '0123'" in err
    manifest = generator.folder / "MANIFEST.json"
    manifest.chmod(0o644)
    manifest.write_text("{")
    code, out, err = run("generators", "show", generator.hash)
    assert (code, out) == (3, "")
    assert f"move {generator.folder} away" in err
