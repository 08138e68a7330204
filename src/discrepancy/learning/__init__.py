"""The one training loop, and the average of the weights along it."""

from discrepancy.learning.averaging import ExponentialAverage
from discrepancy.learning.training import Training

__all__ = ["ExponentialAverage", "Training"]
