"""The lower end of an interval by test inversion along a ray: how small may the truth be, given the noise around it?

Along the ray the difference of the two laws is t times the observed one, t >= 0, with the noise of the samples added.
Every model of a ray offers `draws(t)`, the values that the statistic would show, and shares its random numbers over t.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discrepancy._kinds import PooledStatistic
from discrepancy._validate import SamplePair
from discrepancy.inference.influence import Influence, effective_size
from discrepancy.inference.permutation import pooled_rows, rows_within


class Ray(ABC):
    """A model of the statistic at t times the observed difference. `observed` is on the same scale as the draws."""

    observed: float

    @abstractmethod
    def draws(self, t: float) -> NDArray[np.float64]:
        """Draws of the statistic when the true difference is t times the observed one."""


def lower_end(ray: Ray, level: float, spread: float) -> float:
    """The lower end as a multiple of the observed value T, whose standard error is `spread` T.

    The smallest t in [0, 1 + 5 spread] with P(T*_t >= T) >= a_low(t), a_low(t) = alpha/2 (1 + rho(t)), rho(t) = min(1,
    2 P(T*_0 >= median T*_t)): all of alpha on this side at t = 0, where an upper error is impossible, and alpha/2 far from
    zero. P(T*_t >= T) rises with t (Anderson's inequality), so t is found by bisection, to a quarter of a standard error or
    a thirty-second of the range, and linearly from there. Source: the idea of Feldman and Cousins 1998.
    """
    if spread == 0:
        return 1.0
    alpha = 1 - level
    zero = ray.draws(0.0)

    def excess(t: float) -> float:
        at = ray.draws(t)
        rho = min(1.0, 2 * float((zero >= np.median(at)).mean()))
        return float((at >= ray.observed).mean()) - alpha / 2 * (1 + rho)

    low, high = 0.0, 1 + 5 * spread
    at_low, at_high = excess(low), excess(high)
    if at_low >= 0:
        return 0.0
    if at_high < 0:
        return high
    fine = min(high / 32, spread / 4)
    while high - low > fine:
        middle = (low + high) / 2
        at = excess(middle)
        low, high, at_low, at_high = (middle, high, at, at_high) if at < 0 else (low, middle, at_low, at)
    return low + (high - low) * at_low / (at_low - at_high)


class NormRay(Ray):
    """D = ||F - G||^k for a norm: T*_t = ||t (F_n - G_m) + B||, B Gaussian with the covariance of F_n - G_m.

    B = sum_i a_i g_i (delta_{x_i} - F_n) c_a - sum_j b_j h_j (delta_{y_j} - G_m) c_b, g and h independent standard normal,
    c = sqrt(n_eff / (n_eff - 1)). For k = 2 (an inner product) two evaluations of each B serve every t; for k = 1 the
    signed rows are evaluated at each t, and made again from their seed where they do not fit in memory.
    """

    def __init__(
        self, statistic: PooledStatistic, pair: SamplePair, power: int, resamples: int, seed: int, *, memory: float = 1.0
    ) -> None:
        self.statistic, self.pair, self.power, self.resamples, self.seed = statistic, pair, power, resamples, seed
        row_a, row_b = pooled_rows(pair)
        self.difference = row_a - row_b
        self.step = rows_within(memory, len(row_a), row_a.dtype)
        self.kept: Tensor | None = None
        self.observed = float(self._values(self.difference[None])[0])
        if power == 2:
            parts = [
                (self._values(B), self._values(self.difference + B))  # ||B||^2 and ||F_n - G_m + B||^2
                for B in self._noise()
            ]
            self.quadratic = np.concatenate([p[0] for p in parts])
            self.linear = np.concatenate([p[1] for p in parts]) - self.observed - self.quadratic

    def _values(self, rows: Tensor) -> NDArray[np.float64]:
        return self.statistic(rows, torch.zeros_like(rows)).double().cpu().numpy()

    def _noise(self) -> Iterator[Tensor]:
        if self.kept is not None:
            yield self.kept
            return
        rng = np.random.default_rng(self.seed)
        single = np.float32 if self.difference.dtype == torch.float32 else np.float64
        for start in range(0, self.resamples, self.step):
            count = min(self.step, self.resamples - start)
            g = torch.from_numpy(rng.standard_normal((count, len(self.difference)), dtype=single)).to(self.difference.device)
            parts, place = [], 0
            for w, sign in ((self.pair.a, 1.0), (self.pair.b, -1.0)):
                size = effective_size(w)
                mine = g[:, place : place + len(w)]
                mean = (mine * w).sum(1, keepdim=True)
                parts.append(sign * (size / (size - 1)) ** 0.5 * w * (mine - mean))
                place += len(w)
            B = torch.cat(parts, 1)
            if count == self.resamples:
                self.kept = B
            yield B

    def draws(self, t: float) -> NDArray[np.float64]:
        """T*_t on the scale of D, (resamples,)."""
        if self.power == 2:
            return np.maximum(t * t * self.observed + t * self.linear + self.quadratic, 0.0)
        return np.concatenate([self._values(t * self.difference + B) for B in self._noise()])


class QuadraticRay(Ray):
    """A discrepancy V that is twice differentiable in the laws and zero, with zero slope, where they agree.

    V*_t = t^2 V + t L + Q: L = sum (a*_i - a_i) psi_i + sum (b*_j - b_j) phi_j the linear part of a bootstrap draw and
    Q = V(F*, G*) - V - L its remainder, from multinomial resampling inside each sample. Exact for a squared norm; for W_2^2
    on the line, Sinkhorn divergences and the like up to the third order. `square` says that V is the square of the
    statistic (a metric). Bootstrap variances are short by (n - 1)/n, which is put back.
    """

    def __init__(
        self,
        statistic: PooledStatistic,
        pair: SamplePair,
        psi: Influence,
        resamples: int,
        seed: int,
        *,
        square: bool,
        memory: float = 1.0,
    ) -> None:
        rng = np.random.default_rng(seed)
        row_a, row_b = pooled_rows(pair)
        n, dtype, device = len(pair.a), row_a.dtype, row_a.device

        def values(A: Tensor, B: Tensor) -> NDArray[np.float64]:
            found = statistic(A, B).double().cpu().numpy()
            return found * found if square else found

        self.observed = float(values(row_a[None], row_b[None])[0])
        slope = 2 * psi.value if square else 1.0
        step = rows_within(memory, len(row_a), dtype)
        linear, total = [], []
        for start in range(0, resamples, step):
            count = min(step, resamples - start)
            A, B = torch.zeros(count, len(row_a), dtype=dtype, device=device), torch.zeros_like(row_b).repeat(count, 1)
            A[:, :n] = _resampled(pair.a, count, rng)
            B[:, n:] = _resampled(pair.b, count, rng)
            change = (A[:, :n].double() @ psi.of_x) + (B[:, n:].double() @ psi.of_y)  # psi is centred: minus a drops out
            linear.append(slope * change.cpu().numpy())
            total.append(values(A, B))
        sizes = [effective_size(w) for w in (pair.a, pair.b)]
        short = sum(1 / (s - 1) for s in sizes) / sum(1 / s for s in sizes)
        self.linear = np.concatenate(linear)
        self.quadratic = short * (np.concatenate(total) - self.observed - self.linear)
        self.linear = np.sqrt(short) * self.linear

    def draws(self, t: float) -> NDArray[np.float64]:
        """V*_t, (resamples,)."""
        return t * t * self.observed + t * self.linear + self.quadratic


def _resampled(w: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Weights of multinomial resamples: each row's weight times how often it was drawn, renormalised, (count, n)."""
    n = len(w)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=count)
    rows = torch.from_numpy(counts).to(device=w.device, dtype=w.dtype) * w
    return rows / rows.sum(1, keepdim=True)
