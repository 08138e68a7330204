"""The prior weight of the networks close to a truth: plain Monte Carlo, multilevel splitting, or the Fisher spectrum."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._results import ConvergenceWarning
from discrepancy._validate import as_tensor, generator_or_default, positive, whole_number
from discrepancy.divergences import KL, Divergence
from discrepancy.learning.prior_coordinates import GaussianPrior, PriorCoordinates
from discrepancy.learning.splitting import MultilevelSplitting, Score
from discrepancy.methods.diagnostics.langevin_ensemble import checked_data, log_likelihoods
from discrepancy.methods.diagnostics.outcome_models import Likelihood, require_likelihood
from discrepancy.methods.diagnostics.quadratic_forms import log_probability_below
from discrepancy.methods.diagnostics.universality_lens import WeightCurve


@dataclass(frozen=True)
class PriorSampling:
    """Plain Monte Carlo from the prior: for weights above some 10 / draws."""

    draws: int = 10_000

    def __post_init__(self) -> None:
        """Check the option."""
        whole_number(self.draws, 1, "draws")


@dataclass(frozen=True)
class LaplaceWeight:
    """The module's own parameters as the centre, KL as half the Fisher form around them, its law under the prior by saddlepoint.

    Flat directions cost nothing, so that the spectrum's dimension counts and not the number of parameters. Right for small eps
    around a minimum that stands alone: other parameters that do as well, permuted units say, are not in it. Memory: rows x
    outcomes x parameters.
    """


Estimator = PriorSampling | MultilevelSplitting | LaplaceWeight
Teacher = nn.Module | Tensor


def weight_curve(
    module: nn.Module,
    x: Any,
    likelihood: Likelihood,
    *,
    teacher: Any = None,
    labels: Any = None,
    epsilons: Sequence[float] = (0.02, 0.05, 0.1, 0.2),
    prior: GaussianPrior | None = None,
    method: Estimator | None = None,
    divergence: Divergence | None = None,
    generator: torch.Generator | None = None,
) -> WeightCurve:
    """log W(eps) for a network: W(eps) = prior {theta: mean over x of KL(teacher(. | x) || P_theta(. | x)) <= eps}.

    P is the teacher's law, given, Q the network's. teacher: a module under the same likelihood, or probabilities (n, K); else
    labels: eps then is the excess log-loss at (x, labels) over that of `module` as it is, which must be the best found.
    method: `MultilevelSplitting()` (default), `PriorSampling()`, `LaplaceWeight()`. Another `divergence` than KL() is for
    exploration: a warning says that the regret is not bounded by it. The prior must be fixed before the data are seen.
    Warns (ConvergenceWarning) where no draw falls into a ball: log W is -inf there, and `upper` its limit. Raises ValueError for
    epsilons that are not positive and ascending, TypeError without a likelihood.
    """
    require_likelihood(likelihood)
    grid = tuple(float(positive(e, "epsilons")) for e in epsilons)
    if not grid or list(grid) != sorted(set(grid)):
        raise ValueError(f"epsilons must ascend, at least one, got {list(epsilons)!r}")
    D = KL() if divergence is None else divergence
    if not isinstance(D, Divergence):
        raise TypeError(f"divergence must be a Divergence object such as KL(), got {divergence!r}")
    if not isinstance(D, KL):
        warnings.warn(f"the regret is bounded by the ball of KL(truth || hypothesis), not of {D!r}", UserWarning, stacklevel=2)
    chosen = MultilevelSplitting() if method is None else method
    coordinates = PriorCoordinates(module, prior)
    source = generator_or_default(generator, coordinates.device)
    rows = as_tensor(x, "x").to(coordinates.scales)
    if (teacher is None) == (labels is None):
        raise ValueError("pass a teacher or labels, one of them: the truth that the balls are around")
    if labels is not None:
        score = _excess_loss(coordinates, likelihood, rows, labels)
    else:
        score = _distance(coordinates, likelihood, rows, _teacher_log_probs(teacher, rows, likelihood), D)
    if isinstance(chosen, LaplaceWeight):
        if not isinstance(D, KL):
            raise TypeError(f"LaplaceWeight() knows the curvature of KL only, got {D!r}: use MultilevelSplitting()")
        return _laplace(coordinates, likelihood, rows, score, grid)
    if isinstance(chosen, PriorSampling):
        return _plain(coordinates, score, grid, chosen, source, isinstance(D, KL))
    found = chosen.run(score, lambda count: coordinates.draw(count, source), grid, source)
    upper = tuple(
        v + 1.96 * e if v > -math.inf else _nothing_seen(found.log_probabilities)
        for v, e in zip(found.log_probabilities, found.standard_errors, strict=True)
    )
    return WeightCurve(
        grid, found.log_probabilities, found.standard_errors, tuple(min(u, 0.0) for u in upper), repr(chosen), isinstance(D, KL)
    )


def _nothing_seen(logs: tuple[float, ...]) -> float:
    """W grows with eps: what was not reached weighs no more than the smallest ball that was."""
    return min((v for v in logs if v > -math.inf), default=0.0)


def _teacher_log_probs(teacher: Any, rows: Tensor, likelihood: Likelihood) -> Tensor:
    with torch.no_grad():
        if isinstance(teacher, nn.Module):
            return likelihood.log_probs(teacher(rows))
        given = as_tensor(teacher, "teacher").to(rows)
    if given.ndim != 2 or len(given) != len(rows):
        raise ValueError(f"teacher must be probabilities ({len(rows)}, K), one row for each of x, got shape {tuple(given.shape)}")
    if bool((given < 0).any()) or bool(((given.sum(1) - 1).abs() > 1e-4).any()):
        raise ValueError("the teacher's rows must be probabilities that sum to one")
    return torch.log(given / given.sum(1, keepdim=True))


def _distance(coordinates: PriorCoordinates, likelihood: Likelihood, rows: Tensor, truth: Tensor, D: Divergence) -> Score:
    def score(z: Tensor) -> Tensor:
        log_q = likelihood.log_probs(coordinates.outputs(z, rows))
        if log_q.shape[-1] != truth.shape[-1]:
            raise ValueError(
                f"the teacher has {truth.shape[-1]} outcomes and the network {log_q.shape[-1]}: they must be the same"
            )
        return D.from_logits(truth.expand(log_q.shape), log_q).mean(-1)

    return score


def _excess_loss(coordinates: PriorCoordinates, likelihood: Likelihood, rows: Tensor, labels: Any) -> Score:
    rows, y = checked_data(rows, labels, coordinates.scales)

    def loss(z: Tensor) -> Tensor:
        return -log_likelihoods(likelihood, coordinates.outputs(z, rows), y).mean(-1)

    with torch.no_grad():
        best = loss(coordinates.point()[None])[0]
    return lambda z: loss(z) - best


@torch.no_grad()
def _plain(
    coordinates: PriorCoordinates, score: Score, grid: tuple[float, ...], option: PriorSampling, source: torch.Generator, kl: bool
) -> WeightCurve:
    from scipy.special import betaincinv

    n, block = option.draws, 500
    values = torch.cat([score(coordinates.draw(min(block, n - k), source)) for k in range(0, n, block)])
    hits = [int((values <= e).sum()) for e in grid]
    logs = tuple(math.log(h / n) if h else -math.inf for h in hits)
    errors = tuple(math.sqrt((1 - h / n) / h) if h else math.inf for h in hits)
    upper = tuple(math.log(betaincinv(h + 1, n - h, 0.975)) if h < n else 0.0 for h in hits)
    if not all(hits):
        empty = [e for e, h in zip(grid, hits, strict=True) if not h]
        warnings.warn(
            f"none of {n} draws of the prior is within {empty} of the truth (nearest: {float(values.min()):.4g}): log W is -inf "
            "there and `upper` its limit; use MultilevelSplitting()",
            ConvergenceWarning,
            stacklevel=3,
        )
    return WeightCurve(grid, logs, errors, upper, repr(option), kl)


def fisher_spectrum(
    module: nn.Module, x: Any, likelihood: Likelihood, *, prior: GaussianPrior | None = None
) -> tuple[Tensor, Tensor]:
    """The positive eigenvalues (r,) of the mean Fisher information at the module's parameters, in the coordinates of the prior,
    and the components (r,) of the parameters z along their directions. By one singular value decomposition (rows outcomes, D)."""
    coordinates = PriorCoordinates(module, prior)
    rows = as_tensor(x, "x").to(coordinates.scales)
    point = coordinates.point()

    def log_probs(z: Tensor) -> Tensor:
        return likelihood.log_probs(coordinates.outputs(z[None], rows))[0]

    slopes = torch.func.jacrev(log_probs)(point)
    # F = mean_i sum_k p_ik grad log p_ik grad log p_ik', hence the root of p on the gradients.
    factor = (log_probs(point).detach().exp().sqrt()[..., None] * slopes).reshape(-1, coordinates.dimension) / math.sqrt(
        len(rows)
    )
    _, values, directions = torch.linalg.svd(factor.double(), full_matrices=False)
    keep = values > values[0] * 1e-6 * math.sqrt(len(values))
    return values[keep].square(), directions[keep] @ point.double()


def _laplace(
    coordinates: PriorCoordinates, likelihood: Likelihood, rows: Tensor, score: Score, grid: tuple[float, ...]
) -> WeightCurve:
    spectrum, centre = fisher_spectrum(coordinates.module, rows, likelihood, prior=coordinates.prior)
    with torch.no_grad():
        gap = max(float(score(coordinates.point()[None])[0]), 0.0)
    logs = tuple(log_probability_below(e - gap, spectrum, centre) if e > gap else -math.inf for e in grid)
    if -math.inf in logs:
        warnings.warn(
            f"the module itself is {gap:.4g} from the truth: smaller balls are empty here", ConvergenceWarning, stacklevel=3
        )
    zero = (0.0,) * len(grid)
    return WeightCurve(grid, logs, zero, logs, f"LaplaceWeight() on {len(spectrum)} directions", True)


__all__ = ["LaplaceWeight", "PriorSampling", "fisher_spectrum", "weight_curve"]
