"""What `Divergence.from_logits` accepts: two tensors of logits of any precision, a mask of categories and one of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor


def logits(t: Any, name: str, like: Tensor | None = None) -> Tensor:
    """A tensor of logits; half precision stays as it is, since its blocks are computed in float32."""
    if isinstance(t, Tensor) and t.dtype in (torch.float16, torch.bfloat16) and t.device.type != "meta":
        return t
    return as_tensor(t, name, like=like)


def logit_pair(u: Any, v: Any, dim: int) -> tuple[Tensor, Tensor, int]:
    """u and v broadcast to one shape with the categories moved to the last dimension, and where that dimension was."""
    like = next((t for t in (u, v) if isinstance(t, Tensor) and t.is_floating_point()), None)
    u, v = logits(u, "u", like), logits(v, "v", like)
    if u.shape == v.shape and u.device == v.device and u.ndim and dim in (-1, u.ndim - 1) and u.shape[-1]:
        return u, v, u.ndim - 1
    if u.device != v.device:
        raise ValueError(f"u is on {u.device} and v on {v.device}: move one of them")
    if u.ndim == 0 or v.ndim == 0:
        raise ValueError(f"u and v must have a dimension of categories, got shapes {tuple(u.shape)}, {tuple(v.shape)}")
    ndim = max(u.ndim, v.ndim)
    if not -ndim <= dim < ndim:
        raise ValueError(f"dim must lie in [{-ndim}, {ndim - 1}] for {ndim} dimension(s), got {dim}")
    axis = dim % ndim
    sizes = [t.shape[axis - ndim] if ndim - axis <= t.ndim else 1 for t in (u, v)]
    if sizes[0] != sizes[1]:
        least = min(sizes)
        raise ValueError(
            f"u has {sizes[0]} categories along dim {dim} and v has {sizes[1]}: they must be the same. Models whose vocabularies "
            f"differ by padding alone share the first {least}: cut both, "
            f"logits[..., :{least}]; other vocabularies cannot be compared"
        )
    if sizes[0] == 0:
        raise ValueError(f"u and v have no category along dim {dim}, got shapes {tuple(u.shape)}, {tuple(v.shape)}")
    try:
        shape = torch.broadcast_shapes(u.shape, v.shape)
    except RuntimeError:
        raise ValueError(f"u has shape {tuple(u.shape)} and v {tuple(v.shape)}: they must be equal or broadcast") from None
    return u.expand(shape).movedim(axis, -1), v.expand(shape).movedim(axis, -1), axis


def category_mask(mask: Any, u: Tensor, axis: int) -> Tensor | None:
    """The mask of categories in the shape of u, whose categories come last."""
    if mask is None:
        return None
    kept = _boolean(mask, "mask", "True keeps a category", u)
    shape = u.movedim(-1, axis).shape
    try:
        kept = kept.expand(shape)
    except RuntimeError:
        raise ValueError(f"mask has shape {tuple(kept.shape)}, which does not fit the logits {tuple(shape)}") from None
    return kept.movedim(axis, -1)


def row_mask(where: Any, u: Tensor) -> Tensor | None:
    """The mask of rows in the batch shape of u. Raises ValueError where it keeps none."""
    if where is None:
        return None
    rows = _boolean(where, "where", "True keeps a row", u)
    try:
        rows = rows.expand(u.shape[:-1])
    except RuntimeError:
        raise ValueError(
            f"where has shape {tuple(rows.shape)}, which does not fit the rows {tuple(u.shape[:-1])}: it leaves the dimension of "
            "categories out"
        ) from None
    if not bool(rows.any()):
        raise ValueError(f"where keeps none of the {rows.numel()} row(s): there is nothing to compare")
    return rows


def _boolean(mask: Any, name: str, meaning: str, u: Tensor) -> Tensor:
    kept = torch.as_tensor(mask, device=u.device)
    if kept.dtype != torch.bool:
        raise TypeError(f"{name} must be boolean ({meaning}), got {kept.dtype}")
    return kept


__all__ = ["category_mask", "logit_pair", "logits", "row_mask"]
