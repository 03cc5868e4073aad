"""`BANK_CARD.md`: the content of a bank, its origin, its uses and limits; no torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from stylegan_mix.banks.facts import command
from stylegan_mix.banks.policy import classes_in_words, lam_in_words
from stylegan_mix.datasets.records import draw_name, draw_options
from stylegan_mix.generators.budget import in_thousands, of_preset, preset_budget, short_for_bank
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.showing import for_markdown

__all__ = ["card", "trained_for", "training_command"]


def card(facts: Mapping[str, Any], *, content_sha256: str, size: int) -> str:
    """Renders the Markdown text of a bank's card; `size` is that of its file in bytes."""
    height, width, channels = facts["image_shape"]
    dataset = for_markdown(facts["dataset"])
    return f"""# Bank {facts["key"][:12]}

{facts["n"]:,} generated images of {dataset} ({height}x{width}, {channels} channel(s)):
{SPACES[facts["space"]].about}.

![pairs in rows, lam along the columns](preview.png)

| | |
|---|---|
| data set | {dataset}, {_imbalance(facts)}, {len(facts["classes"])} classes |
| training split | `{facts["split_id"]}`{_declared(facts)} |
| test part, never seen | `{facts["test_id"]}`{_declared(facts)} |
| generator | `{facts["generator"]}` |
| trained with | preset `{facts["generator_preset"]}`, {trained_for(facts)} |
| space | `{facts["space"]}`: {SPACES[facts["space"]].about} |
| classes a, b | {classes_in_words(facts["request"])} |
| lam, the share of a | {lam_in_words(facts["request"])} |
| truncation psi | {facts["truncation"]:g} |
| seed | {facts["seed"]} |
| numerics | {", ".join(f"{name} {value}" for name, value in facts["numerics"].items())} |
| on disk, and in memory if loaded whole | {size / 1e6:,.1f} MB |
| exact key | `{facts["key"]}` |
| request key | `{facts["request_key"]}` |
| content SHA-256 | `{content_sha256}` |

## Diversity of the generator

Mean pairwise pixel distance among a class's samples over that among its real training images:
1 is as diverse as the data, 0 a single picture.

{_diversity(facts["classes"], facts["diversity"])}

## Use

```text
{training_command(facts)}
```

`bank.h5` is plain HDF5: `images` uint8 (N, H, W, C), `pair` int32 (N, 2) with the classes a and b,
`lam` float32 (N). The label of a row is lam for class a and 1 - lam for class b. In Python:

```python
from stylegan_mix.banks import reader, store
from stylegan_mix.showing import for_markdown

bank = reader.open_bank(store.resolve("{facts["key"][:12]}"))
```

Written again, byte for byte on the same kind of machine, by:

```text
{command(facts)}
```

## Limits

* lam is the share in the generator's space, not a measured class probability: images change class
  faster than lam does, so labels around lam = 0.5 are not calibrated.
* {_seen(facts)}{_warned(facts)}
* Images are not filtered. A classifier that ranks them must not have seen the test part.
* Banks are for training classifiers; a score on bank images says nothing of real ones.

## Licence

The images derive from a generator, and that from the training images of {dataset}. If you
pass them on, keep to the terms of that data and of the generator's weights.
"""


def training_command(facts: Mapping[str, Any]) -> str:
    """Composes the command that trains a classifier on this bank and its split."""
    split = {name: facts.get(name) for name in ("imbalance", "profile", "split_seed")}
    draw = draw_options(str(facts["dataset"]), **split)
    return shlex.join(["trainer", "run", *draw, "--aug", "hybrid", "--bank", facts["key"][:12]])


def _imbalance(facts: Mapping[str, Any]) -> str:
    factor = facts.get("imbalance")
    return draw_name(factor) + ("" if factor is None else f" ({facts.get('profile')})")


def trained_for(facts: Mapping[str, Any]) -> str:
    """Describes the training of a bank's generator, or its import."""
    source = facts.get("generator_imported")
    if source:
        return f"imported (file SHA-256 {source['sha256'][:12]})"
    kimg, budget = facts["generator_kimg"], preset_budget(facts)
    return in_thousands(kimg) if budget is None else of_preset(kimg, budget)


def _declared(facts: Mapping[str, Any]) -> str:
    source = facts.get("generator_imported")
    return f", {source['split']}" if source else ""


def _seen(facts: Mapping[str, Any]) -> str:
    if facts.get("generator_imported"):
        return """The generator was imported. That it has seen this training part alone is declared
  by the user: nothing here could check it."""
    if others := facts.get("generator_others"):
        named = ", ".join(for_markdown(str(one["dataset"])) for one in others)
        return f"""The generator began with weights that were trained on other images, too: of
  {named}. If test images were among them, results with this bank are worth nothing."""
    return """The generator has seen the long-tailed training part alone. Its rare classes can vary
  no more than it learned from a few images (see the diversity above), and can repeat them."""


def _warned(facts: Mapping[str, Any]) -> str:
    """Renders the warning of a barely trained generator as a limit of its bank."""
    text = short_for_bank(facts)
    return f"\n* **Warning: {text}.**" if text else ""


def _diversity(classes: list[str], ratios: list[float | None] | None) -> str:
    if not ratios:
        return "Not recorded for this generator."
    rows = [
        f"| {for_markdown(name)} | {'n/a' if ratio is None else format(ratio, '.2f')} |"
        for name, ratio in zip(classes, ratios, strict=True)
    ]
    return "\n".join(["| class | diversity |", "|---|---|", *rows])
