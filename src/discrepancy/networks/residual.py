"""A residual network modulated by a code in every block: noise levels, labels, masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.networks.linear import linear
from discrepancy.networks.mlp import MLP

_GATES = 3  # linear maps of the points that the code mixes in the output


class ResidualModule(nn.Module):
    """The network that `ResidualMLP` builds: points (n, inputs) and codes (n, codes) to (n, outputs), zero at the start."""

    def __init__(
        self,
        inputs: int,
        codes: int,
        outputs: int,
        width: int,
        blocks: int,
        generator: torch.Generator,
        dtype: torch.dtype | None,
    ) -> None:
        """Draw the weights from `generator`."""
        super().__init__()

        def layer(fan_in: int, fan_out: int) -> nn.Linear:
            return linear(fan_in, fan_out, generator=generator, dtype=dtype)

        self.first = layer(inputs, width)
        self.code = MLP(width, 1, nn.SiLU).build(codes, width, generator=generator, dtype=dtype)
        self.inner = nn.ModuleList(layer(width, width) for _ in range(blocks))
        self.coded = nn.ModuleList(layer(width, 2 * width) for _ in range(blocks))
        self.outer = nn.ModuleList(layer(width, width) for _ in range(blocks))
        self.last = layer(width, outputs)
        self.skip, self.gate = layer(inputs, _GATES * outputs), layer(width, _GATES * outputs)
        for final in (self.last, self.gate):
            nn.init.zeros_(final.weight)
            nn.init.zeros_(final.bias)

    def forward(self, points: Tensor, codes: Tensor) -> Tensor:
        """h <- h + outer(silu((1 + scale) inner(silu(h)) + shift)) in every block; last(silu(h)) + sum of gate * skip(points).

        Scale, shift and gate are linear in features of the code: what is linear in the points at each code is learned at once.
        """
        silu = nn.functional.silu
        h, code = self.first(points), silu(self.code(codes))
        for inner, coded, outer in zip(self.inner, self.coded, self.outer, strict=True):
            scale, shift = coded(code).chunk(2, -1)
            h = h + outer(silu(torch.addcmul(shift, 1 + scale, inner(silu(h)))))
        gated = (self.gate(code) * self.skip(points)).unflatten(-1, (_GATES, -1)).sum(-2)
        return self.last(silu(h)) + gated


@dataclass(frozen=True)
class ResidualMLP:
    """`blocks` residual blocks of `width` units with SiLU, scaled and shifted by a code inside each.

    Width None goes by the number of inputs: 64 units up to 10, 128 up to 50, and 256 above. Raises ValueError unless width and
    blocks are at least 1.
    """

    width: int | None = None
    blocks: int = 3

    def __post_init__(self) -> None:
        """Check the options."""
        if self.width is not None:
            whole_number(self.width, 1, "width")
        whole_number(self.blocks, 1, "blocks")

    def build(
        self,
        inputs: int,
        codes: int,
        outputs: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> ResidualModule:
        """The network from (n, inputs) and (n, codes) to (n, outputs); a seed fixes its weights."""
        width = self.width if self.width is not None else 64 if inputs <= 10 else 128 if inputs <= 50 else 256
        return ResidualModule(inputs, codes, outputs, width, self.blocks, generator_or_default(generator), dtype)


__all__ = ["ResidualMLP", "ResidualModule"]
