"""Flows of least q-norm, 1 < q < inf: damped Newton steps on the slopes (p >= 2) or on the flows (p < 2), p in stages from 2.

Both are re-weighted least squares, a Laplacian system each, whose full step for the exponent r is 1 / (r - 1) of the plain
re-weighting; each step ends with an exact search on its line. On the side chosen the exponent r = max(p, q) is at least 2, so
that the weights |u|^(r-2) are bounded. Every step hands back a potential and a flow that delivers the measure: whatever they are,
the potential bounds the norm from below and the flow from above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from discrepancy._results import NumericalError
from discrepancy.transport.graphs.laplacian import GroundedLaplacian, electrical_flows
from discrepancy.transport.graphs.network import Flow, Network

_FLOOR = 1e-8  # of the largest weight |u|^(r-2): edges at rest keep so much of it, lest the system be singular
_GROWTH = 1.6  # of the exponent from one stage to the next
_STAGE_GAP = 1e-2  # relative, that ends a stage before the last
_RAISED = (0.0, 1e-14, 1e-12, 1e-10)  # least conductances, relative to the largest, that are tried in turn
_PATIENCE = 10  # steps without progress of the gap, after which a stage is left


@dataclass
class _Best:
    """The potential with the largest lower bound so far, and the flow with the least norm."""

    lower: float
    upper: float
    potential: np.ndarray
    flow: np.ndarray

    def meet(self, lower: float, upper: float, potential: np.ndarray, flow: np.ndarray) -> None:
        """Keep what is better."""
        if lower > self.lower:
            self.lower, self.potential = lower, potential
        if upper < self.upper:
            self.upper, self.flow = upper, flow

    def gap(self) -> float:
        """Relative to the upper bound."""
        return (self.upper - self.lower) / self.upper


class _Restoration:
    """Adds the currents of what a flow fails to deliver: systems of widely spread weights lose digits."""

    def __init__(self, network: Network, sigma: np.ndarray) -> None:
        self.network, self.sigma = network, sigma
        self.conductance = network.measures / network.lengths**2
        self.system = GroundedLaplacian(network, self.conductance, direct=True)

    def __call__(self, flow: np.ndarray) -> np.ndarray:
        net = self.network
        g = self.system.solve((self.sigma - net.delivered(flow))[:, None])[:, 0]
        return flow + self.conductance * (g[net.head] - g[net.tail])


def bounds(network: Network, sigma: np.ndarray, f: np.ndarray, flow: np.ndarray, p: float) -> tuple[float, float]:
    """(<sigma, f> / E_p(f)^(1/p), ||b||_q) of any potential and any flow that delivers sigma: the norm lies between."""
    root = network.energy_root(network.slopes(f), p)
    lower = float(sigma @ f) / root if root > 0 else 0.0
    return lower, flow_norm(network, flow, p)


def flow_norm(network: Network, flow: np.ndarray, p: float) -> float:
    """||b||_q of a flow J (E,) with b = l J / w, q the conjugate of p; sum l |J| for p = inf."""
    if np.isinf(p):
        return float(network.lengths @ np.abs(flow))
    return network.energy_root(network.lengths * flow / network.measures, p / (p - 1))


def least_flow(network: Network, sigma: np.ndarray, p: float, *, tolerance: float, max_iterations: int) -> Flow:
    """A flow of least q-norm that delivers sigma (n,), to a relative gap of `tolerance`.

    Two Laplacian systems a step; some 5 steps for max(p, q) = 3, 20 for 50, 80 for 200.
    """
    start = electrical_flows(network, sigma[None])[0]
    potential, flow = start.potential, start.flow
    restore = _Restoration(network, sigma)
    by_slopes = p >= 2
    exponent = p if by_slopes else p / (p - 1)
    stages = max(1, math.ceil(math.log(exponent / 2) / math.log(_GROWTH) - 1e-9))
    done = 0
    best = _Best(*bounds(network, sigma, potential, flow, p), potential, flow)
    for stage in range(1, stages + 1):
        r = exponent if stage == stages else 2 * (exponent / 2) ** (stage / stages)
        order = r if by_slopes else r / (r - 1)
        best = _Best(*bounds(network, sigma, best.potential, best.flow, order), best.potential, best.flow)
        goal = tolerance if stage == stages else _STAGE_GAP
        # A gap of 1e-10 leaves 1e-5 in the potential, which is the gradient: the last stage takes steps beyond it, each of which
        # squares what is left.
        stalled, beyond = 0, 2 if stage == stages else 0
        while done < max_iterations and stalled < _PATIENCE:
            if best.gap() <= goal:
                if beyond == 0:
                    break
                beyond -= 1
            before = best.gap()
            if by_slopes:
                moved, delivering = _slope_step(network, sigma, potential, best.flow, r)
                delivering = restore(delivering)
                best.meet(*bounds(network, sigma, potential, delivering, order), potential, delivering)
                potential = moved
            else:
                flow, pulling = _flow_step(network, sigma, best.potential, flow, r)
                flow = restore(flow)
                best.meet(*bounds(network, sigma, pulling, flow, order), pulling, flow)
            done += 1
            stalled = stalled + 1 if best.gap() > max(0.999 * before, goal) else 0
    rung = f"Newton on the {'slopes' if by_slopes else 'flows'}"
    return Flow(best.potential, best.flow, done, best.gap() <= tolerance, rung)


def _weights(size: np.ndarray, force: np.ndarray, r: float) -> np.ndarray:
    """(r - 1) |u|^(r-2) for |u| <= 1, and for the u that has the force of the other side, if that is more; at least the floor.

    At the solution the two agree. Before it, an edge that carries much at a small u would be taken for slack and overshoot.
    """
    return (r - 1) * np.maximum(np.maximum(size, np.minimum(force, 1.0) ** (1 / (r - 1))) ** (r - 2), _FLOOR)


def _slope_step(network: Network, sigma: np.ndarray, f: np.ndarray, flow: np.ndarray, p: float) -> tuple[np.ndarray, np.ndarray]:
    """(a better potential, a flow that delivers sigma) by a step on E_p(f) / p - k <sigma, f>.

    f is scaled to slopes of at most 1, and k is the number for which no scaling of f is better.
    """
    slopes = network.slopes(f)
    top = np.abs(slopes).max()
    f, u = f / top, slopes / top
    size, w = np.abs(u), network.measures
    force = np.sign(u) * size ** (p - 1)
    k = float(w @ size**p) / float(sigma @ f)
    stiffness = w * _weights(size, k * network.lengths * np.abs(flow) / w, p)
    missing = k * sigma - network.delivered(w * force / network.lengths)
    conductance, d = _solved(network, stiffness / network.lengths**2, lambda _: missing)
    stiffness = conductance * network.lengths**2
    v = network.slopes(d)
    delivering = (w * force + stiffness * v) / (network.lengths * k)
    t = _line_minimum(u, v, w, p, k * float(sigma @ d))
    return network.centred(f + t * d), delivering


def _flow_step(network: Network, sigma: np.ndarray, f: np.ndarray, flow: np.ndarray, q: float) -> tuple[np.ndarray, np.ndarray]:
    """(a flow of smaller norm that delivers sigma, a potential) by a step on sum_e w_e |b_e|^q / q."""
    w = network.measures
    b = network.lengths * flow / w
    top = np.abs(b).max()
    b = b / top
    size = np.abs(b)
    force = np.sign(b) * size ** (q - 1)
    # The potential pairs with b at the scale where <sigma, f> is the energy of b.
    pull = np.abs(network.slopes(f)) * float(w @ size**q) * top / float(sigma @ f)
    h = _weights(size, pull, q)
    short = sigma / top - network.delivered(w * b / network.lengths)
    conductance, g = _solved(
        network, w / (network.lengths**2 * h), lambda c: network.delivered(network.lengths * c * force) + short
    )
    move = (network.slopes(g) - force) * network.lengths**2 * conductance / w
    t = _line_minimum(b, move, w, q, 0.0)
    return (b + t * move) * top * w / network.lengths, g


def _solved(
    network: Network, conductance: np.ndarray, right: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The conductances and the solution of their Laplacian system, whose right-hand side may depend on them.

    Where edges of length 1e-9 meet edges at rest the system is singular to rounding: the least conductances are then raised,
    which makes a shorter step; how good it was is measured by what it attains.
    """
    largest = conductance.max()
    for share in _RAISED:
        raised = np.maximum(conductance, share * largest)
        try:
            return raised, GroundedLaplacian(network, raised, direct=True).solve(right(raised)[:, None])[:, 0]
        except NumericalError:
            continue
    raise NumericalError("the Laplacian is numerically singular: lengths or measures span too many decades")


def _line_minimum(u: np.ndarray, v: np.ndarray, w: np.ndarray, r: float, pull: float) -> float:
    """The t >= 0 that minimises sum_e w_e |u_e + t v_e|^r / r - t pull: a bracketed Newton iteration on the derivative."""

    def slope(t: float) -> tuple[float, float]:
        z = u + t * v
        size = np.abs(z)
        with np.errstate(over="ignore"):
            power = w * size ** (r - 2)
        return float(power @ (z * v)) - pull, (r - 1) * float(power @ (v * v))

    low, high = 0.0, 1.0
    for _ in range(60):
        if not slope(high)[0] < 0:
            break
        low, high = high, 2 * high
    t = 1.0 if low == 0.0 else (low + high) / 2
    for _ in range(60):
        first, second = slope(t)
        if first < 0:
            low = t
        else:
            high = t
        if high - low <= 1e-12 * high:
            break
        newton = t - first / second if second > 0 and np.isfinite(first) and np.isfinite(second) else np.nan
        following = newton if low < newton < high else (low + high) / 2
        if abs(following - t) <= 1e-14 * high:
            break
        t = following
    return t


__all__ = ["bounds", "flow_norm", "least_flow"]
