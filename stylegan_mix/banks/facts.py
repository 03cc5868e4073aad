"""The facts of a bank, checked in one place, and the command that follows from them; no torch.

Facts come out of a manifest, and anyone can write a manifest with a fitting hash. Readers rely on
the checks here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from types import NoneType
from typing import Any

from stylegan_mix.banks.request import SCHEMA_VERSION, Request, command_words
from stylegan_mix.errors import UsageFailure
from stylegan_mix.fields import LIST, NUMBER, OBJECT, TEXT, WHOLE, Types, check_each, check_types

__all__ = ["check", "command"]

_ALWAYS: dict[str, Types] = {
    "key": TEXT,
    "request_key": TEXT,
    "split_id": TEXT,
    "dataset": TEXT,
    "generator": TEXT,
    "space": TEXT,
    "command": TEXT,
    "classes": LIST,
    "image_shape": LIST,
    "n": WHOLE,
}
# Fields that older banks lack, or that are null in some.
_SOMETIMES: dict[str, Types] = {
    "request": OBJECT,
    "numerics": OBJECT,
    "profile": (*TEXT, NoneType),
    "imbalance": (*NUMBER, NoneType),
    "split_seed": (*WHOLE, NoneType),
    "test_id": (*TEXT, NoneType),
    "control": TEXT,
    "alpha": (*NUMBER, NoneType),
    "truncation": NUMBER,
    "seed": WHOLE,
    "generator_preset": TEXT,
    "generator_kimg": (*NUMBER, NoneType),
    "generator_seed": (*WHOLE, NoneType),
    "generator_imported": (*OBJECT, NoneType),
    "diversity": (*LIST, NoneType),
    "created_utc": TEXT,
}
_SOURCE: dict[str, Types] = {"split": TEXT}
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_HASH = re.compile(r"[0-9a-f]+")
_PROFILES = ("exp", "step", "natural", None)
_PRECISIONS = ("float32", "bfloat16", "float16")


def check(facts: Any) -> None:
    """Raises ValueError, with the reason, unless these are the facts of a bank."""
    version = facts.get("schema_version") if type(facts) is dict else None
    if type(version) is int and version > SCHEMA_VERSION:
        raise ValueError(f"schema {version} is newer than {SCHEMA_VERSION}, which this one reads")
    check_types(facts, {"schema_version": WHOLE, **_ALWAYS})
    check_types(facts, {name: _SOMETIMES[name] for name in _SOMETIMES if name in facts})
    check_each(facts["classes"], TEXT, "classes")
    check_each(facts["image_shape"], WHOLE, "image_shape")
    if not facts["classes"] or len(facts["image_shape"]) != 3 or min(facts["image_shape"]) < 1:
        raise ValueError("a bank needs classes, and images of height, width and channels")
    if facts.get("generator_imported"):
        check_types(facts["generator_imported"], _SOURCE)
    if facts.get("diversity"):
        check_each(facts["diversity"], (*NUMBER, NoneType), "diversity")


def command(facts: Mapping[str, Any]) -> str:
    """Composes the command that makes a bank with these facts again.

    The facts hold a command too. Whoever wrote the file chose it, so it is not offered for typing.
    """
    usual = "stylegan-mix generate --dataset NAME --n 50000"
    try:
        check(facts)
        height, _, channels = facts["image_shape"]
        request = Request(
            generator=facts["generator"],
            split_id=facts["split_id"],
            classes=len(facts["classes"]),
            resolution=height,
            channels=channels,
            n=facts["n"],
            space=facts["space"],
            alpha=1.0 if facts["alpha"] is None else float(facts["alpha"]),
            truncation=float(facts["truncation"]),
            seed=facts["seed"],
        )
        precision = facts["numerics"]["compute"]
        sound = _NAME.fullmatch(facts["dataset"]) and _HASH.fullmatch(facts["generator"])
        if not sound or precision not in _PRECISIONS or facts["profile"] not in _PROFILES:
            return usual
        draw = {name: facts.get(name) for name in ("dataset", "imbalance", "profile", "split_seed")}
        return shlex.join(command_words(request, draw, precision))
    except (ValueError, KeyError, TypeError, UsageFailure):
        return usual
