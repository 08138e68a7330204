"""The moving average of a network's weights along its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from discrepancy._validate import fraction


class ExponentialAverage:
    """w_bar <- d w_bar + (1 - d) w after every step, with d = min(decay, (1 + k) / (10 + k)) at the k-th update.

    The smaller early d forgets the start, which would otherwise weigh decay^k. Buffers are copied, not averaged. Memory of one
    copy of the module; an update costs one pass over the weights. Raises ValueError unless 0 < decay < 1.
    Source: Polyak and Juditsky (1992); the warm start is that of common practice in diffusion models (Song et al., 2021).
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        """Start at the module's weights."""
        self.module, self.decay, self.updates = module, fraction(decay, "decay"), 0
        self.state: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average toward the module's weights as they are now."""
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averaged = {name for name, _ in self.module.named_parameters()}
        for name, value in self.module.state_dict().items():
            if name in averaged:
                self.state[name].lerp_(value, 1 - d)
            else:
                self.state[name].copy_(value)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """Within the block the module carries the averaged weights; afterwards its own again."""
        own = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.state)
        try:
            yield self.module
        finally:
            self.module.load_state_dict(own)

    def keep(self) -> None:
        """Put the averaged weights into the module for good."""
        self.module.load_state_dict(self.state)


__all__ = ["ExponentialAverage"]
