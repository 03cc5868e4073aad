"""A file of pairs of classes: lines `a,b` or `a,b,weight`, with names or numbers of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from stylegan_mix.errors import InvalidInput, nearest
from stylegan_mix.reading import is_count, read_text, table_rows

__all__ = ["read_pairs"]

_MOST_BYTES = 1 << 26


def read_pairs(path: Path, classes: Sequence[str]) -> tuple[tuple[int, int, float], ...]:
    """Reads the pairs in a CSV file: (a, b, weight) with numbers of classes, sorted.

    A first line `a,b` or `a,b,weight` is a header. A class is given by its name, or by its number
    from 0 where no class has that name. Weights are positive; without one it is 1. Raises
    `InvalidInput` (exit code 3), which names the line.
    """
    numbers = {name: number for number, name in reversed(list(enumerate(classes)))}
    found = []
    for place, line in enumerate(_rows(path), start=1):
        words = [word.strip() for word in line]
        header = place == 1 and words in (["a", "b"], ["a", "b", "weight"])
        if header or not any(words):
            continue
        where = f"{path}, line {place}"
        if len(words) not in (2, 3):
            raise InvalidInput(
                f"{where}: expected a,b or a,b,weight, got {len(words)} fields",
                remedy="write two classes in a line, and a weight if you want one",
            )
        a, b = (_class(word, numbers, where) for word in words[:2])
        found.append((a, b, _weight(words[2], where) if len(words) == 3 else 1.0))
    if not found:
        raise InvalidInput(f"{path} lists no pair", remedy="write a line a,b for each pair")
    return tuple(sorted(found))


def _rows(path: Path) -> list[list[str]]:
    try:
        return table_rows(read_text(path, limit=_MOST_BYTES))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is no CSV file in UTF-8: {error}") from error


def _class(word: str, numbers: dict[str, int], where: str) -> int:
    if word in numbers:
        return numbers[word]
    if is_count(word) and int(word) < len(numbers):
        return int(word)
    raise InvalidInput(
        f"{where}: no class '{word}'{nearest(word, numbers)}",
        remedy=f"classes are named, or numbered from 0 to {len(numbers) - 1}",
    )


def _weight(word: str, where: str) -> float:
    try:
        weight = float(word)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise InvalidInput(f"{where}: a weight must be a positive number, got '{word}'")
    return weight
