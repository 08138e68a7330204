"""The one training loop, the average of the weights along it, features of a network, penalties on its slope, and gradients of
expectations over a policy's own samples."""

from discrepancy.learning.averaged_training import AveragedTraining
from discrepancy.learning.averaging import ExponentialAverage
from discrepancy.learning.early_stopping import EarlyStopping, HeldOutWatch
from discrepancy.learning.features import features_of, outputs_and_features
from discrepancy.learning.gradient_penalty import GradientPenalty
from discrepancy.learning.policy_gradient import (
    MovingBaseline,
    clipped_surrogate,
    group_advantages,
    leave_one_out,
    score_function_loss,
)
from discrepancy.learning.training import Training

__all__ = [
    "AveragedTraining",
    "EarlyStopping",
    "ExponentialAverage",
    "GradientPenalty",
    "HeldOutWatch",
    "MovingBaseline",
    "Training",
    "clipped_surrogate",
    "features_of",
    "group_advantages",
    "leave_one_out",
    "outputs_and_features",
    "score_function_loss",
]
