"""Distances between atomic configurations that do not see how equal atoms are numbered."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy._validate import as_tensor, positive, require_finite

Types = Sequence[Any]


class Aggregate(enum.Enum):
    """How the distances of the atom types make one: their sum, or the largest (which does not grow with the number of types)."""

    SUM = "the sum over types"
    MAXIMUM = "the largest over types"


@dataclass(frozen=True)
class ConfigurationDistance:
    """The transport distance between configurations of atoms, type by type: relabelling equal atoms changes nothing.

    For a type with n atoms W = (1/n) min over permutations of sum_i |x_i - x'_pi(i)|, an exact assignment, in units of length:
    the mean distance that its atoms move; `aggregate` makes one number of the types. A metric on configurations up to labels. Not
    invariant to translation and rotation. `discrepancy`, any `Discrepancy`, compares the atoms of a type instead; `box`, the
    edges of an orthorhombic periodic cell, measures displacements to the nearest image (assignment only).
    """

    aggregate: Aggregate = Aggregate.SUM
    discrepancy: Discrepancy | None = None
    box: tuple[float, ...] | None = None
    references: ClassVar[tuple[str, ...]] = ("goswami-jonsson-2026",)

    def __post_init__(self) -> None:
        """Check the options."""
        if not isinstance(self.aggregate, Aggregate):
            raise TypeError(f"aggregate must be Aggregate.SUM or Aggregate.MAXIMUM, got {self.aggregate!r}")
        if self.discrepancy is not None and not isinstance(self.discrepancy, Discrepancy):
            raise TypeError(
                f"discrepancy must be a Discrepancy or None (exact assignment), got {type(self.discrepancy).__name__}"
            )
        if self.box is not None:
            if self.discrepancy is not None:
                raise ValueError("box is for the exact assignment: a Discrepancy measures open space")
            object.__setattr__(self, "box", tuple(positive(edge, "box") for edge in self.box))

    def __call__(self, x: Any, others: Any, types: Types | None = None) -> Float[Tensor, " k"]:
        """The distances from one configuration x (3 N,) or (N, 3) to k others (k, 3 N) or (k, N, 3) of the same atoms.

        types: one label an atom; None means plain points of R^D, and Euclidean distances. Raises ValueError for sizes that do
        not fit.
        """
        x, others = as_tensor(x, "x").detach().double(), as_tensor(others, "others").detach().double()
        require_finite(x, "x")
        require_finite(others, "others")
        if types is None:
            x, others = x.flatten(), others.flatten(1)
            if others.shape[-1] != len(x):
                raise ValueError(f"x has {len(x)} coordinates and others {others.shape[-1]}: they must be points of one space")
            return torch.linalg.vector_norm(self._nearest_image(others - x), dim=-1)
        here, there = atoms(x.flatten(), types, "x"), atoms(others.flatten(1), types, "others")
        parts = []
        for own in groups(types):
            if self.discrepancy is None:
                parts.append(self._assigned(here[own], there[:, own]))
            else:
                draws = torch.Generator().manual_seed(0)  # a random one sees the same directions at every call
                pair = here[own].expand(len(there), -1, -1), there[:, own]
                parts.append(self.discrepancy(*pair, generator=draws).double())
        stacked = torch.stack(parts)
        return stacked.sum(0) if self.aggregate is Aggregate.SUM else stacked.amax(0)

    def _nearest_image(self, gap: Tensor) -> Tensor:
        if self.box is None:
            return gap
        edges = torch.as_tensor(self.box, dtype=gap.dtype)
        if gap.shape[-1] != len(edges):
            raise ValueError(f"box has {len(edges)} edges and the points {gap.shape[-1]} coordinates")
        return gap - edges * torch.round(gap / edges)

    def _assigned(self, here: Tensor, there: Tensor) -> Tensor:
        """The mean displacement (k,) under the best assignment of here (n, 3) to there (k, n, 3)."""
        from discrepancy._loops.assignment import assign

        cost = torch.linalg.vector_norm(self._nearest_image(there[:, None] - here[None, :, None]), dim=-1).numpy()
        n = len(here)
        whole = n * n + 4 * n  # more scans than augmenting paths can take, so that no row is left free
        # The true pairing of two copies is found whatever the rounding of the potentials; the value is summed from the costs.
        return torch.tensor([float(c[range(n), assign(c, whole, n, whole)[0]].sum()) / n for c in cost], dtype=torch.float64)


def configuration_distance(
    x1: Any,
    x2: Any,
    types: Types,
    types2: Types | None = None,
    *,
    aggregate: Aggregate = Aggregate.SUM,
    discrepancy: Discrepancy | None = None,
    box: tuple[float, ...] | None = None,
) -> Float[Tensor, ""]:
    """The distance between two configurations (N, 3) or (3 N,) whose atoms have the given types; see `ConfigurationDistance`.

    types2: the labels of x2, those of x1 where omitted. Raises ValueError where a type has different numbers of atoms in the two.
    One assignment a type, n^3 time at worst.
    """
    second = types if types2 is None else types2
    first_counts, second_counts = ({t: list(z).count(t) for t in set(z)} for z in (types, second))
    if first_counts != second_counts:
        raise ValueError(f"x1 has atoms {first_counts} and x2 {second_counts}: each type must be there as often in both")
    start, end = (_single(as_tensor(v, n), z, n) for v, z, n in ((x1, types, "x1"), (x2, second, "x2")))
    rank = {kind: k for k, kind in enumerate(dict.fromkeys(types))}
    # Sorted by type, both carry the same labels.
    order, order2 = (sorted(range(len(z)), key=lambda i: rank[z[i]]) for z in (types, second))
    measure = ConfigurationDistance(aggregate, discrepancy, box)
    return measure(start[order], end[order2][None], [types[i] for i in order])[0]


def _single(x: Tensor, types: Types, name: str) -> Tensor:
    if x.ndim not in (1, 2) or x.numel() != 3 * len(types):
        raise ValueError(f"{name} must have 3 coordinates for each of {len(types)} atoms, got shape {tuple(x.shape)}")
    return x.reshape(-1, 3)


def atoms(x: Tensor, types: Types, name: str) -> Float[Tensor, "... n 3"]:
    """Coordinates (..., 3 N) or (..., N, 3) as atoms; ValueError unless there are three for each type label."""
    n = len(types)
    if x.shape[-1:] == (3 * n,):
        return x.reshape(*x.shape[:-1], n, 3)
    if x.shape[-2:] == (n, 3):
        return x
    raise ValueError(
        f"{name} must have 3 coordinates for each of {n} atoms, (..., {3 * n}) or (..., {n}, 3), got {tuple(x.shape)}"
    )


def groups(types: Types) -> list[list[int]]:
    """The places of the atoms of each type, in the order of first appearance."""
    return [[i for i, t in enumerate(types) if t == kind] for kind in dict.fromkeys(types)]


__all__ = ["Aggregate", "ConfigurationDistance", "Types", "atoms", "configuration_distance", "groups"]
