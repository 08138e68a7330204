"""`density_ratio`: r = p/q fitted to two samples, with what it takes to judge it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate, NumericalError, Result
from discrepancy._validate import fraction, sample
from discrepancy.divergences import Divergence, JensenShannon
from discrepancy.estimation.ratios.calibration import CalibrationReport
from discrepancy.estimation.ratios.evaluation import ADMITS, Evaluation, HeldOut, OneStep
from discrepancy.estimation.ratios.logistic import Logistic
from discrepancy.estimation.ratios.method import RatioMethod, RatioModel, child, seed_from


@dataclass(frozen=True, repr=False)
class DensityRatio(Result):
    """A fitted ratio r = p/q.

    `effective_sample_size` = 1 / sum w_j^2 of the `weights` w_j (m,), r at the points of Q over its sum: how many points of P
    the weighted sample of Q is worth, at most m. What is judged on held-out rows (`calibration`, `held_out_score`, `divergence`)
    is computed when first asked, by refitting on `folds` parts; it is the same every time.
    """

    method: str
    effective_sample_size: float
    n: int
    m: int
    dimension: int
    weights: Tensor = field(repr=False)
    model: RatioModel = field(repr=False)
    _x: Tensor = field(repr=False)
    _y: Tensor = field(repr=False)
    _method: RatioMethod = field(repr=False)
    _seed: int = field(repr=False)

    def log_ratio(self, points: Any) -> Tensor:
        """log p/q at points (k, d) (or (k,) on the line), as (k,), in the points' precision.

        Raises ValueError for another number of features, NumericalError where the ratio is not finite.
        """
        z = sample(points, "points", like=self._x)
        if z.ndim != 2 or z.shape[1] != self.dimension:
            raise ValueError(f"points must be (k, {self.dimension}), as the samples of the fit, got shape {tuple(z.shape)}")
        value = self.model.log_ratio(z)
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise NumericalError(f"the log-ratio is not finite at {bad} of {len(value)} points")
        return value

    def ratio(self, points: Any) -> Tensor:
        """p/q at points (k, d), as (k,); overflows to inf above e^88 in float32, where `log_ratio` does not."""
        return self.log_ratio(points).exp()

    @cached_property
    def _held_out(self) -> HeldOut:
        return self._method.held_out(self._x, self._y, self._seed)

    def calibration(self) -> CalibrationReport:
        """Normalisations and predicted against observed shares on held-out rows; see `CalibrationReport`."""
        return CalibrationReport.of(self._held_out.at_p, self._held_out.at_q)

    def held_out_score(self, *, level: float = 0.95) -> Estimate:
        """log 2 less the logistic loss on held-out rows, in nats: a lower bound of the Jensen-Shannon divergence.

        0 for a ratio that knows nothing, at most log 2; the same for every method, so that methods can be compared by it.
        """
        return self.divergence(JensenShannon(), evaluation=OneStep(), level=level)

    def divergence(self, divergence: Divergence, *, evaluation: Evaluation | None = None, level: float = 0.95) -> Estimate:
        """D_f(P || Q) for any f-divergence, from held-out log-ratios; `evaluation` None is that of the method.

        Raises TypeError for what is no f-divergence.
        """
        f, level = ADMITS.check(divergence), fraction(level, "level")
        chosen = self._method.evaluation if evaluation is None else evaluation
        if not isinstance(chosen, Evaluation):
            raise TypeError(f"evaluation must be OneStep() or PlugIn(), got {evaluation!r}")
        return chosen(f, self._held_out, level, f"{type(self._method).__name__}, {self._method.folds}-fold cross-fitted")


def density_ratio(x: Any, y: Any, method: RatioMethod | None = None, *, generator: torch.Generator | None = None) -> DensityRatio:
    """The density ratio r = p/q of the laws of x (n, d), drawn from P, and y (m, d), drawn from Q.

    `method` None is `Logistic()`; others are `KLIEP()`, `ULSIF()`, `RelativeULSIF()`, `Classifier(...)`, `NeuralLogistic()`, and,
    for laws far apart, `Telescoping()` and `TimeScore()`. Exchanging x and y estimates 1/r.
    Raises ValueError for samples that do not fit or are too small, TypeError for a method that is none. Time: one fit.
    """
    method = Logistic() if method is None else method
    if not isinstance(method, RatioMethod):
        hint = f"{method.__name__}()" if isinstance(method, type) else "Logistic()"
        raise TypeError(f"method must be a density-ratio method object, got {method!r}: pass {hint}")
    x, y = method.samples(x, y)
    seed = seed_from(generator)
    model = method.fit(x, y, child(seed, 10_000))
    at_q = model.log_ratio(y).double()
    if not bool(torch.isfinite(at_q).all()):
        raise NumericalError(f"the log-ratio is not finite at {int((~torch.isfinite(at_q)).sum())} of {len(y)} points of y")
    weights = torch.softmax(at_q, 0)
    return DensityRatio(
        model.describe(),
        1 / float(weights.square().sum()),
        len(x),
        len(y),
        x.shape[1],
        weights.to(y.dtype),
        model,
        x,
        y,
        method,
        seed,
    )


__all__ = ["DensityRatio", "density_ratio"]
