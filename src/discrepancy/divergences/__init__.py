"""Divergences between densities: f-divergences with their whole generator algebra, and closed forms."""

from discrepancy.divergences.closed_form import closed_form
from discrepancy.divergences.cone import ReversedDivergence, ScaledDivergence, SumDivergence
from discrepancy.divergences.custom import CustomDivergence
from discrepancy.divergences.divergence import Divergence, InfiniteDivergenceWarning
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.kullback_leibler import KL, Jeffreys, ReverseKL
from discrepancy.divergences.midpoint import JensenShannon, LeCam
from discrepancy.divergences.power import Alpha, ChiSquared, NeymanChiSquared, SquaredHellinger
from discrepancy.divergences.skewed import SkewedDivergence, SmoothedDivergence
from discrepancy.divergences.total_variation import TotalVariation

__all__ = [
    "KL",
    "Alpha",
    "ChiSquared",
    "CustomDivergence",
    "Divergence",
    "FDivergence",
    "InfiniteDivergenceWarning",
    "Jeffreys",
    "JensenShannon",
    "LeCam",
    "NeymanChiSquared",
    "ReverseKL",
    "ReversedDivergence",
    "ScaledDivergence",
    "SkewedDivergence",
    "SmoothedDivergence",
    "SquaredHellinger",
    "SumDivergence",
    "TotalVariation",
    "closed_form",
]
