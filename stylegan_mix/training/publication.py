"""The generators that a finished training puts into the store: its EMAs, checked for collapse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import Module

from stylegan_mix import checkpoint
from stylegan_mix.errors import Diverged
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.class_grid import class_grid, save_grid, watched_classes
from stylegan_mix.generators.collapse import ONE_PICTURE, dead, warning
from stylegan_mix.generators.diversity import diversity_ratios
from stylegan_mix.generators.store import Published
from stylegan_mix.networks import Generator
from stylegan_mix.session import Session
from stylegan_mix.training.class_samples import class_samples_of
from stylegan_mix.training.loop import Trained, diverged, lost_picture
from stylegan_mix.training.plan import TrainPlan

__all__ = ["publish_all"]

_SAMPLES, _SHOWN = 200, 10


@dataclass(frozen=True)
class _Looked:
    """The samples [n,H,W,C] uint8 of an EMA, and the diversity of every watched class."""

    samples: dict[int, Tensor]
    ratios: dict[int, float | None]

    @classmethod
    def at(cls, average: Generator, plan: TrainPlan, trained: Trained) -> _Looked:
        labels = watched_classes(plan.dataset.counts)
        samples = class_samples_of(average, trained.game, _SAMPLES, labels)
        return cls(samples, diversity_ratios(samples, plan.dataset.train))

    @property
    def shown(self) -> dict[int, Tensor]:
        """The samples of a grid."""
        return {label: few[:_SHOWN] for label, few in self.samples.items()}


def publish_all(
    plan: TrainPlan, trained: Trained, session: Session, *, keep_critic: bool = False
) -> list[Published]:
    """Publishes each distinct EMA. The main one is published last, so that it is the newest.

    With `keep_critic` the discriminator is published beside the main one.
    If every class of the main one has collapsed, or if a number of any is not finite, raises
    `Diverged` (exit code 5) and publishes nothing.
    """
    (average, _), *more = trained.state.averages(plan.preset)
    for one, _ in (*more, (average, None)):
        _check_finite(one, plan)
    weights = _weights(average)
    main = _Looked.at(average, plan, trained)
    _check_alive(main, plan)
    if text := warning(main.ratios, plan.dataset.classes):
        session.say(text)
    published, equal, digest = [], [], checkpoint.weights_sha256(weights)
    for other, half_life in reversed(more):
        own = _weights(other)
        if checkpoint.weights_sha256(own) == digest:
            equal.append(half_life)
            continue
        looked = _Looked.at(other, plan, trained)
        card = _card(looked, plan, trained, {"half_life": half_life})
        published.append(generator_store.publish(own, card, class_grid(looked.shown, plan.dataset)))
    if equal:
        session.say(_equal_text(equal[::-1], plan.preset.ema_ramp))
    card = _card(main, plan, trained, {})
    critic = _weights(trained.state.discriminator) if keep_critic else None
    grid = class_grid(main.shown, plan.dataset)
    published.append(generator_store.publish(weights, card, grid, critic))
    return published[::-1]


def _weights(network: Module) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in network.state_dict().items()}


def _check_finite(average: Generator, plan: TrainPlan) -> None:
    """Raises `Diverged` if a number of an EMA is not finite."""
    bad = [name for name, value in _weights(average).items() if not value.isfinite().all()]
    if bad:
        raise Diverged(
            f"training ended at {plan.kimg:g} thousand images with numbers that are not finite, in "
            f"{', '.join(bad[:3])}; nothing was published, the state stays in {plan.folder}",
            remedy="try a smaller --lr or another --r1-gamma, or --precision float32",
        )


def _check_alive(main: _Looked, plan: TrainPlan) -> None:
    """Raises `Diverged`, with a picture, if no judged class is alive, unless told to go on."""
    judged = [label for label, ratio in main.ratios.items() if ratio is not None]
    all_dead = judged and len(dead(main.ratios)) == len(judged)
    if not all_dead or plan.preset.on_collapse == "go-on":
        return
    picture = lost_picture(plan.folder, plan.kimg)
    save_grid(main.shown, plan.dataset, picture)
    raise diverged(
        f"there is no generator to publish at {plan.kimg:g} thousand images: {ONE_PICTURE} every "
        f"class; the state stays in {plan.folder}",
        picture,
        plan.preset,
        also="a longer --kimg goes on from here; else ",
    )


def _card(
    looked: _Looked, plan: TrainPlan, trained: Trained, own: dict[str, Any]
) -> dict[str, Any]:
    """Composes the card of an EMA: data, training, diversity, and `own`, its own settings."""
    dataset, preset, state = plan.dataset, plan.preset, trained.state
    card: dict[str, Any] = {
        "dataset": dataset.name,
        "split_id": dataset.split_id,
        "test_id": dataset.test_id,
        "profile": dataset.profile,
        "imbalance": dataset.imbalance,
        "split_seed": dataset.split_seed,
        "classes": list(dataset.classes),
        "counts": [int(count) for count in dataset.counts],
        "resolution": dataset.resolution,
        "channels": dataset.channels,
        "training": plan.key,
        "preset": {**preset.plain(), "kimg": preset.kimg},
        "kimg": plan.kimg,
        "seed": plan.seed,
        "operators": trained.numerics[-1]["operators"],
        "diversity": [looked.ratios.get(label) for label in range(dataset.num_classes)],
        "command": plan.command,
        **own,
    }
    if len(trained.numerics) > 1:
        card["numerics"] = trained.numerics
    if state.attempt:
        card["attempts"] = state.attempt + 1
    if plan.init is not None:
        card["init"] = plan.init.card(dataset.split_id)
        card["lineage_kimg"] = plan.init.kimg + plan.kimg
    return card


def _equal_text(half_lives: list[float], ramp: float) -> str:
    """Names the EMAs that equal the main one, and the rule that made them equal."""
    names = ", ".join(f"{half_life:g}" for half_life in half_lives)
    why = (
        f": a half-life is at most {100 * ramp:g} % of the images seen (--ema-ramp)" if ramp else ""
    )
    which = f"that of {names} thousand images"
    return f"equal to the main average, so not published apart: {which}{why}"
