"""Distillation: a student learns from what a teacher says, with any divergence of logits and any discrepancy of features."""

from discrepancy.methods.distillation.training import Distilled, Epochs, distil, outputs_of

__all__ = ["Distilled", "Epochs", "distil", "outputs_of"]
