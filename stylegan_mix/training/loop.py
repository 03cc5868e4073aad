"""The training loop: steps, and the logs, grids, judgements and checkpoints between them."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from stylegan_mix.checkpoint import Checkpoints
from stylegan_mix.datasets import Dataset
from stylegan_mix.errors import Diverged, MissingEnvironment, is_out_of_memory
from stylegan_mix.generators.class_grid import save_grid, shown_classes, watched_classes
from stylegan_mix.numerics import operators_on
from stylegan_mix.presets import Preset
from stylegan_mix.session import Session
from stylegan_mix.training import alarms
from stylegan_mix.training.alarms import Alarms
from stylegan_mix.training.augmentation.strength import taken_signs
from stylegan_mix.training.captured_steps import player_of
from stylegan_mix.training.class_samples import class_latents, class_samples_of, samples_each
from stylegan_mix.training.journal import Journal
from stylegan_mix.training.plan import total_steps
from stylegan_mix.training.saves import Saved, Saves, require_fit
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step import train_step
from stylegan_mix.training.step_inputs import Game
from stylegan_mix.training.tick import Tick, broken

__all__ = [
    "Rhythm",
    "Trained",
    "diverged",
    "lost_picture",
    "numerics_of",
    "train",
]

_CHECK_EVERY = 16


@dataclass(frozen=True)
class Rhythm:
    """Intervals of all work besides training; without a collapse none of them changes weights.

    The state for a collapse is kept every `picture_kimg`.
    """

    log_kimg: float = 10.0
    picture_kimg: float = 50.0
    save_seconds: float = 60.0


class _Lost(Exception):
    """The end of a training that cannot go on; the text gives the reason."""


def train(
    state: TrainState,
    game: Game,
    dataset: Dataset,
    *,
    kimg: float,
    folder: Path,
    session: Session,
    rhythm: Rhythm = Rhythm(),
    graphs: bool = True,
) -> list[dict[str, str | int]]:
    """Trains in place up to `kimg` thousand images, from the newest state in `folder`.

    Appends to `folder/metrics.jsonl`, and writes grids and checkpoints below `folder`. If a class
    collapses or a loss is not finite, it goes back once to the last kept step and on with other
    draws; the second time it raises `Diverged` (exit code 5) with a picture in the folder. If the
    session asks for a stop, it saves everything and raises the stop's failure. Returns the numerics
    (`numerics_of`) that computed it, several if they changed on the way. `graphs` lets a training
    in one process replay its steps.
    """
    training = _Training(state, game, dataset, kimg, folder, session, rhythm, graphs)
    training.resume()
    while True:
        try:
            training.run()
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
        session: Session,
        rhythm: Rhythm,
        graphs: bool,
    ) -> None:
        self.state, self.game, self.dataset = state, game, dataset
        self.session, self.graphs = session, graphs
        self.begin_attempt()
        self.kimg, self.folder = kimg, folder
        self.save_seconds = rhythm.save_seconds
        self.last, self.log_steps, self.picture_steps = (
            total_steps(every, game.preset.batch)
            for every in (kimg, rhythm.log_kimg, rhythm.picture_kimg)
        )
        self.tick, self.warned = Tick(), dict[str, str]()
        self.drawn = False
        self.saves = Saves(folder)
        self.numerics = [numerics_of(game)]
        self.journal = Journal(folder, self.say)
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
        """Loads a saved state, and notes if different numerics compute from here on."""
        step, saved, facts = found
        require_fit(found, place, self.state, self.numerics[-1])
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

    def begin_attempt(self) -> None:
        """Goes on from the current state; graphs that were captured on another are dropped."""
        self.game = dataclasses.replace(self.game, attempt=self.state.attempt)
        self.player = player_of(self.game, self.graphs, self.say)

    def resume(self) -> None:
        saved = self.saves.newest(self.say)
        if saved is not None:
            self.take(*saved)
            self.say(f"going on from {self.seen:.1f} thousand images")
        else:
            if self.game.world.leads:
                self.journal.cut(0)
            self.save(self.saves.kept)

    def say(self, text: str) -> None:
        if self.game.world.leads:
            self.session.say(text)

    def run(self) -> None:
        """Steps up to the budget; raises `_Lost` if the training collapses."""
        state, world, stop = self.state, self.game.world, self.session.stop
        progress = self.session.track(self.kimg, "thousand images", "training", start=self.seen)
        saved, shown = time.monotonic(), dict[str, str]()
        begun = state.step
        while state.step < self.last:
            self.tick.add(train_step(state, self.game, self.player))
            last = state.step == self.last
            logs, keeps = state.step % self.log_steps == 0, state.step % self.picture_steps == 0
            looks = logs or keeps or last
            # A loss may be NaN in one process alone: all must go back together.
            checks = state.step % _CHECK_EVERY == 0 or looks
            if checks and world.any(bool(lost := broken(self.tick.sums))):
                raise _Lost(f"{', '.join(lost) or 'a loss'} is not a finite number")
            # The losses belong to the weights before this step.
            if looks and world.any(not state.is_finite()):
                raise _Lost("a weight is not a finite number")
            if logs or last:
                shown = self.log(counts=logs)
                self.tick = Tick()
            if keeps or last:
                self.draw(_picture(self.folder, "kimg", self.seen))
                # A longer training would not log here, off the rhythm.
                if keeps and self.alarms.sound:
                    self.save(self.saves.kept)
            if world.leads:
                progress.update(self.seen, **shown)
            # All processes must stop at the same step, and asking them costs a message.
            if (checks or world.size == 1) and world.any(stop.requested is not None):
                self.save(self.saves.checkpoints)
                progress.close()
                world.barrier()
                what = f"at {self.seen:.1f} of {self.kimg:g} thousand images"
                raise stop.failure(saved=True, what=what)
            if time.monotonic() - saved > self.save_seconds:
                self.save(self.saves.checkpoints)
                saved = time.monotonic()
        progress.close()
        if state.step > begun:
            self.save(self.saves.checkpoints)

    def log(self, *, counts: bool) -> dict[str, str]:
        """Writes a log line and judges the classes; returns facts for the progress line.

        The alarms remember it only if it `counts`: a log at the end of a budget does not.
        """
        network, world = self.state.average, self.game.world
        world.check_same(self.state.named_tensors())
        labels = watched_classes(self.dataset.counts)
        each = samples_each(len(labels))
        samples = class_samples_of(network, self.game, each, labels)
        w = {c: class_latents(network, self.game, c, each)[0][:, -1] for c in labels}
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
        """Prints the alarms that the previous log did not have."""
        for name, text in warnings.items():
            if self.warned.get(name) != text:
                self.say(f"alarm at {self.seen:.1f} thousand images: {text}")
        self.warned = warnings

    def draw(self, picture: Path) -> None:
        """Draws a grid of every class into a file."""
        if not self.game.world.leads:
            return
        labels = shown_classes(self.dataset.counts)
        samples = class_samples_of(self.state.average, self.game, 10, labels)
        save_grid(samples, self.dataset, picture)
        if not self.drawn:
            self.say(
                f"every class at {self.seen:.1f} thousand images, drawn as the training goes on: "
                f"{picture}"
            )
            self.drawn = True

    def failed(self, error: RuntimeError) -> Exception:
        """Translates an out-of-memory or GPU error for the user; returns other errors unchanged."""
        saved, batch = self.saves.newest(self.say), self.game.preset.batch
        kimg = 0 if saved is None else saved[1][0] * batch / 1000
        went_on = f"the same command goes on from {kimg:g} thousand images"
        why = f"{error}".partition("\n")[0]
        if is_out_of_memory(error):
            return MissingEnvironment(
                f"out of memory at {self.seen:.1f} thousand images, with batches of {batch} in "
                f"{self.game.world.size} process(es): {why}",
                remedy=f"{went_on} once there is more; else, as another training, --batch "
                f"{batch // 2} or --channel-max {self.game.preset.channel_max // 2}",
            )
        if "CUDA error" in why:  # PyTorch's and the compiled operators'
            return MissingEnvironment(
                f"the GPU failed at {self.seen:.1f} thousand images: {why}",
                remedy=f"{went_on}, from {self.folder / 'checkpoints'}, on a sound GPU",
            )
        return error

    def go_back(self, reason: str) -> None:
        """Goes back to the last kept state, once; `Diverged` the second time or without one."""
        at, world = self.seen, self.game.world
        picture = lost_picture(self.folder, at)
        self.draw(picture)
        found = None if self.state.attempt else self.saves.newest_kept(self.say)
        if world.leads:
            self.journal.event(
                {"step": self.state.step, "kimg": at, "event": "lost", "reason": reason}
            )
        if found is None:
            again = " again, after it had been taken back once" if self.state.attempt else ""
            raise diverged(
                f"training diverged at {at:.1f} thousand images{again}: {reason}; the last sound "
                f"states are in {self.folder}",
                picture,
                self.game.preset,
            )
        world.barrier()
        self.take(*found)
        self.state.attempt += 1
        self.begin_attempt()
        if world.leads:
            self.saves.checkpoints.clear()
        self.save(self.saves.checkpoints)
        self.say(
            f"{reason} at {at:.1f} thousand images: back to {self.seen:.1f}, on with other draws"
        )


def diverged(text: str, picture: Path, preset: Preset, *, also: str = "") -> Diverged:
    """Makes the error of a failed training: its picture, and remedies with `also` first."""
    short = preset.precision != "float32"
    return Diverged(
        f"{text}, a picture of it in {picture}",
        remedy=f"{also}try a smaller --lr or another --r1-gamma, --augment, a smaller "
        "--real-power, a safeguard such as --twins" + (", or --precision float32" if short else ""),
    )


def lost_picture(folder: Path, kimg: float) -> Path:
    """Returns the path of the picture of a training that failed at `kimg`."""
    return _picture(folder, "lost", kimg)


def _picture(folder: Path, word: str, kimg: float) -> Path:
    return folder / "grids" / f"{word}-{kimg:09.3f}.png"


def numerics_of(game: Game) -> dict[str, str | int]:
    """Names everything that decides the last bits of a training, beside its draws."""
    return {
        "device": game.device.type,
        "operators": operators_on(game.device.type),
        "torch": str(torch.__version__),
        "processes": game.world.size,
    }


@dataclass(frozen=True)
class Trained:
    """A training that has reached its budget."""

    state: TrainState
    game: Game
    numerics: list[dict[str, str | int]]
