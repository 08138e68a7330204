"""Barycenters of clouds: the points that are closest, on weighted average, to several samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy._results import Outcome, Result
from discrepancy._validate import generator_or_default, sample, weights
from discrepancy.costs import SquaredEuclidean
from discrepancy.descent import descend
from discrepancy.transport.barycenters.optimised_weights import OptimisedWeights, alternate
from discrepancy.transport.exact.inputs import on_cpu, unit_masses
from discrepancy.transport.exact.optimal_transport import OptimalTransport
from discrepancy.transport.exact.orientation import solve_pair
from discrepancy.transport.exact.solution import ExactSolution


@dataclass(frozen=True, repr=False)
class Barycenter(Result):
    """A free-support barycenter: `points` (k, d) of `weights` (k,), the objective sum_i w_i D(points, cloud_i) as `value`, its
    `values` along the way, the `iterations` and the `outcome`."""

    points: Tensor
    weights: Tensor
    value: float
    values: Tensor
    iterations: int
    outcome: Outcome


def barycenter(
    clouds: Sequence[Any],
    w: Any = None,
    discrepancy: Discrepancy | None = None,
    *,
    weights_of: Sequence[Any] | None = None,
    size: int | None = None,
    start: Any = None,
    support_weights: OptimisedWeights | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-7,
    generator: torch.Generator | None = None,
) -> Barycenter:
    """The k points that minimise sum_i w_i D(points, cloud_i) over their positions, with equal weights (or optimised ones).

    clouds: samples (n_i, d) of any sizes, weights_of their weights; w (K,) weights of the clouds (None: equal); `size` k, by
    default that of the largest cloud. discrepancy: `OptimalTransport()`, the squared W_2, by default, solved by fixed points:
    each point moves to the weighted mean of its images under the K optimal plans, which descends at every step and starts each
    plan from the last; any other Discrepancy is descended by its gradient. start (k, d): first positions; by default points
    drawn, with `generator`, from the clouds. support_weights: `OptimisedWeights()` has the points' weights found too. The
    problem is not convex: this is a local minimum. Stops when the objective falls by less than `tolerance` of itself, or warns.
    K transport problems an iteration. Source: Agueh and Carlier (2011); Cuturi and Doucet (2014, 1310.4375).
    """
    if len(clouds) == 0:
        raise ValueError("clouds must hold at least one sample")
    first = sample(clouds[0], "clouds[0]")
    samples = [first, *(sample(c, f"clouds[{i}]", like=first) for i, c in enumerate(clouds[1:], 1))]
    for i, c in enumerate(samples):
        if c.ndim != 2 or c.shape[1] != first.shape[1]:
            raise ValueError(f"clouds[{i}] must have shape (n, {first.shape[-1]}), got {tuple(c.shape)}")
    if weights_of is not None and len(weights_of) != len(samples):
        raise ValueError(f"weights_of must hold weights for each of the {len(samples)} clouds, got {len(weights_of)}")
    masses = [
        weights(None if weights_of is None else weights_of[i], c.shape[:1], f"weights_of[{i}]", like=c).detach()
        for i, c in enumerate(samples)
    ]
    share = weights(w, (len(samples),), "w", like=first).detach()
    D = OptimalTransport() if discrepancy is None else discrepancy
    if not isinstance(D, Discrepancy):
        raise TypeError(f"discrepancy must be an object such as OptimalTransport(), got {discrepancy!r}")
    samples = [c.detach() for c in samples]
    points = _first_points(samples, masses, share, size, start, generator)
    if support_weights is not None:
        if not isinstance(support_weights, OptimisedWeights):
            raise TypeError(f"support_weights must be OptimisedWeights() or None, got {support_weights!r}")
        if not (isinstance(D, OptimalTransport) and isinstance(D.cost, SquaredEuclidean)):
            raise TypeError(f"optimised weights need OptimalTransport() with the squared Euclidean cost, got {D!r}")
        met = alternate(samples, masses, share, points, max_iterations, tolerance, support_weights)
        met.outcome.warn("barycenter")
        return Barycenter(met.points, met.weights, met.values[-1], torch.tensor(met.values), len(met.values) - 1, met.outcome)
    if isinstance(D, OptimalTransport) and isinstance(D.cost, SquaredEuclidean):
        return _fixed_point(D, samples, masses, share, points, max_iterations, tolerance)
    return _by_gradient(D, samples, masses, share, points, max_iterations, tolerance, generator)


def _first_points(
    samples: list[Tensor], masses: list[Tensor], share: Tensor, size: int | None, start: Any, generator: torch.Generator | None
) -> Tensor:
    if start is not None:
        points = sample(start, "start", like=samples[0])
        if points.ndim != 2 or points.shape[1] != samples[0].shape[1]:
            raise ValueError(f"start must have shape (k, {samples[0].shape[1]}), got {tuple(points.shape)}")
        return points.detach()
    count = max(len(c) for c in samples) if size is None else size
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"size must be a whole number of at least 1, got {size!r}")
    source = generator_or_default(generator)
    pooled = torch.cat(samples)
    mass = torch.cat([s * m for s, m in zip(share, masses, strict=True)])
    drawn = torch.multinomial(mass.cpu(), count, replacement=count > int((mass > 0).sum()), generator=source)
    return pooled[drawn.to(pooled.device)]


def _fixed_point(
    D: OptimalTransport,
    samples: list[Tensor],
    masses: list[Tensor],
    share: Tensor,
    points: Tensor,
    limit: int,
    tolerance: float,
) -> Barycenter:
    from scipy.sparse import coo_array

    on_cpu(points, "clouds")
    # The solver itself, without a result and its certificate around every plan: on small clouds these cost more than the plan.
    z, clouds = (points.double().contiguous().numpy(), [c.double().contiguous().numpy() for c in samples])
    k, w = len(z), share.double().tolist()
    equal, given = np.full(k, 1 / k), [unit_masses(m[None], False)[0] for m in masses]
    plans: list[ExactSolution | None] = [None] * len(clouds)
    values: list[float] = []
    outcome = Outcome.ITERATION_LIMIT
    while True:
        # From one step to the next the points move little and the weights not at all: each plan starts from the last.
        found = [
            solve_pair(z, c, equal, m, D.cost, D.solver, None if p is None else p.basis)
            for c, m, p in zip(clouds, given, plans, strict=True)
        ]
        plans = [*found]
        values.append(math.fsum(s * p.primal for s, p in zip(w, found, strict=True)))
        failed = [p.outcome for p in found if not p.outcome.ok]
        if failed:
            outcome = failed[0]
            break
        if len(values) > 1 and values[-2] - values[-1] <= tolerance * abs(values[-2]):
            outcome = Outcome.CONVERGED
            break
        if len(values) > limit:
            break
        images = [coo_array((p.mass, (p.rows, p.columns)), shape=(k, len(c))) @ c for p, c in zip(found, clouds, strict=True)]
        z = np.ascontiguousarray(sum(s * k * image for s, image in zip(w, images, strict=True)))
    outcome.warn("barycenter")
    even = torch.full((k,), 1 / k, dtype=points.dtype, device=points.device)
    return Barycenter(torch.from_numpy(z).to(points.dtype), even, values[-1], torch.tensor(values), len(values) - 1, outcome)


def _by_gradient(
    D: Discrepancy,
    samples: list[Tensor],
    masses: list[Tensor],
    share: Tensor,
    points: Tensor,
    limit: int,
    tolerance: float,
    generator: torch.Generator | None,
) -> Barycenter:
    k = len(points)
    equal = torch.full((k,), 1 / k, dtype=points.dtype, device=points.device)
    fixed = [D.resolved(points, c, None, m) for c, m in zip(samples, masses, strict=True)]

    def objective(z: Tensor) -> Tensor:
        terms = [s * d(z, c, None, m, generator=generator) for s, d, c, m in zip(share, fixed, samples, masses, strict=True)]
        return torch.stack(terms).sum()

    found = descend(objective, points, equal, steps=limit, rate=0.5, tolerance=tolerance, adaptive=not D.claims.random)
    found.outcome.warn("barycenter")
    return Barycenter(found.points, equal, float(found.values[-1]), found.values, found.steps, found.outcome)


__all__ = ["Barycenter", "barycenter"]
