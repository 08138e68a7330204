"""Decoding of causal language models by a second law: contrast with another prompt, or verification against the input."""

from discrepancy.methods.decoding.baselines import contrastive_decoding, greedy
from discrepancy.methods.decoding.cached_model import CausalState
from discrepancy.methods.decoding.candidates import PlausibleSet
from discrepancy.methods.decoding.contrast import Contrast, Subtract
from discrepancy.methods.decoding.diver_decoding import Diver, DiverResult, diver_decoding, diver_generate
from discrepancy.methods.decoding.dual_prompt import ContrastiveGeneration, ContrastiveProcessor
from discrepancy.methods.decoding.embedding_score import DiscrepancyScore
from discrepancy.methods.decoding.gates import Always, DivergenceGate, Margin, NormalisedEntropy, StandardDeviation
from discrepancy.methods.decoding.pmi_sanity import pmi_sanity
from discrepancy.methods.decoding.spans import FixedSpan, LeftRisk, RightRisk
from discrepancy.methods.decoding.text import strip_examples
from discrepancy.methods.decoding.uscd import USCD, contrastive_generate, second_prompt_divergence, uscd
from discrepancy.methods.decoding.verification import BackwardTemplate, PointwiseMutualInformation, TextMutualInformation

__all__ = [
    "USCD",
    "Always",
    "BackwardTemplate",
    "CausalState",
    "Contrast",
    "ContrastiveGeneration",
    "ContrastiveProcessor",
    "DiscrepancyScore",
    "Diver",
    "DiverResult",
    "DivergenceGate",
    "FixedSpan",
    "LeftRisk",
    "Margin",
    "NormalisedEntropy",
    "PlausibleSet",
    "PointwiseMutualInformation",
    "RightRisk",
    "StandardDeviation",
    "Subtract",
    "TextMutualInformation",
    "contrastive_decoding",
    "contrastive_generate",
    "diver_decoding",
    "diver_generate",
    "greedy",
    "pmi_sanity",
    "second_prompt_divergence",
    "strip_examples",
    "uscd",
]
