"""The mixture learner for networks: an ensemble sampled by Langevin dynamics that predicts by the mean of probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._validate import as_tensor, generator_or_default, whole_number
from discrepancy.divergences import KL, Divergence
from discrepancy.learning.langevin import Langevin
from discrepancy.learning.prior_coordinates import GaussianPrior, PriorCoordinates
from discrepancy.learning.training import Training
from discrepancy.methods.diagnostics.outcome_models import Likelihood, require_likelihood


def checked_data(x: Any, y: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """x (n, ...) in the network's precision and class numbers y (n,); ValueError for rows that do not pair or other labels."""
    rows, labels = as_tensor(x, "x").to(like), torch.as_tensor(y)
    if len(rows) == 0:
        raise ValueError("x is empty: n must be at least 1")
    if labels.shape != rows.shape[:1]:
        raise ValueError(f"y must have one class number for each of the {len(rows)} rows, got shape {tuple(labels.shape)}")
    if labels.is_floating_point() or bool((labels < 0).any()):
        raise ValueError(f"y must be class numbers 0, 1, ..., got {labels.dtype}, least {float(labels.min()):g}")
    return rows, labels.long().to(rows.device)


def log_likelihoods(likelihood: Likelihood, outputs: Tensor, y: Tensor) -> Tensor:
    """log P(y_i | x_i) (c, n) from outputs (c, n, ...); ValueError for a class that the outputs lack."""
    log_probs = likelihood.log_probs(outputs)
    if int(y.max()) >= log_probs.shape[-1]:
        raise ValueError(f"y has class {int(y.max())} and the network {log_probs.shape[-1]} outcomes")
    return log_probs.gather(-1, y.expand(log_probs.shape[:-1])[..., None])[..., 0]


@dataclass(frozen=True)
class FittedEnsemble:
    """Networks at `members` z (M, D) of `coordinates`; their prediction is the mean of their probabilities."""

    coordinates: PriorCoordinates
    members: Tensor
    likelihood: Likelihood

    @torch.no_grad()
    def log_probs(self, x: Any) -> Tensor:
        """log Q_s(y | x) (n, K) at x (n, ...): the logarithm of the mean of probabilities, not a mean of logarithms."""
        rows = as_tensor(x, "x").to(self.members)
        each = self.likelihood.log_probs(self.coordinates.outputs(self.members, rows))
        return torch.logsumexp(each, 0) - math.log(len(each))

    def predict_proba(self, x: Any) -> Tensor:
        """Q_s(y | x) (n, K)."""
        return self.log_probs(x).exp()

    def log_loss(self, x: Any, y: Any) -> float:
        """The mean of -log Q_s(y | x), in nats a row."""
        rows, labels = checked_data(x, y, self.members)
        return -float(self.log_probs(rows).gather(1, labels[:, None]).mean())

    def distilled(
        self, student: nn.Module, x: Any, *, divergence: Divergence | None = None, training: Training | None = None
    ) -> dict[str, list[float]]:
        """Train `student` in place to min D(Q_s || P_student) at x, Q_s given; any divergence, KL by default. Returns the record.

        The student is one network, which the bound on the regret does not cover.
        """
        rows = as_tensor(x, "x").to(self.members)
        target, D = self.log_probs(rows), KL() if divergence is None else divergence

        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            return D.from_logits(target, self.likelihood.log_probs(student(rows))).mean(), {}

        return (Training() if training is None else training).run(student.parameters(), step)


@dataclass(frozen=True)
class SGLDEnsemble:
    """Samples of the posterior w(theta) prod P_theta(y_i | x_i) at temperature one, from `chains` started at draws of the prior.

    The sampler works in coordinates z = theta / s in which the prior is standard normal, with gradient -z + (N/B) times that of a
    batch's log-likelihood: the sum over all N rows, whatever the batch. `sampler.samples` states of each chain are kept.
    batch_size None takes all rows at every step. The step must stay below 2 / curvature, of order 1/N. Raises TypeError without a
    likelihood and NumericalError where a state is not finite. Source: Feder, Urbanke and Fogel
    (2025); the sampler is that of welling-teh-2011.
    """

    likelihood: Likelihood
    prior: GaussianPrior = field(default_factory=GaussianPrior)
    sampler: Langevin = field(default_factory=Langevin)
    chains: int = 4
    batch_size: int | None = None

    references = ("universality-lens", "welling-teh-2011")

    def __post_init__(self) -> None:
        """Check the options."""
        require_likelihood(self.likelihood)
        whole_number(self.chains, 1, "chains")
        if self.batch_size is not None:
            whole_number(self.batch_size, 1, "batch_size")

    def fit(self, module: nn.Module, x: Any, y: Any, *, generator: torch.Generator | None = None) -> FittedEnsemble:
        """Sample the posterior of `module`'s parameters, whose values are not used, given x (n, ...) and classes y (n,)."""
        coordinates = PriorCoordinates(module, self.prior)
        rows, labels = checked_data(x, y, coordinates.scales)
        source = generator_or_default(generator, rows.device)
        size = len(rows) if self.batch_size is None else min(self.batch_size, len(rows))

        def gradient(z: Tensor) -> Tensor:
            batch = slice(None) if size == len(rows) else torch.randperm(len(rows), generator=source, device=rows.device)[:size]
            z = z.detach().requires_grad_()
            total = log_likelihoods(self.likelihood, coordinates.outputs(z, rows[batch]), labels[batch]).sum()
            (slope,) = torch.autograd.grad(total, z)
            return len(rows) / size * slope - z.detach()

        kept = self.sampler.run(gradient, coordinates.draw(self.chains, source), source)
        return FittedEnsemble(coordinates, kept.flatten(0, 1), self.likelihood)


def trained_point(
    module: nn.Module,
    x: Any,
    y: Any,
    likelihood: Likelihood,
    *,
    prior: GaussianPrior | None = None,
    prior_weight: float = 1.0,
    training: Training | None = None,
    generator: torch.Generator | None = None,
) -> FittedEnsemble:
    """One network, from a draw of the prior, at the maximum of log-likelihood + prior_weight log prior: an ensemble of one.

    prior_weight 1 is the maximum a posteriori (in the coordinates of the prior), 0 the maximum of the likelihood: the network
    that is trained to a loss of zero.
    """
    require_likelihood(likelihood)
    coordinates = PriorCoordinates(module, prior)
    rows, labels = checked_data(x, y, coordinates.scales)
    z = coordinates.draw(1, generator_or_default(generator, rows.device))
    point = nn.Parameter(z)

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        fit = log_likelihoods(likelihood, coordinates.outputs(point, rows), labels).sum()
        return (prior_weight * point.square().sum() / 2 - fit) / len(rows), {}

    (Training(steps=1000, learning_rate=0.02) if training is None else training).run([point], step)
    return FittedEnsemble(coordinates, point.detach(), likelihood)


__all__ = ["FittedEnsemble", "SGLDEnsemble", "checked_data", "log_likelihoods", "trained_point"]
