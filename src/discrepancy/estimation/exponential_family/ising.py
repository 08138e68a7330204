"""The Ising model: spins with fields and couplings."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.estimation.exponential_family.enumerated import STATES, EnumeratedFamily
from discrepancy.estimation.exponential_family.family import rows


@dataclass(frozen=True)
class Ising(EnumeratedFamily):
    """The Ising model on `nodes` spins of +-1: fields x_i and couplings x_i x_j of all pairs, or of the given `edges`.

    Enumerates 2^nodes states: up to 20 nodes; beyond that hand its statistic and a sampler to `SampledFamily`.
    """

    nodes: int
    edges: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for too many nodes, or edges that are none."""
        whole_number(self.nodes, 1, "nodes")
        if 2**self.nodes > STATES:
            raise ValueError(f"2^{self.nodes} states are too many to enumerate: 20 nodes at most, or SampledFamily")
        if self.edges is not None:
            chosen = tuple((min(e), max(e)) for e in self.edges)
            if any(len(e) != 2 or a == b or a < 0 or b >= self.nodes for e, (a, b) in zip(self.edges, chosen, strict=True)):
                raise ValueError(f"edges must join two different nodes 0 to {self.nodes - 1}, got {self.edges!r}")
            if len(set(chosen)) != len(chosen):
                raise ValueError(f"edges must differ, got {self.edges!r}")
            object.__setattr__(self, "edges", chosen)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The edges of the model."""
        return tuple(itertools.combinations(range(self.nodes), 2)) if self.edges is None else self.edges

    @property
    def names(self) -> tuple[str, ...]:
        """x0, x1, ..., x0 x1, ..."""
        return (*(f"x{k}" for k in range(self.nodes)), *(f"x{i} x{j}" for i, j in self.pairs))

    def _states(self) -> Tensor:
        """All states."""
        return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=self.nodes)), dtype=torch.float64)

    def _evaluated(self, x: Tensor) -> Tensor:
        """Spins and products of pairs."""
        left, right = ([e[k] for e in self.pairs] for k in (0, 1))
        return torch.cat([x, x[:, left] * x[:, right]], -1)

    def statistic(self, x: Any) -> Tensor:
        """Spins and products of a sample of +-1 (n, nodes)."""
        found = rows(x, self.nodes)
        if not bool((found.abs() == 1).all()):
            raise ValueError(f"x must hold spins of -1 and +1, got {float(found[found.abs() != 1][0]):g}: map 0 and 1 by 2 x - 1")
        return self._evaluated(found)

    def gibbs(
        self, theta: Any, n: int, *, sweeps: int = 5, burn_in: int = 200, generator: torch.Generator | None = None
    ) -> Tensor:
        """n states (n, nodes) by Gibbs sampling, in 100 parallel chains (n if fewer), `sweeps` full sweeps between kept states.

        Needs no normalising constant. Time O(n sweeps nodes^2).
        """
        theta = self._theta(theta)
        whole_number(n, 1, "n")
        whole_number(sweeps, 1, "sweeps")
        source = generator_or_default(generator)
        fields, couplings = theta[: self.nodes], torch.zeros(self.nodes, self.nodes, dtype=torch.float64)
        for (i, j), strength in zip(self.pairs, theta[self.nodes :].tolist(), strict=True):
            couplings[i, j] = couplings[j, i] = strength
        chains = min(n, 100)
        x = 2.0 * torch.randint(0, 2, (chains, self.nodes), generator=source).double() - 1
        kept = []
        rounds = -(-n // chains)
        for sweep in range(burn_in + sweeps * rounds):
            for k in range(self.nodes):
                up = torch.sigmoid(2 * (fields[k] + x @ couplings[k]))
                x[:, k] = torch.where(torch.rand(chains, generator=source, dtype=torch.float64) < up, 1.0, -1.0)
            if sweep >= burn_in and (sweep - burn_in) % sweeps == sweeps - 1:
                kept.append(x.clone())
        return torch.cat(kept)[:n]


__all__ = ["Ising"]
