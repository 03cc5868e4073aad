"""Differentiable augmentation of the discriminator's images, and its strength."""
