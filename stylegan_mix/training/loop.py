"""The training loop: steps, and what is logged, drawn, judged and saved between them."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix.datasets import Dataset
from stylegan_mix.errors import Diverged
from stylegan_mix.presets import Preset
from stylegan_mix.progress import StopSignals, say

if TYPE_CHECKING:
    from stylegan_mix.training.state import TrainState
    from stylegan_mix.training.step_inputs import Game

from collections.abc import Iterable

import torch
from torch import Tensor

from stylegan_mix import rng
from stylegan_mix.checkpoint import Checkpoints
from stylegan_mix.errors import InvalidInput, MissingEnvironment, is_out_of_memory
from stylegan_mix.generators.class_grid import save_grid, shown_classes, watched_classes
from stylegan_mix.networks import Generator, to_uint8
from stylegan_mix.numerics import operators_on
from stylegan_mix.progress import Progress
from stylegan_mix.training import alarms
from stylegan_mix.training.alarms import Alarms
from stylegan_mix.training.augmentation.strength import taken_signs
from stylegan_mix.training.captured_steps import player_of
from stylegan_mix.training.journal import Journal
from stylegan_mix.training.saved_structure import Many, differences
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step import train_step
from stylegan_mix.training.step_inputs import Game
from stylegan_mix.training.tick import Tick, broken

__all__ = [
    "CHECKPOINT_KIND",
    "Rhythm",
    "Trained",
    "class_samples_of",
    "diverged",
    "lost_picture",
    "numerics_of",
    "samples_each",
    "saved_states",
    "total_steps",
    "train",
]

CHECKPOINT_KIND = "generator-training"
_CHECK_EVERY = 16
# How many differences of a saved state are named.
_NAMED = 5
# Samples of a class for a log, and of all classes: drawing them must cost little of 10 kimg.
_MOST_SAMPLES, _FEWEST_SAMPLES, _ALL_SAMPLES = 64, 16, 1600


@dataclass(frozen=True)
class Rhythm:
    """How often things happen besides training; without a collapse none of it changes weights.

    What a training goes back to after a collapse is kept every `picture_kimg`.
    """

    log_kimg: float = 10.0
    picture_kimg: float = 50.0
    save_seconds: float = 60.0


# A saved state: its step, the state and the facts beside it.
Saved = tuple[int, dict[Any, Any], dict[str, Any]]


class _Lost(Exception):
    """The training has no use from here on: why."""


def train(
    state: TrainState,
    game: Game,
    dataset: Dataset,
    *,
    kimg: float,
    folder: Path,
    stop: StopSignals,
    rhythm: Rhythm = Rhythm(),
    graphs: bool = True,
) -> list[dict[str, str | int]]:
    """Trains in place up to `kimg` thousand images, going on from where `folder` stands.

    Appends to `folder/metrics.jsonl`, writes grids and checkpoints below `folder`. Where a class
    collapses or a loss is no number any more, goes back once to the last kept step and on with
    other draws; the second time raises `Diverged` (exit code 5) with a picture in the folder.
    Raises the stop's failure, with everything saved, when `stop` asks for one. Gives what computed
    it, `numerics_of`, more than one where that changed on the way. `graphs` lets a
    training in one process replay its steps.
    """
    training = _Training(state, game, dataset, kimg, folder, rhythm, graphs)
    training.resume()
    while True:
        try:
            training.run(stop)
            return training.numerics
        except _Lost as reason:
            training.go_back(str(reason))
        except RuntimeError as error:
            raise training.failed(error) from error


class _Training:
    """One training under way: its state, its folder, and the clock of its rhythm."""

    def __init__(
        self,
        state: TrainState,
        game: Game,
        dataset: Dataset,
        kimg: float,
        folder: Path,
        rhythm: Rhythm,
        graphs: bool,
    ) -> None:
        self.state, self.game, self.dataset = state, game, dataset
        self.graphs = graphs
        self.begin_attempt()
        self.kimg, self.folder = kimg, folder
        self.save_seconds = rhythm.save_seconds
        self.last, self.log_steps, self.picture_steps = (
            total_steps(every, game.preset.batch)
            for every in (kimg, rhythm.log_kimg, rhythm.picture_kimg)
        )
        self.tick, self.warned = Tick(), dict[str, str]()
        self.progress: Progress | None = None
        self.checkpoints, self.kept = saved_states(folder)
        self.numerics = [numerics_of(game)]
        self.journal = Journal(folder)
        self.alarms = Alarms(state.running, dataset.classes)

    @property
    def seen(self) -> float:
        """Thousands of images shown so far."""
        return self.state.step * self.game.preset.batch / 1000

    def save(self, place: Checkpoints) -> None:
        facts = {"kimg": self.seen, "numerics": self.numerics}
        if self.game.world.leads:
            state = {**self.state.state_dict(), "tick": self.tick.state_dict()}
            place.save(self.state.step, state, facts)

    def take(self, place: Checkpoints, found: Saved) -> None:
        """Takes a saved state over, and notes what computes otherwise from here on."""
        step, saved, facts = found
        if wrong := self.misfits(found):
            more = len(wrong) - _NAMED
            raise InvalidInput(
                f"the checkpoint of step {step} in {place.folder} is not one of this training: "
                + "; ".join(wrong[:_NAMED])
                + (f" (and {more} more)" if more > 0 else ""),
                remedy=f"move {self.folder} away to start again",
            )
        self.state.load_state_dict(saved)
        self.tick = Tick.of(saved["tick"], self.game.device)
        before = facts["numerics"]
        if before and before[-1] != self.numerics[-1]:
            changed = [key for key, value in before[-1].items() if self.numerics[-1][key] != value]
            self.say(
                f"begun with other {', '.join(changed)}: what comes out will not be the bytes of "
                "an undisturbed training"
            )
            self.numerics = [*before, *self.numerics]
        else:
            self.numerics = before or self.numerics
        self.begin_attempt()
        if self.game.world.leads:
            self.journal.cut(step)
        self.game.world.check_same(self.state.named_tensors())

    def misfits(self, found: Saved) -> list[str]:
        """What a saved state has, or lacks, that one of this training would not."""
        step, saved, facts = found
        structure = {**self.state.structure(step), "tick": Tick.STRUCTURE}
        names = self.state.moment_names("state")
        wrong = [
            *differences(saved, structure, "state", names),
            *differences(facts, {"kimg": 0.0, "numerics": Many([self.numerics[-1]])}, "facts"),
        ]
        if wrong:
            return wrong
        if saved["step"] != step:
            wrong.append(f"state/step is {saved['step']}")
        sums, counts = saved["tick"]["sums"], saved["tick"]["counts"]
        if sums.keys() != counts.keys() or 0 in counts.values():
            wrong.append("state/tick/counts are not those of state/tick/sums")
        # A training that diverges may be saved before it is seen to: the next look takes it back.
        if not any(map(broken, (sums, *(saved[name] for name in self.state.NETWORKS)))):
            wrong += [f"state/running/{one} is not finite" for one in broken(saved["running"])]
        return wrong

    def begin_attempt(self) -> None:
        """Goes on from the state as it is now: graphs of another state are no use."""
        self.game = dataclasses.replace(self.game, attempt=self.state.attempt)
        self.player = player_of(self.game, self.graphs)

    def saved(self) -> tuple[Checkpoints, Saved] | None:
        """The newest sound saved state and where it lies."""
        return self.newest(self.checkpoints, self.kept)

    def newest(self, *places: Checkpoints) -> tuple[Checkpoints, Saved] | None:
        """The newest sound state in the first of `places` that has one, and where it lies.

        None where nothing was ever saved, `InvalidInput` where nothing that was is sound.
        """
        damaged: InvalidInput | None = None
        for place in places:
            try:
                found = place.latest()
            except InvalidInput as error:
                damaged = error
                continue
            if found is not None:
                if damaged is not None:
                    self.say(f"{damaged}: taking what {place.folder} has")
                return place, found
        if damaged is not None:
            raise InvalidInput(
                f"no saved state in {self.folder} is sound",
                remedy=f"move {self.folder} away to start again",
            ) from damaged
        return None

    def resume(self) -> None:
        saved = self.saved()
        if saved is not None:
            self.take(*saved)
            self.say(f"going on from {self.seen:.1f} kimg")
        else:
            if self.game.world.leads:
                self.journal.cut(0)
            self.save(self.kept)

    def say(self, text: str) -> None:
        if self.game.world.leads:
            if self.progress is not None:
                self.progress.close()
            say(text)

    def run(self, stop: StopSignals) -> None:
        """Steps up to the budget; `_Lost` where the training collapses."""
        state, world = self.state, self.game.world
        self.progress = progress = Progress(self.kimg, "kimg", "training", start=self.seen)
        saved, shown = time.monotonic(), dict[str, str]()
        begun = state.step
        while state.step < self.last:
            self.tick.add(train_step(state, self.game, self.player))
            last = state.step == self.last
            logs, keeps = state.step % self.log_steps == 0, state.step % self.picture_steps == 0
            looks = logs or keeps or last
            # A loss may break in one process alone: all must go back together.
            checks = state.step % _CHECK_EVERY == 0 or looks
            if checks and world.any(bool(lost := broken(self.tick.sums))):
                raise _Lost(f"{', '.join(lost) or 'a loss'} is not a finite number")
            # The losses were those of the weights before this step.
            if looks and world.any(not state.is_finite()):
                raise _Lost("a weight is not a finite number")
            if logs or last:
                shown = self.log(counts=logs)
                self.tick = Tick()
            if keeps or last:
                self.draw(_picture(self.folder, "kimg", self.seen))
                # What a budget ends with off the rhythm, one long training would not have.
                if keeps and self.alarms.sound:
                    self.save(self.kept)
            if world.leads:
                progress.update(self.seen, **shown)
            # Every process must stop at the same step: asking them all costs a message.
            if (checks or world.size == 1) and world.any(stop.requested is not None):
                self.save(self.checkpoints)
                progress.close()
                world.barrier()
                raise stop.failure(saved=True, what=f"at {self.seen:.1f} of {self.kimg:g} kimg")
            if time.monotonic() - saved > self.save_seconds:
                self.save(self.checkpoints)
                saved = time.monotonic()
        progress.close()
        if state.step > begun:
            self.save(self.checkpoints)

    def log(self, *, counts: bool) -> dict[str, str]:
        """Writes a log line, judges the classes; facts for the progress line.

        Only what `counts` is remembered by the alarms: a log at the end of a budget does not.
        """
        network, world = self.state.average, self.game.world
        world.check_same(self.state.named_tensors())
        labels = watched_classes(self.dataset.counts)
        each = samples_each(len(labels))
        samples = class_samples_of(network, self.game, each, labels)
        w = {c: _latents(network, self.game, c, each)[0][:, -1] for c in labels}
        health = alarms.measure(samples, w, self.dataset)
        means = {
            name: float(world.mean(torch.tensor(v, device=self.game.device)))
            for name, v in self.tick.means().items()
        }
        warnings = self.alarms.warnings(health, means)
        collapsed = ", ".join(self.alarms.collapsed(health, self.seen)) if counts else ""
        if collapsed:
            warnings["collapse"] = f"{collapsed} collapsed to a few pictures"
        signs = taken_signs(self.state.running, of="class")
        if world.leads:
            line = {"step": self.state.step, "kimg": self.seen, **means, "sign_class": signs}
            line |= health.plain()
            if self.game.feedback is not None:
                line["ada_p"] = self.state.running["ada.p"].tolist()
            seconds = round(self.tick.seconds, 3)
            self.journal.log({**line, "alarms": list(warnings.values()), "seconds": seconds})
        self.warn(warnings)
        if collapsed and self.game.preset.on_collapse == "rollback":
            raise _Lost(warnings["collapse"])
        facts = self.alarms.shown(health, warnings, means)
        if self.game.feedback is not None:
            facts["p"] = f"{float(self.state.running['ada.p'].max()):.2f}"
        return facts

    def warn(self, warnings: dict[str, str]) -> None:
        """Says what was not so at the log before."""
        for name, text in warnings.items():
            if self.warned.get(name) != text:
                self.say(f"alarm at {self.seen:.1f} kimg: {text}")
        self.warned = warnings

    def draw(self, picture: Path) -> None:
        """Writes a grid of every class."""
        if not self.game.world.leads:
            return
        labels = shown_classes(self.dataset.counts)
        samples = class_samples_of(self.state.average, self.game, 10, labels)
        save_grid(samples, self.dataset, picture)

    def failed(self, error: RuntimeError) -> Exception:
        """What to tell of memory that ran out or a GPU that failed; other errors as they are."""
        saved, batch = self.saved(), self.game.preset.batch
        kimg = 0 if saved is None else saved[1][0] * batch / 1000
        went_on, why = f"the same command goes on from {kimg:g} kimg", f"{error}".partition("\n")[0]
        if is_out_of_memory(error):
            return MissingEnvironment(
                f"out of memory at {self.seen:.1f} kimg, with batches of {batch} in "
                f"{self.game.world.size} process(es): {why}",
                remedy=f"{went_on} once there is more; else, as another training, --batch "
                f"{batch // 2} or --channel-max {self.game.preset.channel_max // 2}",
            )
        if "CUDA error" in why:  # PyTorch's and the compiled operators'
            return MissingEnvironment(
                f"the GPU failed at {self.seen:.1f} kimg: {why}",
                remedy=f"{went_on}, from {self.folder / 'checkpoints'}, on a sound GPU",
            )
        return error

    def go_back(self, reason: str) -> None:
        """Back to the last kept state, once; `Diverged` where there is none, or a second time."""
        at, world = self.seen, self.game.world
        picture = lost_picture(self.folder, at)
        self.draw(picture)
        found = None if self.state.attempt else self.newest(self.kept)
        if world.leads:
            self.journal.event(
                {"step": self.state.step, "kimg": at, "event": "lost", "reason": reason}
            )
        if found is None:
            again = " again, after it had been taken back once" if self.state.attempt else ""
            raise diverged(
                f"training diverged at {at:.1f} kimg{again}: {reason}; the last sound states are "
                f"in {self.folder}",
                picture,
                self.game.preset,
            )
        world.barrier()
        self.take(*found)
        self.state.attempt += 1
        self.begin_attempt()
        if world.leads:
            self.checkpoints.clear()
        self.save(self.checkpoints)
        self.say(f"{reason} at {at:.1f} kimg: back to {self.seen:.1f} kimg, on with other draws")


def saved_states(folder: Path) -> tuple[Checkpoints, Checkpoints]:
    """Where a training saves itself: what it goes on from, and what a collapse goes back to."""
    return (
        Checkpoints(folder / "checkpoints", CHECKPOINT_KIND),
        Checkpoints(folder / "kept", CHECKPOINT_KIND, keep=1),
    )


def diverged(text: str, picture: Path, preset: Preset, *, also: str = "") -> Diverged:
    """The end of a training that came to nothing: its picture, and what to try, `also` first."""
    short = preset.precision != "float32"
    return Diverged(
        f"{text}, a picture of it in {picture}",
        remedy=f"{also}try a smaller --lr or another --r1-gamma, --augment, a smaller "
        "--real-power, a safeguard such as --twins" + (", or --precision float32" if short else ""),
    )


def lost_picture(folder: Path, kimg: float) -> Path:
    """Where the picture of a training lies that came to nothing at `kimg`."""
    return _picture(folder, "lost", kimg)


def _picture(folder: Path, word: str, kimg: float) -> Path:
    return folder / "grids" / f"{word}-{kimg:09.3f}.png"


def numerics_of(game: Game) -> dict[str, str | int]:
    """What decides the last bits of a training beside its draws."""
    return {
        "device": game.device.type,
        "operators": operators_on(game.device.type),
        "torch": str(torch.__version__),
        "processes": game.world.size,
    }


def total_steps(kimg: float, batch: int) -> int:
    """The number of steps that shows at least `kimg` thousand images; at least one."""
    return max(-(-int(kimg * 1000) // batch), 1)


def samples_each(classes: int) -> int:
    """How many samples of each class a log looks at, where it looks at so many classes."""
    return max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, _ALL_SAMPLES // classes))


def class_samples_of(
    network: Generator, game: Game, each: int, labels: Iterable[int]
) -> dict[int, Tensor]:
    """`each` samples [each,H,W,C] uint8 of every class in `labels`, from fixed latents."""
    return {label: _samples(network, game, label, each) for label in labels}


@torch.no_grad()
def _samples(network: Generator, game: Game, label: int, count: int) -> Tensor:
    ws, draws = _latents(network, game, label, count)
    return to_uint8(network.synthesis(ws, noise="random", draws=draws)).cpu()


@torch.no_grad()
def _latents(network: Generator, game: Game, label: int, count: int) -> tuple[Tensor, rng.Draws]:
    """ws [count,L,D] of fixed latents of a class, and the draws to go on with."""
    generator = rng.torch_generator(game.seed, f"gan.shown.{label}", device=game.device)
    draws = rng.Draws(generator)
    z = draws.normal(count, game.preset.z_dim, device=game.device)
    return network.ws(z, torch.full((count,), label, device=game.device)), draws


@dataclass(frozen=True)
class Trained:
    """A training that has reached its budget."""

    state: TrainState
    game: Game
    numerics: list[dict[str, str | int]]
