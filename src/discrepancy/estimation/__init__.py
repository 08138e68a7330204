"""Divergences from samples, with their uncertainty."""

from discrepancy.estimation.association import Association, EachColumn, LinearInformation
from discrepancy.estimation.classifier_bound import ClassifierBound
from discrepancy.estimation.estimate import Method, estimate
from discrepancy.estimation.histogram_information import HistogramInformation
from discrepancy.estimation.information import (
    ConditionalInformationMethod,
    EntropyMethod,
    InformationMethod,
    SampleSizeWarning,
    conditional_mutual_information,
    entropy,
    mutual_information,
)
from discrepancy.estimation.kernel_density_information import KernelDensityInformation
from discrepancy.estimation.kozachenko_leonenko import KozachenkoLeonenko
from discrepancy.estimation.ksg import KSG
from discrepancy.estimation.margins import Margins, NormalScores, Standardised
from discrepancy.estimation.minde import MINDE, FittedMINDE, GaussianScores
from discrepancy.estimation.mixed_neighbors import DiscreteNeighbors, MixedNeighbors
from discrepancy.estimation.nearest import NearestNeighbors
from discrepancy.estimation.neighbor_information import NeighborInformation
from discrepancy.estimation.neighbor_ratio_test import NeighborRatioDiscrepancy
from discrepancy.estimation.neighbor_ratios import NearestNeighborRatios, RankEnsemble
from discrepancy.estimation.noise_network import ScoreTraining
from discrepancy.estimation.plug_in import PlugIn
from discrepancy.estimation.rank_extrapolation import RankExtrapolation
from discrepancy.estimation.reference import GaussianReference
from discrepancy.estimation.referenced_information import ReferencedInformation
from discrepancy.estimation.score_differences import Conditional, DenoisingLoss, Inside, Joint, Outside
from discrepancy.estimation.student_copula import StudentCopula
from discrepancy.estimation.variational import (
    NWJ,
    SMILE,
    Concatenated,
    CriticTraining,
    DonskerVaradhan,
    GaussianStart,
    GivenCritic,
    InfoNCE,
    JensenShannonBound,
    Separable,
)

__all__ = [
    "KSG",
    "MINDE",
    "NWJ",
    "SMILE",
    "Association",
    "ClassifierBound",
    "Concatenated",
    "Conditional",
    "ConditionalInformationMethod",
    "CriticTraining",
    "DenoisingLoss",
    "DiscreteNeighbors",
    "DonskerVaradhan",
    "EachColumn",
    "EntropyMethod",
    "FittedMINDE",
    "GaussianReference",
    "GaussianScores",
    "GaussianStart",
    "GivenCritic",
    "HistogramInformation",
    "InfoNCE",
    "InformationMethod",
    "Inside",
    "JensenShannonBound",
    "Joint",
    "KernelDensityInformation",
    "KozachenkoLeonenko",
    "LinearInformation",
    "Margins",
    "Method",
    "MixedNeighbors",
    "NearestNeighborRatios",
    "NearestNeighbors",
    "NeighborInformation",
    "NeighborRatioDiscrepancy",
    "NormalScores",
    "Outside",
    "PlugIn",
    "RankEnsemble",
    "RankExtrapolation",
    "ReferencedInformation",
    "SampleSizeWarning",
    "ScoreTraining",
    "Separable",
    "Standardised",
    "StudentCopula",
    "conditional_mutual_information",
    "entropy",
    "estimate",
    "mutual_information",
]
