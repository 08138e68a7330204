"""Methods that learn representations."""

from discrepancy.methods.representation.adversarial_inputs import FastGradientSign, ProjectedGradient
from discrepancy.methods.representation.bottleneck_regressor import BottleneckRegressor
from discrepancy.methods.representation.bures_wasserstein_normalization import Dispersion, SPDBatchNorm
from discrepancy.methods.representation.cs_cross_modal import CrossModalAligner, CrossModalLoss, Scheme
from discrepancy.methods.representation.cs_information_bottleneck import CSInformationBottleneck, information_plane
from discrepancy.methods.representation.holder_divergence import (
    MissingModalityModel,
    SubsetTerms,
    SubsetTraining,
    nonempty_subsets,
)
from discrepancy.methods.representation.modality_networks import SharedBackbone, UNetBackbone
from discrepancy.methods.representation.retrieval import mean_average_precision, median_rank, recall_at_k
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
    "BottleneckRegressor",
    "BuresWasserstein",
    "CSInformationBottleneck",
    "CrossModalAligner",
    "CrossModalLoss",
    "Dispersion",
    "FastGradientSign",
    "GeneralizedBuresWasserstein",
    "LogEig",
    "LogEuclidean",
    "MissingModalityModel",
    "Normalised",
    "ProjectedGradient",
    "ReEig",
    "ReleasedSoftmax",
    "SPDBatchNorm",
    "SPDMetric",
    "SPDNet",
    "Scheme",
    "SegmentationLoss",
    "SharedBackbone",
    "SubsetTerms",
    "SubsetTraining",
    "UNetBackbone",
    "VariationalTransfer",
    "information_plane",
    "mean_average_precision",
    "median_rank",
    "nonempty_subsets",
    "recall_at_k",
    "segmentation_loss",
    "soft_dice",
]
