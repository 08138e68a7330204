"""The kernel exp(-c / epsilon) applied to exponents: by matrix products where that is safe, else in the log domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Kernel entries below the first are dropped; a sum that ends above the second has then lost nothing that float64 can show, even
# of a million terms. Sums that end below it are taken again in the log domain.
_DROPPED, _SAFE = 1e-300, 1e-280
# The exponent of no mass: finite, so that differences stay numbers.
NOTHING = -1e30
_LOG2 = math.log(2.0)


@dataclass(frozen=True)
class GibbsKernel:
    """K_ij = exp(-c_ij / epsilon) as a product over axes: `costs` has an (n_k, m_k) for each, one for a plain matrix.

    Rows of values live on the right grid (m_1, m_2, ...), flattened, and go to the left one (n_1, n_2, ...), or back with
    `transposed`. Work of a row: n m for a matrix, n^(1 + 1/axes) for a grid.
    """

    costs: list[Tensor]
    epsilon: float
    factors: list[Tensor]

    @classmethod
    def of(cls, costs: Sequence[Tensor], epsilon: float) -> GibbsKernel:
        """From the costs of each axis, (n_k, m_k) in float64."""
        factors = [torch.exp(-c / epsilon) for c in costs]
        kept = [torch.where(k > _DROPPED, k, torch.zeros_like(k)) for k in factors]
        return cls(list(costs), float(epsilon), kept)

    @property
    def left(self) -> tuple[int, ...]:
        """The shape of the left grid."""
        return tuple(c.shape[0] for c in self.costs)

    @property
    def right(self) -> tuple[int, ...]:
        """The shape of the right grid."""
        return tuple(c.shape[1] for c in self.costs)

    def product(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """K v for rows v of non-negative values (r, m) -> (r, n)."""
        if len(self.factors) == 1:
            return values @ (self.factors[0] if transposed else self.factors[0].mT)
        shape = self.left if transposed else self.right
        out = values.reshape(-1, *shape)
        for factor in reversed(self.factors):  # the last axis each time; after all of them the axes are in order again
            out = torch.matmul(out, factor if transposed else factor.mT).movedim(-1, 1)
        return out.reshape(len(values), -1)

    def log_sums(self, v: Tensor, *, transposed: bool = False) -> Tensor:
        """log sum_j K_ij exp(v_j) for rows of exponents v (r, m), -inf for no mass -> (r, n)."""
        top = v.amax(-1, keepdim=True)
        sums = self.product(torch.exp(v - top), transposed=transposed)
        bad = sums.amin(-1) < _SAFE
        found = sums.log_().add_(top)
        if bool(bad.any()):
            found[bad] = self._exact(v[bad], transposed)
        return found

    def there_and_back(self, phi: Tensor, b: Tensor) -> Tensor:
        """log K (b / K^T e^phi) for rows phi (r, n) and masses b (r, m): one exponential and one logarithm an entry."""
        top = phi.amax(-1, keepdim=True)
        sums = self.product(torch.exp(phi - top), transposed=True)
        bad = sums.amin(-1) < _SAFE
        v = b / sums.clamp_min_(_SAFE)
        most = v.amax(-1, keepdim=True)
        back = self.product(v / most)
        bad |= back.amin(-1) < _SAFE
        found = back.log_().add_(most.log() - top)
        if bool(bad.any()):
            exponents = b[bad].log() - self._exact(phi[bad], True)
            found[bad] = self._exact(exponents, False)
        return found

    def _exact(self, v: Tensor, transposed: bool) -> Tensor:
        """The same sums, term by term in the log domain, one axis after the other."""
        from discrepancy._loops.entropic_grid.lines import line_soft_minima
        from discrepancy._loops.threads import in_parallel, ranges

        shape = self.left if transposed else self.right
        values = (v / _LOG2).clamp_min(NOTHING).numpy().reshape(-1, *shape)
        scale = 1 / (self.epsilon * _LOG2)
        for costs in reversed(self.costs):
            table = np.ascontiguousarray((costs.mT if transposed else costs).numpy())
            lines = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
            logs = np.empty((len(lines), len(table)))

            def work(part: tuple[int, int], given: tuple[np.ndarray, ...] = (lines, table), out: np.ndarray = logs) -> None:
                line_soft_minima(given[0], given[1], scale, part[0], part[1], out)

            in_parallel(work, ranges(len(lines), 4))
            values = np.moveaxis(logs.reshape(*values.shape[:-1], len(table)), -1, 1)
        return torch.from_numpy(np.ascontiguousarray(values)).reshape(len(v), -1) * _LOG2


__all__ = ["NOTHING", "GibbsKernel"]
