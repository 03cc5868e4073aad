"""Warm starts: a training that begins with the weights of a published generator.

The generator, its averages and, where it was published, the discriminator begin with these weights.
Optimisers and moving statistics are fresh, and the learning rate rises over the first images. The
start is part of the training's key, and the new card names it with all images shown before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stylegan_mix.datasets import Dataset
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.budget import in_thousands
from stylegan_mix.generators.store import Published
from stylegan_mix.networks import Generator
from stylegan_mix.networks.build import build_generator
from stylegan_mix.presets import Preset
from stylegan_mix.training.state import TrainState

__all__ = ["WARMUP_KIMG", "Start", "start_from", "take_start"]

WARMUP_KIMG = 2.0
"""Kimg over which the learning rate rises after a warm start, unless the preset says otherwise."""

# Most differences of two networks that are named.
_NAMED = 6
# State of a network that has grown: at 1 it is an ordinary one.
_GROWTH = "synthesis.growth"
# State that only a discriminator has which has grown.
_GROWN_ALONE = {"growth", "fromrgb_half.weight", "fromrgb_half.bias"}


@dataclass(frozen=True)
class Start:
    """A published generator that a training begins with, and the hash of its discriminator.

    `critic` is None for a fresh discriminator.
    """

    published: Published
    critic: str | None

    def spec(self) -> dict[str, Any]:
        """Names the start in the key of a training."""
        return {"generator": self.published.hash, "critic": self.critic}

    @property
    def kimg(self) -> float:
        """Thousands of images shown before, by all trainings that led here and are known."""
        card = self.published.card
        return float(card.get("lineage_kimg") or card["kimg"] or 0.0)

    def others(self, split_id: str) -> list[dict[str, Any]]:
        """Lists the data sets and splits that it has seen, or may have seen, beside this one."""
        card = self.published.card
        seen = [dict(one) for one in card.get("init", {}).get("others", [])]
        if self.published.imported or card["split_id"] != split_id:
            seen.append({"dataset": card["dataset"], "split_id": card["split_id"]})
        return [one for number, one in enumerate(seen) if one not in seen[:number]]

    def card(self, split_id: str) -> dict[str, Any]:
        """Describes the start on the card of the new generator."""
        others = self.others(split_id)
        return {**self.spec(), "kimg": self.kimg, **({"others": others} if others else {})}

    def lines(self, split_id: str) -> list[str]:
        """Describes the start in words before a training, with a warning of other images."""
        name = self.published.hash[:12]
        told = (
            "with its discriminator"
            if self.critic
            else "with a fresh discriminator; `train --keep-critic` publishes both"
        )
        lines = [f"starts from generator {name}, {in_thousands(self.kimg)}, {told}"]
        if others := self.others(split_id):
            named = "; ".join(f"{one['dataset']}, split {one['split_id']}"[:60] for one in others)
            lines.append(
                f"warning: generator {name} has seen images of another split ({named}); the new "
                "one is only taken where --generator names it, and its card says so"
            )
        return lines


def start_from(
    published: Published, preset: Preset, dataset: Dataset, *, fresh_critic: bool = False
) -> Start:
    """Checks that a training of the preset can begin with a published generator.

    `fresh_critic` leaves its discriminator aside. `InvalidInput` (exit code 3) names the
    differences if the networks are not alike; `UsageFailure` (2) for a training that grows.
    """
    if preset.grow_end:
        raise UsageFailure(
            "--init begins with a network of full size, and --grow-end with half of it",
            remedy="leave one of them out",
        )
    blank = _blank(preset, dataset)
    network = generator_store.network(published)
    wrong = _differences(network, blank)
    if not wrong and float(network.state_dict().get(_GROWTH, torch.ones([]))) < 1:
        wrong = ["its last block has not grown in yet"]
    _refuse(f"generator {published.hash[:12]}", wrong, _options_of(published))
    critic = None if fresh_critic else generator_store.critic(published)
    if critic is None:
        return Start(published, None)
    weights, name = critic
    blank_critic = TrainState.without_memory(preset, dataset).discriminator
    expected = {key: list(value.shape) for key, value in blank_critic.state_dict().items()}
    found = {key: list(value.shape) for key, value in weights.items() if key in expected}
    missing = [f"{key} is missing" for key in expected.keys() - found.keys()]
    missing += [f"{key} is unknown" for key in weights.keys() - expected.keys() - _GROWN_ALONE]
    shapes = [
        f"{key} is {found[key]}, not {expected[key]}"
        for key in found
        if found[key] != expected[key]
    ]
    _refuse(
        f"the discriminator of generator {published.hash[:12]}",
        sorted([*missing, *shapes]),
        "--fresh-critic begins with another discriminator; else the options of its training",
    )
    return Start(published, name)


def _refuse(what: str, wrong: list[str], remedy: str) -> None:
    if wrong:
        more = f" (and {len(wrong) - _NAMED} more)" if len(wrong) > _NAMED else ""
        raise InvalidInput(
            f"--init: {what} does not fit this training: {'; '.join(wrong[:_NAMED])}{more}",
            remedy=remedy,
        )


def _options_of(published: Published) -> str:
    return (
        f"`stylegan-mix generators show {published.hash[:12]}` tells its settings: give the same "
        "preset and options, or train without --init"
    )


def _blank(preset: Preset, dataset: Dataset) -> Generator:
    """Builds the generator of the training without memory for its weights."""
    with torch.device("meta"):
        return build_generator(
            preset,
            resolution=dataset.resolution,
            channels=dataset.channels,
            classes=dataset.num_classes,
        )


def _differences(network: Generator, wanted: Generator) -> list[str]:
    """Lists in words the settings, or else the weights, in which two generators differ."""
    has, needs = _settings(network), _settings(wanted)
    wrong = [
        f"{name} is {has[name]}, not {needs[name]}" for name in has if has[name] != needs[name]
    ]
    if wrong:
        return wrong
    shapes, expected = (
        {name: list(value.shape) for name, value in one.state_dict().items() if name != _GROWTH}
        for one in (network, wanted)
    )
    return [
        f"{name} is {shapes.get(name, 'missing')}, not {expected.get(name, 'known')}"
        for name in sorted(shapes | expected)
        if shapes.get(name) != expected.get(name)
    ]


def _settings(network: Generator) -> dict[str, Any]:
    """Lists the settings that decide the function of a generator's weights."""
    synthesis, mapping = network.synthesis, network.mapping
    return {
        "the size of images": network.resolution,
        "their number of channels": network.image_channels,
        "the number of classes": network.classes,
        "z_dim": network.z_dim,
        "w_dim": network.w_dim,
        "mapping_layers": mapping.layers,
        "channels at 4, 8, ... pixels": [
            len(synthesis.get_parameter(f"b{size}.conv1.bias")) for size in synthesis.resolutions
        ],
        "label_weight": mapping.label_weight,
        "utlo_resolution": synthesis.utlo_resolution,
        "transitional conditioning": mapping.transitional,
    }


def take_start(state: TrainState, start: Start) -> None:
    """Gives the networks of a fresh training the weights of its start."""
    weights = generator_store.network(start.published).state_dict()
    weights.pop(_GROWTH, None)
    for network in (state.generator, state.average, *state.more):
        network.load_state_dict(weights)
    if start.critic is None:
        return
    found = generator_store.critic(start.published)
    if found is None or found[1] != start.critic:
        raise InvalidInput(
            f"the discriminator beside generator {start.published.hash[:12]} was replaced",
            remedy="the same command reads it anew",
        )
    known = state.discriminator.state_dict()
    state.discriminator.load_state_dict({name: found[0][name] for name in known})
