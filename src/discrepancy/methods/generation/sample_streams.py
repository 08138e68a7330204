"""Where a critic's batches come from: a model that can be asked again and again, or a file of rows that soon repeats itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, at_least, generator_or_default, require_finite

# (count, generator) -> (count, ...) fresh rows of the model
Sampler = Callable[[int, torch.Generator], Tensor]

_FEW_BATCHES = 10


@dataclass(frozen=True)
class Resampled:
    """The memoriser: rows (n, ...) drawn again with replacement, plus Gaussian `noise` of that standard deviation."""

    rows: Tensor
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for no rows, values that are not finite, or negative noise."""
        require_finite(self.rows, "rows")
        if self.rows.ndim < 2 or len(self.rows) == 0:
            raise ValueError(f"rows must be (n, ...) with n >= 1, got shape {tuple(self.rows.shape)}")
        at_least(self.noise, 0, "noise")

    def __call__(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` rows."""
        source = generator_or_default(generator)
        picked = self.rows[torch.randint(len(self.rows), (count,), generator=source).to(self.rows.device)]
        return jittered(picked, self.noise, source)


def jittered(x: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """x plus Gaussian noise: discrete values lose the gaps by which a critic would know them."""
    if not noise:
        return x
    return x + noise * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


class ModelStream:
    """Batches of a model that must look like `real` (..., shape and dtype), from a sampler or from a finite sample.

    A finite sample is drawn from with replacement, with a warning if it holds fewer than ten batches. A sampler that returns
    fewer rows than asked is taken at its word, with the same warning. Rows that stand in `real` too are warned of once.
    Raises ValueError for rows of another shape, no rows at all, or values that are not finite, TypeError for another dtype.
    """

    def __init__(self, model: Sampler | Any, real: Tensor, batch_size: int) -> None:
        """Watch `model`."""
        self.real, self.warned = real, False
        if callable(model):
            self.sampler = cast(Sampler, model)
        else:
            rows = as_tensor(model, "model", like=real)
            self._check(rows)
            if len(rows) < _FEW_BATCHES * batch_size:
                self._warn(f"{len(rows)} rows for batches of {batch_size}")
            self.sampler = Resampled(rows.to(real.dtype))
        self._warn_of_copies()

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """A batch of `count` rows, or of as many as the sampler gives."""
        with torch.no_grad():
            x = self.sampler(count, generator)
        if not isinstance(x, Tensor):
            raise TypeError(f"the model's sampler must return a tensor, got {type(x).__name__}")
        self._check(x)
        if len(x) < count:
            self._warn(f"the sampler returned {len(x)} of {count} rows")
        return x[:count].detach()

    def _check(self, x: Tensor) -> None:
        if x.shape[1:] != self.real.shape[1:] or x.ndim != self.real.ndim or len(x) == 0:
            raise ValueError(f"the model must give rows of shape {tuple(self.real.shape[1:])} like real, got {tuple(x.shape)}")
        if x.dtype != self.real.dtype:
            raise TypeError(f"the model gives {x.dtype} and real is {self.real.dtype}: convert one of them")
        require_finite(x, "the model's rows")

    def _warn(self, why: str) -> None:
        if not self.warned:
            warnings.warn(f"finite model sample ({why}): the metric then rewards memorisation", UserWarning, stacklevel=4)
        self.warned = True

    def _warn_of_copies(self) -> None:
        # A probe with its own generator: the caller's draws stay what they would be without it. The seed is one that nobody
        # takes: data drawn with the same seed as the probe would look like copies.
        probe = self.draw(min(len(self.real), 256), torch.Generator().manual_seed(0x6E6E64_C0B1E5))
        both = torch.cat([self.real, probe]).flatten(1)
        _, codes = torch.unique(both, dim=0, return_inverse=True)
        copies = int(torch.isin(codes[len(self.real) :], codes[: len(self.real)]).sum())
        if copies:
            warnings.warn(
                f"{copies} of {len(probe)} rows of the model stand in `real` too: score on rows that the generator has not seen",
                UserWarning,
                stacklevel=4,
            )


__all__ = ["ModelStream", "Resampled", "Sampler", "jittered"]
