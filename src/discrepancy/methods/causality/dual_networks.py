"""The dual of a divergence ball as a learning problem: networks of the covariates give both multipliers, and the loss is
orthogonal to the propensity."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default
from discrepancy.divergences import FDivergence
from discrepancy.methods.causality.bounding import ADMITS, divergence_radius, radius_slope

_REACH = 20.0  # outputs of the networks are kept within +-20, smoothly


class DualLoss(nn.Module):
    """The mean of lambda (B_f(e) + g*((phi - u) / lambda)) + u at the arm that was taken: its minimum is the upper bound's.

    u = top - lambda f(0) (1 - fraction): for fractions in [0, 1] that is all u for which the conjugate is finite and the minimum
    can lie, so that every value is a valid bound and none needs a penalty. With `orthogonal`, each arm adds
    e lambda B_f'(e) (1[A = a] - e), whose mean is zero at the true propensity and whose slope in it cancels that of the rest:
    an error of the propensity then moves the minimiser by its square only.
    `divergence` D_f(P || Q): P is the law of phi(Y) given the arm, Q that under do(arm). Raises TypeError for f(0) = inf.
    """

    def __init__(self, divergence: FDivergence, top: float | Tensor, *, orthogonal: bool = True) -> None:
        """The loss for phi with values up to `top`."""
        super().__init__()
        self.divergence = ADMITS.check(divergence)
        self.top, self.orthogonal = top, orthogonal

    def forward(self, phi: Tensor, arm: Tensor, propensities: Tensor, log_price: Tensor, fraction: Tensor) -> Tensor:
        """phi and arm (..., n), the arm as an integer; propensities, log lambda, fraction (..., n, arms) -> one loss a row
        (..., n)."""
        return self.priced(phi, arm, *self.prices(arm, propensities), log_price, fraction)

    def prices(self, arm: Tensor, propensities: Tensor) -> tuple[Tensor, Tensor]:
        """What the propensities contribute: the radius at the arm taken (..., n), and the factors of lambda in the
        orthogonal term."""
        taken = arm.unsqueeze(-1)
        radius = divergence_radius(propensities.gather(-1, taken).squeeze(-1), self.divergence)
        if not self.orthogonal:
            return radius, torch.zeros_like(propensities)
        hit = torch.zeros_like(propensities).scatter(-1, taken, 1.0)
        return radius, propensities * radius_slope(propensities, self.divergence) * (hit - propensities)

    def priced(self, phi: Tensor, arm: Tensor, radius: Tensor, correction: Tensor, log_price: Tensor, fraction: Tensor) -> Tensor:
        """The loss of rows whose `prices` are known."""
        taken = arm.unsqueeze(-1)
        lam = torch.exp(log_price)
        price, part = (t.gather(-1, taken).squeeze(-1) for t in (lam, fraction))
        depth = self.divergence.at_zero * (1 - part)
        loss = self.top + price * (radius + conjugate_at(self.divergence, self.top - phi, price, depth) - depth)
        return loss + (lam * correction).sum(-1)


def dual_loss(
    phi: Tensor,
    arm: Tensor,
    propensities: Tensor,
    log_price: Tensor,
    fraction: Tensor,
    divergence: FDivergence,
    top: float,
    *,
    orthogonal: bool = True,
) -> Tensor:
    """The mean of `DualLoss`, as a function."""
    return DualLoss(divergence, top, orthogonal=orthogonal)(phi, arm, propensities, log_price, fraction).mean()


def conjugate_at(divergence: FDivergence, gap: Tensor, lam: Tensor, depth: Tensor) -> Tensor:
    """g*((phi - u) / lambda) for phi = top - gap and u = top - lambda depth, the pseudo-outcome of the last regression."""
    return divergence.reversed().conjugate(depth - gap / lam)


class DualNetworks(nn.Module):
    """`copies` networks side by side, independent of each other: x (n, d) -> log lambda and fraction, each (copies, n, arms).

    Two hidden layers of ReLU units; the last layer starts at zero, so that training starts at the multipliers given as
    `log_price` and `fraction` (copies, arms), those of the problem without covariates.
    """

    start: Tensor

    def __init__(
        self, inputs: int, log_price: Tensor, fraction: Tensor, *, width: int = 64, generator: torch.Generator | None = None
    ) -> None:
        """Draw the weights."""
        super().__init__()
        copies, arms = log_price.shape
        source = generator_or_default(generator)
        sizes = [inputs, width, width]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for rows, columns in pairwise(sizes):
            bound = 1 / math.sqrt(rows)
            for store, shape in ((self.weights, (copies, rows, columns)), (self.biases, (copies, 1, columns))):
                values = torch.rand(shape, generator=source, dtype=torch.float64)
                store.append(nn.Parameter((2 * values - 1) * bound))
        self.weights.append(nn.Parameter(torch.zeros(copies, width, 2 * arms, dtype=torch.float64)))
        self.biases.append(nn.Parameter(torch.zeros(copies, 1, 2 * arms, dtype=torch.float64)))
        part = fraction.double().clamp(1e-6, 1 - 1e-6)
        start = torch.cat([log_price.double(), torch.log(part) - torch.log1p(-part)], -1).clamp(-_REACH + 1, _REACH - 1)
        self.register_buffer("start", _REACH * torch.atanh(start / _REACH).unsqueeze(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log lambda and the fraction, (copies, n, arms) each."""
        hidden = x.double().expand(self.weights[0].shape[0], *x.shape)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = hidden @ weight + bias
            if layer < len(self.weights) - 1:
                hidden = torch.relu(hidden)
        log_price, logit = (_REACH * torch.tanh((self.start + hidden) / _REACH)).chunk(2, -1)
        return log_price, torch.sigmoid(logit)


__all__ = ["DualLoss", "DualNetworks", "conjugate_at", "dual_loss"]
