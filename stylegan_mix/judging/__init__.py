"""The judge of generated rows: classifiers of the training part, and what they say of a bank."""
