"""Divergences with a Lipschitz critic, exactly between samples: a bridge from transport to f-divergences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy
from discrepancy._results import Number, Outcome, Result
from discrepancy._validate import SamplePair, positive, sample, whole_number
from discrepancy.costs import Cost, Euclidean, as_cost
from discrepancy.divergences.admission import SMOOTH, Admission
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.kullback_leibler import KL

ADMITS = Admission("LipschitzDivergence", (FDivergence,), (SMOOTH,))
_MATRICES = 6  # of n x m float64 that the solver holds at its peak
_STEP = 0.05  # of the mean cost: the entropic step of the proximal iteration; smaller steps are slower, larger ones blur


@dataclass(frozen=True, repr=False)
class LipschitzResult(Result):
    """The value of the best critic found, `dual_gap` (how much a better one could gain at most), and how the work ended.

    `transported`, the transport part <plan, C> L, and `reweighted`, the divergence part D_f(R || Q), add up to value + dual_gap.
    `critic` is f as a function of points, `masses` (m,) the intermediate law R on the points of Q.
    """

    value: Number
    dual_gap: float
    transported: float
    reweighted: float
    iterations: int
    outcome: Outcome
    masses: Tensor
    critic: Callable[[Any], Tensor] = field(repr=False, compare=False)


class _Solution(NamedTuple):
    at_y: np.ndarray  # the critic at the points of Q
    plan: np.ndarray
    value: float
    transported: float
    reweighted: float
    iterations: int
    outcome: Outcome


@dataclass(frozen=True)
class LipschitzDivergence(Discrepancy):
    """D_f^L(P || Q) = sup over L-Lipschitz f of E_P f - E_Q f*(f) = min over laws R of L W_c(P, R) + D_f(R || Q).

    Finite where P and Q share no support, at most D_f and at most L W_1, and both in the limits of large and small L. x is P, y
    is Q. On samples it is a convex problem with one unknown a point of Q (the critic there; at x it is min_j L c(x, y_j) +
    f(y_j)), solved by entropic proximal steps, each smooth and minimised by L-BFGS, until the duality gap is below `tolerance` of
    the value. The value is that of an explicit critic, hence from below; `.solve` has the gap, the critic and the masses of R.

    divergence: any smooth `FDivergence`; the generator's linear part does not matter. cost: a metric, with respect to which
    critics are Lipschitz; `InvariantCost(group)` makes the critics invariant under a symmetry group, and the sampling error that
    of m times the sample. As a plug-in estimate it has the rate of W_1, O(n^(-1/d)) for d >= 3, and is biased upward at equality.
    Gradients in points and weights hold the optimum fixed (envelope theorem), to about the root of the relative gap; first order.
    Memory and time of an iteration O(n m);
    CPU, float64. Raises TypeError for a divergence that is not smooth or a cost that is no metric, ValueError where `memory` GiB
    do not hold the matrices. Source: Chen, Katsoulakis, Rey-Bellet and Zhu (2023), section 3.2; Birrell et al. (2022).
    """

    divergence: FDivergence = field(default_factory=KL)
    constant: float = 1.0
    cost: Cost = field(default_factory=Euclidean)
    tolerance: float = field(default=1e-3, kw_only=True)
    max_iterations: int = field(default=200, kw_only=True)
    memory: float = field(default=1.0, kw_only=True)
    claims: ClassVar[Claims] = Claims(symmetric=False)
    references: ClassVar[tuple[str, ...]] = ("group-symmetry-divergences", "birrell-2022")

    def __post_init__(self) -> None:
        """Check the options."""
        ADMITS.check(self.divergence)
        object.__setattr__(self, "cost", as_cost(self.cost))
        if not self.cost.metric:
            raise TypeError(f"cost must be a metric such as Euclidean(), for critics to be Lipschitz in it, got {self.cost!r}")
        for name in ("constant", "tolerance", "memory"):
            positive(getattr(self, name), name)
        whole_number(self.max_iterations, 1, "max_iterations")
        claims = Claims(symmetric=False, translation_invariant=self.cost.translation_invariant)
        object.__setattr__(self, "claims", claims)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        d = pair.x.shape[-1]
        self._check(pair)
        flat = [t.reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y)]
        mass = [w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b)]
        rows = [self._one(*row) for row in zip(*flat, *mass, strict=True)]
        return torch.stack([value for value, _ in rows]).to(pair.x.dtype).reshape(pair.batch)

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> LipschitzResult:
        """The value (differentiable) with its gap, the critic and the intermediate law; for single samples."""
        pair = self._checked(x, y, a, b)
        if pair.batch:
            raise ValueError(f"x and y must be single samples (n, d), got a batch of shape {tuple(pair.batch)}: loop over it")
        self._check(pair)
        value, found = self._one(pair.x, pair.y, pair.a, pair.b)
        kept = pair.b.detach() > 0
        support, at_y = pair.y.detach()[kept].double(), torch.from_numpy(found.at_y).to(pair.y.device)[kept]

        def critic(points: Any) -> Tensor:
            z = sample(points, "points").double()
            return (self.constant * self.cost.matrix(z, support) + at_y).amin(-1)

        return LipschitzResult(
            value=value.to(pair.x.dtype),
            dual_gap=max(0.0, found.transported + found.reweighted - found.value),
            transported=found.transported,
            reweighted=found.reweighted,
            iterations=found.iterations,
            outcome=found.outcome,
            masses=torch.from_numpy(found.plan.sum(0)),
            critic=critic,
        )

    def witness(self, x: Any, y: Any, a: Any = None, b: Any = None) -> Callable[[Any], Tensor]:
        """The critic, a function of points (k, d) -> (k,)."""
        with torch.no_grad():
            return self.solve(x, y, a, b).critic

    def _check(self, pair: SamplePair) -> None:
        for points, name in ((pair.x, "x"), (pair.y, "y")):
            self.cost.check(points, name)
            if points.device.type != "cpu":
                raise ValueError(f"{name} is on {points.device}: this is solved on the CPU, pass {name}.cpu()")
        need = _MATRICES * 8 * pair.x.shape[-2] * pair.y.shape[-2] / 2**30
        if need > self.memory:
            raise ValueError(
                f"{pair.x.shape[-2]} x {pair.y.shape[-2]} points need {need:.3g} GiB and memory is {self.memory:g}: raise it, or "
                "compare subsamples"
            )

    def _one(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, _Solution]:
        """The differentiable value of one problem, and the solution."""
        with torch.no_grad():
            costs = (self.constant * self.cost.matrix(x.detach().double(), y.detach().double())).numpy()
        same = x.shape == y.shape and bool((x.detach() == y.detach()).all()) and bool((a.detach() == b.detach()).all())
        masses = tuple(w.detach().double().numpy() / float(w.detach().double().sum()) for w in (a, b))
        found = _identity(masses[0], costs) if same else self._minimise(costs, *masses)
        found.outcome.warn(type(self).__name__, stacklevel=4)
        rows, columns = np.nonzero(found.plan > 1e-14)
        moved = self.constant * self.cost.pairs(x[rows].double(), y[columns].double())
        mass, at_y = torch.from_numpy(found.plan[rows, columns]), torch.from_numpy(found.at_y)
        at_x = torch.from_numpy((costs + found.at_y).min(1))
        dual = self.divergence.conjugate(at_y)
        # Envelope: the plan is the slope in the costs, the critic that in the weights; the value itself is the dual's.
        value = found.value + (mass * (moved - moved.detach())).sum()
        value = value + ((a - a.detach()).double() * at_x).sum() - ((b - b.detach()).double() * dual).sum()
        return value, found

    def _minimise(self, C: np.ndarray, a: np.ndarray, b: np.ndarray) -> _Solution:
        """The problem on its support; the critic at weightless points of Q is what the Lipschitz bound leaves."""
        rows, columns = a > 0, b > 0
        whole = rows.all() and columns.all()
        found = _proximal(self, C if whole else C[np.ix_(rows, columns)], a[rows], b[columns])
        if whole:
            return found
        plan, at_y = np.zeros_like(C), np.full(len(b), float(np.max(found.at_y)) + C.max())
        plan[np.ix_(rows, columns)], at_y[columns] = found.plan, found.at_y
        limit = self.divergence.slope_at_infinity
        return found._replace(plan=plan, at_y=np.minimum(at_y, limit) if np.isfinite(limit) else at_y)


def _identity(a: np.ndarray, costs: np.ndarray) -> _Solution:
    """Equal samples: the zero critic, nothing moved."""
    return _Solution(np.zeros(costs.shape[1]), np.diag(a), 0.0, 0.0, 0.0, 0, Outcome.CLOSED_FORM)


def _proximal(D: LipschitzDivergence, C: np.ndarray, a: np.ndarray, b: np.ndarray) -> _Solution:
    """min over plans pi with first margin a of <pi, C> + D_f(pi^T 1 || b) by steps that add epsilon KL(pi || last pi).

    Each step is, in the dual, a smooth concave problem in the critic g at the points of Q; the unregularised dual value of g and
    the primal value of pi bound the optimum from both sides.
    """
    from scipy.optimize import minimize

    f = D.divergence

    def dual(g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """f*(g) and its slope t, by f*(g) = t g - f(t): one inversion of f' where it is numerical."""
        s = torch.from_numpy(g)
        t = f.inverse_derivative(s)
        return (t * s - f.generator(t)).numpy(), t.numpy()

    # R sums to one, so that no density of R exceeds 1 / b; critics are Lipschitz, so that none lies far below the highest.
    upper = f.derivative(torch.from_numpy(1.0 / b)).numpy()
    bounds = list(zip(np.full(len(b), -2.0 * C.max() - 1e-12), np.maximum(upper, 0.0), strict=True))
    epsilon = _STEP * float(C.mean())
    if epsilon == 0.0:  # all points coincide
        return _Solution(np.zeros(len(b)), a[:, None] * b, 0.0, 0.0, 0.0, 0, Outcome.CLOSED_FORM)
    scaled = C / epsilon
    log_prior = np.broadcast_to(np.log(b), C.shape).copy()
    g, best = np.zeros(len(b)), (float((a * C.min(1)).sum()), np.zeros(len(b)))
    plan, parts, outcome = np.zeros_like(C), (np.inf, 0.0), Outcome.ITERATION_LIMIT
    done = 0
    for _ in range(D.max_iterations):
        done += 1

        def loss(g: np.ndarray, prior: np.ndarray = log_prior) -> tuple[float, np.ndarray]:
            z = prior - scaled - g / epsilon
            top = z.max(1, keepdims=True)
            weight = np.exp(z - top)
            total = weight.sum(1, keepdims=True)
            value, slope = dual(g)
            soft = -epsilon * (np.log(total) + top)[:, 0]
            return float((b * value).sum() - (a * soft).sum()), b * slope - ((a / total[:, 0]) @ weight)

        g = minimize(loss, g, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200, "ftol": 1e-13, "gtol": 1e-9}).x
        log_prior = log_prior - scaled - g / epsilon
        log_prior -= log_prior.max(1, keepdims=True)
        log_prior -= np.log(np.exp(log_prior).sum(1, keepdims=True))
        plan = a[:, None] * np.exp(log_prior)
        value = float((a * (C + g).min(1)).sum() - (b * dual(g)[0]).sum())
        if value > best[0]:
            best = (value, g)
        ratio = f.generator(torch.from_numpy(plan.sum(0) / b)).numpy()
        parts = (float((plan * C).sum()), float((b * ratio).sum()))
        if sum(parts) - best[0] <= D.tolerance * max(best[0], 0.0) + 1e-12 * float(C.max()):
            outcome = Outcome.CONVERGED
            break
    return _Solution(best[1], plan, best[0], *parts, done, outcome)


__all__ = ["ADMITS", "LipschitzDivergence", "LipschitzResult"]
