"""The command `stylegan-mix`: parsing and printing only; each verb is a file in `commands`."""

from __future__ import annotations

from typing import NoReturn

from stylegan_mix import console

__all__ = ["group", "main"]

group = console.LazyGroup(
    "stylegan-mix",
    help="Train a generator on long-tailed images and write banks of hybrid images from it.",
    commands={
        "dataset": (
            "stylegan_mix.commands.dataset:dataset",
            "List, prepare, show and verify data sets.",
        ),
        "train": ("stylegan_mix.commands.train:train", "Train a StyleGAN2 on a long-tailed split."),
        "generate": ("stylegan_mix.commands.generate:generate", "Write a bank of hybrid images."),
        "metrics": (
            "stylegan_mix.commands.metrics:metrics",
            "Judge samples against real images, class by class.",
        ),
        "generators": (
            "stylegan_mix.commands.generators:generators",
            "List and show trained and imported generators.",
        ),
        "bank": ("stylegan_mix.commands.bank:bank", "List, show, preview and verify banks."),
        "export-generator": (
            "stylegan_mix.commands.export_generator:export_generator",
            "Write a generator to one file, for another store.",
        ),
        "import-generator": (
            "stylegan_mix.commands.import_generator:import_generator",
            "Take over a generator from a file, of another store or another project.",
        ),
        "doctor": ("stylegan_mix.commands.doctor:doctor", "Check the machine and the store."),
    },
)


def main() -> NoReturn:
    """Runs the installed command."""
    console.main(group, "stylegan-mix")
