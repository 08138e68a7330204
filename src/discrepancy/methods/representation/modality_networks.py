"""Networks that read one modality at a time: shared weights, with a part of its own for each modality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._validate import whole_number
from discrepancy.networks import ConditionalUNet


class SharedBackbone(nn.Module):
    """logits = head(f), f = trunk(entry_m(x_m)): an entry for each modality, a shared trunk and head."""

    def __init__(self, entries: Sequence[nn.Module], trunk: nn.Module, head: nn.Module) -> None:
        """Raises ValueError without an entry."""
        super().__init__()
        if not entries:
            raise ValueError("entries is empty: one module for each modality is needed")
        self.entries, self.trunk, self.head = nn.ModuleList(entries), trunk, head

    def forward(self, x: Tensor, modality: int) -> tuple[Tensor, Tensor]:
        """Logits (B, C, ...) and features (B, F, ...) of one modality."""
        features = self.trunk(self.entries[modality](x))
        return self.head(features), features


class UNetBackbone(nn.Module):
    """A shared U-Net; what tells the modalities apart is the scale and shift that their embedding gives every normalisation.

    net: a `ConditionalUNet` without conditions, whose "noise level" is here the modality, (m + 1/2) / M. Features are those of
    its middle block, the coarsest.
    """

    def __init__(self, net: ConditionalUNet, modalities: int) -> None:
        """Raises TypeError for another network, ValueError for fewer than one modality."""
        super().__init__()
        if not isinstance(net, ConditionalUNet):
            raise TypeError(f"net must be a ConditionalUNet, UNet(...).build(1, classes), got {type(net).__name__}")
        self.net, self.modalities = net, whole_number(modalities, 1, "modalities")

    def forward(self, x: Tensor, modality: int) -> tuple[Tensor, Tensor]:
        """Logits (B, C, H, W) and the coarsest features (B, F, h, w) of one modality's images (B, channels, H, W)."""
        found: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found.append(output)

        hook = self.net.middle.register_forward_hook(keep)
        try:
            level = torch.full((len(x),), (modality + 0.5) / self.modalities, dtype=x.dtype, device=x.device)
            logits = self.net(x, level)
        finally:
            hook.remove()
        return logits, found[-1]


__all__ = ["SharedBackbone", "UNetBackbone"]
