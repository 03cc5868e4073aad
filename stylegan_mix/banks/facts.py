"""The facts of a bank, checked in one place, and the command that makes it again; no torch.

Facts come out of a manifest, and anyone can write a manifest with a fitting hash. Readers rely on
the checks here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from types import NoneType
from typing import Any

from stylegan_mix.banks.request import SCHEMA_VERSION
from stylegan_mix.fields import LIST, NUMBER, OBJECT, TEXT, WHOLE, Types, check_each, check_types
from stylegan_mix.latents.pairing import PAIRINGS
from stylegan_mix.showing import plain_words

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
    "generator_others": LIST,
    "diversity": (*LIST, NoneType),
    "created_utc": TEXT,
}
_SOURCE: dict[str, Types] = {"split": TEXT}
_SEEN: dict[str, Types] = {"dataset": (*TEXT, NoneType), "split_id": (*TEXT, NoneType)}
# Options of the command that a bank is made with.
_OPTIONS = {
    *("--dataset", "--imbalance", "--profile", "--split-seed", "--n", "--space", "--alpha"),
    *("--truncation", "--seed", "--fill", "--pairs", "--unmixed", "--lam", "--generator"),
    "--precision",
}


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
    for one in facts.get("generator_others", ()):
        check_types(one, _SEEN)
    if facts.get("diversity"):
        check_each(facts["diversity"], (*NUMBER, NoneType), "diversity")


def command(facts: Mapping[str, Any]) -> str:
    """Returns the command that makes a bank with these facts again.

    Whoever wrote the file chose the command in it. So it is only returned if it is one that
    `generate` composes, of this very bank; a file of pairs in it has no name here.
    """
    words = plain_words(facts.get("command"), "stylegan-mix", "generate")
    values = dict(zip(words[2::2], words[3::2], strict=False))
    told = {
        "--dataset": facts.get("dataset"),
        "--n": str(facts.get("n")),
        "--space": facts.get("space"),
        "--seed": str(facts.get("seed")),
        "--generator": str(facts.get("generator"))[:12],
    }
    right = len(words) == 2 + 2 * len(values) and set(values) <= _OPTIONS
    if not right or any(values.get(name) != value for name, value in told.items()):
        return "stylegan-mix generate --dataset NAME --n 50000"
    if "--pairs" in values and values["--pairs"] not in PAIRINGS:
        values["--pairs"] = "FILE"
    return shlex.join([*words[:2], *(word for pair in values.items() for word in pair)])
