"""The one training loop."""

from discrepancy.learning.training import Training

__all__ = ["Training"]
