"""Targets known up to their normaliser: a base model times factors, P(x) = a(x) prod_k exp s_k(x), and p = P / Z."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from discrepancy._validate import positive


@runtime_checkable
class Scored(Protocol):
    """What has log-probabilities: `log_prob(samples) -> (n,)`."""

    def log_prob(self, samples: Any, /) -> Tensor:
        """log a(x) (n,)."""
        ...


@runtime_checkable
class Target(Protocol):
    """An unnormalised law: `log_score(samples) -> (n,)`, log P(x), -inf where the target has no mass."""

    def log_score(self, samples: Any, /) -> Tensor:
        """log P(x) (n,)."""
        ...


class Scorer(ABC):
    """One factor of a target; a subclass is a frozen dataclass that gives its logarithm."""

    @abstractmethod
    def log_factor(self, samples: Any) -> Tensor:
        """log of the factor at n samples, (n,); -inf forbids."""


@dataclass(frozen=True)
class BooleanScorer(Scorer):
    """The hard constraint b(x) in {0, 1}: `predicate(samples)` gives a boolean (n,); where it is False, x is forbidden."""

    predicate: Callable[[Any], Tensor]

    def log_factor(self, samples: Any) -> Tensor:
        """0 where the predicate holds, -inf elsewhere. Raises TypeError unless it is boolean."""
        kept = torch.as_tensor(self.predicate(samples))
        if kept.dtype != torch.bool:
            raise TypeError(f"a BooleanScorer's predicate must give a boolean tensor, got {kept.dtype}")
        return torch.where(kept, 0.0, -torch.inf)


@dataclass(frozen=True)
class RewardScorer(Scorer):
    """exp(r(x) / beta): the optimum of E[r] - beta KL(pi || a). Soft everywhere, so that every divergence is finite.

    Raises ValueError unless beta is positive.
    """

    reward: Callable[[Any], Tensor]
    beta: float = 1.0

    def __post_init__(self) -> None:
        positive(self.beta, "beta")

    def log_factor(self, samples: Any) -> Tensor:
        """r(x) / beta."""
        return torch.as_tensor(self.reward(samples)) / self.beta


@dataclass(frozen=True)
class LinearScorer(Scorer):
    """exp(lambda . phi(x)): `features(samples)` gives phi (n, k), `coefficients` is lambda (k,).

    Raises ValueError for coefficients that are no finite vector.
    """

    features: Callable[[Any], Tensor]
    coefficients: Tensor

    def __post_init__(self) -> None:
        c = self.coefficients
        if c.ndim != 1 or not bool(torch.isfinite(c).all()):
            raise ValueError(f"coefficients must be a finite vector (k,), got {c}")

    def log_factor(self, samples: Any) -> Tensor:
        """lambda . phi(x). Raises ValueError where the features are not (n, k)."""
        phi = checked_features(self.features(samples), len(self.coefficients))
        return phi.to(self.coefficients.dtype) @ self.coefficients


@dataclass(frozen=True)
class EnergyBasedModel:
    """p proportional to a(x) prod_k exp s_k(x) for a base model `a` (anything with `log_prob`) and scorers s_k.

    Raises TypeError for a base without `log_prob` or a factor that is no `Scorer`.
    """

    base: Scored
    scorers: Sequence[Scorer] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.base, Scored):
            raise TypeError(f"base must offer log_prob(samples), {type(self.base).__name__} does not")
        object.__setattr__(self, "scorers", tuple(self.scorers))
        for scorer in self.scorers:
            if not isinstance(scorer, Scorer):
                raise TypeError(
                    f"scorers must be Scorer objects, got {type(scorer).__name__}: "
                    "wrap a predicate in BooleanScorer(...), a reward in RewardScorer(..., beta)"
                )

    @torch.no_grad()
    def log_score(self, samples: Any) -> Tensor:
        """log P(x) (n,), without gradient; -inf where a scorer forbids. Raises ValueError for NaN or +inf, with the index."""
        score = self.base.log_prob(samples).detach()
        for scorer in self.scorers:
            score = score + scorer.log_factor(samples).to(score)
        return checked_scores(score, len(score))


def checked_scores(score: Tensor, n: int) -> Tensor:
    """The log-scores if they are n numbers below +inf. Raises ValueError with the first index that is not."""
    if score.shape != (n,):
        raise ValueError(f"log_score must give one number a sample, ({n},), got shape {tuple(score.shape)}")
    bad = torch.isnan(score) | (score == torch.inf)
    if bool(bad.any()):
        where = int(bad.nonzero()[0])
        raise ValueError(
            f"log_score is {float(score[where])} at index {where} ({int(bad.sum())} of {n} values are NaN or +inf): "
            "a target's score must be a number, or -inf where it has no mass"
        )
    return score


def checked_features(phi: Tensor, width: int | None = None) -> Tensor:
    """The features if they are (n, k) and finite. Raises ValueError."""
    phi = torch.as_tensor(phi)
    phi = phi if phi.is_floating_point() else phi.to(torch.get_default_dtype())
    if phi.ndim != 2 or (width is not None and phi.shape[1] != width):
        raise ValueError(f"features must be (n, {'k' if width is None else width}), got shape {tuple(phi.shape)}")
    if not bool(torch.isfinite(phi).all()):
        raise ValueError(f"features has {int((~torch.isfinite(phi)).sum())} value(s) that are not finite")
    return phi


__all__ = ["BooleanScorer", "EnergyBasedModel", "LinearScorer", "RewardScorer", "Scored", "Scorer", "Target"]
