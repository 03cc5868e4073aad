"""A validation part of a data set's own, and sets that earlier rules of layouts made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_folders import folder, pets

from stylegan_mix import datasets
from stylegan_mix.datasets.prepare import Request, prepare
from stylegan_mix.errors import InvalidInput, UsageFailure


def test_a_validation_part_of_its_own_is_taken_instead_of_training_images(home: Path) -> None:
    counts = {**pets("train", "test"), "valid/cat": 3, "valid/dog": 1}
    done = prepare(Request("odd", folder(home.parent / "source", counts)))
    assert (done.facts["val_images"], done.facts["train_images"]) == (4, 7)
    plain = datasets.load("odd")
    assert plain.val is None
    data = datasets.load("odd", val_per_class=2)
    assert data.val is not None
    assert (data.split_id, data.test_id) == (plain.split_id, plain.test_id)
    assert np.bincount(data.val.labels).tolist() == [2, 1]
    assert any("fewer than 2 validation images of dog 1" in note for note in data.notes)
    held = {one.tobytes() for one in data.val.images}
    assert len(held) == 3
    assert not held & {one.tobytes() for one in data.train.images}
    again = datasets.load("odd", val_per_class=2).val
    assert again is not None
    assert np.array_equal(again.images, data.val.images)
    with pytest.raises(UsageFailure, match="must be 0 or more"):
        datasets.load("odd", val_per_class=-1)


def test_verify_sees_the_pixels_of_the_validation_part(home: Path) -> None:
    from stylegan_mix.arrays import open_container, write
    from stylegan_mix.datasets.pool import KIND
    from stylegan_mix.datasets.prepare import verify

    source = folder(home.parent / "source", pets("train", "test", "val"))
    done = prepare(Request("odd", source))
    verify("odd")
    held = open_container(done.folder, kind=KIND)
    changed = {name: np.array(held[name]) for name in held.names}
    changed["val_images"][0, 0, 0, 0] ^= 1
    write(home / "datasets" / "forged", changed, kind=KIND, facts=held.facts)
    with pytest.raises(InvalidInput, match="hashes of the validation images"):
        verify("forged")


def test_sets_of_earlier_rules_are_looked_at_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set whose shards were taken for classes is not "already there"."""
    from stylegan_mix.datasets import composed_facts

    source = folder(home.parent / "source", {"00000": 6, "00001": 6})
    with monkeypatch.context() as patch:
        patch.setattr(composed_facts, "FOLDER_RULES", 1)
        patch.setattr("stylegan_mix.datasets.folders.decide_levels", lambda *_, **__: ("top", []))
        prepare(Request("old", source))
        good = folder(home.parent / "good", pets("train", "test"))
        prepare(Request("good", good))
    with pytest.raises(InvalidInput, match="shards"):
        prepare(Request("old", source))
    assert prepare(Request("good", good)).existed
