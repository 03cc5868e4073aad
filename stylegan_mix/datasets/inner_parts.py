"""Parts inside of each class: `CLASS/train/FILE` and `CLASS/test/FILE`."""

from __future__ import annotations

from collections import defaultdict

from stylegan_mix.datasets.archives import Archive
from stylegan_mix.datasets.listing import some
from stylegan_mix.datasets.part_names import part_name
from stylegan_mix.datasets.parts import Parts, parts_of_tiers
from stylegan_mix.datasets.tree import Branch
from stylegan_mix.errors import InvalidInput

__all__ = ["inner_parts"]


def inner_parts(around: Branch, archive: Archive) -> Parts | None:
    """Recognises folders of classes with one folder for each part in them; None for others.

    Each class has a training part, and nothing beside its parts. Raises `InvalidInput` (exit code
    3) for three parts beside the training part.
    """
    if len(around.children) < 2 or around.own or all(map(part_name, around.children)):
        return None
    found: dict[str, dict[str, Branch]] = {}
    for one in around.inner:
        roles = _roles(one)
        if "train" not in roles:
            return None
        found[one.name] = roles
    names = {role: branch.name for roles in found.values() for role, branch in roles.items()}
    if len(names) < 2:
        return None
    chosen = parts_of_tiers(set(names) - {"train"})
    if chosen is None:
        raise InvalidInput(
            f"{archive.path}: the classes have {len(names)} parts ({some(sorted(names.values()))}),"
            " of which only three can be used",
            remedy="move one of them away in each class; or add --levels top, which joins the "
            "parts of each class and holds out a test part anew",
        )
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for label, roles in found.items():
        for role, branch in roles.items():
            labels[chosen.get(role, "train")].update(dict.fromkeys(branch.images(), label))
    words = {"train": "training part", "test": "test part", "val": "validation part"}
    said = [
        f"{words[chosen.get(role, 'train')]}: {name} in each class"
        for role, name in sorted(names.items(), key=lambda one: one[0] != "train")
    ]
    return Parts({"train": (around,)}, dict(labels), notes=["; ".join(said)], inside_classes=True)


def _roles(branch: Branch) -> dict[str, Branch]:
    """Finds the parts in a class by their roles; none if it holds anything else."""
    found: dict[str, Branch] = {}
    for child in branch.inner:
        name = part_name(child.name)
        if branch.own or name is None or not name.plain or name.role in found or child.splits:
            return {}
        found[name.role] = child
    return found
