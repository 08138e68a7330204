"""From the solver's solutions to a `TransportResult`: certified once more, from the costs of the plan, the rest on demand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Outcome, TransportResult
from discrepancy.costs import Cost
from discrepancy.transport.exact.extension import barycentric_map, conjugate_potentials
from discrepancy.transport.exact.gradient import Entries
from discrepancy.transport.exact.solution import Basis, ExactSolution

# What an optimum may show for a gap, relative to the size of its terms, and for an L1 marginal error: far above rounding
# (1e-14), below anything that a user could take for a different plan.
_CERTIFIED = 1e-9
# The rounding of sums of as many terms as a problem has, relative to the terms as the solver added them up: where costs span
# twenty orders of magnitude its potentials are large and cancel, and a gap of this size is all that float64 can show.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Solved:
    """A batch of solved problems: their solutions, the entries of the plans, potentials f (B, n), g (B, m) and weights a (B, n),
    b (B, m) in float64.

    Potentials are shifted so that <a, f> = <b, g>, as those of the entropic problem are.
    """

    solutions: Sequence[ExactSolution]
    entries: Entries
    f: Tensor
    g: Tensor
    a: Tensor
    b: Tensor

    @classmethod
    def of(cls, solutions: Sequence[ExactSolution], a: np.ndarray, b: np.ndarray) -> Solved:
        """The batch of solutions with weights a (B, n), b (B, m)."""
        f, g = np.stack([s.f for s in solutions]), np.stack([s.g for s in solutions])
        shift = (_mean(b, g) - _mean(a, f))[:, None] / 2
        return cls(solutions, Entries.of(solutions), *(torch.from_numpy(t) for t in (f + shift, g - shift, a, b)))

    def certified(self, costs: Tensor) -> Certificate:
        """Primal, dual and marginals of the batch, from the costs (k,) of the entries in float64."""
        # In NumPy: each torch operation costs more than all of this does on a small problem.
        size, problem = len(self.solutions), self.entries.problem.numpy()
        weighted = self.entries.mass.numpy() * costs.detach().numpy()
        primal = np.bincount(problem, weighted, size)
        a, b, f, g = (t.numpy() for t in (self.a, self.b, self.f, self.g))
        scale = np.bincount(problem, np.abs(weighted), size) + _mean(a, np.abs(f)) + _mean(b, np.abs(g))
        gap = primal - (_mean(a, f) + _mean(b, g))
        # The two sums round by about 1e-16 a term: a gap below zero by so little is one of zero.
        gap[(gap < 0) & (gap > -1e-13 * scale)] = 0.0
        error = self.marginal_error()
        outcome = next((s.outcome for s in self.solutions if not s.outcome.ok), self.solutions[0].outcome)
        wide = ~(np.abs(gap) <= _CERTIFIED * scale)
        if wide.any():
            wide &= ~(np.abs(gap) <= _ROUNDING * self._summed() + self._unavoidable())
        if outcome.ok and (wide.any() or bool((error > _CERTIFIED).any())):
            outcome = Outcome.EXHAUSTED
        return Certificate(torch.from_numpy(primal), torch.from_numpy(gap), error, outcome)

    def _summed(self) -> np.ndarray:
        """The absolute values (B,) in the dual sums, of the potentials as the solver returned them."""
        f, g = (np.stack([np.abs(getattr(s, side)) for s in self.solutions]) for side in ("f", "g"))
        return _mean(self.a.numpy(), f) + _mean(self.b.numpy(), g)

    def _unavoidable(self) -> np.ndarray:
        """The gap (B,) that no float64 potentials can close.

        It is eps of the largest potential that carries mass, and what the rounding of masses to whole numbers of 2^-62 adds,
        each marginal's miss times its potential. Both show where nearly all mass stays at no cost and the value is that of the
        rest.
        """
        total = np.zeros(len(self.solutions))
        sides = ((self.a, self.f), (self.b, self.g))
        for miss, (weights, potentials) in zip(self._misses(), sides, strict=True):
            size = np.abs(potentials.numpy())
            largest = size.max(-1, where=weights.numpy() > 0, initial=0.0)
            total += 2 * _mean(miss, size) + 4 * np.finfo(np.float64).eps * largest
        return total

    def _misses(self) -> tuple[np.ndarray, np.ndarray]:
        """How far each marginal of the plans is from its weights, (B, n) and (B, m)."""
        entries = self.entries
        return (
            _miss(entries.problem, entries.row, entries.mass, self.a),
            _miss(entries.problem, entries.column, entries.mass, self.b),
        )

    def marginal_error(self) -> Tensor:
        """The L1 error (B,) of both marginals."""
        rows, columns = self._misses()
        return torch.from_numpy(rows.sum(-1) + columns.sum(-1))


@dataclass(frozen=True)
class Certificate:
    """<P, C> (B,), primal minus dual (B,) in units of the cost, the L1 error of both marginals (B,), and how it ended: not
    converged where the gap is more than rounding."""

    cost: Tensor
    gap: Tensor
    marginal_error: Tensor
    outcome: Outcome


def _mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """sum_i w_i v_i along the rows, where a weight of zero silences an infinite value."""
    total = np.einsum("bi,bi->b", weights, values)
    if np.isfinite(total).all():
        return total
    with np.errstate(invalid="ignore"):
        return np.where(weights > 0, weights * values, 0.0).sum(-1)


def _miss(problem: Tensor, index: Tensor, mass: Tensor, weights: Tensor) -> np.ndarray:
    size, n = weights.shape
    sums = np.bincount(problem.numpy() * n + index.numpy(), mass.numpy(), size * n)
    return np.abs(sums.reshape(size, n) - weights.numpy())


def transport_result(
    solved: Solved,
    certificate: Certificate,
    value: Tensor,
    batch: torch.Size,
    dtype: torch.dtype,
    points: tuple[Tensor, Tensor, Cost] | None,
    *,
    potentials: bool = True,
) -> TransportResult:
    """The result of a batch of problems between points x (B, n, d), y (B, m, d) under a cost, or on cost matrices (None).

    potentials=False: the problem has none (a bottleneck), and its result starts no other.
    """
    entries = solved.entries
    shape = (*batch, solved.a.shape[1], solved.b.shape[1])

    def shaped(t: Tensor) -> Tensor:
        return t.to(dtype).reshape((*batch, *t.shape[1:]))

    def plan() -> Tensor:
        where = torch.unravel_index(entries.problem, tuple(batch)) if batch else ()
        index = torch.stack([*where, entries.row, entries.column])
        return torch.sparse_coo_tensor(index, entries.mass.to(dtype), shape, check_invariants=True).coalesce()

    def apply(v: Tensor) -> Tensor:
        if v.ndim < 2 or v.shape[-2] != shape[-1]:
            raise ValueError(f"apply takes v of shape (..., {shape[-1]}, k), got {tuple(v.shape)}")
        columns = v.expand(*batch, *v.shape[-2:]).reshape(-1, v.shape[-1]).double()
        pieces = columns[entries.problem * shape[-1] + entries.column] * entries.mass[:, None]
        total = torch.zeros(math.prod(shape[:-1]), v.shape[-1], dtype=torch.float64)
        total = total.index_add(0, entries.problem * shape[-2] + entries.row, pieces)
        return total.to(v.dtype).reshape(*shape[:-1], v.shape[-1])

    bases: tuple[Basis | None, ...] = tuple(s.basis for s in solved.solutions)
    return TransportResult(
        value=value,
        cost=shaped(certificate.cost),
        f=shaped(solved.f) if potentials else None,
        g=shaped(solved.g) if potentials else None,
        marginal_error=certificate.marginal_error.reshape(batch),
        dual_gap=certificate.gap.reshape(batch),
        iterations=max(s.pivots for s in solved.solutions),
        epsilon=0.0,
        outcome=certificate.outcome,
        rungs=tuple(dict.fromkeys(rung for s in solved.solutions for rung in s.rungs)),
        _plan=plan,
        _apply=apply,
        _map=None if points is None else lambda: barycentric_map(points[0], points[1], entries, points[2]),
        _functions=None
        if points is None or not potentials
        else lambda: conjugate_potentials(points[0], points[1], solved.f, solved.g, points[2]),
        _basis=None if any(basis is None for basis in bases) else bases,
    )


__all__ = ["Certificate", "Solved", "transport_result"]
