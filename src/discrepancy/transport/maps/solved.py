"""What the maps that come from one solved transport problem share: its two directions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from torch import nn

from discrepancy._validate import SamplePair
from discrepancy.transport.maps.estimator import MapEstimator


class SolvedMapEstimator(MapEstimator, ABC):
    """A map read off the solution of the problem between X and Y; its inverse is that of the swapped problem."""

    def fit(self, X: Any, Y: Any, a: Any = None, b: Any = None) -> Self:
        """Solve the problem between X (n, d) and Y (m, d), with weights a (n,), b (m,)."""
        self._pair = self._one_pair(X, Y, a, b)
        if hasattr(self, "inverse_module_"):
            del self.inverse_module_
        self.module_, self.result_ = self._between(self._pair)
        return self

    @abstractmethod
    def _between(self, pair: SamplePair) -> tuple[nn.Module, Any]:
        """The map of one direction and the solved problem."""

    def inverse_transform(self, Y: Any) -> Any:
        """The map of the swapped problem, at Y (m, d); solved at the first call. Raises AttributeError before `fit`."""
        self._need_fit()
        if not hasattr(self, "inverse_module_"):
            p = self._pair
            swapped = SamplePair(p.y, p.x, p.b, p.a, uniform_a=p.uniform_b, uniform_b=p.uniform_a)
            self.inverse_module_, _ = self._between(swapped)
        return self._moved(self.inverse_module_, Y)


__all__ = ["SolvedMapEstimator"]
