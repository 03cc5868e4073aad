"""Durations as a user types them: 45s, 90m, 2h, 1h30m, 1d12h."""

from __future__ import annotations

import re

import click

__all__ = ["Duration", "seconds_of"]

# Nine digits at most: more are no time, and take long to convert.
_FORM = re.compile(
    r"(?:(?P<d>\d{1,9})d)?(?:(?P<h>\d{1,9})h)?(?:(?P<m>\d{1,9})m)?(?:(?P<s>\d{1,9})s)?", re.ASCII
)
_DECIMAL = re.compile(r"(?P<number>\d{1,9}(?:\.\d{1,9})?)(?P<unit>[dhms])", re.ASCII)
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def seconds_of(text: str) -> float | None:
    """Reads a duration such as 1h30m or 1.5h, in seconds; None if it is none."""
    word = text.strip().lower()
    if single := _DECIMAL.fullmatch(word):
        return float(single["number"]) * _SECONDS[single["unit"]]
    parts = _FORM.fullmatch(word)
    if parts is None or not word:
        return None
    return float(sum(int(parts[unit] or 0) * length for unit, length in _SECONDS.items()))


class Duration(click.ParamType):
    """A positive duration of an option, in seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Reads the text of the option; a usage error (exit code 2) if it is no duration."""
        if isinstance(value, float):  # converted already
            return value
        seconds = seconds_of(str(value))
        if not seconds:
            self.fail(
                f"'{value!s:.40}' is no time; write it with units, such as 45s, 90m, 2h or 1h30m.",
                param,
                ctx,
            )
        return seconds
