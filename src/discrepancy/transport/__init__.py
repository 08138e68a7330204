"""Optimal transport between samples."""

from discrepancy.transport.barycenters import (
    Barycenter,
    DebiasedBarycenter,
    EntropicBarycenter,
    ExactBarycenter,
    FixedSupportBarycenter,
    OptimisedWeights,
    barycenter,
    fixed_support_barycenter,
)
from discrepancy.transport.coupling import PairedRows, sample_coupling
from discrepancy.transport.dependency import AllPairs, Halves, ProductSample, Shuffled, WassersteinDependency
from discrepancy.transport.distributed import Distributed
from discrepancy.transport.energy_sliced import Energy, EnergySlicedWasserstein, ExponentialEnergy, PowerEnergy
from discrepancy.transport.entropic.divergence import SinkhornDivergence
from discrepancy.transport.entropic.epsilon import RelativeEpsilon
from discrepancy.transport.entropic.grid.axes import Grid
from discrepancy.transport.entropic.grid.sinkhorn import GridSinkhorn, GridSinkhornDivergence
from discrepancy.transport.entropic.log_sinkhorn import LogSinkhorn
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.entropic.sinkhorn import Sinkhorn
from discrepancy.transport.entropic.sinkhorn_newton_sparse import SinkhornNewtonSparse
from discrepancy.transport.entropic.solver import EntropicSolver
from discrepancy.transport.exact.choose import ExactSolver, NetworkSimplex
from discrepancy.transport.exact.optimal_transport import OptimalTransport
from discrepancy.transport.gaussian.geometry import (
    GaussianBarycenter,
    GaussianMap,
    bures_barycenter,
    bures_exp,
    bures_geodesic,
    bures_log,
    bures_wasserstein,
)
from discrepancy.transport.gaussian.mixture import GaussianMixture, mixture_wasserstein
from discrepancy.transport.gaussian.wasserstein import GaussianWasserstein
from discrepancy.transport.graphs.dual_norm import DualNorm
from discrepancy.transport.graphs.sobolev_distance import SobolevDistance
from discrepancy.transport.graphs.sobolev_ipm import SobolevIPM
from discrepancy.transport.graphs.space import MetricMeasureSpace
from discrepancy.transport.gromov.gromov_wasserstein import GromovWasserstein
from discrepancy.transport.invariant_cost import InvariantCost
from discrepancy.transport.laguerre import LaguerreCells
from discrepancy.transport.low_rank.sinkhorn import LowRankResult, LowRankSinkhorn
from discrepancy.transport.maps import (
    BarycentricTransportMap,
    EntropicTransportMap,
    GaussianTransportMap,
    LedoitWolfCovariance,
    MapNetwork,
    NeuralMap,
    RidgeCovariance,
    SampleCovariance,
)
from discrepancy.transport.max_sliced import MaxSlicedEstimate, MaxSlicedWasserstein
from discrepancy.transport.monge_gap import MongeGap, MongeGapResult
from discrepancy.transport.orlicz.distance import OrliczWasserstein
from discrepancy.transport.orlicz.entropic_plan import EntropicPlan
from discrepancy.transport.orlicz.excess import excess_mass, excess_mass_bound
from discrepancy.transport.orlicz.functions import CustomOrlicz, ExponentialPower, OrliczFunction, Power
from discrepancy.transport.orlicz.norm import luxemburg_norm
from discrepancy.transport.partial.mass import MassShare
from discrepancy.transport.partial.partial_sinkhorn import PartialSinkhorn
from discrepancy.transport.partial.partial_transport import PartialTransport
from discrepancy.transport.partial.result import PartialResult
from discrepancy.transport.proximal import InexactProximal
from discrepancy.transport.semi_discrete import SemiDiscrete, SemiDiscreteEstimate
from discrepancy.transport.sliced import SlicedEstimate, SlicedWasserstein
from discrepancy.transport.sliced_controls import BothBounds, ControlVariate, CustomControl, LowerBound, UpperBound
from discrepancy.transport.unbalanced.divergence import UnbalancedSinkhornDivergence
from discrepancy.transport.unbalanced.newton import UnbalancedNewton
from discrepancy.transport.unbalanced.penalties import Balanced, KLPenalty, MarginalPenalty, TotalVariationPenalty
from discrepancy.transport.unbalanced.result import UnbalancedResult
from discrepancy.transport.unbalanced.sinkhorn import UnbalancedSinkhorn
from discrepancy.transport.unrolled import UnrolledSinkhorn
from discrepancy.transport.von_mises_sliced import VonMisesFisherSliced, VonMisesFisherSlicedEstimate
from discrepancy.transport.wasserstein import Wasserstein

__all__ = [
    "AllPairs",
    "Balanced",
    "Barycenter",
    "BarycentricTransportMap",
    "BothBounds",
    "ControlVariate",
    "CustomControl",
    "CustomOrlicz",
    "DebiasedBarycenter",
    "Distributed",
    "DualNorm",
    "Energy",
    "EnergySlicedWasserstein",
    "EntropicBarycenter",
    "EntropicPlan",
    "EntropicSolver",
    "EntropicTransportMap",
    "ExactBarycenter",
    "ExactSolver",
    "ExponentialEnergy",
    "ExponentialPower",
    "FixedSupportBarycenter",
    "GaussianBarycenter",
    "GaussianMap",
    "GaussianMixture",
    "GaussianTransportMap",
    "GaussianWasserstein",
    "Grid",
    "GridSinkhorn",
    "GridSinkhornDivergence",
    "GromovWasserstein",
    "Halves",
    "InexactProximal",
    "InvariantCost",
    "KLPenalty",
    "LaguerreCells",
    "LedoitWolfCovariance",
    "LogSinkhorn",
    "LowRankResult",
    "LowRankSinkhorn",
    "LowerBound",
    "MapNetwork",
    "MarginalPenalty",
    "MassShare",
    "MaxSlicedEstimate",
    "MaxSlicedWasserstein",
    "MetricMeasureSpace",
    "MongeGap",
    "MongeGapResult",
    "NetworkSimplex",
    "NeuralMap",
    "OptimalTransport",
    "OptimisedWeights",
    "OrliczFunction",
    "OrliczWasserstein",
    "PairedRows",
    "PartialResult",
    "PartialSinkhorn",
    "PartialTransport",
    "Power",
    "PowerEnergy",
    "ProductSample",
    "RelativeEpsilon",
    "RidgeCovariance",
    "SampleCovariance",
    "SemiDiscrete",
    "SemiDiscreteEstimate",
    "SemiDualNewton",
    "Shuffled",
    "Sinkhorn",
    "SinkhornDivergence",
    "SinkhornNewtonSparse",
    "SlicedEstimate",
    "SlicedWasserstein",
    "SobolevDistance",
    "SobolevIPM",
    "TotalVariationPenalty",
    "UnbalancedNewton",
    "UnbalancedResult",
    "UnbalancedSinkhorn",
    "UnbalancedSinkhornDivergence",
    "UnrolledSinkhorn",
    "UpperBound",
    "VonMisesFisherSliced",
    "VonMisesFisherSlicedEstimate",
    "Wasserstein",
    "WassersteinDependency",
    "barycenter",
    "bures_barycenter",
    "bures_exp",
    "bures_geodesic",
    "bures_log",
    "bures_wasserstein",
    "excess_mass",
    "excess_mass_bound",
    "fixed_support_barycenter",
    "luxemburg_norm",
    "mixture_wasserstein",
    "sample_coupling",
]
