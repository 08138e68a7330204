"""Density ratios from the time score of a path of laws between the samples: D3RE, with its plain predecessor."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import whole_number
from discrepancy.estimation.ratios.evaluation import Evaluation, PlugIn
from discrepancy.estimation.ratios.method import RatioMethod, RatioModel
from discrepancy.estimation.ratios.scaling import Scaling
from discrepancy.estimation.ratios.time_score.interpolants import DiffusionBridge, Interpolant, SchroedingerBridge
from discrepancy.estimation.ratios.time_score.network import PathMoments, TimeScoreNetwork
from discrepancy.estimation.ratios.time_score.objectives import Batch, ConditionalTarget, Objective
from discrepancy.estimation.ratios.time_score.quadrature import GaussLegendre, Quadrature
from discrepancy.estimation.ratios.time_score.times import TimeSampler
from discrepancy.learning import ExponentialAverage, Training
from discrepancy.networks import MLP

_BLOCK = 1 << 18  # rows that pass through the network at once


class TimeScoreModel(RatioModel):
    """A trained time score: log r(x) = int_0^1 s(x, t) dt."""

    def __init__(
        self, network: TimeScoreNetwork, scaling: Scaling, quadrature: Quadrature, history: dict[str, list[float]], words: str
    ) -> None:
        """A trained network, the units that it sees, and the rule of its integral."""
        self.network, self.scaling, self.quadrature, self.history, self._words = network, scaling, quadrature, history, words

    @torch.no_grad()
    def time_score(self, points: Tensor, t: float) -> Tensor:
        """s(x, t) at points (k, d), in nats per unit of time, (k,)."""
        inside = self.scaling(points).to(self.network.moments.means)
        return self.network(inside, inside.new_full((len(inside),), float(t))).to(points.dtype)

    @torch.no_grad()
    def log_ratio(self, points: Tensor) -> Tensor:
        """The integral of the time score, by the quadrature rule."""
        inside = self.scaling(points).to(self.network.moments.means)
        nodes, weights = (v.to(inside) for v in self.quadrature.rule())
        rows = max(1, _BLOCK // len(nodes))
        parts = []
        for block in inside.split(rows):
            t = nodes[None, :].expand(len(block), -1)
            x = block[:, None, :].expand(-1, len(nodes), -1)
            scores = self.network(x.reshape(-1, x.shape[-1]), t.reshape(-1)).reshape(t.shape)
            parts.append(scores.double() @ weights.double())
        total = torch.cat(parts)
        bad = int((~torch.isfinite(total)).sum())
        if bad:
            raise NumericalError(f"the integral of the time score is not finite at {bad} of {len(total)} points")
        return total.to(points.dtype)

    def describe(self) -> str:
        """The path and the loss at the end."""
        return f"{self._words}, last loss {self.history['loss'][-1]:.4g}"


@dataclass(frozen=True)
class TimeScore(RatioMethod):
    """log p/q = int_0^1 d/dt log q_t dt along a path of laws from q_0 = Q to q_1 = P; a network learns the time score.

    interpolant: the path. `DiffusionBridge()` adds a Brownian bridge and smooths both ends by N(0, epsilon), so that the time
    score is bounded also where the supports are disjoint; `SchroedingerBridge()` pairs its ends by transport in each batch;
    `DeterministicInterpolant()` is the path of DRE-infinity. objective: `ConditionalTarget()` (least squares, needs epsilon > 0),
    `TimeScoreMatching()` or `JointScoreMatching()`. The weights are averaged along the training.

    For laws so far apart that a classifier saturates. What is estimated is the ratio of the smoothed laws, whose bias shows when
    epsilon is not small against the squared width of the narrowest feature (in units of the pooled spread). The evaluation is
    the plug-in, because between such laws a corrected value would need exp(KL) points.

    Deviations from the paper: times are drawn where time scores are large; the conditional target, the lower variance of
    the three, is ours; P is the paper's q1 and Q its q0. Time: `training.steps` passes of a batch, log_ratio one pass a node.
    Raises ValueError for samples under 64 rows, integers without epsilon, a batch under 2, and an objective that the path cannot
    have. Source: Chen et al. (2025); Choi et al. (2022).
    """

    interpolant: Interpolant = field(default_factory=DiffusionBridge)
    objective: Objective = field(default_factory=ConditionalTarget)
    network: MLP = field(default_factory=lambda: MLP(64, 3))
    training: Training = field(default_factory=lambda: Training(2000, 2e-3, final_share=0.0))
    batch_size: int = 512
    quadrature: Quadrature = field(default_factory=GaussLegendre)
    evaluation: Evaluation = field(default_factory=PlugIn, kw_only=True)

    references: ClassVar[tuple[str, ...]] = ("d3re", "choi-2022")
    least: ClassVar[int] = 32

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        for name, kind in (("interpolant", Interpolant), ("objective", Objective), ("quadrature", Quadrature)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be an object of kind {kind.__name__}, got {getattr(self, name)!r}")
        whole_number(self.batch_size, 2, "batch_size")
        self.objective.check(self.interpolant)

    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> TimeScoreModel:
        """Train the time score between samples x (n, d) of P and y (m, d) of Q.

        Raises NumericalError where the training diverges.
        """
        self._require_spread(x, y)
        if isinstance(self.interpolant, SchroedingerBridge) and min(self.batch_size, len(x), len(y)) < 256:
            warnings.warn(
                "batches under 256 rows bias the pairing of a SchroedingerBridge: take a larger batch_size",
                UserWarning,
                stacklevel=3,
            )
        scaling = Scaling.of(x, y)
        # Training is in float32, whatever the samples' dtype: its noise is far above rounding. The sums are in float64.
        x1, x0 = (scaling(s).float() for s in (x, y))
        moments = PathMoments.of(self.interpolant, x0, x1, generator, self.batch_size)
        network = TimeScoreNetwork(moments, self.network, joint=self.objective.joint, generator=generator)
        times = TimeSampler.of(moments)
        average = ExponentialAverage(network, decay=0.995)
        size = self.batch_size

        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            rows = [s[torch.randint(len(s), (size,), generator=generator)] for s in (x0, x1)]
            left, right = self.interpolant.coupling.pairs(rows[0], rows[1], generator)
            t, density = times.draw(size, generator)
            z = torch.randn(size, left.shape[1], generator=generator).to(left)  # drawn on the CPU: one seed, one path
            signs = torch.randint(2, z.shape, generator=generator).to(z) * 2 - 1 if self.objective.joint else z
            batch = Batch(self.interpolant, left, right, t, density, z, signs)
            return self.objective.loss(network, batch), {}

        history = self.training.run(network.parameters(), step, after=lambda _: average.update())
        average.keep()
        network.requires_grad_(False)
        words = f"{type(self.interpolant).__name__}, {type(self.objective).__name__}, {self.training.steps} steps"
        return TimeScoreModel(network, scaling, self.quadrature, history, words)

    def _require_spread(self, x: Tensor, y: Tensor) -> None:
        if self.interpolant.epsilon == 0 and bool((x == x.round()).all()) and bool((y == y.round()).all()):
            raise ValueError(
                "x and y are integers, which have no density: take an interpolant with epsilon > 0, such as "
                "DiffusionBridge(epsilon=1e-2), which smooths them"
            )


__all__ = ["TimeScore", "TimeScoreModel"]
