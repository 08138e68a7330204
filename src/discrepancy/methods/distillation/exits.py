"""Exit branches: small heads that turn intermediate features into logits, as objects that build them once shapes are known."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.networks.linear import linear


@dataclass(frozen=True)
class ExitSetting:
    """What a branch is built for: the classes, how many stages lie behind its own (0 at the last), and the width to end on."""

    classes: int
    remaining: int
    width: int


class Exit(ABC):
    """How a branch from features of one shape to logits (B, classes) is made."""

    @abstractmethod
    def build(self, shape: torch.Size, setting: ExitSetting, generator: torch.Generator) -> nn.Module:
        """The branch for features of `shape`, batch first; ValueError for a rank that it does not take."""


def _initialised(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Linear layers from a normal of deviation 0.02 cut at two of them, convolutions uniform on +-1/sqrt(fan-in), biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.MultiheadAttention):
            for name, parameter in layer.named_parameters(recurse=False):
                if "bias" in name:
                    nn.init.zeros_(parameter)
                else:
                    nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04, generator=generator)
        elif isinstance(layer, nn.Conv1d | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


@dataclass(frozen=True)
class VectorExit(Exit):
    """Features (B, d): Linear, ReLU, Linear, through `hidden` units (None: the width to end on)."""

    hidden: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless hidden is a whole number of at least 1."""
        if self.hidden is not None:
            whole_number(self.hidden, 1, "hidden")

    def build(self, shape: torch.Size, setting: ExitSetting, generator: torch.Generator) -> nn.Module:
        """Linear, ReLU, Linear."""
        _require_rank(shape, (2,), "VectorExit")
        hidden = setting.width if self.hidden is None else self.hidden
        return nn.Sequential(
            linear(shape[1], hidden, generator=generator), nn.ReLU(), linear(hidden, setting.classes, generator=generator)
        )


@dataclass(frozen=True)
class ConvolutionalExit(Exit):
    """Features (B, C, H, W), or (B, C, L): a stride-2 depthwise-separable block for each stage behind, doubling the channels, the
    last one ending on the width; at the last stage a 1x1 convolution to the width; then the global mean and Linear to classes."""

    def build(self, shape: torch.Size, setting: ExitSetting, generator: torch.Generator) -> nn.Module:
        """Blocks, mean, Linear."""
        _require_rank(shape, (3, 4), "ConvolutionalExit")
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if len(shape) == 4 else (nn.Conv1d, nn.BatchNorm1d)
        layers: list[nn.Module] = []
        channels = shape[1]
        for left in range(setting.remaining, 0, -1):
            out = setting.width if left == 1 else 2 * channels
            layers += [conv(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False), norm(channels), nn.ReLU()]
            layers += [conv(channels, out, 1, bias=False), norm(out), nn.ReLU()]
            channels = out
        if not layers:
            layers += [conv(channels, setting.width, 1, bias=False), norm(setting.width), nn.ReLU()]
        head = nn.Linear(setting.width, setting.classes)
        return _initialised(nn.Sequential(*layers, _GlobalMean(), head), generator)


class _GlobalMean(nn.Module):
    """(B, C, ...) to (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean over places."""
        return x.flatten(2).mean(-1)


@dataclass(frozen=True)
class TokenExit(Exit):
    """Features (B, N, d): tokens merged to a grid x grid of means, Linear to the width, a transformer block for each stage behind
    (at least one), then the class token, or without one the mean over tokens, and Linear to classes.

    class_token: whether the first token is one, which merging leaves alone; None: where N - 1 is a square and N is not. Tokens
    that form no square are not merged. Widths are rounded up to a multiple of `heads`.
    """

    grid: int = 7
    heads: int = 4
    class_token: bool | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless grid and heads are whole numbers of at least 1."""
        whole_number(self.grid, 1, "grid")
        whole_number(self.heads, 1, "heads")

    def build(self, shape: torch.Size, setting: ExitSetting, generator: torch.Generator) -> nn.Module:
        """Merging, blocks, Linear."""
        _require_rank(shape, (3,), "TokenExit")
        tokens, width = shape[1], -(-setting.width // self.heads) * self.heads
        has = self.class_token
        if has is None:
            has = math.isqrt(tokens - 1) ** 2 == tokens - 1 and math.isqrt(tokens) ** 2 != tokens
        blocks = [
            nn.TransformerEncoderLayer(
                width, self.heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(max(setting.remaining, 1))
        ]
        return _initialised(_TokenBranch(shape[2], width, setting.classes, blocks, self.grid, has), generator)


class _TokenBranch(nn.Module):
    """Merging, a Linear, transformer blocks, and a head on the class token or the mean."""

    def __init__(self, inputs: int, width: int, classes: int, blocks: Sequence[nn.Module], grid: int, class_token: bool) -> None:
        super().__init__()
        self.grid, self.class_token = grid, class_token
        self.entry, self.blocks = nn.Linear(inputs, width), nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of tokens (B, N, d)."""
        first, rest = (x[:, :1], x[:, 1:]) if self.class_token else (x[:, :0], x)
        side = math.isqrt(rest.shape[1])
        if side**2 == rest.shape[1] and side > self.grid:
            image = rest.mT.unflatten(-1, (side, side))
            rest = nn.functional.adaptive_avg_pool2d(image, self.grid).flatten(2).mT
        h = self.norm(self.blocks(self.entry(torch.cat([first, rest], 1))))
        return self.head(h[:, 0] if self.class_token else h.mean(1))


@dataclass(frozen=True)
class AutomaticExit(Exit):
    """By rank: (B, d) `VectorExit`, (B, N, d) `TokenExit`, (B, C, H, W) `ConvolutionalExit`.

    Features (B, C, L) of a convolution on signals look like tokens: pass `ConvolutionalExit()` for them.
    """

    def build(self, shape: torch.Size, setting: ExitSetting, generator: torch.Generator) -> nn.Module:
        """The branch of that rank; ValueError for rank 1 and for 5 and more."""
        _require_rank(shape, (2, 3, 4), "AutomaticExit")
        chosen: Exit = {2: VectorExit(), 3: TokenExit(), 4: ConvolutionalExit()}[len(shape)]
        return chosen.build(shape, setting, generator)


def _require_rank(shape: torch.Size, ranks: tuple[int, ...], name: str) -> None:
    if len(shape) not in ranks:
        taken = " or ".join(str(r) for r in ranks)
        raise ValueError(f"{name} takes features of rank {taken}, batch first, got shape {tuple(shape)} of rank {len(shape)}")


def exit_branches(
    shapes: dict[str, torch.Size],
    classes: int,
    width: int,
    exit_: Exit | dict[str, Exit],
    *,
    generator: torch.Generator | None = None,
) -> dict[str, nn.Module]:
    """A branch for each named stage, first to last; `exit_` for all, or one a name. ValueError for ranks they do not take."""
    source = generator_or_default(generator)
    last = len(shapes) - 1
    return {
        name: (exit_[name] if isinstance(exit_, dict) else exit_).build(shape, ExitSetting(classes, last - k, width), source)
        for k, (name, shape) in enumerate(shapes.items())
    }


__all__ = ["AutomaticExit", "ConvolutionalExit", "Exit", "ExitSetting", "TokenExit", "VectorExit", "exit_branches"]
