"""Published generators: their store and cards, and the diversity of their images by class."""
