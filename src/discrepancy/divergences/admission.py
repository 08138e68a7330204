"""What a method needs of the divergence that a user hands to it, as data: checked by the method, read by `discrepancy matrix`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.f_divergence import FDivergence


@dataclass(frozen=True)
class Condition:
    """A requirement beyond the kind: what it says in words, and whether a divergence meets it."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Admission:
    """The divergences that a method takes: instances of any of `kinds` that meet every one of `conditions`.

    `method` is the name that a refusal mentions, `examples` the divergences that it proposes instead.
    """

    method: str
    kinds: tuple[type, ...] = (Divergence,)
    conditions: tuple[Condition, ...] = ()
    examples: tuple[str, ...] = ("KL()", "ReverseKL()", "JensenShannon()")

    def refusal(self, divergence: Any) -> str | None:
        """Why the method does not take this object, in one sentence; None where it does."""
        instead = f"try {' or '.join(self.examples)}"
        wanted = " or ".join(kind.__name__ for kind in self.kinds)
        if isinstance(divergence, type):
            name = divergence.__name__
            return f"{self.method} takes an object of kind {wanted}, got the class {name} itself: write {name}()"
        if not isinstance(divergence, self.kinds):
            return f"{self.method} takes an object of kind {wanted}, got {type(divergence).__name__}: {instead}"
        for condition in self.conditions:
            if not condition.holds(divergence):
                return f"{self.method} needs {condition.words}, which {divergence!r} does not meet: {instead}"
        return None

    def check(self, divergence: Any) -> Any:
        """The divergence itself. Raises TypeError with the reason where the method does not take it."""
        reason = self.refusal(divergence)
        if reason is not None:
            raise TypeError(reason)
        return divergence


# Requirements that several methods share.
SMOOTH = Condition("a twice differentiable generator", lambda f: f.smooth)
# In the paper's direction Q/P the slope at zero is that of the reversed generator.
BARRIER_IN_Q = Condition(
    "a generator whose slope in Q/P falls to -inf at zero (otherwise the optimum may have probabilities of exactly zero, where "
    "the stationarity condition that the method rests on fails)",
    lambda f: isinstance(f, FDivergence) and f.reversed().slope_at_zero == -float("inf"),
)
FINITE = Condition(
    "a value that is finite for every pair of laws", lambda f: f.at_zero < float("inf") and f.slope_at_infinity < float("inf")
)


__all__ = ["BARRIER_IN_Q", "FINITE", "SMOOTH", "Admission", "Condition"]
