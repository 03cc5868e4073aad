"""The mapping network z, label -> w, and the discriminator's label mapper.

`N` batch, `Z` width of z, `K` classes, `D` width of w.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_mix.networks.layers import FullyConnected, normalize_second_moment
from stylegan_mix.rng import Draws

__all__ = ["Mapping", "class_weights", "move_average"]

LR_MUL = 0.01
W_AVG_DECAY = 0.995


def class_weights(label: Tensor, classes: int) -> Tensor:
    """Turns labels [N] int64 into one-hot rows; keeps rows [N,K] of class weights -> [N,K]."""
    if label.ndim == 2 and label.shape[1] == classes and label.is_floating_point():
        return label.to(torch.float32)
    if label.ndim != 1 or label.is_floating_point():
        raise ValueError(
            f"label must be integers [N] or floating-point weights [N, {classes}], "
            f"got {label.dtype} {list(label.shape)}"
        )
    rows = torch.zeros(len(label), classes, device=label.device)
    try:
        # Not one_hot, which waits for the least and the largest label to check them: a step that
        # waits for no number can be recorded.
        return rows.scatter_(1, label.long()[:, None], 1)
    except RuntimeError as error:
        low, high = label.min().item(), label.max().item()
        message = f"labels must lie in 0 to {classes - 1}, got {low} to {high}"
        raise ValueError(message) from error


@torch.no_grad()
def move_average(average: Tensor, w: Tensor) -> None:
    """Moves an average [D] of w, in place, towards the mean of a batch of w [N,D]."""
    average.lerp_(w.detach().mean(dim=0).to(average), 1 - W_AVG_DECAY)


class Mapping(nn.Module):
    """A z [N,Z] and a label -> w [N,D]: dense layers over the normalised z and embedding.

    The embedding e of the label is normalised, multiplied by `label_weight` and appended to z. In
    training mode Gaussian noise is added to e first. Its standard deviation is `label_noise`, times
    `label_noise_scale` [K] of the class if that is set. With z_dim = 0 the label alone is mapped;
    with classes = 0, z alone. `w_avg` [D] is the moving average of w that truncation pulls to; only
    `update_w_avg` changes it.

    With `transitional`, z alone enters the first layer. A linear layer of the embedding, with the
    same noise and weight, is added to its output, times `transition` (Shahbazi et al. 2022,
    Transitional-cGAN; we read it to have no activation). `transition` is a number from 0, where the
    label means nothing, to 1. It is state, and only training changes it.
    """

    w_avg: Tensor
    label_noise_scale: Tensor | None
    transition: Tensor

    def __init__(
        self,
        *,
        z_dim: int,
        classes: int,
        w_dim: int,
        layers: int,
        label_weight: float = 1.0,
        label_noise: float = 0.0,
        track_average: bool = True,
        transitional: bool = False,
    ) -> None:
        super().__init__()
        self.z_dim, self.classes, self.layers = z_dim, classes, layers
        self.label_weight, self.label_noise = label_weight, label_noise
        self.register_buffer("label_noise_scale", None, persistent=False)
        self.transitional = transitional
        if classes:
            self.embed = FullyConnected(classes, w_dim)
        width = z_dim + (w_dim if classes and not transitional else 0)
        for layer in range(layers):
            dense = FullyConnected(width, w_dim, act="lrelu", lr_mul=LR_MUL)
            self.add_module(f"fc{layer}", dense)
            width = w_dim
        if transitional:
            self.fc_label = FullyConnected(w_dim, w_dim, lr_mul=LR_MUL)
            self.register_buffer("transition", torch.zeros([]))
        if track_average:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, label: Tensor | None, *, draws: Draws = Draws()) -> Tensor:
        """Maps z [N,Z] (None if z_dim is 0) and label [N] or [N,K] (None if classes is 0) to [N,D].

        `draws` gives the label noise.
        """
        latent = self._latent(z) if self.z_dim else None
        if not self.classes and label is not None:
            raise ValueError("an unconditional network takes no label: pass None")
        return self._dense(latent, self._embedding(label, draws) if self.classes else None)

    def without_label(self, z: Tensor) -> Tensor:
        """Maps z [N,Z] with zeros in place of the embedding (UTLO) -> [N,D]."""
        latent = self._latent(z)
        return self._dense(latent, latent.new_zeros(len(latent), self.embed.weight.shape[0]))

    def _dense(self, latent: Tensor | None, embedding: Tensor | None) -> Tensor:
        """Runs the layers over normalised z [N,Z] and embedding [N,D], each None if absent."""
        entering = [latent] if self.transitional else [latent, embedding]
        parts = [part for part in entering if part is not None]
        x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        for layer in range(self.layers):
            x = self.get_submodule(f"fc{layer}")(x)
            if layer == 0 and self.transitional:
                x = x + self.transition * self.fc_label(embedding)
        return x

    def _latent(self, z: Tensor | None) -> Tensor:
        if z is None or z.ndim != 2 or z.shape[1] != self.z_dim:
            shape = None if z is None else list(z.shape)
            raise ValueError(f"z must have shape [N, {self.z_dim}], got {shape}")
        return normalize_second_moment(z.to(torch.float32))

    def _embedding(self, label: Tensor | None, draws: Draws) -> Tensor:
        if label is None:
            raise ValueError(f"a network of {self.classes} classes needs a label, got None")
        weights = class_weights(label, self.classes)
        e = self.embed(weights)
        if self.training and self.label_noise > 0:
            noise = self.label_noise * draws.normal(*e.shape, device=e.device)
            if self.label_noise_scale is not None:
                noise = noise * (weights @ self.label_noise_scale)[:, None]
            e = e + noise
        e = normalize_second_moment(e)
        return e * self.label_weight if self.label_weight != 1 else e

    def update_w_avg(self, w: Tensor) -> None:
        """Moves `w_avg` towards the mean of a batch of w [N,D]."""
        move_average(self.w_avg, w)
