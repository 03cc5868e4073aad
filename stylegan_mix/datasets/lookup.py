"""The images that the words of a label file name: by path, by end of a path, or by name alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Lookup"]

LONGEST_PATH = 4096


class Lookup:
    """Images by their names, with and without ending and folders."""

    def __init__(self, names: Iterable[str]) -> None:
        whole: dict[str, list[str]] = defaultdict(list)
        bare: dict[str, list[str]] = defaultdict(list)
        stems: dict[str, list[str]] = defaultdict(list)
        for name in names:
            whole[_last(name)].append(name)
            stems[_stem(name)].append(name)
            bare[_last(_stem(name))].append(name)
        self._paths = {**stems, **{name: [name] for name in self._names(whole)}}
        self._ends = {**bare, **whole}
        self._pairs: dict[str, list[str]] = defaultdict(list)
        for name in self._names(whole):
            self._pairs[_last(name, 2)].append(name)
            if _stem(name) != name:
                self._pairs[_last(_stem(name), 2)].append(name)

    @staticmethod
    def _names(groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
        return (name for found in groups.values() for name in found)

    def find(self, word: str, folders: Sequence[str] = ("",)) -> list[str]:
        """Finds the images of a word: none, one, or several that it may mean.

        The word is a path from one of the `folders` (each ends with "/" or is empty), or the end of
        a path. Its ending may be left out. Folders that lead to the source may stand before it.
        """
        if len(word) > LONGEST_PATH:
            return []
        plain = word.replace("\\", "/").removeprefix("./").lstrip("/")
        rest = plain
        while rest:
            for folder in folders:
                if folder + rest in self._paths:
                    return self._paths[folder + rest]
            if rest == plain and (ends := self._with_end(plain)):
                return ends
            rest = rest.partition("/")[2]
        return []

    def _with_end(self, word: str) -> list[str]:
        if "/" not in word:
            return self._ends.get(word, [])
        end = f"/{word}"
        return [
            name
            for name in self._pairs.get(_last(word, 2), [])
            if f"/{name}".endswith(end) or f"/{_stem(name)}".endswith(end)
        ]


def _last(name: str, count: int = 1) -> str:
    """Returns the last parts of a path."""
    return "/".join(name.rsplit("/", count)[-count:])


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    start, dot, _ = last.rpartition(".")
    return f"{folder}{slash}{start}" if dot else name
