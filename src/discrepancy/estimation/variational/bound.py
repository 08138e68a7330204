"""`VariationalBound`: what all bounds share, from folds over training to the interval."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from discrepancy._results import Estimate
from discrepancy._validate import fraction, generator_or_default, sample_pair, whole_number
from discrepancy.divergences import KL, Divergence, FDivergence, ReverseKL
from discrepancy.estimation.information import SampleSizeWarning
from discrepancy.estimation.margins import FittedMargins, Margins, NormalScores, Standardised
from discrepancy.estimation.variational.critics import Concatenated, Critic, GivenCritic
from discrepancy.estimation.variational.fitting import (
    CriticTraining,
    FittedCritic,
    GaussianStart,
    Loss,
    Rows,
    draw_shifts,
    pair_critic,
    point_critic,
    train,
)

_EFFECTIVE = 20.0  # draws of Q that must share the work before a normal interval is believed
_FEWEST = 10  # rows of a fold


@dataclass(frozen=True)
class Held:
    """A bound at held-out scores: its `value`, and to first order what each draw of P and of Q adds to it, centred."""

    value: float
    by_p: Tensor
    by_q: Tensor


@dataclass(frozen=True)
class VariationalBound(ABC):
    """A divergence from below, by a critic trained on some rows and evaluated on others.

    The rows are split into `folds`. For each fold in turn a critic is trained on the others but the next one, which ends the
    training and chooses between the trained critic, its `start` and zero; the bound is evaluated on the fold itself. The value is
    the mean over folds, so that a critic that has learned its training rows by heart reports no more than zero.

    The interval is one-sided, from the value less z standard errors to the largest value that there is, infinity for KL: by how
    much the bound falls short of the divergence, a term of second order in the critic's error, no held-out row can tell. The
    standard error comes from the influence of each row on its fold's bound. No interval is given, and `note` says why, where some
    few draws carry the estimate, where the bound is near what it cannot exceed, where no critic was better than zero, and where
    the value is no bound.

    critic      `Concatenated()`, `Separable()`, or an `nn.Module` of your own (`GivenCritic`)
    training    steps, batch, early stopping, average of the weights
    folds       at least three
    start       `GaussianStart()`, or None for a critic that starts at zero
    margins     a map of each coordinate beforehand; None: `NormalScores()` for mutual information, and `Standardised()` on the
                pooled sample for two samples. Neither changes what is estimated.
    negatives   draws of the product a held-out row is compared with

    Time: `folds` trainings. Memory: a batch of training or a held-out fold times `negatives`, whichever is larger.
    """

    critic: Critic | nn.Module = field(default_factory=Concatenated)
    training: CriticTraining = field(default_factory=CriticTraining)
    folds: int = 4
    start: GaussianStart | None = field(default_factory=GaussianStart)
    margins: Margins | None = None
    negatives: int = 64

    references: ClassVar[tuple[str, ...]] = ()
    _bounds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options; a module becomes a `GivenCritic`."""
        if isinstance(self.critic, nn.Module):
            object.__setattr__(self, "critic", GivenCritic(self.critic))
        if not isinstance(self.critic, Critic):
            raise TypeError(f"critic must be Concatenated(), Separable() or an nn.Module, got {self.critic!r}")
        whole_number(self.folds, 3, "folds")
        whole_number(self.negatives, 1, "negatives")

    # -- what a bound supplies ---------------------------------------------------------------------------------------

    @abstractmethod
    def _loss(self, f: FDivergence) -> Loss:
        """The training loss of one critic, with whatever it remembers from step to step."""

    @abstractmethod
    def _held(self, f: FDivergence, t_p: Tensor, t_q: Tensor) -> Held:
        """The bound of D_f at held-out scores."""

    def _score(self, f: FDivergence, t_p: Tensor, t_q: Tensor) -> float:
        """What ends the training: larger is better, and a zero critic has zero.

        The gain in the logistic loss, for scores that are log ratios: the bound itself hangs on the few largest scores, so that
        its maximum over a training would be a maximum of noise.
        """
        return 2 * math.log(2) - float(logistic_loss(t_p, t_q))

    def _admit(self, divergence: Divergence) -> FDivergence:
        """The divergence, or TypeError naming those that the bound takes."""
        if isinstance(divergence, KL):
            return divergence
        raise TypeError(
            f"{type(self).__name__} bounds KL() and ReverseKL(), got {divergence!r}: NWJ() takes any smooth FDivergence"
        )

    def _ceiling(self, rows: int) -> float:
        """What the bound cannot exceed when evaluated on so many rows."""
        return math.inf

    # -- the two questions -------------------------------------------------------------------------------------------

    def mutual_information(
        self, x: Tensor, y: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y) from below, in nats, from paired rows x (n, d1) and y (n, d2); see the class for interval and cost.

        Constant columns carry no information and are left out. Raises ValueError for fewer than ten rows a fold.
        """
        level = fraction(level, "level")
        source = generator_or_default(generator)
        n = len(x)
        self._require(n, "x and y")
        parts = [z[:, z.detach().amax(0) > z.detach().amin(0)].detach() for z in (x, y)]
        name = f"{self._name()} of mutual information"
        if not all(z.shape[1] for z in parts):
            return Estimate(0.0, 0.0, 0.0, 0.0, level, name, "one side is constant, hence independent of the other")
        chosen = NormalScores() if self.margins is None else self.margins
        left, right = (chosen.fit(z)(z).float() for z in parts)
        folds = torch.randperm(n, generator=source).to(x.device).tensor_split(self.folds)
        total, influence, states = 0.0, torch.zeros(n, dtype=torch.float64, device=x.device), []
        for k, test in enumerate(folds):
            rows, stop = _split(folds, k)
            fitted = pair_critic(self._family, self.start, (left[rows], right[rows]), source)
            held, shifts, state = self._fold(
                KL(), fitted, (left[rows], right[rows]), (left[stop], right[stop]), (left[test], right[test]), source
            )
            total += held.value * len(test) / n
            influence[test] = held.by_p + held.by_q.mean(1) + _mean_over_columns(held.by_q, shifts)
            states.append(state)
        error = math.sqrt(float(influence.square().sum())) / n
        return self._answer(total, error, level, name, states, min(len(test) for test in folds))

    def __call__(
        self, divergence: Divergence, x: Any, y: Any, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """D(P || Q) from below, from samples x (n, d) of P and y (m, d) of Q; see the class for interval and cost.

        Columns that are constant, and the same, in both samples are left out. Raises TypeError for a divergence that the bound
        does not take, ValueError for batches and fewer than ten points a fold.
        """
        level = fraction(level, "level")
        pair = sample_pair(x, y)
        if pair.batch:
            raise ValueError(
                f"x and y must be single samples (n, d), got a batch of shape {tuple(pair.batch)}: take each in turn"
            )
        one, two = pair.x.detach(), pair.y.detach()
        f = divergence
        if isinstance(divergence, ReverseKL) and not self._takes_any():
            f, one, two = KL(), two, one
        admitted = self._admit(f)
        self._require(len(one), "x")
        self._require(len(two), "y")
        source = generator_or_default(generator)
        name = f"{self._name()} of {divergence!r}"
        pooled = torch.cat([one, two])
        varying = pooled.amax(0) > pooled.amin(0)
        if not bool(varying.any()):
            return Estimate(0.0, 0.0, 0.0, 0.0, level, name, "all points of both samples are equal")
        chosen = Standardised() if self.margins is None else self.margins
        margins: FittedMargins = chosen.fit(pooled[:, varying])
        x, y = (margins(z[:, varying]).float() for z in (one, two))
        folds = [torch.randperm(len(z), generator=source).to(z.device).tensor_split(self.folds) for z in (x, y)]
        total, variance, states = 0.0, 0.0, []
        for k in range(self.folds):
            of_x, of_y = (_split(parts, k) for parts in folds)
            rows, stop = ((x[i], y[j]) for i, j in zip(of_x, of_y, strict=True))
            test = x[folds[0][k]], y[folds[1][k]]
            fitted = point_critic(self._family, self.start, rows, source)
            held, _, state = self._fold(admitted, fitted, rows, stop, test, source)
            total += held.value / self.folds
            for part in (held.by_p, held.by_q):
                variance += float(part.square().mean()) / len(part) / self.folds**2
            states.append(state)
        # The largest value of an f-divergence, that of laws with nothing in common.
        most = max(total, admitted.at_zero + admitted.slope_at_infinity)
        return self._answer(total, math.sqrt(variance), level, name, states, min(len(p[-1]) for p in folds), most)

    # -- shared ------------------------------------------------------------------------------------------------------

    def _fold(
        self, f: FDivergence, fitted: FittedCritic, rows: Rows, stop: Rows, test: Rows, source: torch.Generator
    ) -> tuple[Held, Tensor, tuple[float, bool]]:
        train(fitted, rows, stop, self._loss(f), lambda p, q: self._score(f, p, q), self.training, source)
        with torch.no_grad():
            shifts = draw_shifts(len(test[0]), self.negatives, source)
            t_p, t_q = fitted.scores(test, shifts)
            held = self._held(f, t_p, t_q)
        carried = torch.exp(t_q - t_q.max()) if t_q.ndim == 1 else torch.exp(t_q - t_q.max()).mean(1)
        effective = float(carried.sum().square() / carried.square().sum())
        return held, shifts, (effective, fitted.use_net or (fitted.use_start and bool(t_p.any())))

    def _answer(
        self,
        value: float,
        error: float,
        level: float,
        name: str,
        states: list[tuple[float, bool]],
        rows: int,
        most: float = math.inf,
    ) -> Estimate:
        effective = sum(state[0] for state in states)
        name = f"{name}, {self.folds} folds, {self._critic_name()}, ratio carried by {effective:.0f} draws"
        ceiling = self._ceiling(rows)
        if value > ceiling - 1:
            why = (
                f"{value:.3g} is within one of the {ceiling:.3g} nats that the bound cannot exceed: the truth may be anything "
                "above; raise negatives, or take another estimator"
            )
            warnings.warn(why, SampleSizeWarning, stacklevel=4)
        elif not any(state[1] for state in states):
            why = "no critic was better than zero on held-out rows; a difference too weak to be learned is not excluded"
        elif not self._bounds:
            why = "the value is no bound, and what the critic errs by is not known; the standard error is that of held-out rows"
            return Estimate(value, error, method=name, note=f"no interval: {why}")
        elif effective < _EFFECTIVE:
            why = f"some {effective:.0f} draws of the second law carry the estimate of the ratio"
        else:
            low = value - NormalDist().inv_cdf(level) * error
            note = "a bound from below: by how much it falls short is not known"
            return Estimate(value, error, low, most, level, name, note)
        return Estimate(value, None, None, None, None, name, f"no interval: {why}")

    @property
    def _family(self) -> Critic:
        assert isinstance(self.critic, Critic)  # a module has become one
        return self.critic

    def _takes_any(self) -> bool:
        return False

    def _name(self) -> str:
        return type(self).__name__

    def _critic_name(self) -> str:
        return "critic " + type(self.critic).__name__.lower() + (" with Gaussian start" if self.start is not None else "")

    def _require(self, n: int, name: str) -> None:
        if n < _FEWEST * self.folds:
            raise ValueError(
                f"{name} has {n} rows: {self.folds} folds need {_FEWEST * self.folds}, to train a critic and judge it on others; "
                "take a nearest-neighbour estimator"
            )


def logistic_loss(t_p: Tensor, t_q: Tensor) -> Tensor:
    """E_P[log(1 + e^-T)] + E_Q[log(1 + e^T)], smallest at T = log p/q."""
    return softplus(-t_p).mean() + softplus(t_q).mean()


def _split(folds: Any, k: int) -> tuple[Tensor, Tensor]:
    """The rows to train on and those to stop by, when fold k is the one to be judged."""
    after = (k + 1) % len(folds)
    return torch.cat([fold for i, fold in enumerate(folds) if i not in (k, after)]), folds[after]


def _mean_over_columns(c: Tensor, shifts: Tensor) -> Tensor:
    """For each j the mean over shifts s of c[j - s, s]: what y_j takes part in."""
    n = len(c)
    rows = (torch.arange(n, device=c.device)[:, None] - shifts.to(c.device)) % n
    return c.gather(0, rows).mean(1)


__all__ = ["Held", "VariationalBound", "logistic_loss"]
