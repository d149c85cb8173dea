"""Compression operators: one knob per group in [0, 1], 0 = untouched, to weights and a size."""

from harness.operators.magnitude import MagnitudePruning, ThresholdPruning
from harness.operators.operator import Operator, operators

__all__ = ["MagnitudePruning", "Operator", "ThresholdPruning", "operators"]
