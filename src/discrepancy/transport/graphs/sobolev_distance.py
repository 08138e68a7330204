"""A Sobolev discrepancy between samples: the dual norm on the neighbour graph of the pooled points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._validate import SamplePair, sample, whole_number
from discrepancy.transport.exact.inputs import on_cpu
from discrepancy.transport.graphs.construction import neighbor_edges
from discrepancy.transport.graphs.dual_norm import Solved, norm_values, solve_norms
from discrepancy.transport.graphs.network import Network
from discrepancy.transport.graphs.sobolev_ipm import check_limits
from discrepancy.transport.graphs.space import check_exponent


@dataclass(frozen=True)
class SobolevDistance(Discrepancy):
    """||F - G||_{-1,p} on the symmetrised k-nearest-neighbour graph of both samples: between W_1 and H^-1, along the data.

    Edges are as long as their points are apart and carry the measure l_e / sum l, of total one; components of the graph are
    joined by their shortest links. So the value is in units of x for every p, falls in p, and p = inf is W_1 of the graph's
    shortest-path metric. Distances follow the shape of the data (a graph distance is at least the Euclidean one) and depend on k.
    Equal points are one vertex; points of weight zero are none. The space belongs to the pair, so the triangle inequality between
    different pairs is not promised; under `permutation_test` the graph is that of the pooled cloud, built once.

    Gradients hold the graph and the flow fixed: the value jumps where neighbours change. Time: neighbours, then a Laplacian
    factorisation (p = 2), a network simplex (p = inf), or some ten Laplacian systems. Memory k (n + m). CPU only. Source:
    Pasqualetto and Taipalus (2503.02596); Le, Nguyen, Phung and Nguyen (2022).
    """

    p: float = 2.0
    k: int = 10
    tolerance: float = 1e-10
    max_iterations: int = 500
    claims: ClassVar[Claims] = Claims(degree=1.0, norm_power=1)
    references: ClassVar[tuple[str, ...]] = ("metric-sobolev", "le-2022-sobolev")

    def __post_init__(self) -> None:
        """Raise ValueError for options that make no sense."""
        check_exponent(self.p)
        whole_number(self.k, 1, "k")
        check_limits(self.tolerance, self.max_iterations)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The distance of each pair of the batch."""
        on_cpu(pair.x, "x")
        d = pair.x.shape[-1]
        x, y = (t.reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        values = [self._single(*rows) for rows in zip(x, y, a, b, strict=True)]
        return torch.stack(values).to(pair.x.dtype).reshape(pair.batch)

    def _single(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The distance of one pair, in float64."""
        keep_a, keep_b = (w.detach() > 0 for w in (a, b))
        # Points without weight take no part in the graph, but their weights keep their place in the gradient.
        graph = _Graph.of(torch.cat([x[keep_a], y[keep_b]]), self.k)
        if graph is None:
            return 0.0 * (a.sum() - b.sum() + (x.sum() + y.sum())).double()
        signed = torch.cat([a[keep_a].double(), -b[keep_b].double()])[None]
        sigma = torch.zeros(1, graph.network.n, dtype=torch.float64).index_add(1, graph.vertex, signed)
        solved = self._solve(graph.network, sigma.detach().numpy())
        solved.outcome.warn(type(self).__name__, stacklevel=6)
        return norm_values(sigma, graph.lengths, graph.measures, solved)[0]

    def _solve(self, network: Network, sigma: np.ndarray) -> Solved:
        """The norms of measures (B, n) on a connected network; sums that are zero up to rounding are made so."""
        size = np.abs(sigma).sum(1, keepdims=True)
        share = np.divide(sigma.sum(1, keepdims=True), size, out=np.zeros_like(size), where=size > 0)
        return solve_norms(
            network,
            sigma - share * np.abs(sigma),
            float(self.p),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """One graph of z (N, d); for p = 2 also one factorisation for all rows."""
        cloud = sample(z, "z").detach()
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got {tuple(cloud.shape)}")
        on_cpu(cloud, "z")
        graph = _Graph.of(cloud, self.k)

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            if A.shape != B.shape or A.ndim != 2 or A.shape[-1] != len(cloud):
                raise ValueError(f"weight rows must both have shape (R, {len(cloud)}), got {tuple(A.shape)} and {tuple(B.shape)}")
            if graph is None:
                return torch.zeros(len(A), dtype=cloud.dtype)
            difference = A.double() - B.double()
            sigma = torch.zeros(len(A), graph.network.n, dtype=torch.float64).index_add(1, graph.vertex, difference)
            solved = self._solve(graph.network, sigma.numpy())
            solved.outcome.warn(f"{type(self).__name__}.pooled")
            return torch.from_numpy(solved.values).to(cloud.dtype)

        return torch.no_grad()(statistic)


@dataclass(frozen=True, eq=False)
class _Graph:
    """The neighbour graph of the distinct points of a cloud: lengths and measures (E,) differentiable in the cloud, and the
    `vertex` (N,) of each point."""

    network: Network
    lengths: Tensor
    measures: Tensor
    vertex: Tensor

    @classmethod
    def of(cls, cloud: Tensor, k: int) -> _Graph | None:
        """The graph of a cloud (N, d), None for a single distinct point.

        The vertices are in lexicographic order, so that the order of the points and of the samples leaves no trace in the bits.
        """
        distinct, vertex, counts = np.unique(cloud.detach().numpy(), axis=0, return_inverse=True, return_counts=True)
        vertex = torch.from_numpy(vertex.reshape(-1).astype(np.int64))
        n = len(distinct)
        if n == 1:
            return None
        # Copies of a point move their vertex in equal shares; its place is that of the point, to the last bit.
        share = (cloud - cloud.detach()) / torch.from_numpy(counts).to(cloud.dtype)[vertex][:, None]
        places = torch.from_numpy(distinct) + torch.zeros(n, cloud.shape[1], dtype=cloud.dtype).index_add(0, vertex, share)
        edges, lengths, _ = neighbor_edges(places.double(), min(k, n - 1), connected=True)
        measures = lengths / lengths.sum()
        tail, head = edges.numpy().T
        arrays = (t.detach().numpy() for t in (lengths, measures))
        return cls(Network(n, np.ascontiguousarray(tail), np.ascontiguousarray(head), *arrays), lengths, measures, vertex)


__all__ = ["SobolevDistance"]
