"""How good samples are: distances in features, neighbours, accuracies; real against real beside it.

Every function is one equation of plain arrays; `measure` puts them together, `report` prints them.
"""
