"""The map that sends each source point to the mean of its targets under a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._validate import SamplePair
from discrepancy.costs import Cost
from discrepancy.neighbors import nearest_neighbors
from discrepancy.transport.entropic.sinkhorn import Sinkhorn
from discrepancy.transport.exact.optimal_transport import OptimalTransport
from discrepancy.transport.maps.solved import SolvedMapEstimator
from discrepancy.transport.unbalanced.sinkhorn import UnbalancedSinkhorn


class NearestSampleModule(nn.Module):
    """A new point moves as the nearest of `sources` (n, d) does, to its image in `images` (n, d): z + T(x_i) - x_i, or T(x_i)
    itself where displacements mean nothing (`carries` false)."""

    sources: Tensor
    images: Tensor

    def __init__(self, sources: Tensor, images: Tensor, *, carries: bool) -> None:
        """Hold sources and images as buffers."""
        super().__init__()
        self.register_buffer("sources", sources)
        self.register_buffer("images", images)
        self.carries = carries

    def forward(self, x: Tensor) -> Tensor:
        """The map at points x (..., d); its derivative is the identity, or zero."""
        flat = x.reshape(-1, x.shape[-1])
        nearest = nearest_neighbors(flat.detach(), self.sources, 1).indices[:, 0]
        # At a sample itself the image as it is: x + (T(x) - x) would round.
        here = (flat.detach() == self.sources[nearest]).all(-1, keepdim=True)
        moved = flat + (self.images - self.sources)[nearest] if self.carries else self.images[nearest]
        return torch.where(here, self.images[nearest] + (moved - moved.detach()), moved).reshape(x.shape)


@dataclass
class BarycentricTransportMap(SolvedMapEstimator):
    """T(x_i) = sum_j P_ij y_j / sum_j P_ij at the source points, P an optimal plan; elsewhere a point moves as its nearest source
    point does (Ferradans et al., 2014), so that translations are found exactly everywhere.

    transport: whose plan, `OptimalTransport(cost)` (default), `Sinkhorn(epsilon, cost)` or `UnbalancedSinkhorn(...)`. Piecewise
    constant displacement: for a smooth map out of sample take `EntropicTransportMap`. `fit(X, Y, a, b)` takes weights (n,),
    (m,); source points without mass are left out. `inverse_transform` is the same with the roles of X and Y swapped, not the
    inverse function. `result_` is the solved problem, `module_` the torch module. One transport problem; a transform is one
    nearest-neighbour search.
    """

    transport: OptimalTransport | Sinkhorn | UnbalancedSinkhorn = field(default_factory=OptimalTransport)
    references: ClassVar[tuple[str, ...]] = ("ferradans-2014",)

    def _check(self) -> None:
        if not isinstance(self.transport, OptimalTransport | Sinkhorn | UnbalancedSinkhorn):
            raise TypeError(f"transport must be OptimalTransport(), Sinkhorn() or UnbalancedSinkhorn(), got {self.transport!r}")

    def _between(self, pair: SamplePair) -> tuple[nn.Module, Any]:
        result = self.transport.solve(pair.x, pair.y, pair.a, pair.b)
        one = torch.ones_like(pair.y[:, :1])
        carried = result.apply(torch.cat([pair.y, one], -1))
        live = carried[:, -1] > 0
        images = carried[live, :-1] / carried[live, -1:]
        cost = self.transport.cost
        carries = isinstance(cost, Cost) and cost.translation_invariant
        return NearestSampleModule(pair.x[live], images, carries=carries), result


__all__ = ["BarycentricTransportMap", "NearestSampleModule"]
