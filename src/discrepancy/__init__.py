"""discrepancy: measure, test and minimise the difference between two probability distributions.

Every public name resolves on first use, so that `import discrepancy` loads nothing heavy, torch included.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS: dict[str, str] = {
    # kinds and results
    "Discrepancy": "_kinds",
    "Dependence": "_kinds",
    "Estimate": "_results",
    "TestResult": "_results",
    "TransportResult": "_results",
    "Finding": "_results",
    "Outcome": "_results",
    "NumericalError": "_results",
    "ConvergenceWarning": "_results",
    "DataError": "comparison.errors",
    "OptionError": "comparison.errors",
    "register": "_registry",
    "flow": "dynamics",
    # transport
    "OptimalTransport": "transport",
    "Wasserstein": "transport",
    "SlicedWasserstein": "transport",
    "MaxSlicedWasserstein": "transport",
    "EnergySlicedWasserstein": "transport",
    "GaussianWasserstein": "transport",
    "OrliczWasserstein": "transport",
    "GromovWasserstein": "transport",
    "MetricMeasureSpace": "transport",
    "PartialTransport": "transport",
    "PartialSinkhorn": "transport",
    "SobolevDistance": "transport",
    "SobolevIPM": "transport",
    "barycenter": "transport",
    "fixed_support_barycenter": "transport",
    "Sinkhorn": "transport",
    "SinkhornDivergence": "transport",
    "Grid": "transport",
    "GridSinkhorn": "transport",
    "GridSinkhornDivergence": "transport",
    "UnbalancedSinkhorn": "transport",
    "UnbalancedSinkhornDivergence": "transport",
    # discrepancies from kernels
    "MMD": "kernel_methods",
    "EnergyDistance": "kernel_methods",
    "HSIC": "kernel_methods",
    "DistanceCovariance": "kernel_methods",
    "CKA": "kernel_methods",
    # divergences between densities
    "Divergence": "divergences",
    "FDivergence": "divergences",
    "CustomDivergence": "divergences",
    "KL": "divergences",
    "ReverseKL": "divergences",
    "Jeffreys": "divergences",
    "JensenShannon": "divergences",
    "Alpha": "divergences",
    "SquaredHellinger": "divergences",
    "ChiSquared": "divergences",
    "NeymanChiSquared": "divergences",
    "LeCam": "divergences",
    "TotalVariation": "divergences",
    "Renyi": "divergences",
    "Tsallis": "divergences",
    "CauchySchwarz": "divergences",
    "Hoelder": "divergences",
    "HoelderPseudo": "divergences",
    "Bregman": "divergences",
    # surfaces
    "Mesh": "methods.geometry.meshes",
    "mesh_discrepancy": "methods.geometry.meshes",
    "fit_mesh": "methods.geometry.diffeomorphic_mesh",
    # estimates from samples
    "estimate": "estimation",
    "density_ratio": "estimation.ratios",
    "mutual_information": "estimation",
    "conditional_mutual_information": "estimation",
    "entropy": "estimation",
    # points of a metric space
    "frechet_mean": "metric_spaces",
    "frechet_variance": "metric_spaces",
    # inference
    "bootstrap": "inference",
    "independence_test": "inference",
    "pairwise": "inference",
    "permutation_test": "inference",
    "frechet_anova": "inference",
    "frechet_jump_test": "inference",
    "local_frechet_regression": "inference",
    "cite": "_registry",
    # two data sets, a verdict
    "compare": "comparison.front",
    "ComparisonReport": "comparison.report",
    "Options": "comparison.model",
}

__all__ = sorted([*_EXPORTS, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"discrepancy.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'discrepancy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]


if TYPE_CHECKING:
    from discrepancy._kinds import Dependence as Dependence
    from discrepancy._kinds import Discrepancy as Discrepancy
    from discrepancy._registry import cite as cite
    from discrepancy._registry import register as register
    from discrepancy._results import ConvergenceWarning as ConvergenceWarning
    from discrepancy._results import Estimate as Estimate
    from discrepancy._results import Finding as Finding
    from discrepancy._results import NumericalError as NumericalError
    from discrepancy._results import Outcome as Outcome
    from discrepancy._results import TestResult as TestResult
    from discrepancy._results import TransportResult as TransportResult
    from discrepancy.comparison.errors import DataError as DataError
    from discrepancy.comparison.errors import OptionError as OptionError
    from discrepancy.comparison.front import compare as compare
    from discrepancy.comparison.model import Options as Options
    from discrepancy.comparison.report import ComparisonReport as ComparisonReport
    from discrepancy.divergences import KL as KL
    from discrepancy.divergences import Alpha as Alpha
    from discrepancy.divergences import Bregman as Bregman
    from discrepancy.divergences import CauchySchwarz as CauchySchwarz
    from discrepancy.divergences import ChiSquared as ChiSquared
    from discrepancy.divergences import CustomDivergence as CustomDivergence
    from discrepancy.divergences import Divergence as Divergence
    from discrepancy.divergences import FDivergence as FDivergence
    from discrepancy.divergences import Hoelder as Hoelder
    from discrepancy.divergences import HoelderPseudo as HoelderPseudo
    from discrepancy.divergences import Jeffreys as Jeffreys
    from discrepancy.divergences import JensenShannon as JensenShannon
    from discrepancy.divergences import LeCam as LeCam
    from discrepancy.divergences import NeymanChiSquared as NeymanChiSquared
    from discrepancy.divergences import Renyi as Renyi
    from discrepancy.divergences import ReverseKL as ReverseKL
    from discrepancy.divergences import SquaredHellinger as SquaredHellinger
    from discrepancy.divergences import TotalVariation as TotalVariation
    from discrepancy.divergences import Tsallis as Tsallis
    from discrepancy.dynamics import flow as flow
    from discrepancy.estimation import conditional_mutual_information as conditional_mutual_information
    from discrepancy.estimation import entropy as entropy
    from discrepancy.estimation import estimate as estimate
    from discrepancy.estimation import mutual_information as mutual_information
    from discrepancy.estimation.ratios import density_ratio as density_ratio
    from discrepancy.inference import bootstrap as bootstrap
    from discrepancy.inference import frechet_anova as frechet_anova
    from discrepancy.inference import frechet_jump_test as frechet_jump_test
    from discrepancy.inference import independence_test as independence_test
    from discrepancy.inference import local_frechet_regression as local_frechet_regression
    from discrepancy.inference import pairwise as pairwise
    from discrepancy.inference import permutation_test as permutation_test
    from discrepancy.kernel_methods import CKA as CKA
    from discrepancy.kernel_methods import HSIC as HSIC
    from discrepancy.kernel_methods import MMD as MMD
    from discrepancy.kernel_methods import DistanceCovariance as DistanceCovariance
    from discrepancy.kernel_methods import EnergyDistance as EnergyDistance
    from discrepancy.methods.geometry.diffeomorphic_mesh import fit_mesh as fit_mesh
    from discrepancy.methods.geometry.meshes import Mesh as Mesh
    from discrepancy.methods.geometry.meshes import mesh_discrepancy as mesh_discrepancy
    from discrepancy.metric_spaces import frechet_mean as frechet_mean
    from discrepancy.metric_spaces import frechet_variance as frechet_variance
    from discrepancy.transport import EnergySlicedWasserstein as EnergySlicedWasserstein
    from discrepancy.transport import GaussianWasserstein as GaussianWasserstein
    from discrepancy.transport import Grid as Grid
    from discrepancy.transport import GridSinkhorn as GridSinkhorn
    from discrepancy.transport import GridSinkhornDivergence as GridSinkhornDivergence
    from discrepancy.transport import GromovWasserstein as GromovWasserstein
    from discrepancy.transport import MaxSlicedWasserstein as MaxSlicedWasserstein
    from discrepancy.transport import MetricMeasureSpace as MetricMeasureSpace
    from discrepancy.transport import OptimalTransport as OptimalTransport
    from discrepancy.transport import OrliczWasserstein as OrliczWasserstein
    from discrepancy.transport import PartialSinkhorn as PartialSinkhorn
    from discrepancy.transport import PartialTransport as PartialTransport
    from discrepancy.transport import Sinkhorn as Sinkhorn
    from discrepancy.transport import SinkhornDivergence as SinkhornDivergence
    from discrepancy.transport import SlicedWasserstein as SlicedWasserstein
    from discrepancy.transport import SobolevDistance as SobolevDistance
    from discrepancy.transport import SobolevIPM as SobolevIPM
    from discrepancy.transport import UnbalancedSinkhorn as UnbalancedSinkhorn
    from discrepancy.transport import UnbalancedSinkhornDivergence as UnbalancedSinkhornDivergence
    from discrepancy.transport import Wasserstein as Wasserstein
    from discrepancy.transport import barycenter as barycenter
    from discrepancy.transport import fixed_support_barycenter as fixed_support_barycenter
