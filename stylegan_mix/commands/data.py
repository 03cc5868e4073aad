"""The data set that the options of a command name, or the default one, which is said to be it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stylegan_mix import progress

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset

__all__ = ["DEFAULT", "chosen_dataset"]

DEFAULT = "digits_lt"


def chosen_dataset(options: dict[str, Any], *, quiet: bool = False) -> Dataset:
    """The data set and draw of `console.data_options`; says where the default is taken."""
    from stylegan_mix import datasets

    if options["dataset"] is None and not quiet:
        progress.say(f"data set {DEFAULT}: the default, small and built in (choose with --dataset)")
    return datasets.load(
        options["dataset"] or DEFAULT,
        imbalance=options["imbalance"],
        profile=options["profile"],
        split_seed=options["split_seed"],
    )
