"""Discrepancies between measures on one given graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import as_tensor, positive, require_finite, weights, whole_number
from discrepancy.transport.graphs.dual_norm import DualNorm, Solved, balanced, norm_values, solve_norms
from discrepancy.transport.graphs.network import Network
from discrepancy.transport.graphs.space import MetricMeasureSpace, check_exponent

_MASS = {torch.float32: 1e-4, torch.float64: 1e-8}


@dataclass(frozen=True)
class SobolevIPM:
    """max <mu - nu, f> over functions f on a graph with E_p(f) <= 1: an integral probability metric between W_1 and H^-1.

    Equal to the least ||b||_q, 1/p + 1/q = 1, of a derivation b whose flow w b / l carries nu to mu. p = inf is W_1 of the path
    metric, whatever the measures w; p = 2 is H^-1, the root of the effective resistance for two single vertices; with measures of
    total one the norm falls to W_1 as p grows. Homogeneous norms need equal masses on every component (ValueError names the one
    where they differ); `homogeneous=False` takes any masses: the predual norm of W^{1,p}, the least
    (sum_i m_i |g_i|^q + ||b||_q^q)^(1/q) where mass g m may appear at the vertices, a flat metric for p = inf. The mass m has no
    part in homogeneous norms.

    D(mu, nu) takes weight vectors (..., n) of the space's vertices and is differentiable in them and in lengths, measures and
    mass where these carry gradients (the potential and the flow are held fixed; first derivatives only). `.solve` and `.norm`
    have potential, flow and gap. Computes in float64 on the CPU. p = inf: network simplex on the edges, no distance matrix;
    p = 2: one Laplacian factorisation a batch; else Newton steps to a relative gap of `tolerance`. Source: Pasqualetto and
    Taipalus (2503.02596); Le, Nguyen, Phung and Nguyen (2022); Peyre (2018).
    """

    space: MetricMeasureSpace
    p: float = 2.0
    homogeneous: bool = True
    tolerance: float = 1e-10
    max_iterations: int = 500
    references: ClassVar[tuple[str, ...]] = ("metric-sobolev", "le-2022-sobolev", "peyre-2018-negative")

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for options that make no sense."""
        if not isinstance(self.space, MetricMeasureSpace):
            raise TypeError(
                f"space must be a MetricMeasureSpace, got {type(self.space).__name__}: MetricMeasureSpace.from_graph(G)"
            )
        check_exponent(self.p)
        check_limits(self.tolerance, self.max_iterations)

    def __call__(self, mu: Any, nu: Any) -> Float[Tensor, "..."]:
        """The distance between vertex measures mu (..., n) and nu (..., n) of any positive mass, of the batch shape."""
        value = self.solve(mu, nu).value
        assert isinstance(value, Tensor)
        return value

    def solve(self, mu: Any, nu: Any) -> DualNorm:
        """The distance with potential, flow and certificate."""
        like = next((t for t in (mu, nu) if isinstance(t, Tensor) and t.is_floating_point()), self.space.lengths)
        left, right = as_tensor(mu, "mu", like=like), as_tensor(nu, "nu", like=like)
        for t, name in ((left, "mu"), (right, "nu")):
            if t.ndim == 0 or t.shape[-1] != self.space.n:
                raise ValueError(f"{name} must have one weight for each of the {self.space.n} vertices, got {tuple(t.shape)}")
        shape = torch.broadcast_shapes(left.shape, right.shape)
        dtype = torch.promote_types(left.dtype, right.dtype)
        anchor = torch.zeros((), dtype=dtype)
        left, right = (weights(t, shape, s, like=anchor, mass="positive") for t, s in ((left, "mu"), (right, "nu")))
        return self.norm(left - right)

    def norm(self, sigma: Any) -> DualNorm:
        """The dual norm of signed vertex measures sigma (..., n)."""
        given = as_tensor(sigma, "sigma", like=self.space.lengths)
        space = self.space
        if given.ndim == 0 or given.shape[-1] != space.n:
            raise ValueError(f"sigma must have one value for each of the {space.n} vertices, got shape {tuple(given.shape)}")
        if given.device.type != "cpu":
            raise ValueError(f"sigma is on {given.device}: flows on graphs are solved on the CPU, pass sigma.cpu()")
        require_finite(given, "sigma")
        rows = given.reshape(-1, space.n)
        lengths, measures, network = space.lengths, space.measures, space.network
        advice = "use equal masses there, or homogeneous=False"
        if not self.homogeneous:
            # Mass that appears comes from a ground vertex, by edges of length 1 and measure m_i: one more graph.
            anchored = (space.mass > 0).nonzero()[:, 0]
            rows = torch.cat([rows, -rows.sum(-1, keepdim=True)], -1)
            lengths = torch.cat([lengths, torch.ones(len(anchored), dtype=lengths.dtype)])
            measures = torch.cat([measures, space.mass[anchored]])
            network = _grounded(network, anchored.numpy(), measures)
            advice = "a vertex of mass 0 cannot hold any"
        clean = balanced(network, rows.detach().double().numpy(), _MASS[given.dtype], advice)
        solved = solve_norms(network, clean, float(self.p), tolerance=self.tolerance, max_iterations=self.max_iterations)
        solved.outcome.warn(type(self).__name__, stacklevel=4)
        value = norm_values(rows, lengths, measures, solved).to(given.dtype).reshape(given.shape[:-1])
        return self._result(solved, value, given)

    def _result(self, solved: Solved, value: Tensor, given: Tensor) -> DualNorm:
        batch, n, E = given.shape[:-1], self.space.n, len(self.space.edges)

        def shaped(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(given.dtype).reshape((*batch, *values.shape[1:]))

        potentials, density = solved.potentials, np.zeros((len(solved.values), n))
        if not self.homogeneous:
            potentials = potentials[:, :n] - potentials[:, n:]
            target = solved.network.head[E:]
            density[:, target] = solved.flows[:, E:] / solved.network.measures[E:]
        return DualNorm(
            value=value,
            potential=shaped(potentials),
            flow=shaped(solved.flows[:, :E]),
            density=shaped(density),
            dual_gap=shaped(solved.gaps),
            marginal_error=shaped(solved.errors),
            p=float(self.p),
            iterations=solved.iterations,
            outcome=solved.outcome,
            rungs=solved.rungs,
        )


def _grounded(network: Network, anchored: np.ndarray, measures: Tensor) -> Network:
    """The network with a vertex n that has an edge to each of the vertices `anchored`."""
    return Network(
        network.n + 1,
        np.r_[network.tail, np.full(len(anchored), network.n)],
        np.r_[network.head, anchored],
        np.r_[network.lengths, np.ones(len(anchored))],
        measures.detach().double().numpy(),
    )


def check_limits(tolerance: Any, max_iterations: Any) -> None:
    """Raise ValueError unless the relative gap is positive and the number of steps a whole number of at least one."""
    positive(tolerance, "tolerance")
    whole_number(max_iterations, 1, "max_iterations")


__all__ = ["SobolevIPM", "check_limits"]
