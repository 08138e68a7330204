"""Distillation: a student learns from what a teacher says, with any divergence of logits and any discrepancy of features."""

from discrepancy.methods.distillation.alphanet import AdaptiveDivergenceLoss, PowerClip, adaptive_alpha, adaptive_divergence_loss
from discrepancy.methods.distillation.baselines import (
    DIST,
    DecoupledDistillation,
    KnowledgeDistillation,
    decoupled_distillation_loss,
    dist_loss,
    distillation_loss,
)
from discrepancy.methods.distillation.bd_kd import (
    BalancedDivergence,
    EntropyGap,
    FixedWeights,
    OnlineDistiller,
    SoftEntropyGap,
    balanced_divergence_loss,
)
from discrepancy.methods.distillation.plackett_luce import plackett_luce_log_prob, sample_rankings
from discrepancy.methods.distillation.plackett_luce_distillation import (
    Confidence,
    PlackettLuceDistillation,
    PositionRanks,
    TopOne,
    UniformRanks,
    plackett_luce_distillation_loss,
)
from discrepancy.methods.distillation.sandwich import Sandwich
from discrepancy.methods.distillation.slimmable import (
    SlimmableBatchNorm,
    SlimmableConv1d,
    SlimmableConv2d,
    SlimmableLinear,
    recalibrate_batchnorm,
    set_width,
)
from discrepancy.methods.distillation.training import Distilled, Epochs, distil, outputs_of

__all__ = [
    "DIST",
    "AdaptiveDivergenceLoss",
    "BalancedDivergence",
    "Confidence",
    "DecoupledDistillation",
    "Distilled",
    "EntropyGap",
    "Epochs",
    "FixedWeights",
    "KnowledgeDistillation",
    "OnlineDistiller",
    "PlackettLuceDistillation",
    "PositionRanks",
    "PowerClip",
    "Sandwich",
    "SlimmableBatchNorm",
    "SlimmableConv1d",
    "SlimmableConv2d",
    "SlimmableLinear",
    "SoftEntropyGap",
    "TopOne",
    "UniformRanks",
    "adaptive_alpha",
    "adaptive_divergence_loss",
    "balanced_divergence_loss",
    "decoupled_distillation_loss",
    "dist_loss",
    "distil",
    "distillation_loss",
    "outputs_of",
    "plackett_luce_distillation_loss",
    "plackett_luce_log_prob",
    "recalibrate_batchnorm",
    "sample_rankings",
    "set_width",
]
