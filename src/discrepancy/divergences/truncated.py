"""Teachers known by their largest logits alone: the rest of the vocabulary becomes one category.

Storing k of V logits a token is what makes teachers of large vocabularies affordable. Merging categories cannot raise a
divergence (data processing), so the value is a lower bound of the full one, and equals it where at most one category is merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.logit_boundary import logits
from discrepancy.divergences.row_blocks import precision, row_blocks
from discrepancy.divergences.streamed import transformed

_ROUNDING = 1e-3  # what a log-normaliser in half precision may fall short of the sum that it includes


@dataclass(frozen=True, eq=False)
class TruncatedLogits:
    """Some logits of each row, `values` (..., k) at `indices` (..., k), and `log_rest` (...), log sum e^u of all the others.

    `log_rest` is -inf where nothing is left out. `TruncatedLogits.of` keeps the k largest of full logits; where a service
    gives log-probabilities instead, `with_normaliser(values, indices)`. Raises ValueError for shapes that do not fit, for a
    category that a row names twice, and for NaN or +inf.
    """

    values: Tensor
    indices: Tensor
    log_rest: Tensor

    def __post_init__(self) -> None:
        if self.values.ndim == 0 or self.values.shape != self.indices.shape:
            raise ValueError(
                f"values and indices must have one shape (..., k), got {tuple(self.values.shape)} and {tuple(self.indices.shape)}"
            )
        if self.log_rest.shape != self.values.shape[:-1]:
            raise ValueError(f"log_rest must have shape {tuple(self.values.shape[:-1])}, got {tuple(self.log_rest.shape)}")
        if self.indices.dtype.is_floating_point or self.indices.dtype == torch.bool:
            raise TypeError(f"indices must be integers, got {self.indices.dtype}")
        ordered = self.indices.sort(-1).values
        if bool((ordered[..., 1:] == ordered[..., :-1]).any()):
            raise ValueError("indices names a category twice in a row: each logit is given once")
        for name, t in (("values", self.values), ("log_rest", self.log_rest)):
            if bool((torch.isnan(t) | (t == torch.inf)).any()):
                raise ValueError(f"{name} has NaN or +inf")

    @classmethod
    def of(cls, u: Any, k: int) -> TruncatedLogits:
        """The k largest of the logits u (..., V), block by block; the rest is summed in float32, or float64 if u is.

        Raises ValueError for k outside [1, V]. Time O(size); memory O(k) a row and a block.
        """
        u = logits(u, "u")
        k = whole_number(k, 1, "k")
        if u.ndim == 0 or k > u.shape[-1]:
            raise ValueError(f"k must be at most the number of categories, got k = {k} for logits of shape {tuple(u.shape)}")
        found = [_largest(block.rows[0], k) for block in row_blocks([u])]
        batch = u.shape[:-1]
        values, indices, rest = (torch.cat(parts) for parts in zip(*found, strict=True))
        return cls(values.reshape(*batch, k), indices.reshape(*batch, k), rest.reshape(batch))

    @classmethod
    def with_normaliser(cls, values: Tensor, indices: Tensor, log_normaliser: Tensor | None = None) -> TruncatedLogits:
        """From log sum e^u over all categories (...); without it, `values` are log-probabilities, of normaliser 0.

        The rest is a difference, hence inexact where it is small. Raises ValueError where the values sum to more than the
        normaliser.
        """
        whole = (
            torch.zeros(values.shape[:-1], dtype=values.dtype, device=values.device) if log_normaliser is None else log_normaliser
        )
        gap = torch.logsumexp(values.to(precision(values, whole)), -1) - whole
        if bool((gap > _ROUNDING).any()):
            raise ValueError(
                f"values sum to e^{float(gap.max()):.4g} times the normaliser: they are no part of it (log-probabilities have "
                "normaliser 0; logits need their own)"
            )
        share = -torch.expm1(gap.clamp(max=0))
        return cls(values, indices, torch.where(share > 0, whole + torch.log(share), torch.full_like(share, -torch.inf)))

    @property
    def coarse(self) -> Tensor:
        """The logits of the k categories and of the rest, (..., k + 1)."""
        return torch.cat([self.values.to(self.log_rest.dtype), self.log_rest.unsqueeze(-1)], -1)


def truncated(divergence: Divergence, teacher: TruncatedLogits, v: Any, *, where: Any = None) -> Tensor:
    """D(P || Q) of P = `teacher` and Q = softmax(v), v (..., V), with all categories that the teacher does not name as one.

    A lower bound of the divergence of the full laws, growing with k to its value at k = V - 1. Differentiable in v, in which
    its gradient is exact: a category of the rest gets its share of the rest's. `where` as in `Divergence.from_logits`.
    Raises ValueError for an index outside the student's vocabulary. Time O(size); memory the gradient and O(k) a row.
    """
    v = logits(v, "v")
    k, width = teacher.values.shape[-1], v.shape[-1] if v.ndim else 0
    top = int(teacher.indices.max()) if teacher.indices.numel() else -1
    if k > width or top >= width or (teacher.indices.numel() and int(teacher.indices.min()) < 0):
        raise ValueError(
            f"the teacher names categories up to {top} and the student has {width}: teacher and student must share a vocabulary"
        )
    if v.shape[:-1] != teacher.log_rest.shape:
        raise ValueError(f"v has rows {tuple(v.shape[:-1])} and the teacher {tuple(teacher.log_rest.shape)}: they must be equal")
    if k == width:  # every category is named: what rounding leaves for a rest is none
        return divergence.from_logits(teacher.values, v.gather(-1, teacher.indices), where=where)
    student = _coarse(v, teacher.indices) if transformed() else _Coarse.apply(v, teacher.indices)
    return divergence.from_logits(teacher.coarse, student, where=where)


def _largest(u: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        values, indices = u.topk(k, -1)
        rest = torch.logsumexp(u.to(precision(u, u)).scatter(-1, indices, -torch.inf), -1)
    return values, indices, rest


def _coarse(v: Tensor, indices: Tensor) -> Tensor:
    """The logits at `indices` and the logarithm of the others' sum, (..., k + 1), in torch operations."""
    v = v.to(precision(v, v))
    others = v.scatter(-1, indices, -torch.inf)
    empty = (others == -torch.inf).all(-1, keepdim=True)
    rest = torch.logsumexp(others.masked_fill(empty, 0.0), -1, keepdim=True).masked_fill(empty, -torch.inf)
    return torch.cat([v.gather(-1, indices), rest], -1)


class _Coarse(torch.autograd.Function):
    """`_coarse` by blocks of rows; the backward pass makes the gradient in v and nothing else of its size."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, indices: Tensor) -> Tensor:  # type: ignore[override]
        k = indices.shape[-1]
        table = indices.reshape(-1, k)
        parts = [_coarse(block.rows[0], table[block.start : block.stop]) for block in row_blocks([v])]
        out = torch.cat(parts).reshape(*v.shape[:-1], k + 1)
        ctx.save_for_backward(v, indices, out[..., -1])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:  # type: ignore[override]
        v, indices, rest = ctx.saved_tensors
        if torch.is_grad_enabled():
            return torch.autograd.grad(_coarse(v, indices), v, grad, create_graph=True)[0], None
        out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
        width, k = v.shape[-1], indices.shape[-1]
        rows, table, chosen = out.view(-1, width), grad.reshape(-1, k + 1), indices.reshape(-1, k)
        log_rest = rest.reshape(-1, 1)
        for block in row_blocks([v]):
            here = slice(block.start, block.stop)
            empty = log_rest[here] == -torch.inf
            share = torch.exp(block.rows[0] - log_rest[here].masked_fill(empty, 0.0)).masked_fill_(empty, 0.0)
            share = share.mul_(table[here, -1:]).scatter_(-1, chosen[here], table[here, :-1])
            rows[here] = share
        return out, None


__all__ = ["TruncatedLogits", "truncated"]
