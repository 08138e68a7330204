"""Divergences between densities: f-divergences with their whole generator algebra, and closed forms."""

from discrepancy.divergences.alpha_beta import AlphaBeta
from discrepancy.divergences.bregman import Bregman
from discrepancy.divergences.bregman_generators import (
    BregmanGenerator,
    FermiDirac,
    ItakuraSaito,
    NegativeEntropy,
    SquaredNorm,
)
from discrepancy.divergences.closed_form import closed_form
from discrepancy.divergences.cone import ReversedDivergence, ScaledDivergence, SumDivergence
from discrepancy.divergences.custom import CustomDivergence
from discrepancy.divergences.divergence import Divergence, InfiniteDivergenceWarning
from discrepancy.divergences.elementwise_generator import ElementwiseGenerator
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.hoelder import CauchySchwarz, Hoelder, HoelderPseudo, ProjectiveDivergence
from discrepancy.divergences.kullback_leibler import KL, Jeffreys, ReverseKL
from discrepancy.divergences.measures import MeasureDivergence, ReversedMeasureDivergence
from discrepancy.divergences.midpoint import JensenShannon, LeCam
from discrepancy.divergences.mixtures import MixtureBounds, mixture_bounds
from discrepancy.divergences.power import Alpha, ChiSquared, NeymanChiSquared, SquaredHellinger
from discrepancy.divergences.ratio import RatioDivergence, ReversedRatioDivergence
from discrepancy.divergences.renyi import Renyi, Tsallis
from discrepancy.divergences.robust import RobustBounds, dro_bounds
from discrepancy.divergences.simulated import monte_carlo_between
from discrepancy.divergences.skewed import SkewedDivergence, SmoothedDivergence
from discrepancy.divergences.skewed_jensen_shannon import SkewedJensenShannon
from discrepancy.divergences.stacked import GeneralizedCauchySchwarz, GeneralizedJensenShannon, StackedDivergence
from discrepancy.divergences.total_variation import TotalVariation
from discrepancy.divergences.truncated import TruncatedLogits, truncated
from discrepancy.divergences.variational import donsker_varadhan, optimal_critic, variational_bound, variational_estimate

__all__ = [
    "KL",
    "Alpha",
    "AlphaBeta",
    "Bregman",
    "BregmanGenerator",
    "CauchySchwarz",
    "ChiSquared",
    "CustomDivergence",
    "Divergence",
    "ElementwiseGenerator",
    "FDivergence",
    "FermiDirac",
    "GeneralizedCauchySchwarz",
    "GeneralizedJensenShannon",
    "Hoelder",
    "HoelderPseudo",
    "InfiniteDivergenceWarning",
    "ItakuraSaito",
    "Jeffreys",
    "JensenShannon",
    "LeCam",
    "MeasureDivergence",
    "MixtureBounds",
    "NegativeEntropy",
    "NeymanChiSquared",
    "ProjectiveDivergence",
    "RatioDivergence",
    "Renyi",
    "ReverseKL",
    "ReversedDivergence",
    "ReversedMeasureDivergence",
    "ReversedRatioDivergence",
    "RobustBounds",
    "ScaledDivergence",
    "SkewedDivergence",
    "SkewedJensenShannon",
    "SmoothedDivergence",
    "SquaredHellinger",
    "SquaredNorm",
    "StackedDivergence",
    "SumDivergence",
    "TotalVariation",
    "TruncatedLogits",
    "Tsallis",
    "closed_form",
    "donsker_varadhan",
    "dro_bounds",
    "mixture_bounds",
    "monte_carlo_between",
    "optimal_critic",
    "truncated",
    "variational_bound",
    "variational_estimate",
]
