"""Saddle points of expensive surfaces in few evaluations: a dimer on a Gaussian process, fitted on pruned data."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, generator_or_default, positive, require_finite, whole_number
from discrepancy.methods.physics.climb import Climb, Oracle, PlainClimb, Record
from discrepancy.methods.physics.configurations import ConfigurationDistance, Types, atoms
from discrepancy.methods.physics.dimer import Climber, Dimer, Rotation, limited, off, rigid_modes, rotate, unit
from discrepancy.methods.physics.farthest_points import farthest_point_subset
from discrepancy.methods.physics.gradient_gp import GPWithGradients, GradientPosterior, Hyperparameters, VarianceBarrier
from discrepancy.methods.physics.gradient_kernels import CartesianKernel, GradientKernel, InverseDistanceKernel
from discrepancy.methods.physics.saddle_options import (
    AdaptiveRadius,
    Pruning,
    SaddleResult,
    SaddleStep,
    TrustRadius,
)


@dataclass(frozen=True)
class GPDimer:
    """A dimer that climbs on a Gaussian process, and asks the oracle only where it arrives or leaves the trusted region.

    kernel: of the process; inverse distances for atoms and coordinates for plain surfaces where None, with lengths starting at
    `length`. pruning: which data the hyper-parameters are fitted on, None for all (predictions always use all). trust: how far
    from the data the surrogate is followed, in `distance`, None for anywhere. variance_barrier: None for none. dimer: on the
    surrogate. initial_rotations: the most turns at the start, each checked by one evaluation at the dimer's end. spacing: an
    atom moves at most this share of its distance to the nearest other in one step. max_inner: steps on one surrogate.
    """

    kernel: GradientKernel | None = None
    length: float = 1.0
    noise: float = 1e-7
    pruning: Pruning | None = field(default_factory=Pruning)
    trust: TrustRadius | None = field(default_factory=AdaptiveRadius)
    distance: ConfigurationDistance = field(default_factory=ConfigurationDistance)
    variance_barrier: VarianceBarrier | None = field(default_factory=VarianceBarrier)
    dimer: Dimer = field(default_factory=lambda: Dimer(rotations=10))
    initial_rotations: int = 10
    spacing: float = 1 / 6
    max_inner: int = 300
    references: ClassVar[tuple[str, ...]] = ("goswami-jonsson-2026",)

    def process(self, dimension: int, types: Types | None) -> GPWithGradients:
        """The Gaussian process for configurations of these types."""
        kernel = self.kernel
        if kernel is None:
            kernel = CartesianKernel(dimension) if types is None else InverseDistanceKernel(tuple(types), self.distance.box)
        return GPWithGradients(kernel, self.noise, self.variance_barrier, self.length)


class _SurrogateClimb(Climb):
    """The dimer on the Gaussian process; the oracle is asked at the end of each climb on it."""

    def __init__(self, record: Record, x: Tensor, o: Tensor, types: Types | None, method: GPDimer, tolerance: float) -> None:
        super().__init__(record, x, o, types, method.dimer, tolerance, periodic=method.distance.box is not None)
        self.method, self.gp = method, method.process(len(x), types)
        self.fits: list[Hyperparameters] = []
        self.size = method.pruning.size if method.pruning is not None else 0

    def climb(self) -> None:
        self._oriented()
        self.start = self.x, self.turned
        while True:
            posterior = self._fitted()
            if self.largest() < self.tolerance:
                self.turned = self._turned(posterior, self.x, self.gradient)
                # The surrogate's curvature may be wrong; the oracle's at the final orientation is not.
                ahead = self.record(self.x + self.dimer.separation * self.turned.direction)[1]
                along = float((ahead - self.gradient) @ self.turned.direction) / self.dimer.separation
                self.turned = Rotation(self.turned.direction, along, self.turned.settled)
                if along < 0:
                    return
                posterior = self._fitted()
            self.arrive(self._climbed(posterior))

    def _oriented(self) -> None:
        """Turn at the start: the surrogate proposes a direction, the oracle answers at its end, until the two agree."""
        for _ in range(self.method.initial_rotations):
            self.record(self.x + self.dimer.separation * self.turned.direction)
            before = self.turned.direction
            self.turned = self._turned(self._fitted(), self.x, self.gradient)
            if float((before @ self.turned.direction).abs()) > math.cos(self.dimer.rotation_tolerance):
                return

    def _fitted(self) -> GradientPosterior:
        """Hyper-parameters on the subset, the posterior on everything."""
        X, E, G = self.record.data()
        rows = self._subset(X)
        began = time.process_time()
        start = self.fits[-1] if self.fits else None
        zero = self.record.energies[0]
        hyper = self.gp.hyperparameters(X[rows], E[rows] - zero, G[rows], start)
        seconds = time.process_time() - began
        self.fits.append(hyper)
        curvature = self.turned.curvature
        self.trace.append(SaddleStep(len(X), self.energy, self.largest(), curvature, len(rows), seconds, hyper))
        if self.method.pruning is not None:
            self.size = self.method.pruning.grown(self.size, self.fits)
        return self.gp.fit(X, E, G, optimize_on=(), start=hyper, reference=zero)

    def _subset(self, X: Tensor) -> list[int]:
        pruning, n = self.method.pruning, len(X)
        if pruning is None or n <= self.size:
            return list(range(n))
        recent = range(n - pruning.recent, n)
        distance = self.method.distance
        return sorted(farthest_point_subset(X, self.size, lambda p, all_: distance(p, all_, self.types), always=recent))

    def _turned(self, posterior: GradientPosterior, x: Tensor, g0: Tensor) -> Rotation:
        rigid = rigid_modes(x, self.types, periodic=self.periodic)
        return rotate(posterior.energy_and_gradient, x, g0, self.turned.direction, self.dimer, rigid)

    def _climbed(self, posterior: GradientPosterior) -> Tensor:
        """Where the dimer arrives on the surrogate, or the last point that is still trusted."""
        goal = max(self.largest() / 10, 0.1 * self.tolerance)
        x, climber = self.x, Climber(self.dimer, self.heading)
        known = torch.stack(self.record.points)
        for done in range(self.method.max_inner):
            g0 = posterior.energy_and_gradient(x)[1]
            self.turned = self._turned(posterior, x, g0)
            if done and self.turned.curvature < 0 and float(g0.abs().max()) < goal:
                break
            step = climber.move(x, g0, self.turned, rigid_modes(x, self.types, periodic=self.periodic))
            step = self._limited(x, step)
            if not self._trusted(x + step, known):
                if done:
                    break
                while not self._trusted(x + step, known):  # from an evaluated point a short enough step is always trusted
                    step = step / 2
            x = x + step
            if self.heading is not None:
                self.heading = climber.heading
        return x

    def _limited(self, x: Tensor, step: Tensor) -> Tensor:
        longest = self.dimer.uphill_step if self.turned.curvature >= 0 else self.dimer.step_limit
        step = limited(step, longest, self.types)
        if self.types is None:
            return step
        places = atoms(x, self.types, "x")
        apart = torch.cdist(places, places).fill_diagonal_(torch.inf)
        return limited(step, self.method.spacing * apart.amin(1), self.types)

    def _trusted(self, x: Tensor, known: Tensor) -> bool:
        if self.method.trust is None:
            return True
        radius = self.method.trust.radius(len(known), 1 if self.types is None else len(self.types))
        return float(self.method.distance(x, known, self.types).min()) <= radius


def saddle_search(
    oracle: Oracle,
    x0: Any,
    direction: Any = None,
    *,
    types: Types | None = None,
    method: GPDimer | Dimer | None = None,
    tolerance: float = 1e-2,
    max_evaluations: int = 200,
    max_climb: float | None = None,
    generator: torch.Generator | None = None,
) -> SaddleResult:
    """A first-order saddle of the surface that `oracle(x) -> (energy, gradient)` describes, climbing from x0.

    x0: D coordinates, or those of N atoms, (3 N,) or (N, 3), with one label an atom in `types`; rigid motion is then kept out of
    turns and moves. direction: where the dimer points first, random where omitted. method: `GPDimer()`, the default, or
    `Dimer()` alone. max_climb: an energy above that of x0 at which a climb is given up and begins again at x0 the other way, None
    for never: the softest direction out of a minimum may lead to no saddle.
    Stops where the largest component of the true gradient is below `tolerance` (energy over length) and the true curvature along
    the dimer is negative, by one evaluation at its end. Energies should be of order one, as the barrier on the variance caps it;
    stiff walls ask for a small trust radius.
    Raises ValueError for coordinates that do not fit the types, coincident atoms, or values that are not finite; an oracle
    that returns NaN ends the search with that outcome.
    Source: 2510.06030 (2026), whose kernels and constants are those of its program.
    """
    x = as_tensor(x0, "x0").detach().double()
    if types is not None:
        x = atoms(x, types, "x0").reshape(-1)
        if len(types) < 2:
            raise ValueError("types must name at least two atoms")
        apart = torch.pdist(atoms(x, types, "x0"))
        if float(apart.min()) == 0:
            raise ValueError("two atoms of x0 coincide")
    x = x.flatten()
    require_finite(x, "x0")
    positive(tolerance, "tolerance")
    whole_number(max_evaluations, 3, "max_evaluations")
    method = GPDimer() if method is None else method
    if not isinstance(method, GPDimer | Dimer):
        raise TypeError(f"method must be a GPDimer or a Dimer, got {type(method).__name__}")
    o = _first_direction(direction, x, types, generator)
    search = _SurrogateClimb if isinstance(method, GPDimer) else PlainClimb
    ceiling = float("inf") if max_climb is None else positive(max_climb, "max_climb")
    return search(Record(oracle, max_evaluations), x, o, types, method, tolerance).result(ceiling)  # type: ignore[arg-type]


def _first_direction(direction: Any, x: Tensor, types: Types | None, generator: torch.Generator | None) -> Tensor:
    rigid = rigid_modes(x, types)
    if direction is not None:
        given = as_tensor(direction, "direction").detach().double().flatten()
        if given.shape != x.shape:
            raise ValueError(f"direction must have {len(x)} components like x0, got {len(given)}")
        require_finite(given, "direction")
        inner = off(given, rigid)
        if float(inner.norm()) > 1e-10 * max(float(given.norm()), torch.finfo(torch.float64).tiny):
            return unit(inner)
        warnings.warn("direction is zero (up to rigid motion): a random one is taken", UserWarning, stacklevel=4)
    draw = torch.randn(len(x), dtype=torch.float64, generator=generator_or_default(generator))
    return unit(off(draw, rigid))


__all__ = ["GPDimer", "saddle_search"]
