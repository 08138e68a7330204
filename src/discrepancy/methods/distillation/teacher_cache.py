"""A teacher's logits on fixed responses, kept between epochs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class TeacherCache:
    """The teacher's logits of data responses, by row, as long as they fit into `gib`."""

    def __init__(self, gib: float) -> None:
        self.left = gib * 2**30
        self.kept: dict[int, Tensor] = {}

    def get(self, rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The logits of some rows, computing those that are not kept."""
        missing = torch.tensor([r for r in rows.tolist() if r not in self.kept], dtype=torch.long)
        if len(missing) == len(rows):
            fresh = compute(rows)
            self._keep(rows, fresh)
            return fresh
        new = dict(zip(missing.tolist(), compute(missing), strict=True)) if len(missing) else {}
        found = torch.stack([self.kept[r] if r in self.kept else new[r] for r in rows.tolist()])
        for r, logits in new.items():
            self._keep(torch.tensor([r]), logits.unsqueeze(0))
        return found

    def _keep(self, rows: Tensor, logits: Tensor) -> None:
        for r, own in zip(rows.tolist(), logits, strict=True):
            size = own.numel() * own.element_size()
            if size <= self.left:
                self.left -= size
                self.kept[r] = own.clone()


__all__ = ["TeacherCache"]
