"""Long-tailed data, a StyleGAN2 trained on it, and banks of hybrid images drawn from it."""
