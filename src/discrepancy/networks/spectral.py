"""A linear layer of spectral norm one: what keeps a critic Lipschitz."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.networks.linear import linear


class SpectralLinear(nn.Module):
    """x -> W x / |W|_2 + b, 1-Lipschitz in the Euclidean norm, with |W|_2 by power iteration.

    The iteration's vector is a buffer that begins at `generator`'s draw and takes `iterations` steps at each call in training
    mode; while W moves slowly the norm is right to a fraction of a per cent, and `settle()` iterates to convergence. The gradient
    is that of W / |W|_2, singular vectors held fixed. Time and memory O(inputs outputs).
    """

    direction: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        iterations: int = 1,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """A layer R^inputs -> R^outputs; ValueError unless iterations is a whole number of at least 1."""
        super().__init__()
        source = generator_or_default(generator)
        layer = linear(inputs, outputs, bias=bias, generator=source, dtype=dtype)
        self.weight, self.bias = layer.weight, layer.bias
        self.iterations = whole_number(iterations, 1, "iterations")
        start = torch.randn(outputs, generator=source, dtype=dtype)
        self.register_buffer("direction", start / torch.linalg.vector_norm(start))
        self.settle()

    @torch.no_grad()
    def settle(self, steps: int = 50) -> None:
        """Run `steps` power iterations from where the buffer stands."""
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        v = self.weight.mT @ self.direction
        u = self.weight @ v
        size = torch.linalg.vector_norm(u)
        if float(size) > 0:
            self.direction = u / size

    def norm(self) -> Tensor:
        """|W|_2 as the buffer knows it, differentiable in W."""
        with torch.no_grad():
            v = self.weight.mT @ self.direction
            v = v / torch.linalg.vector_norm(v).clamp_min(torch.finfo(v.dtype).tiny)
        return self.direction @ (self.weight @ v)

    def forward(self, x: Tensor) -> Tensor:
        """The layer on x (..., inputs)."""
        if self.training:
            with torch.no_grad():
                for _ in range(self.iterations):
                    self._step()
        norm = self.norm()
        # A weight of zero is 0-Lipschitz already.
        return nn.functional.linear(x, self.weight / torch.where(norm > 0, norm, torch.ones_like(norm)), self.bias)


__all__ = ["SpectralLinear"]
