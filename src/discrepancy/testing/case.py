"""The object under examination: a discrepancy, the accuracy that it promises, and samples to try it on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy


@dataclass(frozen=True)
class Case:
    """A discrepancy with the relative accuracy of its float64 values (1e-9 for closed forms, that of the solver otherwise).

    width: the dimension of the trial samples, for a discrepancy that takes any; 3 where it is None.
    """

    D: Discrepancy
    accuracy: float = 1e-9
    width: int | None = None

    @property
    def claims(self) -> Claims:
        """What the discrepancy promises."""
        return self.D.claims

    @property
    def dimension(self) -> int:
        """The dimension of the trial samples: the only one that D takes, else the width asked for, else 3."""
        return self.claims.dimension or self.width or 3

    def points(self, n: int, seed: int, *, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = ()) -> Tensor:
        """A Gaussian sample (..., n, d), the same for the same seed in either precision up to rounding."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*batch, n, self.dimension, generator=generator, dtype=torch.float64).to(dtype)

    def pair(
        self, n: int = 9, m: int = 6, *, seed: int = 0, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Two samples of different size, place and spread."""
        x = self.points(n, 2 * seed + 1, dtype=dtype, batch=batch)
        y = 1.3 * self.points(m, 2 * seed + 2, dtype=dtype, batch=batch) + 0.4
        return x, y

    def masses(self, n: int, seed: int, *, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = ()) -> Tensor:
        """Positive weights (..., n) that sum to one."""
        generator = torch.Generator().manual_seed(1000 + seed)
        w = (0.2 + torch.rand(*batch, n, generator=generator, dtype=torch.float64)).to(dtype)
        return w / w.sum(-1, keepdim=True)

    def value(self, x: Any, y: Any, a: Any = None, b: Any = None, *, D: Discrepancy | None = None) -> Tensor:
        """D(x, y, a, b), with a generator in the same state at each call."""
        return (D or self.D)(x, y, a, b, generator=self.generator())

    def generator(self) -> torch.Generator | None:
        """A generator in a fixed state for a random discrepancy, None for any other."""
        return torch.Generator().manual_seed(17) if self.claims.random else None

    def expect_close(self, got: Tensor, want: Tensor, what: str, *, factor: float = 1.0) -> None:
        """Raise AssertionError unless |got - want| <= accuracy * factor * max(1, |want|) everywhere."""
        got, want = got.detach().double(), want.detach().double()
        assert got.shape == want.shape, f"{self.D!r}: {what}: shapes {tuple(got.shape)} and {tuple(want.shape)} differ"
        allowed = self.accuracy * factor * want.abs().clamp_min(1.0)
        worst = float((got - want).abs().max())
        assert bool(((got - want).abs() <= allowed).all()), (
            f"{self.D!r}: {what}: got {got.tolist()}, expected {want.tolist()}, "
            f"off by {worst:.3g} where {float(allowed.min()):.3g} is allowed"
        )

    def expect_error(self, call: Callable[[], Any], naming: tuple[str, ...], what: str) -> None:
        """Raise AssertionError unless the call raises ValueError or TypeError with a message that contains one of the words."""
        try:
            call()
        except (ValueError, TypeError) as error:
            message = str(error)
            assert any(word in message for word in naming), f"{self.D!r}: {what}: the message names none of {naming}: {message!r}"
        else:
            raise AssertionError(f"{self.D!r}: {what}: no ValueError or TypeError was raised")


Check = Callable[[Case], None]
