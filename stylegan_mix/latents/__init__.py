"""Latent mixing: the plan of a bank's rows (no torch), and the spaces that mix them."""
