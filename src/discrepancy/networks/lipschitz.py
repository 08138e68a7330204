"""Lipschitz constants of the layers of a network, in the Euclidean norm, as logarithms: products of norms overflow."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_ONE = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.Tanh,
    nn.Hardtanh,
    nn.Softplus,
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Softmax,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.Dropout,
    nn.Softsign,
)
# Largest slopes of smooth activations, by calculus (GELU: at x = sqrt 2; SiLU: where its second derivative vanishes).
_SLOPES = {nn.Sigmoid: 0.25, nn.GELU: 1.1290, nn.SiLU: 1.0999}
_DENSE = 32  # inputs up to which the operator is written out
_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)


@torch.no_grad()
def log_lipschitz(module: nn.Module, inputs: Tensor) -> float:
    """log of a Lipschitz constant of `module` in evaluation mode, around inputs of the shape of `inputs` (n, ...).

    Linear layers by their singular values, convolutions by Lanczos steps on one input's shape, batch and layer norms by their
    scales, activations by their largest slope; a Sequential is the product, an upper bound. Pooling with overlapping windows
    repeats entries and is bounded by the square root of the repeats.
    Raises TypeError for a module whose constant is not known: pass yours.
    """
    if isinstance(module, nn.Sequential):
        total = 0.0
        for part in module:
            total += log_lipschitz(part, inputs)
            inputs = _evaluated(part, inputs[:1])
        return total
    if isinstance(module, nn.Linear):
        return _log(float(torch.linalg.matrix_norm(module.weight.double(), 2)))
    if isinstance(module, _LINEAR):
        return _log(_operator_norm(module, inputs))
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and module.running_var is not None:
        scale = (module.running_var.double() + module.eps).rsqrt()
        return _log(float((scale if module.weight is None else scale * module.weight.double().abs()).max()))
    for kind, slope in _SLOPES.items():
        if isinstance(module, kind):
            return math.log(slope)
    if isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.AvgPool1d | nn.AvgPool2d):
        return _pooling(module)
    if isinstance(module, _ONE):
        return math.log(max(1.0, abs(getattr(module, "negative_slope", 1.0)), abs(float(getattr(module, "alpha", 1.0)))))
    raise TypeError(f"the Lipschitz constant of {type(module).__name__} is not known: pass the constants of the layers yourself")


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _evaluated(module: nn.Module, x: Tensor) -> Tensor:
    mode = module.training
    module.eval()
    try:
        return module(x)
    finally:
        module.train(mode)


def _operator_norm(module: nn.Module, inputs: Tensor) -> float:
    """|A|_2 of the linear part A of a layer on one input's shape: the largest eigenvalue of A'A, in float64.

    By Lanczos steps from a fixed start. Power iteration stays below the norm where the two largest eigenvalues are close, and a
    constant that is too small bounds nothing.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    layer = copy.deepcopy(module).double()
    zero = torch.zeros_like(inputs[:1], dtype=torch.float64)
    offset = layer(zero)

    def applied(v: Tensor) -> Tensor:
        with torch.enable_grad():
            point = zero.clone().requires_grad_()
            image = layer(v.reshape(zero.shape)) - offset
            return torch.autograd.grad(layer(point), point, image.detach())[0].flatten()

    n = zero.numel()
    if n <= _DENSE:
        columns = torch.stack([applied(e) for e in torch.eye(n, dtype=torch.float64, device=zero.device)])
        return float(torch.linalg.matrix_norm(columns, 2)) ** 0.5
    start = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if not bool(applied(start.to(zero.device)).any()):
        return 0.0

    def product(v: np.ndarray) -> np.ndarray:
        return applied(torch.from_numpy(v).to(zero.device)).cpu().numpy()

    make: Any = LinearOperator  # its stub has the parameters of another class
    operator = make((n, n), matvec=product, dtype=np.float64)
    largest: Any = eigsh(operator, k=1, which="LA", v0=start.numpy(), return_eigenvectors=False)
    return float(largest[0]) ** 0.5


def _pooling(module: nn.Module) -> float:
    """sqrt of how many windows an entry may lie in; a mean over a window of k shrinks by sqrt k, a maximum does not."""

    def each(value: int | Sequence[int], count: int) -> list[int]:
        return [value] * count if isinstance(value, int) else list(value)

    count = 1 if isinstance(module, nn.MaxPool1d | nn.AvgPool1d) else 2
    kernel, stride = each(module.kernel_size, count), each(module.stride, count)  # type: ignore[arg-type]
    repeats = math.prod(-(-k // s) for k, s in zip(kernel, stride, strict=True))
    area = math.prod(kernel) if isinstance(module, nn.AvgPool1d | nn.AvgPool2d) else 1
    return 0.5 * math.log(repeats / area)


__all__ = ["log_lipschitz"]
