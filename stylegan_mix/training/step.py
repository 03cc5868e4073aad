"""One step of the game: the generator's phase, the discriminator's, and their lazy regularisers.

The phases and their order are those of StyleGAN2 (Karras et al. 2020): fresh latents in every
phase, one Adam per network. N is the number of rows that this process holds of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan_mix import rng
from stylegan_mix.presets import Preset
from stylegan_mix.training import losses, regularizers
from stylegan_mix.training.augmentation.strength import adjust, observe, ramped, strength_of
from stylegan_mix.training.critic_heads import Verdict, judge, judged_logits
from stylegan_mix.training.ema import ema_decay, update_ema
from stylegan_mix.training.schedules import faded_in, is_half, warming_share
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step_inputs import Game

__all__ = ["Due", "Facts", "play", "train_step"]

_PATH_DECAY = 0.01
_LECAM_DECAY = 0.99
_MOST_GRADIENT = 1e5


@dataclass(frozen=True)
class Latents:
    """The latents of a phase: z [N,Z] and labels [N]; two equal halves if `twins`.

    `draws` continues with the noise of labels and layers.
    """

    z: Tensor
    labels: Tensor
    draws: rng.Draws
    twins: bool = False


@dataclass(frozen=True)
class Fakes:
    """The images of a phase [N,C,H,W], with UTLO also low ones, and their ws [N,L,D].

    w [N,D] is the code of the labelled layers before styles were mixed. The two halves of twins
    share their z.
    """

    images: Tensor
    low: Tensor | None
    ws: Tensor
    w: Tensor


# Scalars to log by name, on the device.
Facts = dict[str, Tensor]


@dataclass(frozen=True)
class Due:
    """The regularisers due at a step; steps with the same value run the same operators.

    `half` is set while images have half the size.
    """

    path: bool
    r1: bool
    adjust: bool
    twins: bool
    lecam: bool
    half: bool = False

    @classmethod
    def at(cls, step: int, game: Game) -> Due:
        """Decides the regularisers of a step."""
        preset, feedback = game.preset, game.feedback
        seen = step * preset.batch / 1000
        return cls(
            path=preset.path_weight > 0 and step % preset.path_interval == 0,
            r1=preset.r1_gamma > 0 and step % preset.r1_interval == 0,
            adjust=feedback is not None and (step + 1) % feedback.every_steps == 0,
            twins=preset.twins > 0 and seen >= preset.twins_kimg,
            lecam=preset.lecam > 0 and step > 0 and seen >= preset.lecam_kimg,
            half=is_half(preset, step),
        )


def play(state: TrainState, game: Game) -> Facts:
    """Plays both players' phases of a step, without its end.

    At all steps with the same `Due` it runs the same operators on the same tensors. Everything else
    that depends on the step comes from `game`. So a GPU can repeat it as a graph.
    """
    step, due = state.step, Due.at(state.step, game)
    facts = _generator_phase(state, game)
    if due.path:
        facts["path_length"] = _path_phase(state, game)
    reals, labels = game.real_batch(step)
    if due.half:
        reals = state.discriminator.at_half(reals)
    facts |= _discriminator_phase(state, game, reals, labels)
    if due.r1 and not game.preset.merged_r1:
        facts["r1"] = _r1_phase(state, game, reals, labels)
    return facts


def train_step(
    state: TrainState, game: Game, player: Callable[[TrainState, Game], Facts] = play
) -> Facts:
    """Takes one step in place; returns scalar tensors to log, on the device.

    `player` may capture the operators of `play` and repeat them.
    """
    preset = game.preset
    _follow_schedules(state, preset)
    # A replayed step has the full learning rate built in.
    warming = warming_share(preset, state.step) < 1
    facts = play(state, game) if warming else player(state, game)
    state.step += 1
    seen = state.step * preset.batch + game.seen_before
    for average, kimg in state.averages(preset):
        decay = ema_decay(preset.batch, seen, kimg * 1000, preset.ema_ramp)
        update_ema(average, state.generator, decay)
    return facts


def _follow_schedules(state: TrainState, preset: Preset) -> None:
    """Sets the numbers of networks and optimisers that follow a schedule."""
    kimg = state.step * preset.batch / 1000
    if preset.transition_end:
        share = faded_in(kimg, preset.transition_start, preset.transition_end)
        state.generator.set_transition(share)
    if preset.grow_end:
        share = faded_in(kimg, preset.grow_start, preset.grow_end)
        state.generator.set_growth(share)
        state.discriminator.set_growth(share)
    if preset.lr_warmup:
        state.set_rates(warming_share(preset, state.step))


def _latents(state: TrainState, game: Game, phase: str, batch: int) -> Latents:
    """Draws the latents of a phase for `batch` images of the whole batch."""
    twins = phase == "g" and Due.at(state.step, game).twins
    drawn = batch // 2 if twins else batch
    draws = game.draws(f"gan.z.{phase}", state.step)
    z = draws.normal(game.world.rows(drawn), game.preset.z_dim, device=game.device)
    labels = game.labels(f"gan.label.{phase}", state.step, drawn)
    if twins:
        z, labels = torch.cat([z, z]), torch.cat([labels, labels])
    return Latents(z, labels, draws, twins)


def _fakes(state: TrainState, game: Game, phase: str, latents: Latents) -> Fakes:
    """Generates the images of a phase."""
    plain = state.generator.ws(latents.z, latents.labels, draws=latents.draws)
    ws = _mixed_styles(state, game, phase, latents, plain)
    images, low = state.generator.synthesis.with_low(
        ws, noise="random", draws=latents.draws, half=is_half(game.preset, state.step)
    )
    return Fakes(images, low, ws, plain[:, -1])


def _mixed_styles(
    state: TrainState, game: Game, phase: str, latents: Latents, ws: Tensor
) -> Tensor:
    """Replaces w from a random layer on by another w of the class, with chance `style_mixing`.

    The crossover is drawn for each image (Karras et al. 2019, section 3.1): [N,L,D] -> [N,L,D].
    """
    probability = game.preset.style_mixing
    if probability == 0:
        return ws
    draws, layers = game.draws(f"gan.mixing.{phase}", state.step), ws.shape[1]
    rows = len(ws)
    z = draws.normal(rows, game.preset.z_dim, device=game.device)
    first = draws.integers(1, layers, rows, device=game.device)
    mixes = draws.uniform(rows, device=game.device) < probability
    other = state.generator.ws(z, latents.labels, draws=draws)
    swapped = torch.arange(layers, device=game.device) >= first[:, None]
    return torch.where((swapped & mixes[:, None])[:, :, None], other, ws)


def _verdict(
    state: TrainState, game: Game, phase: str, images: Tensor, low: Tensor | None, labels: Tensor
) -> Verdict:
    """Judges images, which the discriminator sees augmented."""
    preset = game.preset
    images = _augmented(state, game, phase, images, labels)
    if low is not None:
        low = _augmented(state, game, f"{phase}.low", low, labels)
    return judge(
        state.discriminator,
        images,
        labels,
        low=low,
        utlo_weight=preset.utlo_weight,
        probe_weight=preset.probe_weight,
        transition=state.generator.mapping.transition if preset.transition_end else 1.0,
        draws=game.draws(f"gan.critic.{phase}", state.step),
    )


def _augmented(state: TrainState, game: Game, phase: str, images: Tensor, labels: Tensor) -> Tensor:
    draws = game.draws(f"gan.augment.{phase}", state.step)
    return game.augmentation(images, _strength(state, game, labels), draws)


def _strength(state: TrainState, game: Game, labels: Tensor) -> Tensor:
    """Computes the strength of the augmentation of every image [N]."""
    preset = game.preset
    if game.feedback is not None:
        return strength_of(state.running, game.groups[labels])
    if not game.augmentation.uses_strength:
        return torch.zeros(labels.shape, device=game.device)

    def strength(step: int) -> float:
        return ramped(float(preset.strength), step * preset.batch / 1000, preset.ada_kimg)

    return game.number(state.step, strength).expand(labels.shape)


def _generator_phase(state: TrainState, game: Game) -> Facts:
    preset, step = game.preset, state.step
    latents = _latents(state, game, "g", preset.batch)
    state.discriminator.requires_grad_(False)
    fakes = _fakes(state, game, "g", latents)
    state.generator.update_w_avg(game.world.all_rows(fakes.ws.detach()))
    verdict = _verdict(state, game, "g", fakes.images, fakes.low, latents.labels)
    loss = verdict.loss(losses.fool_loss).mean()
    facts = {"loss_g": loss.detach()}
    if latents.twins:
        one, two = (game.world.all_rows(half) for half in fakes.w.chunk(2))
        twins = regularizers.barlow_loss(one, two, preset.twins_gamma)
        facts["twins"] = twins.detach()
        loss = loss + preset.twins * twins
    if game.gsr_weights is not None:
        rows, columns = len(fakes.w), regularizers.most_square(preset.w_dim)[1]
        start = game.draws("gan.gsr", step).normal(rows, columns, device=game.device)
        norms = regularizers.squared_spectral_norm(fakes.w, start)
        facts["gsr"] = norms.detach().mean()
        loss = loss + preset.gsr * (game.gsr_weights[latents.labels] * norms).mean()
    loss.backward()
    state.discriminator.requires_grad_(True)
    return facts | _step("g", game, state.generator, state.generator_optimizer)


def _path_phase(state: TrainState, game: Game) -> Tensor:
    """Penalises path length on half a batch, every `path_interval` steps, times the interval."""
    preset, world = game.preset, game.world
    latents = _latents(state, game, "path", preset.batch // 2)
    fakes = _fakes(state, game, "path", latents)
    noise = game.draws("gan.path", state.step).normal(*fakes.images.shape, device=game.device)
    lengths = world.all_rows(regularizers.path_lengths(fakes.images, fakes.ws, noise))
    mean = state.running["path.mean"].lerp(lengths.mean(), _PATH_DECAY)
    state.running["path.mean"].copy_(mean.detach())
    penalty = (lengths - mean).square().mean()
    (penalty * (preset.path_weight * preset.path_interval)).backward()
    _step("g", game, state.generator, state.generator_optimizer)
    return lengths.detach().mean()


def _discriminator_phase(state: TrainState, game: Game, reals: Tensor, labels: Tensor) -> Facts:
    preset, due = game.preset, Due.at(state.step, game)
    latents = _latents(state, game, "d", preset.batch)
    with torch.no_grad():
        fakes = _fakes(state, game, "d", latents)
    verdict = _verdict(state, game, "d", fakes.images, fakes.low, latents.labels)
    fake = verdict.judged
    loss_fake = verdict.loss(losses.spot_fake_loss).mean()
    (loss_fake + _lecam(state, game, "real", fake, regularizers.lecam_fake_penalty)).backward()
    merged = due.r1 and preset.merged_r1
    reals = reals.detach().requires_grad_(merged)
    low = state.discriminator.lowered(reals) if preset.utlo_resolution else None
    verdict = _verdict(state, game, "real", reals, low, labels)
    real = verdict.judged
    loss_real = verdict.loss(losses.spot_real_loss).mean()
    total = loss_real + _lecam(state, game, "fake", real, regularizers.lecam_real_penalty)
    facts = {"loss_d": (loss_fake + loss_real).detach()}
    if merged:
        penalty = losses.r1_penalty(real, reals).mean()
        facts["r1"] = penalty.detach()
        total = total + penalty * _r1_weight(preset)
    total.backward()
    facts |= _step("d", game, state.discriminator, state.discriminator_optimizer)
    real, fake = real.detach(), fake.detach()
    _remember_logits(state, game, real, fake)
    observe(state.running, real.sign(), labels, of="class", total=game.world.sum)
    if game.feedback is not None:
        groups = game.groups[labels]
        observe(state.running, real.sign(), groups, total=game.world.sum)
        if due.adjust:
            adjust(state.running, game.feedback, batch=preset.batch)
    return {**facts, "sign_real": real.sign().mean(), "sign_fake": fake.sign().mean()}


def _lecam(
    state: TrainState,
    game: Game,
    other: str,
    logits: Tensor,
    penalty: Callable[[Tensor, Tensor], Tensor],
) -> Tensor | float:
    """Computes the weighted LeCam penalty of logits against the moving average of the `other`."""
    if not Due.at(state.step, game).lecam:
        return 0.0
    begun = game.number(state.step, lambda step: 1 - _LECAM_DECAY**step)
    usual = state.running[f"lecam.{other}"] / begun
    return game.preset.lecam * penalty(logits, usual).mean()


def _remember_logits(state: TrainState, game: Game, real: Tensor, fake: Tensor) -> None:
    """Moves the averages of LeCam, which begin at 0 and are divided by 1 - decay^step in use."""
    if game.preset.lecam:
        for name, logits in (("real", real), ("fake", fake)):
            mean = game.world.mean(logits.mean())
            state.running[f"lecam.{name}"].lerp_(mean, 1 - _LECAM_DECAY)


def _r1_phase(state: TrainState, game: Game, reals: Tensor, labels: Tensor) -> Tensor:
    """Penalises with R1 every `r1_interval` steps, times the interval to keep gamma's meaning."""
    preset = game.preset
    reals = reals.detach().requires_grad_(True)
    shown = _augmented(state, game, "r1", reals, labels)
    draws = game.draws("gan.critic.r1", state.step)
    logits = judged_logits(state.discriminator, shown, labels, draws=draws)
    penalty = losses.r1_penalty(logits, reals)
    (penalty.mean() * _r1_weight(preset)).backward()
    _step("d", game, state.discriminator, state.discriminator_optimizer)
    return penalty.detach().mean()


def _r1_weight(preset: Preset) -> float:
    return preset.r1_gamma / 2 * preset.r1_interval


def _step(
    player: str, game: Game, network: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Facts:
    """Ends a phase of a player, `g` or `d`; in float16 returns the share of lost gradients."""
    facts: Facts = {}
    game.world.reduce_gradients(network.parameters())
    if game.preset.precision == "float16":
        facts[f"overflow_{player}"] = _bound_gradients(network)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return facts


def _bound_gradients(network: torch.nn.Module) -> Tensor:
    """Replaces NaN by 0 and infinities by 1e5: float16 overflows must not reach the weights.

    This stands in for a scaled loss, as in StyleGAN2-ADA (Karras et al. 2020). Returns the share of
    weights with such a gradient [].
    """
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    lost = torch.stack([(~gradient.isfinite()).sum() for gradient in gradients]).sum()
    for gradient in gradients:
        gradient.nan_to_num_(nan=0.0, posinf=_MOST_GRADIENT, neginf=-_MOST_GRADIENT)
    return lost / sum(gradient.numel() for gradient in gradients)
