"""Augmentation policies of whole batches, as tensor operations on the device of the images."""
