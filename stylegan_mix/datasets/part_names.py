"""Names of folders and files that say "training", "test" or "validation" in the usual words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PART_OF_TIERS", "TIERS", "PartName", "part_name", "roles_of", "says_nothing"]

_ROLE_WORDS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "eval": ("eval", "evaluation", "holdout"),
    "val": ("val", "valid", "validation", "dev"),
}
TIERS = ("test", "eval", "val")
"""Roles of the images that are not trained on: the first one there is the test part."""

PART_OF_TIERS = ("test", "val")
"""The parts that the first and the second of these roles become."""

_ROLE = {word: role for role, words in _ROLE_WORDS.items() for word in words}
# Words that say nothing of the part, alone ("train_images") or glued on ("trainset").
_NEUTRAL = (
    *("dataset", "datasets", "data", "sets", "set", "images", "image", "imgs", "img", "pictures"),
    *("picture", "pics", "pic", "photos", "photo", "labels", "label", "labelled", "labeled"),
    *("annotations", "annotation", "metadata", "files", "file", "list", "folder", "part"),
    *("split", "subset", "seg", "jpeg", "jpg", "png"),
)
_GLUED = re.compile(rf"({'|'.join(_ROLE)})({'|'.join(_NEUTRAL)})?\d*")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NUMBER = re.compile(r"\d+(x\d+)?")


@dataclass(frozen=True)
class PartName:
    """The role that a name gives, and its other words: ("train", ("pets",)) of "pets-train"."""

    role: str
    others: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """True if the name says nothing else."""
        return not self.others


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.casefold()) if word]


def says_nothing(name: str) -> bool:
    """Tells if a name, such as "images" or "data_64x64", is neither a part's nor a class's."""
    words = _words(_CAMEL.sub(" ", name))
    return bool(words) and all(word in _NEUTRAL or _NUMBER.fullmatch(word) for word in words)


def part_name(name: str) -> PartName | None:
    """Finds the role in the name of a folder or file; None without one, or with two of them.

    "PetsTrain" is two words, "tEsT" is one.
    """
    return _of_words(_words(name)) or _of_words(_words(_CAMEL.sub(" ", name)))


def _of_words(words: Iterable[str]) -> PartName | None:
    roles: list[str] = []
    others: list[str] = []
    for word in words:
        glued = _GLUED.fullmatch(word)
        if glued:
            roles.append(_ROLE[glued[1]])
        elif word not in _NEUTRAL and not _NUMBER.fullmatch(word):
            others.append(word)
    return PartName(roles[0], tuple(others)) if len(roles) == 1 else None


def roles_of(names: Iterable[str]) -> dict[str, PartName]:
    """Finds the names among these that have a role."""
    return {name: found for name in names if (found := part_name(name)) is not None}
