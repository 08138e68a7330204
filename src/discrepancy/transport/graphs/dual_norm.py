"""The Sobolev dual norm of signed measures on a graph: choice of the solver, the certificate, and the envelope gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Number, Outcome, Result
from discrepancy.transport.first_order import first_order_only
from discrepancy.transport.graphs.laplacian import electrical_flows
from discrepancy.transport.graphs.network import Flow, Network
from discrepancy.transport.graphs.newton import bounds, flow_norm, least_flow

_ADVICE = "the dual norm is given with first derivatives only"
_ROUNDING = 1e-13  # of the terms in <sigma, f>
_EXACT = 1e-9  # relative gap that the direct solvers (p = 2, p = inf) stay below


@dataclass(frozen=True, repr=False)
class DualNorm(Result):
    """A Sobolev dual norm with its certificate.

    `value` (...); `potential` (..., n), the best f with E_p(f) <= 1 (and sum m |f|^p beside it for the full norm): <sigma, f> is
    the value, and f its gradient in sigma; `flow` J (..., E) along the edges and `density` g (..., n), what appears at the
    vertices (zero for the homogeneous norm): m_i g_i plus what J brings is sigma_i, up to `marginal_error` (L1). `dual_gap`: the
    norm of (g, J) minus <sigma, f>, between which the true value lies.
    """

    value: Number
    potential: Tensor
    flow: Tensor
    density: Tensor
    dual_gap: Tensor
    marginal_error: Tensor
    p: float
    iterations: int
    outcome: Outcome
    rungs: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Solved:
    """A batch of signed measures sigma (B, n) in float64, solved: potentials (B, n) of energy at most one, flows (B, E), and for
    each the norm of the flow and the gap to the potential's bound."""

    network: Network
    p: float
    potentials: np.ndarray
    flows: np.ndarray
    values: np.ndarray
    gaps: np.ndarray
    errors: np.ndarray
    iterations: int
    outcome: Outcome
    rungs: tuple[str, ...]

    @property
    def q(self) -> float:
        """The conjugate exponent, 1 for p = inf."""
        return 1.0 if math.isinf(self.p) else self.p / (self.p - 1)


def solve_norms(network: Network, sigma: np.ndarray, p: float, *, tolerance: float, max_iterations: int) -> Solved:
    """The dual norms of measures sigma (B, n), each of zero mass on every component.

    p = inf: the network simplex on the edges. p = 2: one Laplacian factorisation for the whole batch. Else Newton steps, to a
    relative gap of `tolerance`.
    """
    nonzero = np.flatnonzero(np.abs(sigma).sum(1) > 0)
    # sigma and -sigma are one problem: solved with the sign that makes the first entry positive, they have the same bits.
    sign = np.ones(len(sigma))
    sign[nonzero] = np.sign(sigma[nonzero, (sigma[nonzero] != 0).argmax(1)])
    given, sigma = sigma, sigma * sign[:, None]
    found = dict(zip(nonzero.tolist(), _flows(network, sigma[nonzero], p, tolerance, max_iterations), strict=True))
    size = len(sigma)
    potentials, flows = np.zeros((size, network.n)), np.zeros((size, len(network.tail)))
    values, gaps, errors = np.zeros(size), np.zeros(size), np.zeros(size)
    outcome, iterations, rungs = Outcome.CONVERGED, 0, dict.fromkeys(["zero measure"] if len(nonzero) < size else [])
    for k, flow in found.items():
        root = network.energy_root(network.slopes(flow.potential), p)
        potentials[k] = sign[k] * network.centred(flow.potential) / (root if root > 0 else 1.0)
        flows[k] = sign[k] * flow.flow
        lower, values[k] = bounds(network, sigma[k], flow.potential, flow.flow, p)
        gaps[k] = values[k] - lower
        errors[k] = np.abs(network.delivered(flows[k]) - given[k]).sum()
        iterations = max(iterations, flow.iterations)
        rungs[flow.rung] = None
        # What float64 can show: where mass moves little over far-apart places, <sigma, f> is a difference of large terms.
        rounding = _ROUNDING * float(np.abs(sigma[k]) @ np.abs(potentials[k]))
        if gaps[k] > max(tolerance, _EXACT) * values[k] + rounding or not (flow.converged or gaps[k] <= rounding):
            outcome = Outcome.ITERATION_LIMIT if flow.iterations >= max_iterations else Outcome.EXHAUSTED
    return Solved(network, p, potentials, flows, values, gaps, errors, iterations, outcome, tuple(rungs))


def _flows(network: Network, sigma: np.ndarray, p: float, tolerance: float, max_iterations: int) -> list[Flow]:
    if len(sigma) == 0:
        return []
    if p == 2:
        return electrical_flows(network, sigma)
    if math.isinf(p):
        from discrepancy.transport.graphs.cheapest import cheapest_flow

        return [cheapest_flow(network, s) for s in sigma]
    return [least_flow(network, s, p, tolerance=tolerance, max_iterations=max_iterations) for s in sigma]


class _NormValue(torch.autograd.Function):
    """The norms (B,) of V^q = min sum_e w_e^(1-q) l_e^q |J_e|^q: the potential is the slope in sigma, and J is held fixed."""

    @staticmethod
    def forward(ctx: Any, sigma: Tensor, lengths: Tensor, measures: Tensor, solved: Solved) -> Tensor:
        ctx.save_for_backward(sigma, lengths, measures)
        ctx.solved = solved
        return torch.from_numpy(solved.values.copy())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), s = grads, ctx.solved
        sigma, lengths, measures = ctx.saved_tensors
        g = grad.detach().double().numpy()
        net = s.network
        # share_e = w_e |b_e|^q / V^q, which sums to one over the edges.
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = np.abs(net.lengths * s.flows / net.measures) / s.values[:, None]
            share = np.where(s.values[:, None] > 0, net.measures * relative**s.q, 0.0)
        total = (g * s.values) @ share

        def tensor(value: np.ndarray, like: Tensor) -> Tensor:
            return torch.from_numpy(value).to(like.dtype)

        slopes = (
            lambda: tensor(g[:, None] * s.potentials, sigma),
            lambda: tensor(total / net.lengths, lengths),
            lambda: tensor((1 - s.q) / s.q * total / net.measures, measures),
        )
        out = (
            first_order_only(slope(), _ADVICE, grad, sigma, lengths, measures) if need else None
            for slope, need in zip(slopes, ctx.needs_input_grad[:3], strict=True)
        )
        return (*out, None)


def norm_values(sigma: Tensor, lengths: Tensor, measures: Tensor, solved: Solved) -> Tensor:
    """The norms (B,) in float64, differentiable in sigma (B, n), lengths (E,) and measures (E,) of the solved network.

    The potential is defined up to a number on each component: the gradient in sigma is right along directions of zero mass.
    """
    return _NormValue.apply(sigma, lengths, measures, solved)  # type: ignore[return-value]


def balanced(network: Network, sigma: np.ndarray, tolerance: float, advice: str) -> np.ndarray:
    """sigma (B, n) with zero mass on every component exactly, or ValueError naming the component where it is off by more than
    `tolerance` of the total."""
    sums = np.stack([np.bincount(network.components, s, network.count) for s in sigma])
    size = np.abs(sigma).sum(1, keepdims=True)
    off = np.abs(sums) > tolerance * size
    if off.any():
        k, c = (int(i) for i in np.argwhere(off)[0])
        members = np.flatnonzero(network.components == c)
        named = ", ".join(map(str, members[:5])) + (", ..." if len(members) > 5 else "")
        raise ValueError(
            f"sigma must have zero mass on every component, it has {sums[k, c]:.6g} on component {c} (vertices {named}), "
            f"where the norm is infinite: {advice}"
        )
    parts = np.stack([np.bincount(network.components, np.abs(s), network.count) for s in sigma])
    share = np.divide(sums, parts, out=np.zeros_like(sums), where=parts > 0)
    return sigma - np.abs(sigma) * share[:, network.components]


__all__ = ["DualNorm", "Solved", "balanced", "flow_norm", "norm_values", "solve_norms"]
