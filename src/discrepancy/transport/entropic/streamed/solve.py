"""A batch of streamed problems, one after the other, as a solver answers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.transport.entropic.solver import Potentials
from discrepancy.transport.entropic.streamed.clouds_problem import CloudPasses
from discrepancy.transport.entropic.streamed.ladder import Ladder
from discrepancy.transport.entropic.streamed.problem import FusedProblem

# Bytes that kept entries of a plan may take at most: more would be read as slowly as it is formed again.
_ROOM = 128 << 20


def solve_streamed(
    problem: FusedProblem,
    epsilon: Tensor,
    goal: float,
    max_iterations: int,
    annealing: float,
    memory: float,
    start: Tensor | None = None,
) -> Potentials:
    """The potentials at epsilon (B,), from `start` (B, m) where given; memory (GiB) bounds the entries of the plan kept."""
    room = min(_ROOM, int(memory * 2**30) // 4)
    ladder = Ladder(goal, max_iterations, annealing, room)
    mean = problem.mean_cost() if start is None else torch.zeros_like(epsilon)
    climbs = []
    for k, (stream, e, c) in enumerate(zip(problem.streams, epsilon, mean, strict=True)):
        guess = None if start is None else start[k].double().numpy()
        climbs.append(ladder.solve(CloudPasses(stream, problem.ground), float(e), float(c), guess))
    f, g = (torch.from_numpy(np.stack([getattr(c, k) for c in climbs])) for k in ("f", "g"))
    if bool((problem.b == 0).any()):  # no marginal pins these: they take the soft-minimum, the limit of a vanishing weight
        g = torch.where(problem.b > 0, g, problem.columns(f, epsilon))
    shift = ((problem.b * g).sum(-1) - (problem.a * f).sum(-1))[:, None] / 2
    outcome = next((c.outcome for c in climbs if not c.outcome.ok), Outcome.CONVERGED)
    longest = max(climbs, key=lambda c: c.iterations)
    error = torch.tensor([c.error for c in climbs], dtype=torch.float64)
    return Potentials(f + shift, g - shift, error, longest.iterations, outcome, longest.rungs)


__all__ = ["solve_streamed"]
