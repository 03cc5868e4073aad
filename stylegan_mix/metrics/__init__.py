"""Metrics of samples: distances in features, neighbours, accuracies, each with a real floor.

Each figure is one equation of plain arrays; `measure` puts them together, `report` prints them.
"""
