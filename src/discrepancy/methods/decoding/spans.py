"""How far candidate spans run before they are verified."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from discrepancy._validate import whole_number


class SpanRule(ABC):
    """When to stop growing the candidates of a divergence step; a subclass is a frozen dataclass.

    A candidate is at risk where its own next token is a divergence step again. All candidates grow together; `longest` tokens
    are the most.
    """

    @property
    @abstractmethod
    def longest(self) -> int:
        """The most tokens of a span."""

    @abstractmethod
    def stops(self, length: int, at_risk: Tensor, ever: Tensor, alive: Tensor) -> bool:
        """Whether spans of this length are done: boolean tensors (k,) say which candidates are at risk now, which were so at any
        length, and which have not ended."""


@dataclass(frozen=True)
class _RiskRule(SpanRule):
    """A rule that looks at risk points, up to `max_span` tokens."""

    max_span: int = 16

    def __post_init__(self) -> None:
        """Check the length."""
        whole_number(self.max_span, 1, "max_span")

    @property
    def longest(self) -> int:
        return self.max_span


@dataclass(frozen=True)
class LeftRisk(_RiskRule):
    """Stop at the earliest (leftmost) risk point among the candidates, after `max_span` tokens at the latest."""

    def stops(self, length: int, at_risk: Tensor, ever: Tensor, alive: Tensor) -> bool:
        return bool((at_risk & alive).any())


@dataclass(frozen=True)
class RightRisk(_RiskRule):
    """Stop at the latest (rightmost) of the candidates' first risk points, after `max_span` tokens at the latest."""

    def stops(self, length: int, at_risk: Tensor, ever: Tensor, alive: Tensor) -> bool:
        return bool((ever | ~alive).all())


@dataclass(frozen=True)
class FixedSpan(SpanRule):
    """Spans of n tokens, wherever the candidates waver: the ablation."""

    n: int = 4

    def __post_init__(self) -> None:
        """Check the length."""
        whole_number(self.n, 1, "n")

    @property
    def longest(self) -> int:
        return self.n

    def stops(self, length: int, at_risk: Tensor, ever: Tensor, alive: Tensor) -> bool:
        return length >= self.n


def require_rule(rule: Any) -> None:
    """Raise TypeError for what is no span rule."""
    if not isinstance(rule, SpanRule):
        raise TypeError(f"span must be LeftRisk(), RightRisk() or FixedSpan(n), got {rule!r}")


__all__ = ["FixedSpan", "LeftRisk", "RightRisk", "SpanRule", "require_rule"]
