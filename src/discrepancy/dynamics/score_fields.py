"""Scores in closed form, as truths to test against, and what turns a network into a score."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._validate import as_tensor, at_least, positive, sample, weights
from discrepancy.dynamics.denoising import Score, spread
from discrepancy.dynamics.schedules import NoiseSchedule, VarianceExploding


class MixtureScore:
    """The exact score of noisy data from a Gaussian mixture sum_k w_k N(m_k, C_k).

    At level sigma the data a (Y_0 + sigma e) follow the mixture of N(a m_k, a^2 (C_k + sigma^2 I)). means (K, d), covariances
    (K, d, d), symmetric and possibly singular, component weights (K,) (equal where omitted); K = 1 is a Gaussian. Serves as a
    score on y (B, d), sigma (B,). Set-up K d^3; a call B K d^2 time and B K d memory. Raises ValueError for shapes that do not
    fit and covariances that are not positive semi-definite.
    """

    def __init__(
        self, means: Any, covariances: Any, component_weights: Any = None, schedule: NoiseSchedule | None = None
    ) -> None:
        """Diagonalise the covariances once; all noise levels share their axes."""
        self.means = sample(means, "means")
        k, d = self.means.shape
        C = as_tensor(covariances, "covariances", like=self.means).to(self.means.dtype)
        if C.shape != (k, d, d):
            raise ValueError(f"covariances must have shape {(k, d, d)} to go with means {(k, d)}, got {tuple(C.shape)}")
        self.values, self.axes = torch.linalg.eigh(C)
        if bool((self.values < -1e-6 * self.values.abs().max()).any()) or not torch.allclose(C, C.mT):
            raise ValueError(
                f"covariances must be symmetric with eigenvalues >= 0, got a smallest one of {float(self.values.min()):.6g}"
            )
        self.values = self.values.clamp_min(0)
        self.weights = weights(component_weights, (k,), "component_weights", like=self.means)
        self.schedule = schedule if schedule is not None else VarianceExploding()

    def _parts(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """log w_k N_k (B, K) and the score of every component (B, K, d), both at x = y / a and in units of x."""
        a, s = self.schedule.scale(sigma), sigma
        x = y / a[:, None]
        turned = torch.einsum("kij,bki->bkj", self.axes, x[:, None] - self.means)  # coordinates along the axes
        variance = self.values + s[:, None, None].square()
        scaled = turned / variance
        d = y.shape[-1]
        log_density = -((turned * scaled).sum(-1) + variance.log().sum(-1) + d * math.log(2 * math.pi)) / 2
        return self.weights.log() + log_density, -torch.einsum("kij,bkj->bki", self.axes, scaled)

    def log_density(self, y: Tensor, sigma: Tensor) -> Tensor:
        """log p_sigma(y), (B,)."""
        return torch.logsumexp(self._parts(y, sigma)[0], -1) - y.shape[-1] * self.schedule.scale(sigma).log()

    def __call__(self, y: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """grad log p_sigma(y), (B, d)."""
        log_share, scores = self._parts(y, sigma)
        share = torch.softmax(log_share, -1)
        return (share[..., None] * scores).sum(1) / self.schedule.scale(sigma)[:, None]


class EmpiricalScore:
    """The exact score of noisy draws from a finite sample: what denoising score matching on that sample converges to.

    p_sigma is the kernel density estimate (1/n) sum_i N(a x_i, (a sigma)^2 I), hence a (mean of the sample weighted by nearness
    - y/a) / (a sigma)^2. A diffusion model that reached it would return its training data. Sample (n, ...); serves on y of the
    same event shape. A call costs B n d, and B n memory.
    """

    def __init__(self, data: Any, schedule: NoiseSchedule | None = None) -> None:
        """Keep the sample, flat."""
        self.data = sample(as_tensor(data, "data").flatten(1), "data")
        self.schedule = schedule if schedule is not None else VarianceExploding()

    def __call__(self, y: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """grad log p_sigma(y), of the shape of y."""
        a = spread(self.schedule.scale(sigma), y)
        x = (y / a).flatten(1)
        share = torch.softmax(-torch.cdist(x, self.data).square() / (2 * sigma.to(y.dtype)[:, None].square()), -1)
        target = (share @ self.data).reshape(y.shape)
        return (target - y / a) / (a * spread(sigma, y).square())


class PreconditionedScore(nn.Module):
    """A score made of a network that sees inputs and gives outputs of unit size at every noise level.

    With x = y / a, the denoiser is D = c_skip x + c_out net(c_in x, log(sigma) / 4, condition), where c_skip = s^2 / (sigma^2 +
    s^2), c_out = sigma s / sqrt(sigma^2 + s^2), c_in = 1 / sqrt(sigma^2 + s^2), s = data_deviation and x centred at data_mean;
    the score is (D - x) / (a sigma^2). A network that gives zero is the exact denoiser of N(data_mean, s^2 I). The derivative of
    the loss under `NoiseVariance()` then has the same size at all small levels. net(x, level (B,), condition) -> shape of x.
    Source: Karras, Aittala, Aila and Laine (2022).
    """

    def __init__(
        self, net: nn.Module, schedule: NoiseSchedule | None = None, *, data_deviation: float = 0.5, data_mean: float = 0.0
    ) -> None:
        """Wrap `net`; raises ValueError unless data_deviation is positive."""
        super().__init__()
        self.net = net
        self.schedule = schedule if schedule is not None else VarianceExploding()
        self.data_deviation = positive(data_deviation, "data_deviation")
        self.data_mean = float(data_mean)

    def forward(self, y: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """The score at y (B, ...), sigma (B,)."""
        a, s = spread(self.schedule.scale(sigma), y), spread(sigma, y)
        x = y / a - self.data_mean
        total = torch.hypot(s, torch.full_like(s, self.data_deviation))
        out = self.net(x / total, sigma.to(y.dtype).log() / 4, condition)
        # (D - x) / sigma^2 with the cancelling parts taken out: c_skip - 1 = -sigma^2 / total^2.
        return (self.data_deviation / (s * total) * out - x / total.square()) / a


class GuidedScore:
    """Classifier-free guidance: (1 + weight) score(y | condition) - weight score(y | nothing).

    The unconditional score is the same function with the condition set to zero, as trained with condition dropout. weight = 0
    is the conditional score itself. Twice the work of `score`. Source: Ho and Salimans (2022).
    """

    def __init__(self, score: Score, weight: float) -> None:
        """Raises ValueError for a negative weight."""
        self.score, self.weight = score, at_least(weight, 0, "weight")

    def __call__(self, y: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """The guided score; raises ValueError without a condition."""
        if condition is None:
            raise ValueError("guidance needs a condition: without one, call the score itself")
        given = self.score(y, sigma, condition)
        return given if self.weight == 0 else given + self.weight * (given - self.score(y, sigma, torch.zeros_like(condition)))


__all__ = ["EmpiricalScore", "GuidedScore", "MixtureScore", "PreconditionedScore"]
