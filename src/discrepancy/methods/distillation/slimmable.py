"""Layers of adjustable width with shared weights: a narrower network is the first units of every layer of the widest one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy._validate import generator_or_default, whole_number


class SlimmableLayer(nn.Module):
    """A layer with `full` outputs of which the first round(share full), at least one, are there; set by `set_width`.

    `fixed` layers keep all outputs (a classifier's last). How many inputs there are a layer sees from what it is given.
    """

    def __init__(self, full: int, fixed: bool) -> None:
        super().__init__()
        self.full, self.fixed, self.share = whole_number(full, 1, "outputs"), fixed, 1.0

    @property
    def active(self) -> int:
        """The number of outputs that are there now."""
        return self.full if self.fixed else max(1, round(self.share * self.full))

    def _initialised(self, *shape: int, bias: bool, generator: torch.Generator | None) -> None:
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        source = generator_or_default(generator)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=source))
        self.bias = nn.Parameter(torch.empty(shape[0]).uniform_(-bound, bound, generator=source)) if bias else None

    def _sliced(self, inputs: int) -> tuple[Tensor, Tensor | None]:
        if inputs > self.weight.shape[1]:
            raise ValueError(f"{type(self).__name__} takes at most {self.weight.shape[1]} inputs, got {inputs}")
        return self.weight[: self.active, :inputs], None if self.bias is None else self.bias[: self.active]


class SlimmableLinear(SlimmableLayer):
    """x W^T + b on the first inputs and outputs; (..., k) -> (..., active) for any k up to `inputs`.

    After a flattened convolution the first units of every channel lie together, channel by channel, so that slicing keeps whole
    channels.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, fixed: bool = False, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(outputs, fixed)
        self._initialised(outputs, whole_number(inputs, 1, "inputs"), bias=bias, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """The active outputs."""
        return F.linear(x, *self._sliced(x.shape[-1]))


class _SlimmableConv(SlimmableLayer):
    dimensions: ClassVar[int]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        fixed: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(outputs, fixed)
        self.stride, self.padding = whole_number(stride, 1, "stride"), whole_number(padding, 0, "padding")
        widths = (whole_number(kernel, 1, "kernel"),) * self.dimensions
        self._initialised(outputs, whole_number(inputs, 1, "inputs"), *widths, bias=bias, generator=generator)


class SlimmableConv1d(_SlimmableConv):
    """A convolution of signals (B, k, L) on the first k input and the first active output channels; one group."""

    dimensions = 1

    def forward(self, x: Tensor) -> Tensor:
        """The active channels."""
        return F.conv1d(x, *self._sliced(x.shape[1]), stride=self.stride, padding=self.padding)


class SlimmableConv2d(_SlimmableConv):
    """A convolution of images (B, k, H, W) on the first k input and first active output channels; one group, square kernel."""

    dimensions = 2

    def forward(self, x: Tensor) -> Tensor:
        """The active channels."""
        return F.conv2d(x, *self._sliced(x.shape[1]), stride=self.stride, padding=self.padding)


class SlimmableBatchNorm(nn.Module):
    """Batch normalisation of (B, k, ...) with the parameters and statistics of the first k of `channels`.

    All widths share one set of running statistics, which therefore fit none: call `recalibrate_batchnorm` once a width is chosen.
    """

    running_mean: Tensor
    running_var: Tensor
    count: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(whole_number(channels, 1, "channels"))),
            nn.Parameter(torch.zeros(channels)),
        )
        self.eps = eps
        self.momentum: float | None = momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def reset_running_stats(self) -> None:
        """Forget the running statistics."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.count.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """The normalised channels; in training the batch's statistics are used, and enter the running ones."""
        k = x.shape[1]
        if k > len(self.weight):
            raise ValueError(f"SlimmableBatchNorm takes at most {len(self.weight)} channels, got {k}")
        rate = 0.0
        if self.training:
            self.count += 1
            rate = 1 / float(self.count) if self.momentum is None else self.momentum
        mean, variance, weight, bias = (t[:k] for t in (self.running_mean, self.running_var, self.weight, self.bias))
        return F.batch_norm(x, mean, variance, weight, bias, self.training, rate, self.eps)


def set_width(network: nn.Module, share: float) -> None:
    """Let every slimmable layer of a network have this share of its units, in (0, 1].

    Raises ValueError for another share, and if the network has no slimmable layer.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share!r}")
    layers = [module for module in network.modules() if isinstance(module, SlimmableLayer)]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no slimmable layer: build it of SlimmableLinear, SlimmableConv1d, ...")
    for layer in layers:
        layer.share = float(share)


@torch.no_grad()
def recalibrate_batchnorm(network: nn.Module, batches: Iterable[Tensor], *, most: int = 64) -> int:
    """Replace the running statistics of all batch normalisations by the mean over up to `most` batches at the present width.

    Other layers are in evaluation mode meanwhile (no dropout), and all modes are restored. Returns the number of batches used.
    Raises ValueError if the network has no batch normalisation or there is no batch.
    """
    whole_number(most, 1, "most")
    kinds = (SlimmableBatchNorm, nn.modules.batchnorm._BatchNorm)
    norms = [module for module in network.modules() if isinstance(module, kinds)]
    if not norms:
        raise ValueError(f"{type(network).__name__} has no batch normalisation to recalibrate")
    modes = [(module, module.training) for module in network.modules()]
    rates = [norm.momentum for norm in norms]
    network.eval()
    used = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        for batch in batches:
            if used == most:
                break
            network(batch)
            used += 1
    finally:
        for norm, rate in zip(norms, rates, strict=True):
            norm.momentum = rate
        for module, mode in modes:
            module.training = mode
    if used == 0:
        raise ValueError("batches is empty: the statistics need at least one batch")
    return used


__all__ = [
    "SlimmableBatchNorm",
    "SlimmableConv1d",
    "SlimmableConv2d",
    "SlimmableLayer",
    "SlimmableLinear",
    "recalibrate_batchnorm",
    "set_width",
]
