"""Methods that learn representations."""

from discrepancy.methods.representation.bures_wasserstein_normalization import Dispersion, SPDBatchNorm
from discrepancy.methods.representation.holder_divergence import (
    MissingModalityModel,
    SubsetTerms,
    SubsetTraining,
    nonempty_subsets,
)
from discrepancy.methods.representation.modality_networks import SharedBackbone, UNetBackbone
from discrepancy.methods.representation.segmentation_loss import (
    Normalised,
    ReleasedSoftmax,
    SegmentationLoss,
    segmentation_loss,
    soft_dice,
)
from discrepancy.methods.representation.spd_layers import BiMap, LogEig, ReEig, SPDNet
from discrepancy.methods.representation.spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    GeneralizedBuresWasserstein,
    LogEuclidean,
    SPDMetric,
)
from discrepancy.methods.representation.variational_transfer import VariationalTransfer

__all__ = [
    "AffineInvariant",
    "BiMap",
    "BuresWasserstein",
    "Dispersion",
    "GeneralizedBuresWasserstein",
    "LogEig",
    "LogEuclidean",
    "MissingModalityModel",
    "Normalised",
    "ReEig",
    "ReleasedSoftmax",
    "SPDBatchNorm",
    "SPDMetric",
    "SPDNet",
    "SegmentationLoss",
    "SharedBackbone",
    "SubsetTerms",
    "SubsetTraining",
    "UNetBackbone",
    "VariationalTransfer",
    "nonempty_subsets",
    "segmentation_loss",
    "soft_dice",
]
