"""The one training loop: Adam on a loss that a closure computes, with a record of its terms and an end to NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy._validate import positive, whole_number

# One step's loss, and the terms to record by name.
Step = Callable[[int], tuple[Tensor, Mapping[str, Tensor | float]]]


@dataclass(frozen=True)
class Training:
    """Adam for `steps` steps, the learning rate falling along a cosine to `final_share` of its start.

    `record_every` is the stride of the record; the rate rises linearly over the first `warm_up` steps; gradients whose joint
    Euclidean norm exceeds `gradient_clip` are scaled down to it (None: never). Raises ValueError for options out of range.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    final_share: float = 0.1
    record_every: int = 10
    warm_up: int = 0
    gradient_clip: float | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ("steps", "record_every"):
            value = getattr(self, name)
            whole_number(value, 1, name)
        positive(self.learning_rate, "learning_rate")
        if not 0 <= self.final_share <= 1:
            raise ValueError(f"final_share must lie in [0, 1], got {self.final_share!r}")
        whole_number(self.warm_up, 0, "warm_up")
        if self.gradient_clip is not None:
            positive(self.gradient_clip, "gradient_clip")

    def records(self, step: int) -> bool:
        """Whether this step is recorded: every `record_every`-th, and the last."""
        return step % self.record_every == 0 or step == self.steps - 1

    def run(
        self, parameters: Iterable[nn.Parameter], step: Step, *, after: Callable[[int], bool | None] | None = None
    ) -> dict[str, list[float]]:
        """Minimise; returns the recorded terms by name, with "step" and "loss". `after(k)` is called once the weights have moved,
        and ends the training by returning True (`EarlyStopping` watches a held-out score that way).

        Raises NumericalError naming the step if the loss or a gradient is not finite.
        """
        weights = list(parameters)
        optimiser = torch.optim.Adam(weights, lr=self.learning_rate)
        history: dict[str, list[float]] = {"step": [], "loss": []}
        for k in range(self.steps):
            share = self.final_share + (1 - self.final_share) * (1 + math.cos(math.pi * k / self.steps)) / 2
            share *= min(1.0, (k + 1) / self.warm_up) if self.warm_up else 1.0
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * share
            optimiser.zero_grad(set_to_none=True)
            loss, terms = step(k)
            if not math.isfinite(float(loss.detach())):
                raise NumericalError(f"training step {k}: the loss is {float(loss.detach())}; lower the learning rate")
            loss.backward()
            bad = sum(int((~torch.isfinite(w.grad)).sum()) for w in weights if w.grad is not None)
            if bad:
                raise NumericalError(f"training step {k}: {bad} gradient entries are not finite; lower the learning rate")
            if self.gradient_clip is not None:
                nn.utils.clip_grad_norm_(weights, self.gradient_clip)
            optimiser.step()
            ended = after is not None and after(k) is True
            if self.records(k) or ended:
                history["step"].append(k)
                history["loss"].append(float(loss.detach()))
                for name, value in terms.items():
                    history.setdefault(name, []).append(float(value))
            if ended:
                break
        return history


__all__ = ["Step", "Training"]
