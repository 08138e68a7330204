"""Perturbations of inputs within a small box that raise a model's loss: how fragile is a regression?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from discrepancy._validate import at_least, positive, whole_number

Model = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def _slope(model: Model, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The gradient of the loss in x; the model's own parameters receive none."""
    at = x.detach().requires_grad_()
    with torch.enable_grad():
        predicted = model(at)
        if predicted.shape != y.shape:
            raise ValueError(
                f"the model returns {tuple(predicted.shape)} and y is {tuple(y.shape)}: they would broadcast; reshape one"
            )
        (slope,) = torch.autograd.grad(loss(predicted, y), at)
    return slope


@dataclass(frozen=True)
class FastGradientSign:
    """x + size sign(grad_x loss(model(x), y)): the worst step in the box |x' - x|_inf <= size for a model that is linear in it.

    One backward pass; coordinates with zero gradient stay. Raises ValueError for a negative size.
    Source: Goodfellow, Shlens and Szegedy (2015).
    """

    size: float = 0.3
    references: ClassVar[tuple[str, ...]] = ("goodfellow-2015",)

    def __post_init__(self) -> None:
        """Check the option."""
        at_least(self.size, 0, "size")

    def __call__(self, model: Model, x: Tensor, y: Tensor, loss: Loss = F.mse_loss) -> Tensor:
        """The perturbed inputs, of x's shape, detached; a row's perturbation depends on that row alone for a mean loss."""
        return x.detach() + self.size * _slope(model, x, y, loss).sign()


@dataclass(frozen=True)
class ProjectedGradient:
    """`steps` signed steps of length `step`, each put back into the box |x' - x|_inf <= size.

    `steps` backward passes; starts at x itself. Raises ValueError for a size, step or number of steps that is not positive.
    Source: Madry, Makelov, Schmidt, Tsipras and Vladu (2018).
    """

    size: float = 0.3
    step: float = 0.05
    steps: int = 5
    references: ClassVar[tuple[str, ...]] = ("madry-2018",)

    def __post_init__(self) -> None:
        """Check the options."""
        positive(self.size, "size")
        positive(self.step, "step")
        whole_number(self.steps, 1, "steps")

    def __call__(self, model: Model, x: Tensor, y: Tensor, loss: Loss = F.mse_loss) -> Tensor:
        """The perturbed inputs, of x's shape, detached."""
        start = x.detach()
        at = start
        for _ in range(self.steps):
            at = at + self.step * _slope(model, at, y, loss).sign()
            at = start + (at - start).clamp(-self.size, self.size)
        return at


__all__ = ["FastGradientSign", "ProjectedGradient"]
