"""Metric-measure spaces that are graphs: Sobolev calculus of functions on vertices and derivations on edges."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from discrepancy._validate import as_tensor, require_finite
from discrepancy.transport.graphs.network import Network

if TYPE_CHECKING:
    from discrepancy.transport.graphs.dual_norm import DualNorm


@dataclass(frozen=True, eq=False, repr=False)
class MetricMeasureSpace:
    """A metric graph: vertices i with mass m_i, edges e = (i -> j) with length l_e and measure w_e, distances by shortest paths.

    edges (E, 2) whole numbers, lengths (E,) > 0, measures (E,) > 0 (None: the lengths), mass (n,) (None: half the measure of the
    edges at each vertex). Functions f (..., n) live on vertices and are linear along edges; derivations b (..., E) live on edges,
    with the sign of the edge's orientation, and so do slopes and flows. A discrete space has no curves: the calculus is that of
    the edges. Vertices that no path joins are at distance +inf; a vertex without edges may have mass 0.
    Lengths and measures may carry gradients: everything here is differentiable in them. Made by hand, or by `from_graph`,
    `from_points`, `from_distance_matrix`. Raises ValueError for lengths or measures that are not positive, loops, and indices out
    of range. Source: Pasqualetto and Taipalus (2503.02596), restricted to metric graphs.
    """

    edges: Int[Tensor, "E 2"]
    lengths: Float[Tensor, " E"]
    measures: Float[Tensor, " E"] = None  # type: ignore[assignment]
    mass: Float[Tensor, " n"] = None  # type: ignore[assignment]
    labels: tuple[Any, ...] | None = field(default=None, kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("metric-sobolev",)

    def __post_init__(self) -> None:
        """Check the arrays and fill in what was left out."""
        lengths = as_tensor(self.lengths, "lengths")
        edges = torch.as_tensor(np.asarray(self.edges) if not isinstance(self.edges, Tensor) else self.edges)
        if edges.numel() == 0:
            edges = edges.reshape(0, 2).long()
        if edges.ndim != 2 or edges.shape[1] != 2 or edges.is_floating_point() or edges.is_complex():
            raise ValueError(f"edges must be whole numbers of shape (E, 2), got {edges.dtype} of shape {tuple(edges.shape)}")
        edges = edges.long()
        if lengths.device.type != "cpu":
            raise ValueError(f"lengths are on {lengths.device}: flows on graphs are solved on the CPU, pass lengths.cpu()")
        _positive(lengths, "lengths", len(edges))
        measures = lengths if self.measures is None else as_tensor(self.measures, "measures", like=lengths).to(lengths.dtype)
        _positive(measures, "measures", len(edges))
        if self.mass is not None:
            mass = as_tensor(self.mass, "mass", like=lengths).to(lengths.dtype)
            n = mass.shape[0] if mass.ndim == 1 else -1
        else:
            n = int(edges.max()) + 1 if len(edges) else 0
            ends = edges.T.reshape(-1)
            mass = lengths.new_zeros(n).index_add(0, ends, measures.repeat(2) / 2)
        if n < 1:
            raise ValueError("a space needs at least one vertex: give mass (n,) where there are no edges")
        if len(edges) and (int(edges.min()) < 0 or int(edges.max()) >= n):
            raise ValueError(f"edges must join vertices 0 to {n - 1}, got {int(edges.min())} to {int(edges.max())}")
        loops = (edges[:, 0] == edges[:, 1]).nonzero()
        if len(loops):
            raise ValueError(f"edge {int(loops[0])} joins vertex {int(edges[loops[0, 0], 0])} to itself: leave loops out")
        require_finite(mass, "mass")
        joined = torch.zeros(n, dtype=torch.bool)
        joined[edges.reshape(-1)] = True
        wrong = (mass.detach() < 0) | (joined & (mass.detach() == 0))
        if bool(wrong.any()):
            k = int(wrong.nonzero()[0])
            raise ValueError(f"mass must be positive at every vertex that has an edge, got {float(mass[k]):.6g} at vertex {k}")
        if self.labels is not None and len(self.labels) != n:
            raise ValueError(f"labels must name the {n} vertices, got {len(self.labels)}")
        for name, value in (("edges", edges), ("lengths", lengths), ("measures", measures), ("mass", mass)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_graph(
        cls, graph: Any, *, length: str | None = None, measure: str | None = None, mass: Any = None
    ) -> MetricMeasureSpace:
        """A networkx graph, or a symmetric SciPy sparse matrix of edge lengths.

        length, measure: the edge attributes of a networkx graph that hold them (None: 1, and the length). `labels` are its nodes.
        Raises TypeError for a directed graph, ValueError for missing attributes, lengths <= 0 and loops.
        """
        from discrepancy.transport.graphs.construction import graph_arrays

        edges, lengths, measures, labels = graph_arrays(graph, length, measure)
        return cls(*_with_mass(edges, lengths, measures, mass, len(labels)), labels=labels)

    @classmethod
    def from_points(cls, X: Any, k: int = 10, *, connected: bool = False, mass: Any = None) -> MetricMeasureSpace:
        """The symmetrised k-nearest-neighbour graph of points (n, d), edges of Euclidean length; differentiable in X.

        Its distances are at least the Euclidean ones, and depend on k. connected: join the components by their shortest links.
        Raises ValueError for duplicate points (an edge of length zero) and fewer than k + 1 points.
        """
        from discrepancy.transport.graphs.construction import neighbor_edges

        edges, lengths, n = neighbor_edges(X, k, connected=connected)
        return cls(*_with_mass(edges, lengths, None, mass, n))

    @classmethod
    def from_distance_matrix(cls, D: Any, mass: Any = None) -> MetricMeasureSpace:
        """All pairs at finite distance as edges, D (n, n) symmetric with zero diagonal; +inf separates.

        Raises ValueError for a matrix that is not symmetric, has negative, NaN or off-diagonal zero entries; warns where the
        triangle inequality fails (distances here are those of shortest paths). Memory n^2.
        """
        from discrepancy.transport.graphs.construction import distance_edges

        edges, lengths, n = distance_edges(D)
        return cls(*_with_mass(edges, lengths, None, mass, n))

    @property
    def n(self) -> int:
        """The number of vertices."""
        return len(self.mass)

    def __repr__(self) -> str:
        parts = self.network.count
        return f"MetricMeasureSpace({self.n} vertices, {len(self.edges)} edges, {parts} component{'s' if parts != 1 else ''})"

    @cached_property
    def network(self) -> Network:
        """The graph as float64 arrays without gradients, which the solvers read."""
        i, j = self.edges.numpy().T
        lengths, measures = (t.detach().double().numpy() for t in (self.lengths, self.measures))
        return Network(self.n, np.ascontiguousarray(i), np.ascontiguousarray(j), lengths, measures)

    @property
    def components(self) -> Int[Tensor, " n"]:
        """The number of each vertex's component; vertices of different components are at distance +inf."""
        return torch.from_numpy(self.network.components.astype(np.int64))

    def gradient(self, f: Any) -> Float[Tensor, "... E"]:
        """(Df)_e = (f_j - f_i) / l_e of a function f (..., n), for e = (i -> j)."""
        f = self._vertices(f, "f")
        return (f[..., self.edges[:, 1]] - f[..., self.edges[:, 0]]) / self.lengths.to(f.dtype)

    def divergence(self, b: Any) -> Float[Tensor, "... n"]:
        """(div b)_i = (sum over edges out of i of w_e b_e / l_e, minus those into i) / m_i of a derivation b (..., E).

        sum_e w_e b_e (Df)_e = - sum_i m_i f_i (div b)_i for every f: integration by parts. Zero at a vertex without edges.
        """
        b = self._on_edges(b, "b")
        flux = b * (self.measures / self.lengths).to(b.dtype)
        tail, head = self.edges.T
        total = b.new_zeros(*b.shape[:-1], self.n).index_add(-1, tail, flux).index_add(-1, head, -flux)
        return total / torch.where(self.mass > 0, self.mass, torch.ones_like(self.mass)).to(b.dtype)

    def energy(self, f: Any, p: float = 2.0) -> Float[Tensor, "..."]:
        """E_p(f) = sum_e w_e |Df_e|^p for 1 < p < inf; for p = inf the largest |Df_e|, the Lipschitz constant."""
        check_exponent(p)
        size = self.gradient(f).abs()
        if math.isinf(p):
            return size.amax(-1) if size.shape[-1] else size.new_zeros(size.shape[:-1])
        return (size**p * self.measures.to(size.dtype)).sum(-1)

    def sobolev_norm(self, f: Any, p: float = 2.0) -> Float[Tensor, "..."]:
        """(sum_i m_i |f_i|^p + E_p(f))^(1/p), the norm of W^{1,p}; max(max |f|, Lip f) for p = inf."""
        f = self._vertices(f, "f")
        energy = self.energy(f, p)
        if math.isinf(p):
            return torch.maximum(f.abs().amax(-1), energy)
        from discrepancy.linalg import root

        return root((f.abs() ** p * self.mass.to(f.dtype)).sum(-1) + energy, p)

    def derivation_norm(self, b: Any, q: float = 2.0) -> Float[Tensor, "..."]:
        """||b||_q = (sum_e w_e |b_e|^q)^(1/q) for q >= 1; the largest |b_e| for q = inf."""
        if not q >= 1:
            raise ValueError(f"q must be at least 1, got {q!r}")
        size = self._on_edges(b, "b").abs()
        if math.isinf(q):
            return size.amax(-1)
        from discrepancy.linalg import root

        return root((size**q * self.measures.to(size.dtype)).sum(-1), q)

    def lipschitz_constant(self, f: Any) -> Float[Tensor, "..."]:
        """The largest |f_i - f_j| / d(i, j) over pairs at finite distance; with shortest paths, the largest slope of an edge."""
        return self.energy(f, math.inf)

    def asymptotic_lipschitz(self, f: Any, r: float) -> Float[Tensor, "... n"]:
        """The largest |f(x) - f(y)| / d(x, y) over y with 0 < d(x, y) <= r at each vertex x, an estimate of lip_a f.

        Zero where no vertex is within r. Time and memory grow with the pairs within r.
        """
        from discrepancy.transport.graphs.lipschitz import local_constants

        return local_constants(self.network, self._vertices(f, "f"), r)

    def extend_lipschitz(self, indices: Any, values: Any) -> Float[Tensor, " n"]:
        """McShane's extension of values (k,) at vertices `indices` (k,): F(x) = min_a values_a + L d(x, a), cut to [min, max].

        L is the Lipschitz constant of the values, over pairs at finite distance; F has the same constant and bounds and agrees
        with the values. Where no anchor is reached F is max(values). Differentiable in the values at fixed L. k shortest-path
        searches; memory k n.
        """
        from discrepancy.transport.graphs.lipschitz import extend

        return extend(self.network, indices, values)

    def distances(self, indices: Any = None) -> Float[Tensor, "k n"]:
        """Shortest-path distances from the vertices `indices` (None: all) to all others; +inf between components. Memory k n."""
        from discrepancy.transport.graphs.lipschitz import distances, vertex_indices

        chosen = np.arange(self.n) if indices is None else vertex_indices(indices, self.n)
        return torch.from_numpy(distances(self.network, chosen)).to(self.lengths.dtype)

    def dual_norm(self, sigma: Any, p: float = 2.0, *, homogeneous: bool = True, **options: Any) -> DualNorm:
        """The Sobolev dual norm of signed vertex measures sigma (..., n); see `SobolevIPM`, whose options these are."""
        from discrepancy.transport.graphs.sobolev_ipm import SobolevIPM

        return SobolevIPM(self, p, homogeneous=homogeneous, **options).norm(sigma)

    def _vertices(self, f: Any, name: str) -> Tensor:
        return self._checked(f, name, self.n, "vertices")

    def _on_edges(self, b: Any, name: str) -> Tensor:
        return self._checked(b, name, len(self.edges), "edges")

    def _checked(self, value: Any, name: str, size: int, what: str) -> Tensor:
        given = as_tensor(value, name, like=self.lengths)
        if given.ndim == 0 or given.shape[-1] != size:
            raise ValueError(f"{name} must have one value for each of the {size} {what}, got shape {tuple(given.shape)}")
        require_finite(given, name)
        return given


def check_exponent(p: Any) -> None:
    """Raise ValueError unless 1 < p <= inf."""
    if not float(p) > 1:
        raise ValueError(f"p must be greater than 1 (p = inf is W_1), got {p!r}")


def _with_mass(edges: Any, lengths: Tensor, measures: Tensor | None, mass: Any, n: int) -> tuple[Any, Tensor, Tensor, Any]:
    """The four arrays with the mass filled in for n vertices, those without edges included."""
    w = lengths if measures is None else measures
    if mass is None:
        _positive(lengths, "lengths", len(edges))
        _positive(w, "measures", len(edges))
        mass = lengths.new_zeros(n).index_add(0, torch.as_tensor(edges).T.reshape(-1), w.repeat(2) / 2)
    elif np.shape(mass) != (n,):
        raise ValueError(f"mass must have one entry for each of the {n} vertices, got shape {tuple(np.shape(mass))}")
    return edges, lengths, w, mass


def _positive(values: Tensor, name: str, count: int) -> None:
    """Raise ValueError unless there are `count` finite positive values."""
    if values.shape != (count,):
        raise ValueError(f"{name} must have one value for each of the {count} edges, got shape {tuple(values.shape)}")
    require_finite(values, name)
    wrong = (values.detach() <= 0).nonzero()
    if len(wrong):
        k = int(wrong[0])
        raise ValueError(f"{name} must be positive, got {float(values[k]):.6g} at edge {k}: merge vertices that are one point")


__all__ = ["MetricMeasureSpace", "check_exponent"]
