"""Methods that learn representations."""

from discrepancy.methods.representation.bures_wasserstein_normalization import Dispersion, SPDBatchNorm
from discrepancy.methods.representation.spd_layers import BiMap, LogEig, ReEig, SPDNet
from discrepancy.methods.representation.spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    GeneralizedBuresWasserstein,
    LogEuclidean,
    SPDMetric,
)

__all__ = [
    "AffineInvariant",
    "BiMap",
    "BuresWasserstein",
    "Dispersion",
    "GeneralizedBuresWasserstein",
    "LogEig",
    "LogEuclidean",
    "ReEig",
    "SPDBatchNorm",
    "SPDMetric",
    "SPDNet",
]
