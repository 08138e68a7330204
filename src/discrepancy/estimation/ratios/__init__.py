"""Density ratios from two samples: what each method fits, what judges it, and the divergences that follow."""

from discrepancy.estimation.ratios.calibration import CalibrationReport
from discrepancy.estimation.ratios.classifier import Classifier, NeuralLogistic
from discrepancy.estimation.ratios.d3re import TimeScore
from discrepancy.estimation.ratios.evaluation import Evaluation, OneStep, PlugIn
from discrepancy.estimation.ratios.features import Features, Joined, KernelFeatures, Quadratic
from discrepancy.estimation.ratios.fitted import DensityRatio, density_ratio
from discrepancy.estimation.ratios.gaussian_basis import Widths
from discrepancy.estimation.ratios.kliep import KLIEP
from discrepancy.estimation.ratios.least_squares import ULSIF, RelativeULSIF
from discrepancy.estimation.ratios.logistic import Logistic
from discrepancy.estimation.ratios.method import RatioMethod, RatioModel
from discrepancy.estimation.ratios.telescoping import Telescoping

__all__ = [
    "KLIEP",
    "ULSIF",
    "CalibrationReport",
    "Classifier",
    "DensityRatio",
    "Evaluation",
    "Features",
    "Joined",
    "KernelFeatures",
    "Logistic",
    "NeuralLogistic",
    "OneStep",
    "PlugIn",
    "Quadratic",
    "RatioMethod",
    "RatioModel",
    "RelativeULSIF",
    "Telescoping",
    "TimeScore",
    "Widths",
    "density_ratio",
]
