"""The network of a time score: inputs in units of the path at its time, outputs in units of what scores are there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy.estimation.ratios.time_score.interpolants import Interpolant
from discrepancy.networks import MLP

_HARMONICS = 2
_FULL_FORM = 32  # dimensions up to which the quadratic form is a full matrix


@dataclass(frozen=True)
class PathMoments:
    """Mean and variance of each coordinate of x_t: they follow from those of the two samples and of their pairs.

    `means` (2, d) and `variances` (2, d) of x_0 and x_1, `covariances` (d,) of paired coordinates (zero where independent).
    """

    interpolant: Interpolant
    means: Tensor
    variances: Tensor
    covariances: Tensor

    @staticmethod
    def of(interpolant: Interpolant, x0: Tensor, x1: Tensor, generator: torch.Generator, batch: int) -> PathMoments:
        """The moments of two samples (n, d), (m, d); those of pairs from a few coupled batches."""
        pairs = []
        for _ in range(4):
            rows = [s[torch.randint(len(s), (batch,), generator=generator)] for s in (x0, x1)]
            left, right = interpolant.coupling.pairs(rows[0], rows[1], generator)
            pairs.append((left - left.mean(0)).mul(right - right.mean(0)).mean(0))
        variances = torch.stack([x0.var(0), x1.var(0)])
        bound = variances.prod(0).sqrt()
        independent = torch.stack(pairs).mean(0).abs() < 4 * bound / math.sqrt(4 * batch)
        covariances = torch.where(independent, torch.zeros_like(bound), torch.stack(pairs).mean(0))
        covariances = torch.minimum(torch.maximum(covariances, -bound), bound)
        return PathMoments(interpolant, torch.stack([x0.mean(0), x1.mean(0)]), variances, covariances)

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (B, d) of the coordinates at times (B,)."""
        s = self.interpolant.schedule
        a, b = s.alpha(t)[:, None], s.beta(t)[:, None]
        mean = a * self.means[0] + b * self.means[1]
        spread = a.square() * self.variances[0] + b.square() * self.variances[1] + 2 * a * b * self.covariances
        return mean, spread + self.interpolant.variance(t)[:, None]

    def scale(self, t: Tensor) -> Tensor:
        """The root mean square of the time score of independent Gaussian coordinates with these moments, (B,), plus d/2 inside.

        The addition is that of coordinates that change by their own size over the path: it stands for what moments of
        coordinates do not see, such as correlations that change while the variances stay.
        """
        s = self.interpolant.schedule
        a, b, da, db = (f(t)[:, None] for f in (s.alpha, s.beta, s.alpha_slope, s.beta_slope))
        _, spread = self.at(t)
        speed = da * self.means[0] + db * self.means[1]
        growth = 2 * a * da * self.variances[0] + 2 * b * db * self.variances[1] + 2 * (a * db + da * b) * self.covariances
        growth = growth + self.interpolant.variance_slope(t)[:, None]
        floor = torch.finfo(t.dtype).tiny
        spread = spread.clamp_min(floor)
        return (speed.square() / spread + (growth / spread).square() / 2 + 0.5).sum(1).sqrt()


class TimeScoreNetwork(nn.Module):
    """s(x, t) = c(t) [net(u, t) + b(t).u + u^T B(t) u - tr B(t)], u = (x - m_t) / sd_t, by the path's moments and score scale c.

    The moments only set units: a narrow end of the path is then as easy for the network as a wide one. The quadratic form, whose
    coefficients are a network of t alone, carries the tails: the integral takes s(x, t) at times whose law has no mass at x,
    where the score of a law with Gaussian tails grows like |u|^2, which a network of piecewise linear growth cannot follow. B is
    a full matrix up to 32 dimensions, and diagonal above. With `joint` the data score comes too, -u / sd_t plus a correction of
    the network.
    """

    def __init__(self, moments: PathMoments, network: MLP, *, joint: bool, generator: torch.Generator) -> None:
        """A network for a path."""
        super().__init__()
        d = moments.means.shape[1]
        self.moments, self.joint, self.dimension = moments, joint, d
        self.net = network.build(d + 1 + 2 * _HARMONICS, 1 + d * joint, generator=generator).to(moments.means)
        full = d <= _FULL_FORM
        self.pairs = tuple(torch.triu_indices(d, d)) if full else (torch.arange(d), torch.arange(d))
        self.form = MLP(32, 1).build(1 + 2 * _HARMONICS, d + len(self.pairs[0]), generator=generator).to(moments.means)
        with torch.no_grad():  # the form starts at zero: its many terms would otherwise add up to more than the scores
            for parameter in self.form[-1].parameters():
                parameter.zero_()

    def _outputs(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What multiplies the scale (B, 1 + d joint), u, and sd_t."""
        mean, variance = self.moments.at(t)
        # A constant column has no spread of its own, and is zero whatever it is divided by.
        sd = torch.where(variance > 0, variance, torch.ones_like(variance)).sqrt()
        u = (x - mean) / sd
        waves = [f(math.pi * (k + 1) * t) for k in range(_HARMONICS) for f in (torch.cos, torch.sin)]
        times = torch.stack([2 * t - 1, *waves], 1)
        rows, columns = self.pairs
        products = u[:, rows] * u[:, columns] - (rows == columns).to(u)
        form = (self.form(times) * torch.cat([u, products], 1)).sum(1, keepdim=True)
        out = self.net(torch.cat([u, times], 1))
        return torch.cat([out[:, :1] + form, out[:, 1:]], 1), u, sd

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The time score (B,) at points (B, d) and times (B,)."""
        return self.moments.scale(t) * self._outputs(x, t)[0][:, 0]

    def both(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The time score (B,) and the data score (B, d) of a joint network."""
        out, inside, sd = self._outputs(x, t)
        return self.moments.scale(t) * out[:, 0], (out[:, 1:] - inside) / sd


__all__ = ["PathMoments", "TimeScoreNetwork"]
