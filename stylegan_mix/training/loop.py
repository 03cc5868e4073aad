"""The training loop: steps, and what is logged, drawn and saved between them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_mix import rng
from stylegan_mix.checkpoint import Checkpoints
from stylegan_mix.console import Diverged, Progress, StopSignals, say
from stylegan_mix.datasets import Dataset
from stylegan_mix.networks import Generator, to_uint8
from stylegan_mix.training.diversity import diversity_ratios
from stylegan_mix.training.picture import class_grid
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step import Game, train_step

__all__ = ["CHECKPOINT_KIND", "Rhythm", "class_samples_of", "train"]

CHECKPOINT_KIND = "generator-training"
_CHECK_EVERY = 16


@dataclass(frozen=True)
class Rhythm:
    """How often things happen besides training; none of it changes the weights."""

    log_kimg: float = 10.0
    picture_kimg: float = 50.0
    save_seconds: float = 60.0


@dataclass
class _Tick:
    """Sums of the logged scalars since the last log line, on the device."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, facts: dict[str, Tensor]) -> None:
        for name, value in facts.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}


def train(
    state: TrainState,
    game: Game,
    dataset: Dataset,
    *,
    kimg: float,
    folder: Path,
    stop: StopSignals,
    rhythm: Rhythm = Rhythm(),
) -> None:
    """Trains in place up to `kimg` thousand images, going on from where `folder` stands.

    Appends to `folder/metrics.jsonl`, writes grids and checkpoints below `folder`. Raises the
    stop's failure, with everything saved, when `stop` asks for one, and `Diverged` (exit code 5)
    when a loss is no number any more; the last checkpoint is from before that.
    """
    last = total_steps(kimg, game.preset.batch)
    checkpoints = Checkpoints(folder / "checkpoints", CHECKPOINT_KIND)
    _resume(state, checkpoints, folder)
    progress = Progress(kimg, "kimg", "training", start=_kimg(state, game))
    saved, tick, seen = time.monotonic(), _Tick(), time.monotonic()
    ratios: list[float | None] = []
    log_steps, picture_steps = (
        total_steps(every, game.preset.batch) for every in (rhythm.log_kimg, rhythm.picture_kimg)
    )

    def save() -> None:
        checkpoints.save(state.step, state.state_dict(), {"kimg": _kimg(state, game)})

    while state.step < last:
        tick.add(train_step(state, game))
        if state.step % _CHECK_EVERY == 0 or state.step == last:
            _check_finite(tick, state, game, folder)
        if state.step % log_steps == 0 or state.step == last:
            ratios = diversity_ratios(class_samples_of(state.average, game, 64), dataset.train)
            now = time.monotonic()
            _log(folder, state, game, tick.means(), ratios, (now - seen))
            tick, seen = _Tick(), now
        if state.step % picture_steps == 0 or state.step == last:
            _picture(folder, state, game, dataset)
        progress.update(_kimg(state, game), **_progress_facts(ratios))
        if stop.requested:
            save()
            progress.close()
            raise stop.failure(saved=True, what=f"at {_kimg(state, game):.1f} of {kimg:g} kimg")
        if time.monotonic() - saved > rhythm.save_seconds:
            save()
            saved = time.monotonic()
    progress.close()
    save()


def total_steps(kimg: float, batch: int) -> int:
    """The number of steps that shows at least `kimg` thousand images; at least one."""
    return max(-(-int(kimg * 1000) // batch), 1)


def class_samples_of(network: Generator, game: Game, each: int) -> list[Tensor]:
    """`each` samples of every class from fixed latents: K tensors [each,H,W,C] uint8."""
    return [
        _samples(network, game, label, each, f"gan.shown.{label}")
        for label in range(len(game.reals.counts))
    ]


@torch.no_grad()
def _samples(network: Generator, game: Game, label: int, count: int, name: str) -> Tensor:
    draws = rng.Draws(rng.torch_generator(game.seed, name, device=game.device))
    z = draws.normal(count, game.preset.z_dim, device=game.device)
    labels = torch.full((count,), label, device=game.device)
    ws = network.ws(z, labels)
    return to_uint8(network.synthesis(ws, noise="random", draws=draws)).cpu()


def _resume(state: TrainState, checkpoints: Checkpoints, folder: Path) -> None:
    found = checkpoints.latest()
    if found is None:
        _cut_log(folder, 0)
        return
    step, saved, facts = found
    state.load_state_dict(saved)
    _cut_log(folder, step)
    say(f"going on from {facts['kimg']:.1f} kimg")


def _cut_log(folder: Path, step: int) -> None:
    """Drops lines of steps that will be taken again, and a torn last line."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    path.write_text("".join(kept))


def _kimg(state: TrainState, game: Game) -> float:
    return state.step * game.preset.batch / 1000


def _check_finite(tick: _Tick, state: TrainState, game: Game, folder: Path) -> None:
    broken = [name for name, total in tick.sums.items() if not bool(torch.isfinite(total))]
    if broken:
        raise Diverged(
            f"training diverged at {_kimg(state, game):.1f} kimg: {', '.join(broken)} is not a "
            f"finite number; the state before that is in {folder / 'checkpoints'}",
            remedy="try a lower --lr, a higher --r1-gamma, or --precision float32",
        )


def _log(
    folder: Path,
    state: TrainState,
    game: Game,
    means: dict[str, float],
    ratios: list[float | None],
    seconds: float,
) -> None:
    line: dict[str, Any] = {
        "step": state.step,
        "kimg": _kimg(state, game),
        **means,
        "diversity": ratios,
        "seconds": round(seconds, 3),
    }
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def _progress_facts(ratios: list[float | None]) -> dict[str, str]:
    known = [ratio for ratio in ratios if ratio is not None]
    return {"diversity": f"{min(known):.2f}..{max(known):.2f}"} if known else {}


def _picture(folder: Path, state: TrainState, game: Game, dataset: Dataset) -> None:
    pictures = folder / "grids"
    pictures.mkdir(exist_ok=True)
    path = pictures / f"kimg-{_kimg(state, game):09.3f}.png"
    class_grid(class_samples_of(state.average, game, 10), dataset).save(path)
