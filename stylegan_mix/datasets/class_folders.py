"""The folders that are classes, among the folders of a part: the first, a deeper, the last ones.

Folders that stand in several others under one name, and numbered folders of images without classes
(shards), are never taken for classes unasked.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from stylegan_mix.datasets.archives import Archive, bytewise, is_hidden
from stylegan_mix.datasets.listing import some
from stylegan_mix.datasets.part_names import roles_of, says_nothing
from stylegan_mix.datasets.tree import Branch
from stylegan_mix.errors import InvalidInput, UsageFailure

__all__ = [
    "TOP",
    "check_levels",
    "class_of_files",
    "decide_levels",
    "empty_classes",
    "refuse_unlabelled_parts",
]

SHOWN_PARTS = 4
TOP, LEAF = "top", "leaf"

_SHARD = re.compile(
    r"0\d+|(shards?|parts?|chunks?|batch|batches|images?|imgs?|pics?|folds?|splits?|subsets?"
    r"|volumes?)"
    r"[\W_]*\d+",
    re.IGNORECASE,
)
_ADVICE = "or name a file with the labels: --labels FILE --file-column NAME --label-column NAME"


def check_levels(levels: str | None) -> None:
    """Raises `UsageFailure` (exit code 2) unless `levels` is None, "top", "leaf" or a number."""
    number = levels is not None and levels.isascii() and levels.isdigit()
    if levels in (None, TOP, LEAF) or (number and 1 <= int(levels or 0) <= 99):
        return
    raise UsageFailure(
        f"--levels must be top, leaf, or a number from 1 to 99, got '{levels}'",
        remedy="top: the first folders of a part are the classes; leaf: the innermost ones; "
        "2: the second ones",
    )


def decide_levels(
    part: Branch, archive: Archive, *, settled: bool = False
) -> tuple[str, list[str]]:
    """Decides that the first folders of a part are its classes, where their content says so.

    Returns the levels, and notes on folders inside of classes. `settled`: the parts are known.

    A class holds images, and may hold more in subfolders; or it holds nothing but one folder, such
    as "images". Raises `InvalidInput` (exit code 3) for other nested folders and for shards.
    """
    if _are_shards(part):
        names = [child.name for child in part.inner]
        raise InvalidInput(
            f"{_where(archive, part)}: the folders {some(names)} look like numbered shards of "
            "images, not like classes",
            remedy=f"if they are classes, add --levels top; {_ADVICE}",
        )
    nested = [child for child in part.inner if not child.own and child.splits]
    if not nested:
        mixed = [child for child in part.inner if child.own and child.children]
        if not mixed:
            return TOP, []
        inner = mixed[0].inner[0]
        return TOP, [f"folders inside of a class belong to it, such as {_path(inner)}"]
    deeper = Counter(name for child in part.inner for name in child.children)
    shared = [name for name, times in deeper.items() if times > 1]
    first = [child.name for child in part.inner]
    example = nested[0]
    if shared:
        text = f"{some(first)} hold the same subfolders ({some(shared)})"
    else:
        text = f"{_path(example)} holds the folders {some(list(example.children))}"
    linked = "".join(f"; {note}" for note in archive.notes)
    raise InvalidInput(
        f"{_where(archive, part)}: which folders are the classes? {text}{linked}",
        remedy=f"say it: {_choices(part, first, example, settled=settled)}; {_ADVICE}",
    )


def _are_shards(part: Branch) -> bool:
    """Tells if the folders have numbers for names, and so have the folders in them."""
    inner = {name for child in part.children.values() for name in child.children}
    return bool(part.children) and all(map(_SHARD.fullmatch, (*part.children, *inner)))


def _choices(part: Branch, first: Sequence[str], example: Branch, *, settled: bool) -> str:
    """Lists the options for folders with folders in them, of which `example` is one.

    The parts are not asked for if they are `settled`.
    """
    names = [child.name for child in example.inner]
    roles = {one.role: name for name, one in roles_of(names).items() if one.plain}
    top = f"--levels top ({some(first, 3)})"
    if len(roles) == len(names) > 1 and "train" in roles:
        test = next(name for role, name in roles.items() if role != "train")
        if example.children[roles["train"]].children:
            inner = example.children
            return f"--train-dir {inner[roles['train']].typed} --test-dir {inner[test].typed}"
        return f"{top}, which joins {some(names)} of each class and holds out a test part anew"
    levels = f"{top}, --levels 2 ({some(names, 3)}), --levels leaf (the innermost folders)"
    if settled:
        return levels
    small = min(reversed(part.inner), key=lambda one: one.total)
    large = [f"--train-dir {one.typed}" for one in part.inner if one is not small]
    named = " ".join(large[:SHOWN_PARTS]) + (" ..." if len(large) > SHOWN_PARTS else "")
    return f"{levels}; or name the parts: {named} --test-dir {small.typed}"


def _path(branch: Branch) -> str:
    return branch.path.rstrip("/")


def refuse_unlabelled_parts(around: Branch, archive: Archive) -> None:
    """Raises `InvalidInput` (exit code 3) where folders named as parts hold images and no classes.

    One class among others may be called "train", as in CIFAR-100, or "valid"; a folder "test"
    among classes is hardly one.
    """
    if not around.children:
        return
    names = {name: one.role for name, one in roles_of(around.children).items() if one.plain}
    if len(names) == len(around.children) or "test" in names.values():
        unlabelled = [_path(child) for child in around.inner if child.name in names]
    elif len(around.children) == 1 and all(map(says_nothing, around.children)):
        unlabelled = []
    else:
        return
    nested = [around.children[name] for name in names if around.children[name].children]
    if nested:
        raise InvalidInput(
            f"{archive.path}: which folders are the training part? Parts by their names are "
            f"{some([_path(one) for one in nested])}; beside them lie "
            f"{some([_path(one) for one in around.inner if one not in nested]) or 'no folders'}",
            remedy=f"name the parts: {_named_parts(names, around)} (each may be repeated); if "
            "these folders are the classes, add --levels top",
        )
    text = f" in folders with the names of parts ({some(unlabelled)})" if unlabelled else ""
    raise InvalidInput(
        f"{archive.path}: the images lie{text or f' in {_path(around.inner[0])}'}, and in no class "
        "folders",
        remedy="expected train/CLASS/FILE and test/CLASS/FILE, or CLASS/FILE; if these folders are "
        f"the classes, add --levels top; {_ADVICE}",
    )


def _named_parts(roles: Mapping[str, str], around: Branch) -> str:
    """Composes the options for folders with these roles, as far as they are known."""
    found = {"train" if role == "train" else "test": name for name, role in roles.items()}
    return " ".join(
        f"--{part}-dir {around.children[found[part]].typed if part in found else 'FOLDER'}"
        for part in ("train", "test")
    )


def class_of_files(
    parts: Mapping[str, Sequence[Branch]], levels: str
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Names the class of each image of the parts -> part -> file -> class; and notes.

    "top": the first folder; "leaf": the folder around the image, by its path where its name stands
    in several places; N: the folder at depth N, under which images of all places are gathered.
    """
    folders = {
        part: {
            name: name[len(branch.path) :].split("/")[:-1]
            for branch in branches
            for name in branch.images()
        }
        for part, branches in parts.items()
    }
    paths = {part: {tuple(one) for one in files.values() if one} for part, files in folders.items()}
    notes: list[str] = []
    if levels == LEAF:
        names = _leaves(paths)
    else:
        everywhere = set().union(*paths.values())
        names, notes = _at_depth(everywhere, 1 if levels == TOP else int(levels))
    classes = {
        part: {name: names[tuple(one)] for name, one in files.items() if tuple(one) in names}
        for part, files in folders.items()
    }
    return classes, notes


def _leaves(paths: Mapping[str, set[tuple[str, ...]]]) -> dict[tuple[str, ...], str]:
    """Names folders by their last word, or by their path if a part has the word twice."""
    repeated = {
        name
        for found in paths.values()
        for name, times in Counter(path[-1] for path in found).items()
        if times > 1
    }
    return {
        path: "/".join(path) if path[-1] in repeated else path[-1]
        for found in paths.values()
        for path in found
    }


def _at_depth(
    paths: set[tuple[str, ...]], depth: int
) -> tuple[dict[tuple[str, ...], str], list[str]]:
    names = {path: path[depth - 1] for path in paths if len(path) >= depth}
    places = defaultdict(set)
    for path, name in names.items():
        places[name].add("/".join(path[:depth]))
    gathered = sorted(name for name, found in places.items() if len(found) > 1)
    if not gathered:
        return names, []
    note = (
        f"{len(gathered):,} classes are gathered from several folders, such as '{gathered[0]}' "
        f"from {some(sorted(places[gathered[0]]), 3)}"
    )
    return names, [note]


def _where(archive: Archive, part: Branch) -> str:
    return f"{archive.path}{f', {part.path}' if part.path else ''}"


def empty_classes(
    archive: Archive,
    parts: Mapping[str, Sequence[Branch]],
    levels: str,
    found: Mapping[str, set[str]],
) -> list[str]:
    """Lists the classes that have no training image: of another part, or of a folder without."""
    paths = [branch.path for branches in parts.values() for branch in branches]
    named = set()
    if levels != LEAF:
        depth = 1 if levels == TOP else int(levels)
        for folder in archive.folders:
            around = max(
                (path for path in paths if f"{folder}/".startswith(path)), key=len, default=None
            )
            below = [] if around is None else folder[len(around) :].split("/")
            if len(below) == depth and below[-1]:
                named.add(below[-1])
    others = {name for part, names in found.items() if part != "train" for name in names}
    kept = {name for name in named if not is_hidden(name)}
    return sorted((kept | others) - found["train"], key=bytewise)
