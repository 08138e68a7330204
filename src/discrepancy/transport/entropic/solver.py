"""What a solver of entropic transport is, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.transport.entropic.problem import Problem


def default_tolerance(dtype: torch.dtype) -> float:
    """The L1 marginal error that a solve aims at: 1e-6, or 1e-4 for float32 samples."""
    return 1e-4 if dtype == torch.float32 else 1e-6


@dataclass(frozen=True)
class Potentials:
    """f (B, n), g (B, m) in float64, the L1 marginal error (B,) of their plan, the passes over all pairs, how it
    ended, and which rungs of the ladder it took."""

    f: Tensor
    g: Tensor
    error: Tensor
    iterations: int
    outcome: Outcome
    rungs: tuple[str, ...] = ()


@runtime_checkable
class EntropicSolver(Protocol):
    """What the entropic discrepancies ask of a solver; `memory` is the GiB above which nothing quadratic is kept."""

    @property
    def memory(self) -> float:
        """GiB that may be held in what is quadratic in the sample sizes."""
        ...

    def solve(self, problem: Problem, epsilon: Tensor, *, start: Tensor | None = None) -> Potentials:
        """The potentials of a batch of problems with epsilon (B,); start: potentials g (B, m) to begin from."""
        ...

    def solve_symmetric(self, problem: Problem, epsilon: Tensor) -> Potentials:
        """The potentials of a measure against itself, f = g."""
        ...


__all__ = ["EntropicSolver", "Potentials", "default_tolerance"]
