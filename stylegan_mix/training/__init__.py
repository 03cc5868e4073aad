"""Training of a class-conditional StyleGAN2 on long-tailed data."""
