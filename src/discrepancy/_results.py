"""What the library answers with: frozen results that print as one line, and the words for how an iteration ended."""

from __future__ import annotations

import enum
import html
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

Number = float | Tensor


class NumericalError(ArithmeticError):
    """Something went wrong after the work began: a map returned NaN, a normaliser was zero. The message names the step."""


class ConvergenceWarning(UserWarning):
    """An iteration stopped before it reached its tolerance; the result's `outcome` says why."""


class Outcome(enum.Enum):
    """How an iteration ended; the value is what happened and what to do about it."""

    CONVERGED = "converged: the tolerance was reached"
    CLOSED_FORM = "closed form: nothing was iterated"
    ITERATION_LIMIT = "iteration limit: raise max_iterations, or epsilon, or accept the stated error"
    EXHAUSTED = "numerically exhausted: rounding stops further progress; use float64 or a larger epsilon"
    STOPPED_EARLY = "stopped early: the held-out score no longer improved"

    @property
    def ok(self) -> bool:
        """Whether the result meets its tolerance."""
        return self in (Outcome.CONVERGED, Outcome.CLOSED_FORM)

    def warn(self, what: str, *, stacklevel: int = 3) -> None:
        """Warn once, as `ConvergenceWarning`, if the iteration did not reach its tolerance."""
        if not self.ok:
            warnings.warn(f"{what}: {self.value}", ConvergenceWarning, stacklevel=stacklevel)


def _plain(value: Any) -> Any:
    """A value as JSON knows it: tensors become numbers or lists, enumerations their names, non-finite numbers None."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().tolist()
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return value


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        if value.numel() == 1:
            return f"{value.item():.6g}"
        return f"tensor{tuple(value.shape)}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, enum.Enum):
        return value.name.lower()
    return str(value)


class Result:
    """Shared behaviour of all results: a one-line `repr`, `to_dict()` for JSON, and a table in notebooks."""

    def _shown(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.repr}  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """The result as plain numbers, strings and lists; what is not finite or not there is None."""
        return {name: _plain(value) for name, value in self._shown().items()}

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}={_short(v)}" for k, v in self._shown().items() if v is not None)
        return f"{type(self).__name__}({inner})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(_short(v))}</td></tr>" for k, v in self._shown().items())
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


@dataclass(frozen=True, repr=False)
class Estimate(Result):
    """A number with its uncertainty.

    `value` (differentiable where the estimator is), `standard_error` (0 for a closed form, None where no valid one
    exists), the interval [`low`, `high`] at `level` (None where none is valid; `note` says why), and `method`,
    which names the estimator and the parameters that it chose from the data.
    """

    value: Number
    standard_error: Number | None = None
    low: Number | None = None
    high: Number | None = None
    level: float | None = None
    method: str = ""
    note: str | None = None

    def __float__(self) -> float:
        return float(self.value.detach() if isinstance(self.value, Tensor) else self.value)


@dataclass(frozen=True, repr=False)
class TestResult(Result):
    """A test's statistic, its p-value, and the Clopper-Pearson interval [`p_low`, `p_high`] of the p-value itself.

    A permutation p-value is a Monte Carlo number: the interval (99.9 % unless the method says otherwise) covers the
    p-value that infinitely many permutations would give. For an exact p-value both ends equal it.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    statistic: float
    p_value: float
    p_low: float
    p_high: float
    method: str = ""
    note: str | None = None


@dataclass(frozen=True, repr=False)
class TransportResult(Result):
    """A transport problem's answer, in units of the cost, with its certificate.

    `value` is the (regularised) optimum, `cost` the bare <plan, C>, `f` (..., n) and `g` (..., m) the potentials,
    `marginal_error` the L1 distance of the plan's marginals from the weights, `dual_gap` primal minus dual (absolute),
    `iterations`, the `epsilon` used (0 when exact), the `outcome`, and the `rungs`: which
    solvers were used, in order. The plan and its action are computed when asked.
    """

    value: Number
    cost: Number
    f: Tensor | None
    g: Tensor | None
    marginal_error: Number
    dual_gap: Number
    iterations: int
    epsilon: Number
    outcome: Outcome
    rungs: tuple[str, ...] = ()
    _plan: Callable[[], Tensor] | None = field(default=None, repr=False, compare=False)
    _apply: Callable[[Tensor], Tensor] | None = field(default=None, repr=False, compare=False)
    _map: Callable[[], Callable[[Tensor], Tensor]] | None = field(default=None, repr=False, compare=False)
    _functions: Callable[[], tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] | None = field(
        default=None, repr=False, compare=False
    )
    _basis: Any = field(default=None, repr=False, compare=False)

    def plan(self) -> Tensor:
        """The coupling, dense (..., n, m) or sparse COO; quadratic memory when dense."""
        if self._plan is None:
            raise TypeError("this result carries no plan: ask the problem's .solve(...) for one")
        return self._plan()

    def apply(self, v: Tensor) -> Tensor:
        """plan @ v for v of shape (..., m, k), without forming the plan where the solver can avoid it."""
        if self._apply is not None:
            return self._apply(v)
        return torch.matmul(self.plan(), v)

    def map(self) -> Callable[[Tensor], Tensor]:
        """The map that sends points of the first space along the plan, a callable (k, d) -> (k, d)."""
        if self._map is None:
            raise TypeError("this result knows no points: ask for .solve(x, y) on samples, not on a cost matrix")
        return self._map()

    def potentials(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """f and g as functions of points (k, d) -> (k,), defined out of sample too; they take f and g at the samples."""
        if self._functions is None:
            raise TypeError("this result knows no points: ask for .solve(x, y) on samples, not on a cost matrix")
        return self._functions()


@dataclass(frozen=True, repr=False)
class Finding(Result):
    """What a recipe found: the paper's `claim`, whether it `held` here, the `measured` numbers and those of each seed."""

    slug: str
    claim: str
    held: bool
    measured: str
    numbers: dict[str, Any] = field(default_factory=dict)
    per_seed: list[dict[str, Any]] = field(default_factory=list)
    quick: bool = False
