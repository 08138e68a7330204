"""Probabilities of rare events under a standard normal law, by multilevel splitting."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import ConvergenceWarning, Result
from discrepancy._validate import fraction, whole_number

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True, repr=False)
class RareEvents(Result):
    """log P(score(z) <= level) for each of `levels`, their standard errors over replicates, and the least score reached."""

    levels: tuple[float, ...]
    log_probabilities: tuple[float, ...]
    standard_errors: tuple[float, ...]
    least: float


@dataclass(frozen=True)
class MultilevelSplitting:
    """P(score <= level) = product of P(score <= c_k | score <= c_{k-1}), with c_k the `keep`-quantile of `particles` draws.

    Survivors are copied and moved by `moves` preconditioned Crank-Nicolson steps z' = sqrt(1 - b^2) z + b xi, accepted where the
    score stays below c_k; they leave the conditioned normal law as it is, in any dimension, and b follows the acceptance. Each of
    `replicates` runs estimates every level; their mean is reported, and the standard error of its logarithm. The adaptive c_k
    leave a bias of order 1/particles, and particles that move too little an error that replicates show in part only.
    Cost: replicates x levels x moves x particles scores. Source: Cerou and Guyader (2007); Cotter et al. (2013).
    """

    particles: int = 200
    keep: float = 0.25
    moves: int = 10
    replicates: int = 4
    max_levels: int = 100

    references = ("cerou-guyader-2007",)

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.particles, 10, "particles")
        fraction(self.keep, "keep")
        for name in ("moves", "max_levels"):
            whole_number(getattr(self, name), 1, name)
        whole_number(self.replicates, 2, "replicates")

    @torch.no_grad()
    def run(self, score: Score, draw: Callable[[int], Tensor], levels: Sequence[float], generator: torch.Generator) -> RareEvents:
        """score: z (c, D) -> (c,); draw: count -> standard normal z (count, D); levels: any order, finite.

        A level that no replicate reaches has log probability -inf, with a ConvergenceWarning.
        """
        goals = sorted({float(v) for v in levels}, reverse=True)
        if not goals or not all(math.isfinite(v) for v in goals):
            raise ValueError(f"levels must be finite numbers, at least one, got {list(levels)!r}")
        runs = [self._replicate(score, draw, goals, generator) for _ in range(self.replicates)]
        logs = torch.tensor([r[0] for r in runs], dtype=torch.float64)
        mean = torch.logsumexp(logs, 0) - math.log(len(runs))
        shares = torch.where(torch.isfinite(mean), torch.exp(logs - mean), torch.ones_like(logs))
        errors = shares.std(0) / math.sqrt(len(runs))
        found = {g: (float(m), float(e)) for g, m, e in zip(goals, mean, errors, strict=True)}
        least = min(r[1] for r in runs)
        missed = [g for g in goals if found[g][0] == -math.inf]
        if missed:
            warnings.warn(
                f"no particle reached the level(s) {missed}: least score is {least:.4g}; raise particles, moves, max_levels",
                ConvergenceWarning,
                stacklevel=2,
            )
        asked = tuple(float(v) for v in levels)
        return RareEvents(asked, tuple(found[v][0] for v in asked), tuple(found[v][1] for v in asked), least)

    def _replicate(
        self, score: Score, draw: Callable[[int], Tensor], goals: list[float], generator: torch.Generator
    ) -> tuple[list[float], float]:
        z = draw(self.particles)
        s = score(z)
        log_weight, previous, width = 0.0, math.inf, 0.5
        found: dict[float, float] = {}
        least = float(s.min())
        for _ in range(self.max_levels):
            # The keep-quantile of the scores; ties beyond it survive too.
            level = float(s.sort().values[math.ceil(self.keep * self.particles) - 1])
            for goal in goals:
                if goal not in found and (goal >= level or level >= previous):
                    share = float((s <= goal).double().mean())
                    found[goal] = log_weight + math.log(share) if share > 0 else -math.inf
            if len(found) == len(goals) or level >= previous:
                break
            log_weight += math.log(float((s <= level).double().mean()))
            alive = (s <= level).nonzero()[:, 0]
            pick = alive[torch.randint(len(alive), (self.particles,), generator=generator)]
            z, s, width = self._moved(score, draw, z[pick], s[pick], level, width, generator)
            least, previous = min(least, float(s.min())), level
        return [found.get(goal, -math.inf) for goal in goals], least

    def _moved(
        self,
        score: Score,
        draw: Callable[[int], Tensor],
        z: Tensor,
        s: Tensor,
        level: float,
        width: float,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, float]:
        for _ in range(self.moves):
            there = math.sqrt(1 - width**2) * z + width * draw(len(z))
            after = score(there)
            taken = after <= level
            z, s = torch.where(taken[:, None], there, z), torch.where(taken, after, s)
            rate = float(taken.double().mean())
            # Between a fifth and a half of all moves accepted keeps their mean square near its largest.
            width = min(0.95, width * 1.25) if rate > 0.5 else width * 0.8 if rate < 0.2 else width
        return z, s, width


__all__ = ["MultilevelSplitting", "RareEvents", "Score"]
