"""Which tokens are plausible next: the rule that contrastive decoding and span verification share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import whole_number


@dataclass(frozen=True)
class PlausibleSet:
    """The tokens with p(v) >= share * max p: {v : log p(v) >= log share + max log p}.

    `share` in (0, 1]; with 1 only the most probable tokens remain. `most` cuts the candidates of a step to the most
    probable ones.
    """

    share: float = 0.1
    most: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 < self.share <= 1:
            raise ValueError(f"the plausible share must lie in (0, 1], got {self.share!r}")
        if self.most is not None:
            whole_number(self.most, 2, "most")

    def mask(self, log_p: Tensor) -> Tensor:
        """Which tokens of log_p (..., V) are plausible, boolean (..., V); `most` has no part in it."""
        return log_p >= log_p.amax(-1, keepdim=True) + math.log(self.share)

    def tokens(self, log_p: Tensor) -> Tensor:
        """The plausible tokens of one law log_p (V,), the most probable first (the lower index at ties), at most `most`."""
        kept = self.mask(log_p).nonzero().squeeze(-1)
        order = torch.argsort(log_p[kept], descending=True, stable=True)
        return kept[order][: self.most]


__all__ = ["PlausibleSet"]
