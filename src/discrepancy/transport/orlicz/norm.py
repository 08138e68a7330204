"""The Luxemburg norm: the scale at which a random length has expected weight one."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import as_tensor, require_finite, weights
from discrepancy.transport.orlicz.functions import ExponentialPower, OrliczFunction


def scale_of(lengths: Tensor, mass: Tensor, phi: OrliczFunction) -> float:
    """min{k : sum_i mass_i Phi(lengths_i / k) <= 1} for lengths (n,) >= 0 in float64; 0 where all are."""
    kept = (lengths > 0) & (mass > 0)
    d, w = lengths[kept], mass[kept]
    if d.numel() == 0:
        return 0.0
    unit = phi.inverse(1.0)
    # At the largest length over Phi^-1(1) every term is at most its mass; by Jensen the mean length gives a scale that is too
    # small, and so does each single term.
    high = math.log(float(d.max()) / unit)
    low = math.log(max(float(w @ d), 1e-300) / unit)
    for _ in range(80):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        small_enough = float(w @ phi.value(d / math.exp(middle))) <= 1
        low, high = (low, middle) if small_enough else (middle, high)
    return math.exp(high)


class Scale(torch.autograd.Function):
    """k as a function of lengths (k,) and of weights through given rates dC/dweight: the implicit function theorem.

    With C = sum mass Phi(lengths / k) = 1: dk/dlength_i = mass_i Phi'(lengths_i / k) / s and dk/dw = rate / s, where
    s = sum mass Phi'(lengths / k) lengths / k, all times one.
    """

    @staticmethod
    def forward(ctx, lengths, mass, phi, k, weight, rate):  # type: ignore[override]
        ctx.save_for_backward(lengths.detach(), mass)
        ctx.phi, ctx.k, ctx.rate = phi, k, rate
        return torch.tensor(k, dtype=torch.float64)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        lengths, mass = ctx.saved_tensors
        k, rate = ctx.k, ctx.rate
        if k == 0:
            return torch.zeros_like(lengths), None, None, None, None if rate is None else torch.zeros_like(rate), None
        at = lengths / k
        slope = mass * ctx.phi.derivative(at)
        total = (slope * at).sum()
        return grad * slope / total, None, None, None, None if rate is None else grad * k * rate / total, None


def luxemburg_norm(values: Any, w: Any = None, phi: OrliczFunction | None = None) -> Float[Tensor, "..."]:
    """min{k > 0 : sum_i w_i Phi(|values_i| / k) <= 1}, the Orlicz norm of a weighted sample, in units of the values.

    values (..., n), w (..., n) weights that sum to one (None: equal), phi an Orlicz function, `ExponentialPower(2)` by default.
    Differentiable in both; zero, with zero gradient, where all values are. Raises ValueError for values that are not finite.
    Time O(n) for each of some 60 bisections. Source: Luxemburg (1955); Krasnosel'skii and Rutickii (1961).
    """
    sample = as_tensor(values, "values")
    if sample.ndim < 1 or sample.shape[-1] == 0:
        raise ValueError(f"values must have shape (..., n), got {tuple(sample.shape)}")
    require_finite(sample, "values")
    share = weights(w, sample.shape, "w", like=sample)
    phi = ExponentialPower() if phi is None else phi
    lengths = sample.abs().double().reshape(-1, sample.shape[-1])
    found = []
    for row, mass in zip(lengths, share.double().reshape(-1, sample.shape[-1]), strict=True):
        k = scale_of(row.detach(), mass.detach(), phi)
        rate = phi.value(row.detach() / k) if k > 0 else torch.zeros_like(row)
        found.append(Scale.apply(row, mass.detach(), phi, k, mass, rate))
    return torch.stack(found).to(sample.dtype).reshape(sample.shape[:-1])


__all__ = ["Scale", "luxemburg_norm", "scale_of"]
