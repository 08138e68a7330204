"""Frechet means and variances over a metric of choice: distributions, covariances, networks, spheres, compositions."""

from discrepancy.metric_spaces.compositions import AitchisonSpace, SquareRootCompositionSpace
from discrepancy.metric_spaces.covariance_metrics import (
    AffineInvariant,
    Bures,
    Cholesky,
    CovarianceMetric,
    FlatMetric,
    Frobenius,
    LogCholesky,
    LogEuclidean,
    PowerMetric,
)
from discrepancy.metric_spaces.covariances import CorrelationSpace, CovarianceSpace
from discrepancy.metric_spaces.finite import CustomSpace, DistanceMatrixSpace, SampleSpace
from discrepancy.metric_spaces.means import frechet_mean, frechet_variance
from discrepancy.metric_spaces.networks import LaplacianSpace
from discrepancy.metric_spaces.quantiles import QuantileSpace
from discrepancy.metric_spaces.space import EuclideanSpace, FlatSpace, FrechetMean, MetricSpace
from discrepancy.metric_spaces.sphere import SphereSpace

__all__ = [
    "AffineInvariant",
    "AitchisonSpace",
    "Bures",
    "Cholesky",
    "CorrelationSpace",
    "CovarianceMetric",
    "CovarianceSpace",
    "CustomSpace",
    "DistanceMatrixSpace",
    "EuclideanSpace",
    "FlatMetric",
    "FlatSpace",
    "FrechetMean",
    "Frobenius",
    "LaplacianSpace",
    "LogCholesky",
    "LogEuclidean",
    "MetricSpace",
    "PowerMetric",
    "QuantileSpace",
    "SampleSpace",
    "SphereSpace",
    "SquareRootCompositionSpace",
    "frechet_mean",
    "frechet_variance",
]
