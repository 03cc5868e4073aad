"""Equations of losses: pure functions of tensors, one value a row, each with its source."""
