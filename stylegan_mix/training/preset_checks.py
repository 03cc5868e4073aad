"""Settings of a preset that cannot go together, that change nothing, or that come too late."""

from __future__ import annotations

from typing import Any

from stylegan_mix.errors import UsageFailure
from stylegan_mix.networks.shape import block_resolutions, channels_at, check_conditioning
from stylegan_mix.presets import Preset
from stylegan_mix.training.augmentation.policies import augmentation_named
from stylegan_mix.training.augmentation.strength import groups_by

__all__ = ["beyond", "check", "check_effect"]


def check(preset: Preset) -> None:
    """Raises `UsageFailure` (exit code 2) if settings of a preset cannot go together."""
    if preset.transition_start > preset.transition_end:
        raise UsageFailure(
            f"--transition-start {preset.transition_start:g} lies behind --transition-end "
            f"{preset.transition_end:g}"
        )
    _check_growing(preset)
    _check_heads(preset)
    try:
        check_conditioning(
            resolution=preset.resolution,
            classes=1,
            utlo_resolution=preset.utlo_resolution,
            transitional=preset.transition_end > 0,
        )
    except ValueError as error:
        raise UsageFailure(str(error)) from error
    if _warps(preset) and preset.utlo_resolution == 4:
        usual = _usual_utlo(preset.resolution)
        larger = f"--utlo-resolution {usual}, or " if usual != 4 else ""
        raise UsageFailure(
            "the geometry of ada cannot move images of 4 pixels, those of --utlo-resolution 4",
            remedy=f"{larger}--augment ada:blit,color",
        )
    groups_by(preset.ada_groups, [1])
    _check_strength(preset.strength)
    if preset.adapts_strength() and not preset.ada_kimg:
        raise UsageFailure(
            "--ada-kimg 0 leaves an adaptive strength no images to rise over",
            remedy="--ada-kimg 500, as published, or a fixed --strength",
        )
    preset.half_lives()
    if preset.merged_r1 and not preset.r1_gamma:
        raise UsageFailure(
            "--merged-r1 takes R1 from the pass on reals, and at --r1-gamma 0 there is none",
            remedy="add --r1-gamma 0.01, or leave it out",
        )
    if preset.path_weight and not preset.path_interval:
        raise UsageFailure("--path-weight needs a --path-interval, such as 4")
    if preset.twins and preset.batch % 2:
        raise UsageFailure(f"--twins needs an even batch, got {preset.batch}")
    if preset.twins and not preset.label_noise:
        raise UsageFailure(
            "--twins compares two draws of the label noise, and --label-noise is 0",
            remedy="--label-noise 0.75, as published for CIFAR-10-LT",
        )


def _check_growing(preset: Preset) -> None:
    if preset.grow_start > preset.grow_end:
        raise UsageFailure(
            f"--grow-start {preset.grow_start:g} lies behind --grow-end {preset.grow_end:g}",
            remedy="the last block fades in between the two",
        )
    if not preset.grow_end:
        return
    if preset.utlo_resolution or preset.transition_end or preset.probe_weight:
        with_it = {
            "--utlo-resolution": preset.utlo_resolution,
            "--transition-end": preset.transition_end,
            "--probe-weight": preset.probe_weight,
        }
        named = " and ".join(name for name, value in with_it.items() if value)
        raise UsageFailure(f"--grow-end cannot go with {named}", remedy="leave one of them out")
    if preset.discriminator == "skip":
        raise UsageFailure(
            "--grow-end cannot go with --discriminator skip",
            remedy="--discriminator orig or resnet",
        )
    if _warps(preset) and preset.resolution == 8:
        raise UsageFailure(
            "the geometry of ada cannot move images of 4 pixels, half the size of --grow-end here",
            remedy="--augment ada:blit,color",
        )


def _check_heads(preset: Preset) -> None:
    if preset.probe_weight and (preset.utlo_resolution or preset.transition_end):
        other = "--utlo-resolution" if preset.utlo_resolution else "--transition-end"
        raise UsageFailure(
            f"--probe-weight and {other} are two answers to where a second head sees the image",
            remedy="leave one of them out",
        )
    least = channels_at(preset.resolution, *preset.critic_widths())
    if least < 1:
        raise UsageFailure(
            f"--critic-channels {preset.critic_channels:g} leaves the discriminator no channel at "
            f"{preset.resolution} pixels, where the generator has "
            f"{channels_at(preset.resolution, preset.channel_base, preset.channel_max)}",
            remedy="a larger --critic-channels or --channel-base",
        )


def _warps(preset: Preset) -> bool:
    """Tells if the augmentation moves images."""
    augmentation = augmentation_named(preset.augment)
    return augmentation.uses_strength and "geometry" in augmentation.names


def _usual_utlo(resolution: int) -> int:
    """Advises a value of --utlo-resolution: 8, or 4 if images are too small for it."""
    return max(low for low in block_resolutions(resolution)[:-1] if low <= 8)


# Setting -> the setting it belongs to: alone it would change only the name of the training.
_BELONGS_TO = {
    "strength": ("augment", "ada"),
    "ada_target": ("augment", "ada"),
    "ada_kimg": ("augment", "ada"),
    "ada_groups": ("augment", "ada"),
    "noise_beta": ("label_noise", "0.75"),
    "twins_gamma": ("twins", "0.01"),
    "twins_kimg": ("twins", "0.01"),
    "gsr_beta": ("gsr", "0.5"),
    "lecam_kimg": ("lecam", "0.3"),
    "utlo_weight": ("utlo_resolution", ""),
}


def check_effect(preset: Preset, changes: dict[str, Any]) -> None:
    """Raises `UsageFailure` if a changed setting has no effect without another one."""
    is_on = {
        "augment": augmentation_named(preset.augment).uses_strength,
        "label_noise": bool(preset.label_noise or preset.critic_label_noise),
    }
    for name in changes:
        owner, such_as = _BELONGS_TO.get(name, ("", ""))
        if owner and changes[name] and not is_on.get(owner, getattr(preset, owner)):
            option, needed = (one.replace("_", "-") for one in (name, owner))
            value = such_as or _usual_utlo(preset.resolution)
            raise UsageFailure(
                f"--{option} {changes[name]} changes nothing without --{needed}",
                remedy=f"add --{needed} {value}, or leave it out",
            )
    _check_fixed(preset, changes)


def _check_fixed(preset: Preset, changes: dict[str, Any]) -> None:
    """Raises `UsageFailure` if a setting of the adaptive strength changes beside a fixed one."""
    for name in ("ada_target", "ada_groups"):
        if changes.get(name) is not None and preset.strength != "adaptive":
            raise UsageFailure(
                f"--{name.replace('_', '-')} {changes[name]} changes nothing beside the fixed "
                f"--strength {preset.strength}",
                remedy="leave one of them out",
            )


_BEGINS = ("twins_kimg", "lecam_kimg", "transition_start")


def beyond(preset: Preset, kimg: float) -> list[str]:
    """Lists, in words, the schedules that a budget of `kimg` thousand images does not reach."""
    found = [
        f"--{name.replace('_', '-')} {at:g} is not reached in {kimg:g} thousand images: what "
        "begins there needs a longer --kimg"
        for name in _BEGINS
        if (at := getattr(preset, name)) >= kimg
    ]
    if preset.transition_end > kimg:
        found.append(
            f"--transition-end {preset.transition_end:g} is not reached in {kimg:g} thousand "
            "images: the label counts in full with a longer --kimg alone"
        )
    if preset.grow_end > kimg:
        blurred = preset.grow_start >= kimg
        found.append(
            f"--grow-end {preset.grow_end:g} is not reached in {kimg:g} thousand images: "
            + ("every image is drawn at half the size, " if blurred else "the last block counts ")
            + ("enlarged" if blurred else "in full with a longer --kimg alone")
        )
    return found


def _check_strength(text: str) -> None:
    try:
        sound = text == "adaptive" or 0 <= float(text) <= 1
    except ValueError:
        sound = False
    if not sound:
        raise UsageFailure(f"--strength must be adaptive or a number from 0 to 1, got '{text}'")
