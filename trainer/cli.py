"""The command `trainer`: parsing and printing only; each verb is a file in `commands`."""

from __future__ import annotations

from typing import NoReturn

from stylegan_mix import console

__all__ = ["group", "main"]

group = console.LazyGroup(
    "trainer",
    help="Train classifiers on long-tailed images, with banks, mixup and distillation.",
    commands={
        "run": ("trainer.commands.run:run", "Train a classifier, one run a seed."),
        "eval": ("trainer.commands.eval:evaluate", "Score a finished run on its test part again."),
        "predict": (
            "trainer.commands.predict:predict",
            "Write a run's answers to images, as CSV or JSON.",
        ),
        "queries": (
            "trainer.commands.queries:queries",
            "List the stored votes of label-only teachers.",
        ),
        "sweep": ("trainer.commands.sweep:sweep", "Run a TOML grid, skipping finished runs."),
        "report": ("trainer.commands.report:report", "Tables and plots of finished runs."),
        "compare": ("trainer.commands.compare:compare", "Two experiments by their paired seeds."),
        "recipes": ("trainer.commands.recipes:recipes", "List methods: objectives and stages."),
        "models": ("trainer.commands.models:models", "List classifiers."),
        "doctor": ("trainer.commands.doctor:doctor", "Check the machine for training."),
    },
)


def main() -> NoReturn:
    """Runs the installed command."""
    console.main(group, "trainer")
