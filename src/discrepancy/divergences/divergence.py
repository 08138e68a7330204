"""`Divergence`: what compares two densities, whatever its formula."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import as_tensor, sum_tolerance, weights

Estimator = Callable[["Divergence", Any, Any], Estimate]


class InfiniteDivergenceWarning(RuntimeWarning):
    """A divergence is +inf (the supports do not nest, or it overflows); its gradient is set to zero."""


class Divergence(ABC):
    """Compares two densities, P (given) and Q (trained or searched); a subclass is a frozen dataclass of its options.

    A subclass implements `_from_probs` and `_from_logits` on validated tensors and `reversed`.
    """

    references: ClassVar[tuple[str, ...]] = ()
    # Whether D(P || P) = 0: not of a pseudo-divergence, whose minimum lies elsewhere.
    zero_at_equality: ClassVar[bool] = True

    def from_probs(self, p: Any, q: Any, dim: int = -1) -> Tensor:
        """The divergence D(P || Q) between probability vectors p and q along `dim`.

        p, q: (..., K, ...), non-negative with sum one along `dim` (within 1e-4 in float32, 1e-8 in float64, 2^-8 in
        bfloat16, then renormalised exactly); the other dimensions broadcast and remain. Differentiable in both; where a
        one-sided slope is infinite (at a probability of zero) it contributes no gradient. A value of +inf has gradient zero
        and warns once.
        Raises TypeError or ValueError for what is not a pair of probability vectors. Time and memory O(size).
        """
        loose = sum_tolerance(p), sum_tolerance(q)
        p, q, axis = _aligned(p, q, dim, "p", "q")
        p, q = p.movedim(axis, -1), q.movedim(axis, -1)
        p = weights(p, p.shape, "p", like=p, tolerance=loose[0])
        value = self._from_probs(p, weights(q, q.shape, "q", like=q, tolerance=loose[1]))
        return _warned(self, value)

    def from_logits(self, u: Any, v: Any, dim: int = -1, mask: Any = None, *, where: Any = None) -> Tensor:
        """The divergence D(P || Q) between P = softmax(u) and Q = softmax(v) along `dim`, stable for logits of any size.

        u, v: (..., K, ...); -inf excludes a category from one law; `mask` (boolean, broadcastable, True keeps) excludes it
        from both. `where` (boolean, over the dimensions other than `dim`) names the rows that count: the others, padding say,
        may hold anything, cost nothing, and have value and gradient zero.
        Differentiable in both; a value of +inf has gradient zero and warns once. Half precision is computed in float32 and
        has a value in float32, and gradients in its own precision.
        Raises ValueError for NaN or +inf, for a row without a category, for vocabularies of two sizes and where no row counts.
        Time O(size). Memory beyond the inputs: the gradients asked for and a block of a megabyte a thread; O(size) under
        `torch.func`, under `torch.compile` and with `create_graph=True`, where the formula is plain torch and inputs are not
        inspected for NaN.
        """
        from discrepancy.divergences.logit_boundary import category_mask, logit_pair, row_mask
        from discrepancy.divergences.streamed import streamed

        u, v, axis = logit_pair(u, v, dim)
        value, sound = streamed(self, u, v, category_mask(mask, u, axis), row_mask(where, u))
        return value if sound else _warned(self, value)

    def between(self, P: Any, Q: Any) -> Estimate:
        """The divergence between two `torch.distributions` objects in closed form, of their batch shape, differentiable.

        Raises TypeError, naming the families that have one, where no closed form is known.
        """
        from discrepancy.divergences.closed_form import closed_form_value

        value = _warned(self, closed_form_value(self, P, Q))
        return Estimate(value, 0.0, value, value, method=f"closed form of {self!r}")

    def from_samples(self, x: Any, y: Any, estimator: Estimator) -> Estimate:
        """The divergence between the laws of two samples, as `estimator(self, x, y)` estimates it."""
        if not callable(estimator):
            raise TypeError(
                f"estimator must be callable as estimator(divergence, x, y), got {type(estimator).__name__}: "
                "try discrepancy.estimation.NearestNeighbors()"
            )
        return estimator(self, x, y)

    @abstractmethod
    def reversed(self) -> Divergence:
        """The divergence with its arguments exchanged: D.reversed()(P || Q) = D(Q || P)."""

    @abstractmethod
    def _from_probs(self, p: Tensor, q: Tensor) -> Tensor:
        """The value on validated probabilities along the last dimension."""

    @abstractmethod
    def _from_logits(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The value on log-probabilities along the last dimension, -inf where a law has no mass."""


def _aligned(p: Any, q: Any, dim: int, left: str, right: str) -> tuple[Tensor, Tensor, int]:
    like = next((t for t in (p, q) if isinstance(t, Tensor) and t.is_floating_point()), None)
    p, q = as_tensor(p, left, like=like), as_tensor(q, right, like=like)
    if p.device != q.device:
        raise ValueError(f"{left} is on {p.device} and {right} on {q.device}: move one of them")
    if p.ndim == 0 or q.ndim == 0:
        raise ValueError(f"{left} and {right} must have a dimension of categories, got shapes {tuple(p.shape)}, {tuple(q.shape)}")
    dtype = torch.promote_types(p.dtype, q.dtype)
    try:
        shape = torch.broadcast_shapes(p.shape, q.shape)
    except RuntimeError:
        raise ValueError(
            f"{left} has shape {tuple(p.shape)} and {right} {tuple(q.shape)}: they must be equal or broadcast"
        ) from None
    if not -len(shape) <= dim < len(shape):
        raise ValueError(f"dim must lie in [{-len(shape)}, {len(shape) - 1}] for shape {tuple(shape)}, got {dim}")
    axis = dim % len(shape)
    back = axis - len(shape)
    sizes = [t.shape[back] if -back <= t.ndim else 1 for t in (p, q)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{left} has {sizes[0]} categories along dim {dim} and {right} has {sizes[1]}: they must be the same")
    if sizes[0] == 0:
        raise ValueError(f"{left} and {right} have no category along dim {dim}, got shape {tuple(shape)}")
    return p.to(dtype).expand(shape), q.to(dtype).expand(shape), axis


def _warned(divergence: Divergence, value: Tensor) -> Tensor:
    # Values are finite or +inf: the sum is infinite exactly if one of them is, or if it overflows.
    if not torch.isfinite(value.detach().sum()) and (infinite := int(torch.isinf(value.detach()).sum())):
        warnings.warn(
            f"{divergence!r} is infinite for {infinite} of {value.numel()} pair(s): one law has mass where the other has none "
            "(or the value overflows); the gradient there is zero",
            InfiniteDivergenceWarning,
            stacklevel=3,
        )
    return value


__all__ = ["Divergence", "Estimator", "InfiniteDivergenceWarning"]
