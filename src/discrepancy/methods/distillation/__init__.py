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
from discrepancy.methods.distillation.context_tables import ContextTable, exact_prefix_divergence, prefix_law
from discrepancy.methods.distillation.exposure_bias import ExposureBias, exposure_bias
from discrepancy.methods.distillation.on_policy_distillation import OnPolicyDistillation, OnPolicyResult
from discrepancy.methods.distillation.plackett_luce import plackett_luce_log_prob, sample_rankings
from discrepancy.methods.distillation.plackett_luce_distillation import (
    Confidence,
    PlackettLuceDistillation,
    PositionRanks,
    TopOne,
    UniformRanks,
    plackett_luce_distillation_loss,
)
from discrepancy.methods.distillation.prefix_gradient import (
    Outcome,
    SequenceLevel,
    TokenLevel,
    accumulated_divergence_loss,
    outcome_loss,
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
from discrepancy.methods.distillation.token_divergence import (
    RatioWeightedKL,
    TokenDivergence,
    gkd_divergence,
    token_divergence,
)
from discrepancy.methods.distillation.training import Distilled, Epochs, distil, outputs_of

__all__ = [
    "DIST",
    "AdaptiveDivergenceLoss",
    "BalancedDivergence",
    "Confidence",
    "ContextTable",
    "DecoupledDistillation",
    "Distilled",
    "EntropyGap",
    "Epochs",
    "ExposureBias",
    "FixedWeights",
    "KnowledgeDistillation",
    "OnPolicyDistillation",
    "OnPolicyResult",
    "OnlineDistiller",
    "Outcome",
    "PlackettLuceDistillation",
    "PositionRanks",
    "PowerClip",
    "RatioWeightedKL",
    "Sandwich",
    "SequenceLevel",
    "SlimmableBatchNorm",
    "SlimmableConv1d",
    "SlimmableConv2d",
    "SlimmableLinear",
    "SoftEntropyGap",
    "TokenDivergence",
    "TokenLevel",
    "TopOne",
    "UniformRanks",
    "accumulated_divergence_loss",
    "adaptive_alpha",
    "adaptive_divergence_loss",
    "balanced_divergence_loss",
    "decoupled_distillation_loss",
    "dist_loss",
    "distil",
    "distillation_loss",
    "exact_prefix_divergence",
    "exposure_bias",
    "gkd_divergence",
    "outcome_loss",
    "outputs_of",
    "plackett_luce_distillation_loss",
    "plackett_luce_log_prob",
    "prefix_law",
    "recalibrate_batchnorm",
    "sample_rankings",
    "set_width",
    "token_divergence",
]
