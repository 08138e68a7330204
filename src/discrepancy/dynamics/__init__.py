"""Movement: particles along the gradient of a discrepancy, and diffusion models from schedule to sampler."""

from discrepancy.dynamics.denoising import Score, ScoreMatching, denoised, denoising_score_matching, perturb
from discrepancy.dynamics.noise_levels import (
    DenoiserVariance,
    DiscreteTimes,
    KarrasSpacing,
    LogNormalLevels,
    LogUniformLevels,
    MaximumLikelihood,
    NoiseLevels,
    NoiseVariance,
    Spacing,
    UniformSpacing,
    UniformTimes,
    Weighting,
)
from discrepancy.dynamics.ode import Euler, Integrator, Midpoint, RungeKutta4
from discrepancy.dynamics.particles import Flow, flow
from discrepancy.dynamics.samplers import (
    Ancestral,
    EulerMaruyama,
    Predictor,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    Sampler,
)
from discrepancy.dynamics.schedules import Cosine, NoiseSchedule, VarianceExploding, VariancePreserving
from discrepancy.dynamics.score_divergence import score_divergence, score_entropy
from discrepancy.dynamics.score_fields import EmpiricalScore, GuidedScore, MixtureScore, PreconditionedScore

__all__ = [
    "Ancestral",
    "Cosine",
    "DenoiserVariance",
    "DiscreteTimes",
    "EmpiricalScore",
    "Euler",
    "EulerMaruyama",
    "Flow",
    "GuidedScore",
    "Integrator",
    "KarrasSpacing",
    "LogNormalLevels",
    "LogUniformLevels",
    "MaximumLikelihood",
    "Midpoint",
    "MixtureScore",
    "NoiseLevels",
    "NoiseSchedule",
    "NoiseVariance",
    "PreconditionedScore",
    "Predictor",
    "PredictorCorrector",
    "ProbabilityFlow",
    "ReverseDiffusion",
    "RungeKutta4",
    "Sampler",
    "Score",
    "ScoreMatching",
    "Spacing",
    "UniformSpacing",
    "UniformTimes",
    "VarianceExploding",
    "VariancePreserving",
    "Weighting",
    "denoised",
    "denoising_score_matching",
    "flow",
    "perturb",
    "score_divergence",
    "score_entropy",
]
