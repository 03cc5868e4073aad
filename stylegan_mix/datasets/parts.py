"""The folders of a source that are its parts: training, test, validation.

A part is a folder whose subfolders hold images, under one of the usual names. A class may bear such
a name too: it holds its images itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stylegan_mix.datasets.archives import Archive
from stylegan_mix.datasets.listing import some
from stylegan_mix.datasets.part_names import PART_OF_TIERS, TIERS, PartName, roles_of
from stylegan_mix.datasets.tree import Branch, tree_of
from stylegan_mix.errors import InvalidInput, UsageFailure, nearest

__all__ = ["Parts", "find_parts", "inside", "named_parts", "parts_of_tiers"]

SHOWN_FOLDERS = 50

Labeller = Callable[[Branch, str, set[str]], tuple[str, dict[str, str]] | None]
"""Finds, for a folder with a role, a file with its labels among known ones -> the file, labels."""


@dataclass(frozen=True)
class Parts:
    """The folders of "train", "test" and "val", as far as there are such; each one or several.

    `labels` has the class of each image for the parts whose classes stand in a file; `files` are
    these files. If the parts lie `inside_classes`, "train" is the folder around the classes, and
    `labels` has the images of all parts.
    """

    folders: dict[str, tuple[Branch, ...]]
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    inside_classes: bool = False


def inside(branch: Branch) -> Branch:
    """Goes down as long as a folder holds nothing but one folder, which holds folders."""
    while (only := branch.lone) is not None and only.children:
        branch = only
    return branch


# Named by options


def _named_folder(root: Branch, archive: Archive, option: str, path: str) -> Branch:
    """Finds the folder that an option names, by its path in the source or on the disk."""
    plain = path.replace("\\", "/").removeprefix(f"{archive.path.as_posix()}/")
    if plain == archive.path.as_posix():
        plain = "."
    plain = "/".join(part for part in plain.split("/") if part not in ("", "."))
    found = root.at(plain) or inside(root).at(plain) or root.at(_real(archive, plain))
    if found is None:
        there = [child.path.rstrip("/") for child in _folders(inside(root))]
        raise UsageFailure(
            f"{option} {path}: {archive.path} has no such folder with images"
            f"{nearest(plain, there[:SHOWN_FOLDERS])}"
        )
    return found


def _real(archive: Archive, path: str) -> str:
    """Follows links in a path of a folder on the disk, as long as they stay in it."""
    real, source = (archive.path / path).resolve(), archive.path.resolve()
    return real.relative_to(source).as_posix() if real.is_relative_to(source) else path


def _folders(branch: Branch) -> list[Branch]:
    return [one for child in branch.inner for one in (child, *child.inner)]


def named_parts(root: Branch, archive: Archive, folders: Mapping[str, Sequence[str]]) -> Parts:
    """Takes the parts that the options `--train-dir`, `--test-dir`, `--val-dir` name.

    An image belongs to the innermost of these folders around it.
    """
    found = {
        part: [_named_folder(root, archive, f"--{part}-dir", path) for path in named]
        for part, named in folders.items()
    }
    paths = [branch.path for branches in found.values() for branch in branches]
    if len(set(paths)) < len(paths):
        raise UsageFailure("--train-dir, --test-dir and --val-dir must name different folders")
    cut = {
        part: tuple(_without(branch, paths) for branch in branches)
        for part, branches in found.items()
    }
    notes = []
    if "test" not in cut:
        notes.append("no test part was named, so test images are held out of the training part")
    return Parts(cut, notes=notes)


def _without(branch: Branch, paths: Sequence[str]) -> Branch:
    """Leaves out the folders below a branch that are parts themselves."""
    deeper = tuple(path for path in paths if path != branch.path and path.startswith(branch.path))
    if not deeper:
        return branch
    kept = (name for name in branch.images() if not name.startswith(deeper))
    return tree_of(kept).at(branch.path) or Branch(branch.path)


# Recognised


def find_parts(
    root: Branch, archive: Archive, labeller: Labeller, *, settled: bool
) -> Parts | None:
    """Recognises the parts by names and content; None if the folders are classes throughout.

    Raises `InvalidInput` (exit code 3) in doubt, with the options that settle it. If it is
    `settled` that folders are classes, one that may be either is a class.
    """
    found = _search(root, archive)
    if found is None:
        return None
    around, train = found
    beside = _beside(around)
    if beside and settled:
        return None
    train_part = _unwrapped(train, set())
    known = {name.casefold() for name in _class_names(train_part, deep=settled)}
    if beside:
        raise InvalidInput(
            f"{archive.path}: {_path(train)} can be the training part, or a class beside "
            f"{_paths(beside)}, which hold more images",
            remedy=f"say which: --train-dir {train.typed} [--test-dir FOLDER], or --levels top",
        )
    judged = [
        _judged(role, branch, known, labeller(branch, role, set(train_part.children)))
        for role, branch in _others(around, train)
    ]
    labelled = [one for one in judged if one.labelled]
    chosen = parts_of_tiers({one.role for one in labelled})
    if chosen is None or len(labelled) > len(chosen):
        raise _too_many(archive, train, [one.branch for one in labelled])
    parts = Parts({"train": (train_part,)})
    for one in labelled:
        parts.folders[chosen[one.role]] = (one.branch,)
        if one.labels is not None:
            parts.files.append(one.labels[0])
            parts.labels[chosen[one.role]] = one.labels[1]
    if len(parts.folders) == 1 and not settled:
        _refuse_strangers(archive, around, train, known)
    parts.notes.extend(_said(archive, train, judged, parts))
    return parts


def _refuse_strangers(archive: Archive, around: Branch, train: Branch, known: set[str]) -> None:
    """Raises where a folder of another name holds the classes of the training part.

    It can be the test part, or more of the training part, or neither; only its user can tell.
    """
    strangers = [
        child
        for child in around.inner
        if child is not train and len(known & {name.casefold() for name in child.children}) > 1
    ]
    if strangers:
        first = strangers[0].typed
        raise InvalidInput(
            f"{archive.path}: the training part {_path(train)} has the same subfolders as "
            f"{_paths(strangers)}, and no folder has the name of a test part",
            remedy=f"say its use: --train-dir {train.typed} --test-dir {first} tests it; "
            f"--train-dir {train.typed} --train-dir {first} trains on both; --train-dir "
            f"{train.typed} leaves it aside",
        )


def parts_of_tiers(roles: Iterable[str]) -> dict[str, str] | None:
    """Assigns parts to roles: the first of "test", "eval", "val" is tested, the second validates.

    Returns None for three, of which no one can tell the use.
    """
    present = set(roles)
    there = [role for role in TIERS if role in present]
    if len(there) > len(PART_OF_TIERS):
        return None
    return dict(zip(there, PART_OF_TIERS, strict=False))


def _class_names(branch: Branch, *, deep: bool) -> set[str]:
    """Collects the names of the folders in a part, and of those in them if `deep`."""
    found = set(branch.children)
    for child in branch.children.values() if deep else ():
        found |= _class_names(child, deep=True)
    return found


def _search(branch: Branch, archive: Archive) -> tuple[Branch, Branch] | None:
    """Finds the training part -> (folder around it, it), also below folders that surround it."""
    while True:
        train = _training(branch, archive)
        if train is not None:
            return branch, train
        if branch.lone is None or not branch.lone.children:
            break
        branch = branch.lone
    below = [found for child in branch.inner if (found := _search(child, archive))]
    if len(below) == 1 and 2 * below[0][0].total > branch.total:
        return below[0]
    return None


def _training(around: Branch, archive: Archive) -> Branch | None:
    names = roles_of(around.children)
    strangers = [child for name, child in around.children.items() if name not in names]
    plain, paired = [], []
    for name, found in names.items():
        child = around.children[name]
        # In a class of this name, which holds its images in one folder as its neighbours do,
        # nothing branches.
        alike = strangers and not child.splits
        if found.role != "train" or alike or not _holds_folders(child):
            continue
        if found.plain:
            plain.append(child)
        elif any(one.role != "train" and one.others == found.others for one in names.values()):
            paired.append(child)
    chosen = plain or paired
    if len(chosen) > 1:
        raise InvalidInput(
            f"{archive.path} has {len(chosen)} folders with the name of a training part: "
            f"{_paths(chosen)}",
            remedy=f"say which: --train-dir {chosen[0].typed}, and --test-dir FOLDER",
        )
    return chosen[0] if chosen else None


def _holds_folders(branch: Branch) -> bool:
    """Tells if a folder's images lie in its subfolders, but for a few strays."""
    return bool(branch.children) and branch.total > 2 * len(branch.own)


def _beside(around: Branch) -> list[Branch]:
    """Finds folders beside a training part that may be classes as it may: several, with more."""
    names = roles_of(around.children)
    strangers = [child for child in around.inner if child.name not in names]
    count = sum(child.total for child in strangers)
    in_parts = around.total - len(around.own) - count
    return strangers if len(strangers) > 1 and count > in_parts else []


def _others(around: Branch, train: Branch) -> list[tuple[str, Branch]]:
    """Finds the folders beside the training part with another role, in the order of their roles."""
    names = {name: one for name, one in roles_of(around.children).items() if one.role != "train"}
    own = roles_of([train.name]).get(train.name, PartName("train", ()))
    like = {name: one for name, one in names.items() if one.others == own.others}
    chosen = like or names
    return [
        (role, around.children[name])
        for role in TIERS
        for name, one in chosen.items()
        if one.role == role
    ]


@dataclass(frozen=True)
class _Judged:
    """A folder with the name of a part; `labelled` if its images have classes."""

    role: str
    branch: Branch
    labels: tuple[str, dict[str, str]] | None
    labelled: bool


def _judged(
    role: str, branch: Branch, known: set[str], labels: tuple[str, dict[str, str]] | None
) -> _Judged:
    """Tells if a folder holds classes of the training part, or at least several folders.

    With several folders that are no known classes, the classes are wrong, which is an error later.
    Digits are shards of images without classes.
    """
    there = _unwrapped(branch, known)
    folders = {name.casefold() for name in there.children}
    foreign = len(folders) > 1 and not all(name.isdigit() for name in folders)
    by_folder = bool(folders & known) or (foreign and labels is None)
    if by_folder:
        return _Judged(role, there, None, True)
    return _Judged(role, branch, labels, labels is not None)


def _unwrapped(branch: Branch, known: set[str]) -> Branch:
    """Goes down through folders that hold nothing but one folder and are no known class.

    Without known classes, only if folders branch below: a single chain ends in a single class.
    """
    if not known and not branch.splits:
        return branch
    while (only := branch.lone) is not None and only.name.casefold() not in known:
        if not only.children:
            break
        branch = only
    return branch


def _too_many(archive: Archive, train: Branch, branches: list[Branch]) -> InvalidInput:
    example = " ".join(
        f"--{part}-dir {branch.typed}"
        for part, branch in zip(("test", "val"), branches, strict=False)
    )
    return InvalidInput(
        f"{archive.path} has {len(branches)} folders that can be the test part or the validation "
        f"part: {_paths(branches)}",
        remedy=f"say which are used, such as: --train-dir {train.typed} {example}",
    )


def _said(archive: Archive, train: Branch, judged: list[_Judged], parts: Parts) -> list[str]:
    said = [f"training part: {_path(train)} in {archive.path.name}"]
    words = {"test": "test part", "val": "validation part"}
    for part, branches in parts.folders.items():
        if part in words:
            source = f", its classes from {parts.files[0]}" if part in parts.labels else ""
            said.append(f"{words[part]}: {_paths(branches)}{source}")
    notes = ["; ".join(said)] if len(said) > 1 else []
    notes += [
        f"{_path(one.branch)} has the name of a {'test' if one.role == 'test' else 'validation'} "
        f"part, but its {one.branch.total:,} images lie in no class folders: left aside"
        for one in judged
        if not one.labelled
    ]
    return notes


def _path(branch: Branch) -> str:
    return branch.path.rstrip("/") or "."


def _paths(branches: Iterable[Branch]) -> str:
    return some([_path(one) for one in branches])
