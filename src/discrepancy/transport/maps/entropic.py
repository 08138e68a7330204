"""The entropic map: a smooth estimate of the optimal map, defined everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from discrepancy._validate import SamplePair
from discrepancy.transport.entropic.divergence import SinkhornDivergence
from discrepancy.transport.entropic.maps import EntropicMap, SoftMinimum
from discrepancy.transport.entropic.sinkhorn import Sinkhorn
from discrepancy.transport.maps.solved import SolvedMapEstimator
from discrepancy.transport.unbalanced.sinkhorn import UnbalancedSinkhorn

_TENSORS = ("targets", "log_weights", "potential", "epsilon")


class EntropicModule(nn.Module):
    """An `EntropicMap` as a module: the target points and their potential are its buffers, so that it is saved and moved."""

    def __init__(self, found: EntropicMap) -> None:
        """Hold the map's tensors as buffers, and the rest as it is."""
        super().__init__()
        self._kept: dict[str, SoftMinimum] = {}
        for name, part in (("towards", found.shares), ("itself", found.itself)):
            if part is None:
                continue
            for field_name in _TENSORS:
                self.register_buffer(f"{name}_{field_name}", getattr(part, field_name).clone())
            self._kept[name] = part

    def _part(self, name: str) -> SoftMinimum | None:
        if name not in self._kept:
            return None
        tensors: dict[str, Tensor] = {key: getattr(self, f"{name}_{key}") for key in _TENSORS}
        return replace(self._kept[name], **tensors)

    def forward(self, x: Tensor) -> Tensor:
        """The map at points x (..., d), differentiable in them."""
        shares = self._part("towards")
        assert shares is not None
        return EntropicMap(shares, self._part("itself"))(x.reshape(-1, x.shape[-1])).reshape(x.shape)


@dataclass
class EntropicTransportMap(SolvedMapEstimator):
    """T(x) = sum_j w_j(x) y_j with w_j(x) = softmax_j((g_j - c(x, y_j)) / epsilon + log b_j), g the entropic potential of Y.

    Defined and smooth at every x, and for the squared Euclidean cost an estimate of the optimal map with a bias of order epsilon:
    it shrinks towards the mean of Y. transport: `Sinkhorn(epsilon, cost)` (default), `SinkhornDivergence(...)`, whose map adds
    x - T_x(x) to take that shrinkage off, or `UnbalancedSinkhorn(...)`, whose marginals are relaxed against outliers.
    `fit(X, Y, a, b)` takes weights (n,), (m,); `inverse_transform` is the map of the swapped problem, not the inverse function.
    `result_` is the solved problem, `module_` the torch module. One transport problem; a transform of k points is k m costs in
    blocks. Source: Pooladian and Niles-Weed (2021); Pooladian, Cuturi and Niles-Weed (2022).
    """

    transport: Sinkhorn | SinkhornDivergence | UnbalancedSinkhorn = field(default_factory=Sinkhorn)
    references: ClassVar[tuple[str, ...]] = ("pooladian-niles-weed-2021", "pooladian-2022")

    def _check(self) -> None:
        if not isinstance(self.transport, Sinkhorn | SinkhornDivergence | UnbalancedSinkhorn):
            raise TypeError(f"transport must be Sinkhorn(), SinkhornDivergence() or UnbalancedSinkhorn(), got {self.transport!r}")

    def _between(self, pair: SamplePair) -> tuple[nn.Module, Any]:
        result = self.transport.solve(pair.x, pair.y, pair.a, pair.b)
        found = result.map()
        assert isinstance(found, EntropicMap)
        return EntropicModule(found), result


__all__ = ["EntropicModule", "EntropicTransportMap"]
