"""A model's weights: their table of names and shapes, their files, and whether these are intact.

Imports only `spec`, `events` and `errors`.
"""

from harness.weights.table import WeightRow, digest, initial_weights, parameter_count, weight_table

__all__ = ["WeightRow", "digest", "initial_weights", "parameter_count", "weight_table"]
