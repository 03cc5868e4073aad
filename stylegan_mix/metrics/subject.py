"""The judged subject: a generator that draws samples, or a bank that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stylegan_mix.banks.reader import Bank
from stylegan_mix.datasets import Dataset
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.budget import short, short_for_bank
from stylegan_mix.generators.store import Published
from stylegan_mix.metrics.request import Request
from stylegan_mix.metrics.samples import Samples, bank_rows, drawn, labels_for
from stylegan_mix.networks import Generator
from stylegan_mix.session import Session

__all__ = ["Subject"]

_OF_BANK = ["key", "space", "generator", "generator_kimg", "n", "seed"]


@dataclass(frozen=True, eq=False)
class Subject:
    """One of `published` and `bank`, with the data set and split of its training."""

    dataset: Dataset
    published: Published | None
    bank: Bank | None

    @property
    def kind(self) -> str:
        """The kind, "generator" or "bank"."""
        return "generator" if self.bank is None else "bank"

    @property
    def hash(self) -> str:
        """The hash of the weights, or of the bank's content."""
        return self._published.hash if self.bank is None else self.bank.content_sha256

    @property
    def name(self) -> str:
        """The short name in commands: the beginning of a generator's hash or a bank's key."""
        return (self.hash if self.bank is None else self.bank.key)[:12]

    @property
    def _published(self) -> Published:
        if self.published is None:
            raise ValueError("a subject is a generator or a bank")
        return self.published

    def facts(self) -> dict[str, Any]:
        """Composes the facts of the subject for a report."""
        facts: dict[str, Any] = {"kind": self.kind, "hash": self.hash}
        told = self._published.card if self.bank is None else self.bank.facts
        names = ["kimg", "seed"] if self.bank is None else _OF_BANK
        return {**facts, **{name: told.get(name) for name in names}}

    def short_training(self) -> str:
        """Warns of a generator that saw a small share of its preset's budget; "" if it did not."""
        bank = self.bank
        text = short(self._published.card) if bank is None else short_for_bank(bank.facts)
        return f"warning: {text}" if text else ""

    def network(self, device: torch.device) -> Generator:
        """Loads the generator's network in float32."""
        return generator_store.network(self._published, precision="float32").to(device)

    def samples(
        self, request: Request, seed: int, network: Generator | None, session: Session
    ) -> Samples:
        """Returns the samples of one seed; `network` is that of a generator."""
        if self.bank is not None:
            return bank_rows(self.bank, request.n, seed=seed)
        if network is None or request.truncation is None:
            raise ValueError("a generator needs its network and a truncation")
        labels = labels_for(self.dataset.counts, request.labels, request.n)
        return drawn(network, labels, seed=seed, truncation=request.truncation, session=session)
