"""Groups given by their matrices, products of groups, and finite draws from groups that are too large to enumerate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, generator_or_default, whole_number
from discrepancy.groups.group import FiniteGroup, Group, require_group

_TOLERANCE = 1e-6  # by which a matrix may fail to be orthogonal, and a product to be in the list: what a user typed or computed


def _orthogonal(matrices: Any) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """Square orthogonal matrices as nested tuples; ValueError with what is wrong."""
    if isinstance(matrices, Sequence) and not matrices:
        raise ValueError("matrices must hold at least one matrix, got none")
    stack = as_tensor(matrices, "matrices").detach().double().cpu()
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or 0 in stack.shape:
        raise ValueError(f"matrices must be square, a list of shape (m, d, d), got {tuple(stack.shape)}")
    if not bool(torch.isfinite(stack).all()):
        raise ValueError("matrices has entries that are not finite")
    off = (stack.mT @ stack - torch.eye(stack.shape[1], dtype=stack.dtype)).abs().amax((1, 2))
    if float(off.max()) > _TOLERANCE:
        worst = int(off.argmax())
        raise ValueError(
            f"matrix {worst} is no isometry: A^T A differs from the identity by {float(off[worst]):.3g}, its determinant is "
            f"{float(torch.linalg.det(stack[worst])):.4g}; costs and kernels are averaged over isometries only"
        )
    return tuple(tuple(tuple(row) for row in matrix) for matrix in stack.tolist())


@dataclass(frozen=True)
class _Matrices(FiniteGroup):
    """Orthogonal matrices (m, d, d) acting by x -> A x on rows."""

    matrices: tuple[tuple[tuple[float, ...], ...], ...]

    def __post_init__(self) -> None:
        """Raise ValueError for matrices that are no isometries, naming the worst."""
        object.__setattr__(self, "matrices", _orthogonal(self.matrices))
        object.__setattr__(self, "_stack", torch.tensor(self.matrices, dtype=torch.float64))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.order} matrices of size {self.dimension})"

    @property
    def order(self) -> int:
        """The number of matrices."""
        return len(self.matrices)

    @property
    def dimension(self) -> int:
        """Their size."""
        return len(self.matrices[0])

    @property
    def stack(self) -> Tensor:
        """The matrices (m, d, d) in float64."""
        return self.__dict__["_stack"]

    def act(self, k: int, x: Tensor) -> Tensor:
        """A_k x."""
        return x if k == 0 else x @ self.stack[k].to(x).mT

    def inverse(self, k: int, x: Tensor) -> Tensor:
        """A_k^T x."""
        return x if k == 0 else x @ self.stack[k].to(x)


@dataclass(frozen=True, repr=False)
class FromMatrices(_Matrices):
    """The group of the given orthogonal matrices (m, d, d), in any order; the identity must be one and products must be there.

    Raises ValueError for a matrix that is no isometry, for duplicates, and where the list is no group, naming the product that
    is missing. Checking takes O(m^2) products of matrices.
    """

    def __post_init__(self) -> None:
        """Put the identity first and check that this is a group."""
        super().__post_init__()
        flat = self.stack.flatten(1)
        apart = torch.cdist(flat, flat) + torch.diag(torch.full((len(flat),), torch.inf, dtype=flat.dtype))
        if float(apart.min()) < _TOLERANCE:
            i, j = divmod(int(apart.argmin()), len(flat))
            raise ValueError(f"matrices {min(i, j)} and {max(i, j)} are equal: an element counts once")
        away = (flat - torch.eye(self.dimension, dtype=flat.dtype).flatten()).norm(dim=-1)
        first = int(away.argmin())
        if float(away[first]) > 10 * _TOLERANCE:
            raise ValueError("the identity is missing from the matrices: a group holds it")
        order = [first, *(k for k in range(len(flat)) if k != first)]
        object.__setattr__(self, "matrices", tuple(self.matrices[k] for k in order))
        object.__setattr__(self, "_stack", self.stack[order])
        for k in range(1, self.order):
            gap = torch.cdist((self.stack[k] @ self.stack).flatten(1), self.stack.flatten(1)).amin(1)
            if float(gap.max()) > 10 * _TOLERANCE:
                j = int(gap.argmax())
                raise ValueError(
                    f"the matrices are no group: the product of those at {order[k]} and {order[j]} is not among them"
                )


@dataclass(frozen=True, repr=False)
class Drawn(_Matrices):
    """A few elements of a group, the identity first, for means over groups too large to enumerate: build it by `Drawn.of`.

    They are no group, so that what is averaged over them is nearly invariant only: the mean of a function has a Monte Carlo error
    O(1 / sqrt(m)). `InvariantKernel` averages both arguments and stays positive definite.
    """

    @property
    def closed(self) -> bool:
        """False."""
        return False

    @classmethod
    def of(cls, group: Group, count: int, *, dimension: int | None = None, generator: torch.Generator | None = None) -> Drawn:
        """The identity and count - 1 independent uniform elements; `dimension` is needed where the group acts on any."""
        require_group(group)
        whole_number(count, 1, "count")
        d = group.dimension if dimension is None else dimension
        if d is None:
            raise ValueError(f"{group!r} acts on points of any dimension: say which, Drawn.of(group, {count}, dimension=...)")
        group.check(d, "dimension")
        eye = torch.eye(d, dtype=torch.float64)
        source = generator_or_default(generator)
        # One element for all unit vectors: they are rows of one point, moved together by the element drawn for it.
        found = [eye, *(_element(group, eye, source) for _ in range(count - 1))]
        return cls(torch.stack(found))  # type: ignore[arg-type]  # the constructor turns it into tuples


def _element(group: Group, eye: Tensor, source: torch.Generator) -> Tensor:
    """The matrix of one uniform element: its action on the unit vectors, all under the same draw."""
    state = source.get_state()
    columns = []
    for row in eye:
        source.set_state(state)
        columns.append(group.random(row[None], generator=source)[0])
    return torch.stack(columns, -1)


def _width(group: FiniteGroup) -> int:
    """A dimension in which a group that takes any has all its coordinates; ValueError if there is none up to 2^16."""
    for width in (2**k for k in range(2, 17)):
        try:
            group.check(width)
        except ValueError:
            continue
        return width
    raise ValueError(f"{group!r} acts in none of the dimensions 4, 8, ... 65536")


@dataclass(frozen=True)
class Product(FiniteGroup):
    """The products g h of an element of `left` and one of `right`, where these form a group: Product(Rot90(8), HFlip(8, 8)).

    So they do where the two commute, or where one normalises the other. Its order is the product of the two orders; elements
    that coincide are counted as often as they come, which changes no mean and no minimum. Raises ValueError where a product of
    products is not among them, found on a probe point.
    """

    left: FiniteGroup
    right: FiniteGroup

    def __post_init__(self) -> None:
        """Check that the two act on the same points, and that the products close."""
        for group in (self.left, self.right):
            require_group(group, finite=True)
        one, two = self.left.dimension, self.right.dimension
        if one is not None and two is not None and one != two:
            raise ValueError(f"{self.left!r} acts on points of {one} features and {self.right!r} of {two}")
        d = one if one is not None else two if two is not None else _width(self)
        self.check(d, "a probe")
        probe = torch.randn(d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        orbit = self.orbit(probe)
        # The orbit of a generic point is a copy of the set of elements: closed under each element if the set is.
        for k in range(self.order):
            gap = torch.cdist(self.act(k, orbit), orbit).amin(1)
            if float(gap.max()) > _TOLERANCE:
                raise ValueError(
                    f"the products of {self.left!r} and {self.right!r} are no group: exchange them, or list all matrices"
                )

    @property
    def order(self) -> int:
        """The product of the orders."""
        return self.left.order * self.right.order

    @property
    def dimension(self) -> int | None:
        """That of either."""
        return self.left.dimension if self.left.dimension is not None else self.right.dimension

    @property
    def closed(self) -> bool:
        """Whether both are groups."""
        return self.left.closed and self.right.closed

    def check(self, d: int, name: str = "x") -> None:
        """Raise ValueError unless both act on points of dimension d."""
        self.left.check(d, name)
        self.right.check(d, name)

    def act(self, k: int, x: Tensor) -> Tensor:
        """First the element of `right`, then that of `left`."""
        i, j = divmod(k, self.right.order)
        return self.left.act(i, self.right.act(j, x))

    def inverse(self, k: int, x: Tensor) -> Tensor:
        """The inverses in the opposite order."""
        i, j = divmod(k, self.right.order)
        return self.right.inverse(j, self.left.inverse(i, x))


__all__ = ["Drawn", "FromMatrices", "Product"]
