"""Squared-exponential kernels of energies and their gradients, on coordinates or on inverse interatomic distances.

Both are k(x, x') = v exp(-|u(x) - u(x')|^2 / 2) of features u(x) = s * phi(x), one inverse length s a group of features. With
A = du/dx, z = u - u' and k the value, the covariances of an energy with a gradient, and of two gradients, are
k A'^T z (gradient at x'), -k A^T z (gradient at x), and k (A^T A' - (A^T z)(A'^T z)^T).
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import positive, whole_number
from discrepancy.methods.physics.configurations import Types, atoms


class GradientKernel(ABC):
    """A squared-exponential kernel on features; a subclass is a frozen dataclass.

    `dimension` is the number D of coordinates, `groups` (F,) says which length scale each feature has, 0 .. `lengths` - 1.
    """

    dimension: int
    groups: Tensor

    @property
    def lengths(self) -> int:
        """How many length scales there are."""
        return int(self.groups.max()) + 1

    @abstractmethod
    def features(self, X: Float[Tensor, "n D"]) -> tuple[Float[Tensor, "n F"], Float[Tensor, "n F D"]]:
        """phi and its Jacobian at each row."""

    def covariance(
        self, features: tuple[Tensor, Tensor], log_variance: Tensor, log_inverse_lengths: Tensor
    ) -> Float[Tensor, "m m"]:
        """The joint covariance of n energies and n gradients, all energies first, then the gradients row by row: m = n (1 + D).

        Differentiable in the hyper-parameters. n^2 D^2 memory, n^2 D F time.
        """
        phi, jacobian = features
        n, size, D = jacobian.shape
        inverse = log_inverse_lengths.exp()[self.groups]
        u, A = phi * inverse, jacobian * inverse[:, None]
        z = u[:, None] - u[None]
        k = (log_variance - z.square().sum(-1) / 2).exp()
        first = torch.einsum("ijf,ifd->ijd", z, A)  # A_i^T z_ij
        second = torch.einsum("ijf,jfd->ijd", z, A)  # A_j^T z_ij
        inner = (A.transpose(1, 2).reshape(n * D, size) @ A.transpose(0, 1).reshape(size, n * D)).reshape(n, D, n, D)
        gradients = k[:, None, :, None] * (inner - first[..., None].permute(0, 2, 1, 3) * second[:, None])
        mixed = (k[..., None] * second).reshape(n, n * D)
        return torch.cat([torch.cat([k, mixed], 1), torch.cat([mixed.mT, gradients.reshape(n * D, n * D)], 1)])


@dataclass(frozen=True)
class CartesianKernel(GradientKernel):
    """Features are the D coordinates themselves, with one length scale in units of x: for surfaces that are not molecular."""

    dimension: int
    groups: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """One group."""
        whole_number(self.dimension, 1, "dimension")
        object.__setattr__(self, "groups", torch.zeros(self.dimension, dtype=torch.int64))

    def features(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """x and the identity."""
        eye = torch.eye(self.dimension, dtype=X.dtype, device=X.device)
        return X, eye.expand(len(X), -1, -1)


@dataclass(frozen=True)
class InverseDistanceKernel(GradientKernel):
    """Features are 1 / r_ij over pairs of atoms, one length scale for each pair of types: blind to rigid motion.

    types: one label an atom; box: the edges of an orthorhombic periodic cell, for distances to the nearest image. Raises
    ValueError for fewer than two atoms; `features` raises it where two atoms coincide.
    """

    types: tuple[Any, ...]
    box: tuple[float, ...] | None = None
    dimension: int = field(init=False, repr=False)
    groups: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Number the pairs of types."""
        types: Types = tuple(self.types)
        if len(types) < 2:
            raise ValueError(f"types must name at least two atoms, got {len(types)}")
        if self.box is not None:
            object.__setattr__(self, "box", tuple(positive(edge, "box") for edge in self.box))
        kinds = [frozenset((types[i], types[j])) for i, j in itertools.combinations(range(len(types)), 2)]
        number = {kind: k for k, kind in enumerate(dict.fromkeys(kinds))}
        object.__setattr__(self, "types", types)
        object.__setattr__(self, "dimension", 3 * len(types))
        object.__setattr__(self, "groups", torch.tensor([number[kind] for kind in kinds]))

    def features(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """1 / r_ij and its derivative -(x_i - x_j) / r_ij^3 in x_i, the opposite in x_j."""
        places = atoms(X, self.types, "X")
        i, j = torch.triu_indices(len(self.types), len(self.types), 1)
        gap = places[:, i] - places[:, j]
        if self.box is not None:
            edges = torch.as_tensor(self.box, dtype=X.dtype)
            gap = gap - edges * torch.round(gap / edges)
        r = torch.linalg.vector_norm(gap, dim=-1)
        if bool((r == 0).any()):
            row, pair = (int(v) for v in torch.nonzero(r == 0)[0])
            raise ValueError(f"atoms {int(i[pair])} and {int(j[pair])} of configuration {row} coincide: 1 / r is infinite")
        pairs = torch.arange(len(i))
        jacobian = torch.zeros(len(X), len(i), len(self.types), 3, dtype=X.dtype, device=X.device)
        slope = -gap / r[..., None] ** 3
        jacobian[:, pairs, i] = slope
        jacobian[:, pairs, j] = -slope
        return 1 / r, jacobian.flatten(2)


__all__ = ["CartesianKernel", "GradientKernel", "InverseDistanceKernel"]
