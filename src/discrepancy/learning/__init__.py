"""The one training loop, the average of the weights along it, and gradients of expectations over a policy's own samples."""

from discrepancy.learning.averaging import ExponentialAverage
from discrepancy.learning.policy_gradient import (
    MovingBaseline,
    clipped_surrogate,
    group_advantages,
    leave_one_out,
    score_function_loss,
)
from discrepancy.learning.training import Training

__all__ = [
    "ExponentialAverage",
    "MovingBaseline",
    "Training",
    "clipped_surrogate",
    "group_advantages",
    "leave_one_out",
    "score_function_loss",
]
