"""A network's parameters in the coordinates of their prior, theta = s z with z standard normal, evaluated for many z at once."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy._validate import positive


@dataclass(frozen=True)
class GaussianPrior:
    """Independent N(0, s^2) on every parameter: s = `std`, for weights of two dimensions or more std / sqrt(fan-in) if
    `by_fan_in`.

    By fan-in the law of the outputs has a limit as layers widen; a prior must be fixed before the data are seen. Raises
    ValueError unless std > 0.
    """

    std: float = 1.0
    by_fan_in: bool = True

    def __post_init__(self) -> None:
        """Check the option."""
        positive(self.std, "std")

    def scale(self, parameter: Tensor) -> float:
        """s of one parameter tensor."""
        fan_in = parameter[0].numel() if self.by_fan_in and parameter.ndim > 1 else 1
        return self.std / math.sqrt(fan_in)


class PriorCoordinates:
    """A module as a function of z (c, D), D the number of its trainable parameters, in evaluation mode.

    Raises ValueError for a module without trainable parameters. One evaluation costs c forward passes, batched by `torch.vmap`.
    """

    def __init__(self, module: nn.Module, prior: GaussianPrior | None = None) -> None:
        """Copy the module; `prior` defaults to `GaussianPrior()`."""
        self.module = copy.deepcopy(module).eval()
        self.prior = GaussianPrior() if prior is None else prior
        self._shapes = {name: p.shape for name, p in self.module.named_parameters() if p.requires_grad}
        if not self._shapes:
            raise ValueError(f"{type(module).__name__} has no trainable parameters")
        weights = dict(self.module.named_parameters())
        first = weights[next(iter(self._shapes))]
        self.dtype, self.device = first.dtype, first.device
        scales = [torch.full((weights[name].numel(),), self.prior.scale(weights[name])) for name in self._shapes]
        self.scales = torch.cat(scales).to(first)

    @property
    def dimension(self) -> int:
        """D."""
        return len(self.scales)

    def point(self) -> Tensor:
        """z (D,) of the module's own parameters."""
        weights = dict(self.module.named_parameters())
        return torch.cat([weights[name].detach().flatten() for name in self._shapes]) / self.scales

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` draws of the prior, z (count, D)."""
        return torch.randn(count, self.dimension, dtype=self.dtype, device=self.device, generator=generator)

    def outputs(self, z: Tensor, x: Tensor) -> Tensor:
        """The module's outputs at x (n, ...) for each row of z (c, D): (c, n, ...)."""

        def single(one: Tensor) -> Tensor:
            return torch.func.functional_call(self.module, self._named(one), (x,))

        return torch.vmap(single)(z)

    def module_at(self, z: Tensor) -> nn.Module:
        """A copy of the module with the parameters of z (D,)."""
        made = copy.deepcopy(self.module)
        made.load_state_dict(self._named(z.detach()), strict=False)
        return made

    def _named(self, z: Tensor) -> dict[str, Tensor]:
        parts = (z * self.scales).split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


__all__ = ["GaussianPrior", "PriorCoordinates"]
