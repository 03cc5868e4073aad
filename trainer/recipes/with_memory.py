"""Corrections that put a memory of class means beside the linear head of a finished network.

The network then answers with both: its head is one of `models.memory_heads`. `N` images, `K`
classes, `D` features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from trainer.models.heads import Head
from trainer.recipes.posthoc import Evidence, PostHoc

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.models.classifier import Classifier
    from trainer.models.memory_heads import Assigned
    from trainer.objectives import Task

__all__ = ["Assignment", "MemoryFusion", "WeightedFusion"]

Rule = Literal["max", "attention"]
WeightedRule = Literal["logits", "probabilities", "scaled"]
_HEADS: dict[Rule | WeightedRule, Head] = {
    "max": Head("fused-max"),
    "attention": Head("fused-attention"),
    "logits": Head("fused-logits"),
    "probabilities": Head("fused-probabilities"),
    "scaled": Head("fused-scaled"),
}
# 1, 0.9, ... 0: of equally good shares, the one nearest to the plain network is taken.
_SHARES = tuple(step / 10 for step in range(10, -1, -1))


@dataclass(frozen=True)
class MemoryFusion(PostHoc):
    """A fusion of linear head and memory without a weight.

    rule: "max", the surer of the two for each class (`fusion.surer`), or "attention", logits times
    the attention of the memory (`fusion.attended`). Known by the code of Sonseca (2021).
    """

    rule: Rule
    reads_memory = True

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule must be one of {get_args(Rule)}, got {self.rule!r}")

    @property
    def head(self) -> Head:
        return _HEADS[self.rule]

    def __call__(self, model: Classifier, task: Task, evidence: Evidence) -> dict[str, Any]:
        from trainer.models import with_head

        with_head(model, self.head, memory=_memory(evidence))
        return {}


@dataclass(frozen=True)
class WeightedFusion(PostHoc):
    """A weighted sum of linear head and memory, with the share w for the head.

    rule: sums of "logits", of "probabilities", or of logits and cosines "scaled" to the same
    maximum (`memory_heads.Fused`). share: w in [0, 1], where 1 is the plain network and 0 the
    nearest class mean. None takes the best of 1, 0.9, ... 0 on the validation images, the largest
    of equals. The code of Sonseca (2021) takes it on the images that it is scored on.
    """

    rule: WeightedRule
    share: float | None = None
    reads_memory = True

    def __post_init__(self) -> None:
        if self.rule not in get_args(WeightedRule):
            raise ValueError(f"rule must be one of {get_args(WeightedRule)}, got {self.rule!r}")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in [0, 1], got {self.share}")

    @property
    def needs_validation(self) -> bool:
        return self.share is None

    @property
    def head(self) -> Head:
        return _HEADS[self.rule]

    def __call__(self, model: Classifier, task: Task, evidence: Evidence) -> dict[str, Any]:
        from trainer.models import with_head

        kept = with_head(model, self.head, memory=_memory(evidence)).get_buffer("share")
        if self.share is not None:
            kept.fill_(self.share)
            return {"share": self.share}

        def change(share: float) -> None:
            kept.fill_(share)

        return {"share": evidence.best_of(_SHARES, change, otherwise=1.0)}


@dataclass(frozen=True)
class Assignment(PostHoc):
    """A small network that learns for which images the memory alone is right.

    It reads the features and the largest logits (`memory_heads.Assigned`), and is trained by binary
    cross-entropy, on as many images of which only the memory is right as of others, drawn with
    repeats. SGD for `steps` of `batch` images at rate `lr`, which falls to 0 as a cosine. Where
    images of one kind alone exist, it answers accordingly and nothing is trained.

    The images are the run's validation images, or without any the training images. Those the linear
    head mostly knows by heart, so there are few of which only the memory is right.

    Known by the code of Sonseca (2021), which trains on the training images, reads 100 logits, and
    keeps the best epoch on the images that it is scored on.
    """

    steps: int = 490  # ten passes over CIFAR-10-LT at imbalance 100
    batch: int = 256
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    reads_memory = True

    @property
    def head(self) -> Head:
        return Head("assigned")

    def __call__(self, model: Classifier, task: Task, evidence: Evidence) -> dict[str, Any]:
        import torch

        from trainer.losses.memory import nearness
        from trainer.models import with_head
        from trainer.models.memory_heads import Assigned

        memory = _memory(evidence)
        held_out = evidence.validation is not None
        seen = (evidence.validation or evidence.training)()
        by_memory = nearness(seen.features, memory).argmax(1) == seen.labels
        alone = by_memory & (seen.logits.argmax(1) != seen.labels)  # [N]
        head = with_head(model, self.head, evidence.seed, memory=memory)
        assert isinstance(head, Assigned)
        if alone.any() and not alone.all():
            with torch.enable_grad():
                self._train(head, seen.features, seen.logits, alone, evidence.seed)
        else:
            head.out.weight.zero_()
            head.out.bias.fill_(1.0 if alone.all() else -1.0)
        on = "validation" if held_out else "training"
        return {"images": len(alone), "memory_alone_right": int(alone.sum()), "on": on}

    def _train(
        self, head: Assigned, features: Tensor, logits: Tensor, alone: Tensor, seed: int
    ) -> None:
        """Trains the small network on the device of the head; its other tensors stay."""
        import torch
        import torch.nn.functional as F

        from stylegan_mix.rng import torch_generator

        trained = [*head.hidden.parameters(), *head.out.parameters()]
        optimiser = torch.optim.SGD(
            trained, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        kinds = [torch.nonzero(alone == kind)[:, 0] for kind in (True, False)]
        target = alone.to(features)
        for step in range(self.steps):
            draws = torch_generator(seed, "posthoc.assignment", step)
            half = self.batch // 2
            rows = torch.cat(
                [kind[torch.randint(len(kind), (half,), generator=draws)] for kind in kinds]
            )
            place = head.memory.device
            trusted = head.trust(features[rows].to(place), logits[rows].to(place))
            loss = F.binary_cross_entropy_with_logits(trusted, target[rows].to(place))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def _memory(evidence: Evidence) -> Tensor:
    """Reads the class means; a recipe whose last stage keeps none is refused when it is made."""
    assert evidence.memory is not None
    return evidence.memory
