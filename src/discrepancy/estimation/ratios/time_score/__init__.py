"""The pieces of time-score estimators of density ratios: schedules, paths, losses, times and quadrature."""

from discrepancy.estimation.ratios.time_score.interpolants import (
    Coupling,
    DeterministicInterpolant,
    DiffusionBridge,
    IndependentCoupling,
    Interpolant,
    MiniBatchTransport,
    SchroedingerBridge,
)
from discrepancy.estimation.ratios.time_score.objectives import (
    BridgeWeight,
    ConditionalTarget,
    JointScoreMatching,
    Objective,
    TimeScoreMatching,
    TimeWeight,
    UnitWeight,
)
from discrepancy.estimation.ratios.time_score.quadrature import GaussLegendre, Quadrature, Simpson
from discrepancy.estimation.ratios.time_score.schedules import (
    CosinePath,
    FollmerPath,
    LinearPath,
    PathSchedule,
    VariancePreservingPath,
)

__all__ = [
    "BridgeWeight",
    "ConditionalTarget",
    "CosinePath",
    "Coupling",
    "DeterministicInterpolant",
    "DiffusionBridge",
    "FollmerPath",
    "GaussLegendre",
    "IndependentCoupling",
    "Interpolant",
    "JointScoreMatching",
    "LinearPath",
    "MiniBatchTransport",
    "Objective",
    "PathSchedule",
    "Quadrature",
    "SchroedingerBridge",
    "Simpson",
    "TimeScoreMatching",
    "TimeWeight",
    "UnitWeight",
    "VariancePreservingPath",
]
