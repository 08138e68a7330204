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
from discrepancy.methods.distillation.contrastive import DualForm, InfoNCE, MemoryBank, NoiseContrastive
from discrepancy.methods.distillation.exits import AutomaticExit, ConvolutionalExit, TokenExit, VectorExit
from discrepancy.methods.distillation.exposure_bias import ExposureBias, exposure_bias
from discrepancy.methods.distillation.feature_matching import FeatureMatching
from discrepancy.methods.distillation.ofa_kd import OFADistiller, ofa_loss
from discrepancy.methods.distillation.on_policy_distillation import OnPolicyDistillation, OnPolicyResult
from discrepancy.methods.distillation.output_costs import ClassTransport, RootDivergence
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
from discrepancy.methods.distillation.sinkhorn_kd import SinkhornKD, answer_rows, batch_transport_loss, sinkhorn_kd_loss
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
from discrepancy.methods.distillation.wcord import WCoRD, dual_dependency

__all__ = [
    "DIST",
    "AdaptiveDivergenceLoss",
    "AutomaticExit",
    "BalancedDivergence",
    "ClassTransport",
    "Confidence",
    "ContextTable",
    "ConvolutionalExit",
    "DecoupledDistillation",
    "Distilled",
    "DualForm",
    "EntropyGap",
    "Epochs",
    "ExposureBias",
    "FeatureMatching",
    "FixedWeights",
    "InfoNCE",
    "KnowledgeDistillation",
    "MemoryBank",
    "NoiseContrastive",
    "OFADistiller",
    "OnPolicyDistillation",
    "OnPolicyResult",
    "OnlineDistiller",
    "Outcome",
    "PlackettLuceDistillation",
    "PositionRanks",
    "PowerClip",
    "RatioWeightedKL",
    "RootDivergence",
    "Sandwich",
    "SequenceLevel",
    "SinkhornKD",
    "SlimmableBatchNorm",
    "SlimmableConv1d",
    "SlimmableConv2d",
    "SlimmableLinear",
    "SoftEntropyGap",
    "TokenDivergence",
    "TokenExit",
    "TokenLevel",
    "TopOne",
    "UniformRanks",
    "VectorExit",
    "WCoRD",
    "accumulated_divergence_loss",
    "adaptive_alpha",
    "adaptive_divergence_loss",
    "answer_rows",
    "balanced_divergence_loss",
    "batch_transport_loss",
    "decoupled_distillation_loss",
    "dist_loss",
    "distil",
    "distillation_loss",
    "dual_dependency",
    "exact_prefix_divergence",
    "exposure_bias",
    "gkd_divergence",
    "ofa_loss",
    "outcome_loss",
    "outputs_of",
    "plackett_luce_distillation_loss",
    "plackett_luce_log_prob",
    "prefix_law",
    "recalibrate_batchnorm",
    "sample_rankings",
    "set_width",
    "sinkhorn_kd_loss",
    "token_divergence",
]
