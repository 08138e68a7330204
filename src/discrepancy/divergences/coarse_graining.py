"""Probabilities of a partition under two mixtures: by data processing, their divergence is a lower bound of the mixtures'."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Normal

from discrepancy.divergences.components import Components

_DIRECTIONS = 24
_STEPS = torch.linspace(-10, 10, 401, dtype=torch.float64)  # edges a component, in units of its standard deviation
_EXACT, _ROUNDED = 1e-280, 1e-9  # mass below which a cell is merged: with tails to full relative accuracy, and without


def partitions(P: Components, Q: Components) -> list[tuple[Tensor, Tensor]]:
    """Pairs of probability vectors (cells,) of one partition of the space under either law, float64; none where no cell's mass
    is known in closed form.

    On the line the cells are intervals a twentieth of a standard deviation wide; between Gaussian laws of several dimensions they
    are such slabs, across some directions in which the means differ.
    """
    left, right = P.gaussian(), Q.gaussian()
    if left is not None and right is not None:
        found = []
        for direction in _directions(left, right, P.weights, Q.weights):
            lines = [_on_the_line(m.double(), root.double(), direction) for m, root in (left, right)]
            edges = _edges([lines[0], lines[1]])
            masses = [weights.double() @ _normal_cells(*line, edges) for weights, line in zip((P.weights, Q.weights), lines)]
            found.append(_merged(masses[0], masses[1], _EXACT))
        return found
    if P.law.event_shape != torch.Size(()) or Q.law.event_shape != torch.Size(()):
        return []
    try:
        moments = [(c.law.mean.double(), c.law.stddev.double()) for c in (P, Q)]
        edges = _edges(moments)
        floor = max(float(getattr(c.law.support, "lower_bound", -math.inf)) for c in (P, Q))
        edges = edges[edges > floor]
        masses = [c.weights.double() @ _cells(c.law, edges) for c in (P, Q)]
    except NotImplementedError:
        return []
    return [_merged(masses[0], masses[1], _ROUNDED)]


def _directions(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], wp: Tensor, wq: Tensor) -> list[Tensor]:
    """Unit vectors: the discriminant between the laws, those between components, the axes."""
    (mp, lp), (mq, lq) = ((m.double(), root.double()) for m, root in (left, right))
    d = mp.shape[-1]
    if d == 1:
        return [torch.ones(1, dtype=torch.float64)]
    within = torch.einsum("k,kij,klj->il", wp.double(), lp, lp) + torch.einsum("k,kij,klj->il", wq.double(), lq, lq)
    gaps = [wp.double() @ mp - wq.double() @ mq]
    gaps += list((mp[:, None] - mq[None, :]).reshape(-1, d))
    vectors = [torch.linalg.solve(within, gap) for gap in gaps] + list(torch.eye(d, dtype=torch.float64))
    lengths = [float(torch.linalg.vector_norm(v)) for v in vectors]
    return [v / length for v, length in zip(vectors, lengths) if length > 0][:_DIRECTIONS]


def _on_the_line(mean: Tensor, root: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    return mean @ direction, torch.linalg.vector_norm(direction @ root, dim=-1)


def _edges(moments: list[tuple[Tensor, Tensor]]) -> Tensor:
    grids = [(m.reshape(-1, 1) + s.reshape(-1, 1) * _STEPS.to(m)).reshape(-1) for m, s in moments]
    edges = torch.unique(torch.cat(grids))
    # Two edges that all but coincide enclose a cell of rounding.
    apart = edges.diff() > 1e-7 * (1 + edges[1:].abs())
    return edges[torch.cat([apart.new_ones(1), apart])]


def _normal_cells(mean: Tensor, scale: Tensor, edges: Tensor) -> Tensor:
    """Masses (K, cells) of the intervals that the edges cut the line into; each from its nearer tail, so that none cancels."""
    z = (edges - mean.unsqueeze(-1)) / scale.unsqueeze(-1)
    infinite = torch.full_like(z[..., :1], math.inf)
    low, high = torch.cat([-infinite, z], -1), torch.cat([z, infinite], -1)
    turned = low + high > 0
    a, b = torch.where(turned, -high, low), torch.where(turned, -low, high)
    return _ndtr(b) - _ndtr(a)


def _ndtr(x: Tensor) -> Tensor:
    """The normal distribution function to full relative accuracy: torch's own has seven digits at -6.5, and the difference over a
    cell next to none."""
    tail = x < -1
    far = torch.where(tail, x, torch.full_like(x, -1.0))
    return torch.where(tail, torch.special.erfcx(-far / math.sqrt(2)) * torch.exp(-far * far / 2) / 2, torch.special.ndtr(x))


def _cells(law: object, edges: Tensor) -> Tensor:
    """Masses (K, cells) of intervals by the distribution function."""
    if isinstance(law, Normal):
        return _normal_cells(law.loc.double(), law.scale.double(), edges)
    below = law.cdf(edges.unsqueeze(-1)).double().mT  # type: ignore[attr-defined]
    ends = torch.zeros_like(below[..., :1])
    return torch.cat([ends, below, ends + 1], -1).diff(dim=-1).clamp(min=0)


def _merged(p: Tensor, q: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Neighbouring cells joined until each has a mass above rounding under both laws; a coarser partition is a valid one."""
    joined: list[list[float]] = []
    open_p = open_q = 0.0
    for a, b in zip(p.tolist(), q.tolist()):
        open_p, open_q = open_p + a, open_q + b
        if open_p > least and open_q > least:
            joined.append([open_p, open_q])
            open_p = open_q = 0.0
    if not joined:
        joined.append([0.0, 0.0])
    joined[-1][0] += open_p
    joined[-1][1] += open_q
    cells = torch.tensor(joined, dtype=torch.float64)
    cells = cells / cells.sum(0)
    return cells[:, 0], cells[:, 1]


__all__ = ["partitions"]
