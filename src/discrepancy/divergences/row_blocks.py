"""Rows of logits in blocks: a few rows at a time of tensors of any strides, so that nothing as large as the logits is copied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 1 << 18  # entries of a block: one megabyte in float32, which the second-level cache holds
SMALL = 1 << 20  # entries below which tensors that are no plain table of rows are copied into one


@dataclass(frozen=True)
class RowBlock:
    """Rows [start, stop) of the batch, and the same rows of each tensor, (stop - start, V)."""

    start: int
    stop: int
    rows: tuple[Tensor, ...]


def row_blocks(tensors: Sequence[Tensor], entries: int = BLOCK) -> list[RowBlock]:
    """Cut tensors of one shape (..., V) into blocks of about `entries` entries, and of whole rows, without copying them."""
    if tensors[0].numel() <= entries:
        width = tensors[0].shape[-1]
        return [RowBlock(0, tensors[0].numel() // width, tuple(t if t.ndim == 2 else t.reshape(-1, width) for t in tensors))]
    found: list[RowBlock] = []
    for offset, tables in _tables(list(tensors), 0):
        n, width = tables[0].shape
        step = max(1, entries // max(1, width))
        found += [
            RowBlock(offset + i, offset + min(n, i + step), tuple(t[i : i + step] for t in tables)) for i in range(0, n, step)
        ]
    return found


def _tables(tensors: list[Tensor], offset: int) -> list[tuple[int, list[Tensor]]]:
    """The tensors as tables (n, V), each with the number of its first row; several where the strides allow no single one."""
    shape = tensors[0].shape
    if len(shape) <= 2:
        return [(offset, [t.reshape(-1, shape[-1]) for t in tensors])]
    if tensors[0].numel() <= SMALL:
        return [(offset, [t.reshape(-1, shape[-1]) for t in tensors])]
    try:
        return [(offset, [t.view(-1, shape[-1]) for t in tensors])]
    except RuntimeError:  # such as logits[:, :-1]: a table for each of the first dimension
        inner = math.prod(shape[1:-1])
        parts = (_tables([t[k] for t in tensors], offset + k * inner) for k in range(shape[0]))
        return [table for part in parts for table in part]


def precision(u: Tensor, v: Tensor) -> torch.dtype:
    """What pairs of logits are computed in: float64 where either is, and float32 for it and for half precision."""
    return torch.float64 if torch.float64 in (u.dtype, v.dtype) else torch.float32


__all__ = ["BLOCK", "RowBlock", "precision", "row_blocks"]
