"""Transport maps with two doors: scikit-learn's fit and transform, and a torch module."""

from discrepancy.transport.maps.barycentric import BarycentricTransportMap
from discrepancy.transport.maps.covariances import LedoitWolfCovariance, RidgeCovariance, SampleCovariance
from discrepancy.transport.maps.entropic import EntropicTransportMap
from discrepancy.transport.maps.gaussian import GaussianTransportMap
from discrepancy.transport.maps.neural import MapNetwork, NeuralMap

__all__ = [
    "BarycentricTransportMap",
    "EntropicTransportMap",
    "GaussianTransportMap",
    "LedoitWolfCovariance",
    "MapNetwork",
    "NeuralMap",
    "RidgeCovariance",
    "SampleCovariance",
]
