"""A divergence under examination, and laws to try it on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy.divergences.divergence import Divergence, InfiniteDivergenceWarning


@dataclass(frozen=True)
class DivergenceCase:
    """A divergence with the relative accuracy of its float64 values."""

    D: Divergence
    accuracy: float = 1e-9

    def laws(self, seed: int, *shape: int, spread: float = 1.2) -> tuple[Tensor, Tensor]:
        """Two positive probability tensors of one shape, the categories along the last dimension."""
        draw = torch.Generator().manual_seed(seed)
        p, q = (spread * torch.randn(2, *(shape or (6,)), generator=draw, dtype=torch.float64)).softmax(-1)
        return p, q

    def quietly(self, call: Callable[[], Any]) -> tuple[Any, bool]:
        """What the call returns, and whether it warned of an infinite value."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InfiniteDivergenceWarning)
            value = call()
        return value, any(issubclass(w.category, InfiniteDivergenceWarning) for w in caught)

    def expect_close(self, got: Any, want: Any, what: str, *, factor: float = 1.0) -> None:
        """Raise AssertionError unless |got - want| <= accuracy * factor * max(1, |want|) everywhere."""
        got, want = torch.as_tensor(got).detach().double(), torch.as_tensor(want).detach().double()
        assert got.shape == want.shape, f"{self.D!r}: {what}: shapes {tuple(got.shape)} and {tuple(want.shape)} differ"
        same = (got - want).abs() <= self.accuracy * factor * want.abs().clamp_min(1.0)
        assert bool((same | (got == want)).all()), f"{self.D!r}: {what}: got {got.tolist()}, expected {want.tolist()}"


DivergenceCheck = Callable[[DivergenceCase], None]

__all__ = ["DivergenceCase", "DivergenceCheck"]
