"""Adam with a look ahead, for saddle points: where plain descent and ascent circle, the correction damps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import positive


class OptimisticAdam(torch.optim.Optimizer):
    """theta <- theta - rate (2 d_k - d_(k-1)), with Adam's direction d_k: this step's, plus what it differs from the last one's.

    `maximise` turns the sign, for the other player. Raises ValueError for a rate that is not positive or betas outside [0, 1).
    Source: Daskalakis, Ilyas, Syrgkanis and Zeng (2018).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        rate: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.5, 0.9),
        maximise: bool = False,
    ) -> None:
        """Parameters to move, and how fast."""
        positive(rate, "rate")
        if not all(0 <= b < 1 for b in betas):
            raise ValueError(f"betas must lie in [0, 1), got {betas!r}")
        super().__init__(parameters, {"rate": rate, "betas": betas, "maximise": maximise})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step from the gradients that stand in the parameters."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                slope = -p.grad if group["maximise"] else p.grad
                state: dict[str, Any] = self.state[p]
                if not state:
                    state.update(count=0, mean=torch.zeros_like(p), square=torch.zeros_like(p), last=torch.zeros_like(p))
                state["count"] += 1
                state["mean"].mul_(first).add_(slope, alpha=1 - first)
                state["square"].mul_(second).addcmul_(slope, slope, value=1 - second)
                mean = state["mean"] / (1 - first ** state["count"])
                spread = (state["square"] / (1 - second ** state["count"])).sqrt()
                # Adam's constant: a coordinate whose gradients have all been zero has not moved.
                direction = mean / (spread + 1e-8)
                p.add_(2 * direction - state["last"], alpha=-group["rate"])
                state["last"] = direction
        return value


__all__ = ["OptimisticAdam"]
