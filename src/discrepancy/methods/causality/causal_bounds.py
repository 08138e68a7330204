"""Bounds of E[phi(Y) | do(a), x] under unmeasured confounding, from the propensity alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import as_tensor, fraction, require_finite, sample, whole_number
from discrepancy.divergences import KL, ChiSquared, FDivergence, JensenShannon, SquaredHellinger, TotalVariation
from discrepancy.divergences.robust import dro_bounds
from discrepancy.learning import EarlyStopping, Training
from discrepancy.methods.causality.bounding import ADMITS, aggregate_bounds, divergence_radius, manski_bounds
from discrepancy.methods.causality.cross_fitting import FoldModel, fit_fold
from discrepancy.methods.causality.parameters import Parameters

_SMALLEST_ARM = 20
_MOST_ARMS = 20
PAPER = (KL(), JensenShannon(), SquaredHellinger(), TotalVariation(), ChiSquared())


@dataclass(frozen=True, repr=False)
class CausalBand(Result):
    """Bounds of E[phi(Y) | do(a), x] at m points.

    `lower`, `upper` (m,): aggregated over the divergences; `manski_lower`, `manski_upper`: those without any divergence,
    which in the population are never wider; `per_divergence`: the pair of each divergence by name; `radius` (K, m) and
    `propensity` (m,): what they rest on. `bounded` says whether the range of phi was stated: if it was not, the ends only speak
    of laws on the outcomes seen.
    """

    lower: Tensor
    upper: Tensor
    manski_lower: Tensor
    manski_upper: Tensor
    propensity: Tensor
    radius: Tensor = field(repr=False)
    per_divergence: dict[str, tuple[Tensor, Tensor]] = field(repr=False)
    bounded: bool = True

    def intersected(self) -> tuple[Tensor, Tensor]:
        """The intersection with Manski's interval; where noise empties it, the middle of the gap twice."""
        low, high = torch.maximum(self.lower, self.manski_lower), torch.minimum(self.upper, self.manski_upper)
        middle = (low + high) / 2
        return torch.where(low <= high, low, middle), torch.where(low <= high, high, middle)


@dataclass(eq=False)
class CausalBounds(Parameters):
    """Bounds of E[phi(Y) | do(A=a), X=x] for any unmeasured confounding, from balls D_f(P || Q) <= B_f(e_a(x)).

    P, the given law, is that of Y among those who took a; Q that under do(a). Cross-fitted: propensities from the other folds;
    both multipliers of the dual as networks of x, by the orthogonal loss (`DualLoss`); the dual's mean regressed on (a, x).
    Without covariates (X=None) the problem is solved exactly, arm by arm.

    divergences: f-divergences with f(0) < inf. phi: a function of the outcome, elementwise on a tensor (None: the outcome
    itself), such as `UpTo(c)` or `Clipped(low, high)`; phi_range: the values that it could take, if it does not say so
    itself. propensity, regressor: scikit-learn estimators (None: gradient boosting on histograms). clip: propensities are kept
    in [clip, 1 - clip]. orthogonal: whether the loss is. order: of the aggregation (None: the first at which the ends are the
    right way round).

    What holds: with a stated range, the ball contains the truth at every x whatever the confounding, and Manski's interval, which
    is reported beside it and lies inside the ball: a divergence never says more than the range does. Without one, the paper's
    claim that no boundedness is needed fails in the population: g(s) = s f(1/s) grows like f(0) s, the dual needs
    u >= sup phi - lambda f(0), and the bound is +inf; on samples it follows the largest outcome, about e mean + (1 - e) max.

    Numbered deviations from the paper: (1) the multipliers' domain is built into their parameters instead of a penalty; (2)
    networks start at the problem without covariates and see standardised x; (3) the best held-out weights are kept, without
    weight decay; (4) propensities by scikit-learn; (5) lambda g* + u is regressed, not g* alone, the same
    in the population and better conditioned.
    Time: some seconds at n = 2000 with five divergences. Source: Jung and Kang (2026).
    """

    divergences: tuple[FDivergence, ...] = PAPER
    propensity: Any = None
    regressor: Any = None
    phi: Callable[[Tensor], Tensor] | None = None
    phi_range: tuple[float, float] | None = None
    folds: int = 2
    clip: float = 0.01
    orthogonal: bool = True
    order: int | None = None
    width: int = 64
    batch_size: int = 256
    training: Training = field(default_factory=lambda: Training(steps=400, learning_rate=3e-3, record_every=25))
    stopping: EarlyStopping = field(default_factory=EarlyStopping)
    random_state: int | None = None

    references: ClassVar[tuple[str, ...]] = ("causal-bounds", "manski-1990")

    def _check(self) -> None:
        chosen = tuple(self.divergences)
        if not chosen:
            raise ValueError("divergences is empty: give at least one, such as (KL(),)")
        for f in chosen:
            ADMITS.check(f)
        whole_number(self.folds, 2, "folds")
        whole_number(self.width, 1, "width")
        whole_number(self.batch_size, 1, "batch_size")
        if not 0 < fraction(self.clip, "clip") < 0.5:
            raise ValueError(f"clip must lie below 1/2, got {self.clip!r}")
        if self.order is not None and not 1 <= self.order <= len(chosen):
            raise ValueError(f"order must lie between 1 and the number of divergences {len(chosen)}, got {self.order!r}")
        if self.phi is not None and not callable(self.phi):
            raise TypeError(f"phi must be a function of a tensor or None, got {type(self.phi).__name__}")

    def fit(self, X: Any, A: Any, Y: Any) -> CausalBounds:
        """Covariates X (n, d) or None, treatments A (n,) of a few distinct values, outcomes Y (n,).

        Raises ValueError for treatments that are not discrete, an arm with fewer than 20 rows, NaN, or phi outside its range, and
        warns (UserWarning) where the range of phi is not stated and where propensities had to be clipped.
        """
        self._check()
        y = as_tensor(Y, "Y").double()
        if y.ndim != 1:
            raise ValueError(f"Y must have shape (n,), got {tuple(y.shape)}")
        require_finite(y, "Y")
        arms, arm = _treatments(A, len(y))
        phi = self._outcomes(y)
        stated = self.phi_range if self.phi_range is not None else getattr(self.phi, "range", None)
        bounded = stated is not None or len(phi.unique()) <= 2
        if not bounded:
            warnings.warn(
                "the range of phi is not stated: for an unbounded phi every such bound is infinite, and what is computed only "
                "speaks of laws on the outcomes seen (it grows with n). Give phi_range, or a bounded phi such as UpTo(c) or "
                "Clipped(a, b)",
                UserWarning,
                stacklevel=2,
            )
        low, high = (float(phi.min()), float(phi.max())) if stated is None else (float(stated[0]), float(stated[1]))
        if bool(((phi < low) | (phi > high)).any()):
            raise ValueError(f"phi takes values in [{float(phi.min()):.4g}, {float(phi.max()):.4g}], outside ({low:g}, {high:g})")
        unit = high - low if high > low else 1.0
        scaled = (phi - low) / unit
        models: list[FoldModel] = []
        if X is None:
            self._exact = self._without_covariates(scaled, arm, len(arms))
            self.arms_, self.range_, self.bounded_, self.models_, self.features_ = arms, (low, high), bounded, models, 0
            return self
        x = sample(X, "X").double()
        if x.ndim != 2 or len(x) != len(y):
            raise ValueError(f"X must have shape (n, d) with the {len(y)} rows of Y, got {tuple(x.shape)}")
        clipped = 0
        seed = 0 if self.random_state is None else whole_number(self.random_state, 0, "random_state")
        if self.random_state is None:
            seed = int(torch.randint(2**31, ()))
        fold = _folds(arm, self.folds, torch.Generator().manual_seed(seed))
        for k in range(self.folds):
            model = fit_fold(self, x, arm, scaled, fold == k, bounded=stated is not None, seed=seed + k)
            clipped += model.clipped
            models.append(model)
        if clipped:
            warnings.warn(
                f"{clipped} of {len(y)} propensities lie outside [{self.clip:g}, {1 - self.clip:g}] and were clipped: there is "
                "little overlap there, and the bounds are nearly the whole range",
                UserWarning,
                stacklevel=2,
            )
        # Last, so that a fit that fails leaves nothing half-done.
        self.arms_, self.range_, self.bounded_, self.models_, self.features_ = arms, (low, high), bounded, models, x.shape[1]
        return self

    def bounds(self, X: Any, a: Any) -> CausalBand:
        """The bounds under do(A=a) at the rows of X (m, d), or for everybody (m = 1) where the fit had no covariates."""
        if not hasattr(self, "arms_"):
            raise AttributeError("this CausalBounds is not fitted: call fit(X, A, Y) first")
        place = next((k for k, value in enumerate(self.arms_) if value == a), None)
        if place is None:
            raise ValueError(f"a must be one of the treatments {self.arms_}, got {a!r}")
        if self.features_ == 0:
            if X is not None:
                raise ValueError("the fit had no covariates: call bounds(None, a)")
            return self._band(*(t[..., place] for t in self._exact))
        x = sample(X, "X").double()
        if x.shape[-1] != self.features_:
            raise ValueError(f"X has {x.shape[-1]} features and the fit had {self.features_}")
        parts = [model.predict(x, place) for model in self.models_]
        low, high, mean, e = (torch.stack(t).mean(0) for t in zip(*parts, strict=True))
        return self._band(low, high, mean, e)

    def _band(self, low: Tensor, high: Tensor, mean: Tensor, e: Tensor) -> CausalBand:
        """From bounds (K, m), the mean within the arm (m,) and propensities (m,), in units of the range."""
        base, top = self.range_
        unit = top - base
        low, high = low.clamp(0, 1), high.clamp(0, 1)
        lower, upper = aggregate_bounds(low, high, self.order)
        manski = manski_bounds(mean.clamp(0, 1), e, 0.0, 1.0)
        scaled = {repr(f): (base + unit * p, base + unit * q) for f, p, q in zip(self.divergences, low, high, strict=True)}
        return CausalBand(
            lower=base + unit * lower,
            upper=base + unit * upper,
            manski_lower=base + unit * manski[0],
            manski_upper=base + unit * manski[1],
            propensity=e,
            radius=torch.stack([divergence_radius(e, f) for f in self.divergences]),
            per_divergence=scaled,
            bounded=self.bounded_,
        )

    def _outcomes(self, y: Tensor) -> Tensor:
        phi = y if self.phi is None else as_tensor(self.phi(y), "phi(Y)").double()
        if phi.shape != y.shape:
            raise ValueError(f"phi must give one number an outcome: {tuple(y.shape)} in gave {tuple(phi.shape)} out")
        require_finite(phi, "phi(Y)")
        return phi

    def _without_covariates(self, phi: Tensor, arm: Tensor, arms: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lower and upper ends (K, 1, arms), means and propensities (1, arms), exactly."""
        stated = self.phi_range is not None or hasattr(self.phi, "range")
        shares = torch.stack([(arm == k).double().mean() for k in range(arms)])
        ends = [
            [
                dro_bounds(phi[arm == k], divergence_radius(shares[k], f), f, support=(0.0, 1.0) if stated else None)
                for k in range(arms)
            ]
            for f in self.divergences
        ]
        low = torch.stack([torch.stack([b.lower for b in row]) for row in ends]).unsqueeze(1)
        high = torch.stack([torch.stack([b.upper for b in row]) for row in ends]).unsqueeze(1)
        means = torch.stack([phi[arm == k].mean() for k in range(arms)])
        return low, high, means[None], shares[None]


def _treatments(A: Any, rows: int) -> tuple[list[Any], Tensor]:
    """The distinct treatments, sorted, and the place of each row among them; ValueError unless few, each with rows enough."""
    values = np.asarray(A.detach().cpu() if isinstance(A, Tensor) else A)
    if values.shape != (rows,):
        raise ValueError(f"A must have shape ({rows},), one treatment for each outcome, got {values.shape}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"A has {int((~np.isfinite(values)).sum())} missing treatment(s): drop those rows")
    levels, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    shown = ", ".join(map(str, levels[:5].tolist())) + (", ..." if len(levels) > 5 else "")
    if len(levels) < 2 or len(levels) > _MOST_ARMS or (levels.dtype.kind == "f" and (levels != np.round(levels)).any()):
        raise ValueError(f"A must take a few discrete values, such as 0 and 1, got {len(levels)}: {shown}")
    if counts.min() < _SMALLEST_ARM:
        raise ValueError(
            f"treatment {levels[counts.argmin()]} has {counts.min()} rows of {rows}: each arm needs at least {_SMALLEST_ARM}"
        )
    return levels.tolist(), torch.from_numpy(place.reshape(-1).astype(np.int64))


def _folds(arm: Tensor, folds: int, generator: torch.Generator) -> Tensor:
    """A fold for each row, at random and balanced within arms."""
    fold = torch.empty_like(arm)
    for k in arm.unique():
        rows = (arm == k).nonzero().flatten()
        fold[rows[torch.randperm(len(rows), generator=generator)]] = torch.arange(len(rows)) % folds
    return fold


__all__ = ["CausalBand", "CausalBounds"]
