"""The folders of a source, with the images in and below each.

Recursion is safe: an archive admits no name that lies deeper than `archives.DEEPEST`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stylegan_mix.datasets.archives import bytewise

__all__ = ["Branch", "tree_of"]


@dataclass(eq=False)
class Branch:
    """A folder that holds images, in itself or below.

    `path` ends with "/", and is empty for the source. `own` are the images directly in the folder,
    `total` counts those below as well.
    """

    path: str
    own: list[str] = field(default_factory=list)
    children: dict[str, Branch] = field(default_factory=dict)
    total: int = 0

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def surrounding(self) -> list[Branch]:
        """This folder and those in it that are around all its images, from the outside inwards."""
        found = [self]
        while (only := found[-1].lone) is not None:
            found.append(only)
        return found

    @property
    def typed(self) -> str:
        """The path as it is typed in a command line."""
        return shlex.quote(self.path.rstrip("/") or ".")

    @property
    def lone(self) -> Branch | None:
        """The only folder in this one, if nothing else is in it; folders with such do not count."""
        if self.own or len(self.children) != 1:
            return None
        return next(iter(self.children.values()))

    @property
    def splits(self) -> bool:
        """True if folders stand beside one another somewhere below."""
        return len(self.children) > 1 or any(child.splits for child in self.inner)

    @property
    def inner(self) -> list[Branch]:
        """The folders in this one, in bytewise order of their names."""
        return [self.children[name] for name in sorted(self.children, key=bytewise)]

    def images(self) -> Iterator[str]:
        """Yields the images in this folder and below."""
        yield from self.own
        for child in self.inner:
            yield from child.images()

    def at(self, path: str) -> Branch | None:
        """Finds the folder of that path below this one, or None."""
        found: Branch | None = self
        for part in filter(None, path.split("/")):
            found = None if found is None else found.children.get(part)
        return found


def tree_of(names: Iterable[str]) -> Branch:
    """Arranges images, by their names with "/", into the folders that hold them."""
    root = Branch("")
    for name in names:
        folder, start = root, 0
        folder.total += 1
        while (end := name.find("/", start)) >= 0:
            part = name[start:end]
            if part not in folder.children:
                folder.children[part] = Branch(name[: end + 1])
            folder = folder.children[part]
            folder.total += 1
            start = end + 1
        folder.own.append(name)
    return root
