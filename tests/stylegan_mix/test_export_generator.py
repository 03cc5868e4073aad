"""A generator in one file: what comes back is what went out, and nothing else comes in."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import tiny_plan

from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.interop import exported, safetensors
from stylegan_mix.interop.safetensors import Stored

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: Published) -> Any:
    """`other()` goes to another, empty store."""

    def leave(name: str = "other") -> Path:
        place = tmp_path / name
        monkeypatch.setenv("STYLEGAN_MIX_HOME", str(place))
        return place

    return leave


def said(run: Run, *words: object) -> dict[str, Any]:
    code, out, err = run(*words, "--json")
    assert code == 0, err
    return dict(json.loads(out))


def bank(run: Run, generator: str, *words: object) -> str:
    made = said(run, "generate", "--generator", generator, "--n", 100, *words)
    return str(made["content_sha256"])


def facts_of(published: Published) -> dict[str, Any]:
    return {name: value for name, value in published.card.items() if name != "hash"}


# There and back


def test_in_float32_it_comes_back_as_it_was(
    generator: Published, run: Run, other: Any, tmp_path: Path
) -> None:
    file = tmp_path / "g.safetensors"
    told = said(run, "export-generator", generator.hash[:7], file)
    assert (told["state"], told["dtype"], told["imported_as"]) == (
        "written",
        "float32",
        generator.hash,
    )
    content = bank(run, generator.hash)
    other()
    assert said(run, "import-generator", file, "--dry-run")["state"] == "absent"
    assert generator_store.find() == []
    back = said(run, "import-generator", file)
    assert (back["state"], back["generator"]) == ("imported", generator.hash)
    (there,) = generator_store.find()
    assert facts_of(there) == facts_of(generator)
    assert bank(run, there.hash) == content
    assert said(run, "import-generator", file)["state"] == "exists"
    assert said(run, "export-generator", there.hash, file)["state"] == "exists"


def test_in_bfloat16_it_is_another_generator_that_says_so(
    generator: Published, run: Run, other: Any, tmp_path: Path
) -> None:
    whole, file = tmp_path / "whole.safetensors", tmp_path / "g.safetensors"
    exact = said(run, "export-generator", generator.hash, whole)
    told = said(run, "export-generator", generator.hash, file, "--dtype", "bfloat16")
    count = sum(one.numel() for one in generator_store.weights(generator).values())
    assert exact["bytes"] - told["bytes"] == pytest.approx(2 * count, abs=200)
    contents = set()
    for name in ("one", "two"):
        other(name)
        back = said(run, "import-generator", file)
        assert back["generator"] == told["imported_as"] != generator.hash
        contents.add(bank(run, back["generator"]))
    assert len(contents) == 1
    (there,) = generator_store.find(split_id=generator.card["split_id"])
    assert there.card["rounded"] == {"dtype": "bfloat16", "generator": generator.hash}
    for name, tensor in generator_store.weights(there).items():
        rounded = generator_store.weights(generator)[name].to(torch.bfloat16)
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, rounded.to(torch.float32)), name
    line = f"rounded to bfloat16 from generator {generator.hash[:12]}"
    page = (there.folder / "GENERATOR_CARD.md").read_text()
    assert line in page
    assert "Written again, before it is rounded, by: `stylegan-mix train`" in page
    assert said(run, "generators", "show", there.hash)["rounded"] == there.card["rounded"]
    assert generator.hash in run("generators", "show", there.hash[:9])[1]
    (row,) = json.loads(run("generators", "list", "--json")[1])
    assert row["state"] == "rounded"
    assert line in run("generate", "--generator", there.hash, "--n", "64", "--dry-run")[2]
    # Rounded once, it is rounded for good.
    again = said(run, "export-generator", there.hash, file, "--dtype", "bfloat16")
    assert again["state"] == "exists"
    assert run("generators", "remove", there.hash[:9])[0] == 2  # its bank names it


def test_generate_finds_it_by_its_split(
    generator: Published, run: Run, other: Any, tmp_path: Path
) -> None:
    file = tmp_path / "g.safetensors"
    run("export-generator", generator.hash, file, "--dtype", "bfloat16")
    other()
    name = said(run, "import-generator", file)["generator"]
    made = said(run, "generate", "--dataset", "digits_lt", "--n", 64, "--no-train")
    facts = said(run, "bank", "show", made["key"])
    assert facts["generator"] == name
    code, _, err = run("generate", "--dataset", "digits_lt", "--imbalance", 5, "--no-train")
    assert (code, "no finished generator" in err) == (3, True)


def test_a_rounded_generator_does_not_finish_its_training(
    generator: Published, run: Run, tmp_path: Path
) -> None:
    from stylegan_mix.training.plan import finished

    plan = tiny_plan()
    file = tmp_path / "g.safetensors"
    card = {**facts_of(generator), "training": plan.key, "kimg": plan.kimg}
    state = {**generator_store.weights(generator)}
    state["mapping.w_avg"] = state["mapping.w_avg"] + 1 / 3
    trained = generator_store.publish(state, card, Image.new("L", (8, 8)))
    assert [one.hash for one in finished(plan)] == [trained.hash]
    run("export-generator", trained.hash, file, "--dtype", "bfloat16")
    assert said(run, "import-generator", file)["state"] == "imported"
    assert [one.hash for one in finished(plan)] == [trained.hash]


def test_one_without_its_data_set_is_drawn_without_real_images(
    generator: Published, run: Run, other: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, _ = exported.pack(
        Published(generator.hash, generator.folder, {**facts_of(generator), "dataset": "absent"}),
        "float32",
    )
    file = tmp_path / "g.safetensors"
    file.write_bytes(content)
    other()
    code, out, err = run("import-generator", file)
    assert code == 0, err
    assert (Path(out.rpartition(": ")[2].strip()) / "grid.png").is_file()
    code, out, err = run("generate", "--generator", generator.hash, "--n", "64")
    assert code == 0, err


def test_one_of_another_project_stays_declared(
    run: Run, sound: Path, home: Path, tmp_path: Path
) -> None:
    run("import-generator", sound, "--dataset", "digits_lt")
    (there,) = generator_store.find()
    file = tmp_path / "g.safetensors"
    said(run, "export-generator", there.hash, file, "--dtype", "bfloat16")
    name = said(run, "import-generator", file)["generator"]
    taken = generator_store.load(name)
    assert taken.imported == there.imported
    assert generator_store.find(split_id=there.card["split_id"]) == []
    assert "declared by the user" in (taken.folder / "GENERATOR_CARD.md").read_text()


# The file


def test_what_is_there_is_replaced_only_if_that_is_asked(
    generator: Published, run: Run, tmp_path: Path
) -> None:
    file, link = tmp_path / "g.safetensors", tmp_path / "link.safetensors"
    file.write_bytes(b"mine")
    file.chmod(0o640)
    link.symlink_to(file)
    code, _, err = run("export-generator", generator.hash, link)
    assert (code, file.read_bytes()) == (2, b"mine")
    assert "--replace" in err
    assert said(run, "export-generator", generator.hash, link, "--replace")["state"] == "replaced"
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert said(run, "export-generator", generator.hash, file)["state"] == "exists"


@pytest.mark.parametrize(("place", "code"), [("there/", 2), ("file/x", 2), ("new/folder/x", 0)])
def test_places_are_those_of_every_file_that_a_user_names(
    generator: Published, run: Run, tmp_path: Path, place: str, code: int
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    assert run("export-generator", generator.hash, f"{tmp_path}/{place}")[0] == code


def test_a_pipe_takes_it(generator: Published, run: Run, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    # A pipe holds 64 KiB, so what is larger needs a reader at the same time.
    found: list[bytes] = []

    def drain() -> None:
        os.set_blocking(reader, True)
        while part := os.read(reader, 1 << 16):
            found.append(part)

    thread = threading.Thread(target=drain, daemon=True)
    keeps = os.open(pipe, os.O_WRONLY)
    thread.start()
    assert run("export-generator", generator.hash, pipe)[0] == 0
    os.close(keeps)
    thread.join(600)
    assert b"".join(found) == exported.pack(generator, "float32")[0]


def test_what_is_not_there_or_damaged_is_not_exported(
    generator: Published, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "g.safetensors"
    assert run("export-generator", "f" * 12, file)[0] == 3
    data = generator.folder / "data.h5"
    data.chmod(0o644)
    data.write_bytes(data.read_bytes()[:-1] + b"\x55")
    code, _, err = run("export-generator", generator.hash, file)
    assert (code, "was altered" in err) == (3, True)
    assert not file.exists()


# Files that are none


@pytest.fixture
def parts(generator: Published) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays and the texts of a sound file."""
    return safetensors.read(exported.pack(generator, "float32")[0])


Parts = tuple[dict[str, Stored], dict[str, str]]
NAME = "mapping.w_avg"


def resealed(texts: dict[str, str], **changes: Any) -> dict[str, str]:
    """The texts with another card, and a hash over it that fits."""
    card = json.dumps({**json.loads(texts["card"]), **changes})
    return {**texts, "card": card, "sha256": exported._sealed(texts["generator"], card)}


def change(arrays: dict[str, Stored], texts: dict[str, str], how: str) -> bytes:
    one = arrays[NAME]
    data = bytes(one.data)
    preset = json.loads(texts["card"])["preset"]
    if how == "a weight":
        arrays[NAME] = Stored(one.dtype, one.shape, bytes([data[0] ^ 1]) + data[1:])
    elif how == "a dtype":
        arrays[NAME] = Stored("BF16", one.shape, data[: len(data) // 2])
    elif how == "all dtypes":
        arrays.update(
            {name: Stored("F16", x.shape, bytes(x.data)[::2]) for name, x in arrays.items()}
        )
    elif how == "a shape":
        arrays[NAME] = Stored(one.dtype, (1, *one.shape), data)
    elif how == "an array less":
        del arrays[NAME]
    elif how == "an array more":
        arrays["more"] = one
    elif how == "no array":
        arrays.clear()
    elif how == "another schema":
        texts = {**texts, "schema": "stylegan-mix-generator/2"}
    elif how == "no schema":
        texts = {"format": "pt"}
    elif how == "no card":
        texts = {name: text for name, text in texts.items() if name != "card"}
    elif how == "a card":
        texts = {**texts, "card": texts["card"].replace("digits_lt", "other_lt")}
    elif how == "a card of text":
        texts = resealed(texts, classes="ten")
    elif how == "a card of an endless network":
        texts = resealed(texts, preset={**preset, "channel_base": 1 << 60, "channel_max": 1 << 60})
    elif how == "a card of no text":
        texts = resealed(texts, operators="x", more="\ud800")
    elif how == "a card of endless layers":
        texts = resealed(texts, preset={**preset, "mapping_layers": 1 << 40})
    elif how == "a card of no network":
        texts = resealed(texts, preset={**preset, "z_dim": -1})
    elif how == "a card without a preset":
        texts = resealed(texts, preset={})
    elif how == "a card of another network":
        texts = resealed(texts, channels=3)
    elif how == "a card from elsewhere without facts":
        texts = resealed(
            texts,
            imported={"file": "f", "sha256": "s", "what": "w", "split": "x"},
            network={"resolution": 8},
        )
    elif how == "a name that is no hash":
        texts = {**texts, "generator": "../../evil"}
        texts["sha256"] = exported._sealed(texts["generator"], texts["card"])
    return safetensors.write(arrays, texts)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("a weight", "its weights were altered: their hash is"),
        ("a dtype", "its arrays are BF16, F32; expected is F32 alone, or BF16 alone"),
        ("all dtypes", "its arrays are F16"),
        ("a shape", f"array '{NAME}' has shape"),
        ("an array less", f"lacks {NAME}"),
        ("an array more", "has the unknown more"),
        ("no array", "its arrays are missing"),
        ("another schema", "the schema is 'stylegan-mix-generator/2', expected"),
        ("no schema", "is a safetensors file, but no generator of export-generator"),
        ("no card", "it lacks card"),
        ("a card", "its card was altered"),
        ("a card of text", "its card: 'classes' must be list"),
        ("a card of an endless network", "it does not hold|describes no network|has shape"),
        ("a card of no text", "its card: 'utf-8' codec can't encode"),
        ("a card of endless layers", "mapping layers in"),
        ("a card of no network", "describes no network|has shape"),
        ("a card without a preset", "its card: "),
        ("a card of another network", "has shape"),
        ("a card from elsewhere without facts", "its card describes no network"),
        ("a name that is no hash", "its weights were altered"),
    ],
)
def test_an_altered_file_is_refused_and_nothing_comes_in(
    parts: Parts, run: Run, other: Any, tmp_path: Path, how: str, told: str
) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(change(*parts, how))
    place = other()
    code, out, err = run("import-generator", file)
    assert (code, out) == (3, ""), err
    assert re.search(told, err), err
    assert f"{file} is refused" in err
    assert "nothing was stored" in err
    assert not place.exists()


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, -1])
def test_a_truncated_file_is_refused(
    generator: Published, run: Run, other: Any, tmp_path: Path, size: int
) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(exported.pack(generator, "bfloat16")[0][:size])
    place = other()
    code, out, err = run("import-generator", file)
    assert (code, out) == (3, ""), err
    assert f"{file} is refused" in err
    assert not place.exists()


def test_its_name_is_no_matter_and_a_renamed_pickle_is_no_such_file(
    generator: Published, run: Run, other: Any, sound: Path, tmp_path: Path
) -> None:
    file, pickle = tmp_path / "file", tmp_path / "pickle.safetensors"
    file.write_bytes(exported.pack(generator, "float32")[0])
    pickle.write_bytes(sound.read_bytes())
    other()
    assert said(run, "import-generator", file)["generator"] == generator.hash
    code, _, err = run("import-generator", pickle)
    assert (code, "is refused" in err) == (3, True)


def test_a_data_set_that_is_named_must_be_that_of_the_card(
    generator: Published, run: Run, other: Any, tmp_path: Path
) -> None:
    file = tmp_path / "g.safetensors"
    run("export-generator", generator.hash, file)
    place = other()
    code, _, err = run("import-generator", file, "--dataset", "digits_lt", "--imbalance", 5)
    assert (code, "the card in" in err) == (3, True)
    assert not (place / "generators").exists()
    assert said(run, "import-generator", file, "--dataset", "digits_lt")["state"] == "imported"


def test_the_same_weights_have_one_card(generator: Published, run: Run, tmp_path: Path) -> None:
    arrays, texts = safetensors.read(exported.pack(generator, "float32")[0])
    counts = [*generator.card["counts"][:-1], 6]
    file = tmp_path / "g.safetensors"
    file.write_bytes(safetensors.write(arrays, resealed(texts, counts=counts)))
    code, _, err = run("import-generator", file)
    assert (code, "whose card differs in counts" in err) == (3, True)


def test_a_card_from_elsewhere_puts_no_command_into_the_page(
    generator: Published, run: Run, other: Any, tmp_path: Path
) -> None:
    arrays, texts = safetensors.read(exported.pack(generator, "float32")[0])
    file = tmp_path / "g.safetensors"
    evil = "stylegan-mix train; rm -r ~ `x`"
    file.write_bytes(safetensors.write(arrays, resealed(texts, command=evil)))
    other()
    said(run, "import-generator", file)
    (there,) = generator_store.find()
    assert "rm -r" not in (there.folder / "GENERATOR_CARD.md").read_text()
    assert np.isfinite(there.made)
