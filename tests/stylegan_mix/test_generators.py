"""Damaged and forged generators: told by name, left out of listings, never taken for finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from stylegan_mix import arrays, store
from stylegan_mix.errors import InvalidInput
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published

Run = Callable[..., tuple[int, str, str]]


def forge(published: Published, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the card in the manifest and writes hashes that fit."""
    path = published.folder / arrays.MANIFEST
    manifest = store.read_json(path)
    change(manifest["facts"])
    del manifest["manifest_sha256"]
    manifest["manifest_sha256"] = store.digest(manifest)
    path.chmod(0o644)
    store.write_json(path, manifest)


def overwrite(published: Published) -> None:
    """Overwrites bytes of the weights, as a failing disk does."""
    path = published.folder / "data.h5"
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(-200, 2)
        file.write(b"damaged!")


def cut(published: Published) -> None:
    path = published.folder / "data.h5"
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.truncate(3000)


FORGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no card": (lambda facts: facts.clear(), "'facts'"),
    "a list": (lambda facts: facts.update(facts=[1]), "must be an object"),
    "empty": (lambda facts: facts.update(facts={}), "'classes' is missing"),
    "no classes": (lambda facts: facts["facts"].pop("classes"), "'classes' is missing"),
    "no seed": (lambda facts: facts["facts"].pop("seed"), "'seed' is missing"),
    "no data": (lambda facts: facts["facts"].update(split_id=None), "'split_id' must be str"),
    "text": (lambda facts: facts["facts"].update(kimg="9"), "'kimg' must be int or float, got '9'"),
    "truth": (lambda facts: facts["facts"].update(seed=True), "'seed' must be int, got True"),
    "names": (lambda facts: facts["facts"].update(classes=[1] * 10), "'classes' number"),
    "fewer": (lambda facts: facts["facts"]["counts"].pop(), "'counts' has 9 values for 10 classes"),
    "none": (lambda facts: facts["facts"].update(classes=[]), "'classes' is empty"),
    "size": (lambda facts: facts["facts"].update(resolution=-8), "must be positive"),
    "hash": (lambda facts: facts["facts"].update(half_life=[]), "'half_life' must be int or float"),
    "import": (lambda facts: facts["facts"].update(imported={}), "'network' is missing"),
    "unknown": (lambda facts: facts["facts"]["preset"].update(size=1), "unknown field 'size'"),
    "lacks": (lambda facts: facts["facts"]["preset"].pop("lr"), "the preset lacks lr"),
    "kind": (
        lambda facts: facts["facts"]["preset"].update(z_dim="8"),
        "'z_dim' of the preset must",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_card_is_left_out_and_told_when_it_is_named(
    generator: Published, run: Run, name: str
) -> None:
    change, told = FORGED[name]
    forge(generator, change)
    assert generator_store.find() == generator_store.find(split_id=generator.card["split_id"]) == []
    (line,) = generator_store.left_out()
    assert told in line
    assert f"move {generator.folder} away" in line
    for words in (("metrics", generator.hash), ("generate", "--generator", generator.hash[:9])):
        code, out, err = run(*words)
        assert (code, out) == (3, "")
        assert told in err
        assert f"move {generator.folder} away" in err


def test_one_forged_card_hides_no_other_generator(generator: Published, run: Run) -> None:
    forge(generator, FORGED["empty"][0])
    code, _, err = run("generate", "--n", 10, "--no-train")
    assert code == 3
    assert "no finished generator of digits_lt" in err
    assert err.count(f"move {generator.folder} away") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "float7"},
        {"z_dim": 9},
        {"channel_max": 0},
        {"utlo_resolution": 5},
    ],
    ids=str,
)
def test_a_preset_that_is_not_of_its_weights_is_told(
    generator: Published, run: Run, change: dict[str, Any]
) -> None:
    forge(generator, lambda facts: facts["facts"]["preset"].update(change))
    code, _, err = run("generate", "--n", 10, "--generator", generator.hash)
    assert code == 3
    assert "does not fit its own card" in err
    assert f"move {generator.folder} away" in err


@pytest.mark.parametrize("damage", [overwrite, cut])
def test_damaged_weights_are_told_with_what_to_do_before_anything_is_computed(
    generator: Published, run: Run, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    from stylegan_mix.metrics import make

    def computing(*_: Any) -> None:
        raise AssertionError("a probe is trained for a damaged generator")

    monkeypatch.setattr(make, "ensure_probe", computing)
    damage(generator)
    for words in (("metrics", "--n", 20, "--no-cas"), ("generate", "--n", 10)):
        code, _, err = run(*words)
        assert code == 3
        assert "data.h5" in err
        assert f"move {generator.folder} away; the same `train`" in err


@pytest.mark.parametrize("damage", [overwrite, cut])
def test_a_finished_training_is_only_given_whole_and_published_again(
    home: Any, run: Run, damage: Any
) -> None:
    words = ("train", "--dataset", "digits_lt", "--kimg", 0.064, "--channel-max", 4)
    assert run(*words)[0] == 0
    (published,) = generator_store.find()
    damage(published)
    for more in ((), ("--dry-run",)):
        code, _, err = run(*words, *more)
        assert code == 3
        assert f"move {published.folder} away; the same `train`" in err
    published.folder.rename(home / "away")
    assert run(*words)[0] == 0
    assert [generator_store.check(one).hash for one in generator_store.find()] == [published.hash]


def test_weights_that_are_there_and_damaged_are_not_published(generator: Published) -> None:
    from PIL import Image

    weights = generator_store.network(generator).state_dict()
    overwrite(generator)
    with pytest.raises(InvalidInput, match="altered") as end:
        generator_store.publish(weights, generator.card, Image.new("L", (8, 8)))
    assert f"move {generator.folder} away" in str(end.value.remedy)


def test_our_own_generator_comes_before_that_of_the_shared_store(
    generator: Published, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home, home.parent / "second")
    monkeypatch.setenv("STYLEGAN_MIX_SHARED", str(home.parent / "second"))
    assert generator_store.load(generator.hash[:10]).folder == generator.folder
    generator.folder.rename(home / "away")
    assert generator_store.load(generator.hash[:10]).folder.is_relative_to(home.parent / "second")
