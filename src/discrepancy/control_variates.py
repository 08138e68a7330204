"""Monte Carlo means with control variates: the same average with less variance, for any Monte Carlo discrepancy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from discrepancy._results import Result


@dataclass(frozen=True, repr=False)
class ControlledMean(Result):
    """A mean corrected by control variates, with what the correction did.

    `value` (...,) the corrected mean (it may be negative where the values are not); `plain` the uncorrected mean; `gamma`
    (..., K) the coefficients used (the mean over folds when cross-fitted); `variance` and `plain_variance` the estimated
    variances of the two means for independent draws, and `ratio` the first over the second (1 where the plain variance is
    zero).
    """

    value: Tensor
    plain: Tensor
    gamma: Tensor
    variance: Tensor
    plain_variance: Tensor
    ratio: Tensor


def _single_coefficient(residual: Tensor, control: Tensor, scale: Tensor) -> Tensor:
    """gamma (...,) of one control, the case of every call in a training loop: a few operations and no basis."""
    power = torch.linalg.vecdot(control, control)
    floor = control.shape[-1] * (16 * torch.finfo(control.dtype).eps * scale).square()
    varies = power > floor
    return torch.where(varies, torch.linalg.vecdot(residual, control) / torch.where(varies, power, 1.0), 0.0)


def _coefficients(values: Tensor, deviations: Tensor, scale: Tensor) -> Tensor:
    """gamma (..., K) with M gamma = v, M = mean (C - B)(C - B)^T, v = mean (W - A)(C - B), by Gram-Schmidt on the controls.

    A control that does not vary beyond rounding, or that the earlier ones already span, gets coefficient zero.
    """
    residual = values - values.mean(-1, keepdim=True)
    count = deviations.shape[-1]
    if count == 1:
        return _single_coefficient(residual, deviations[..., 0], scale[..., 0])[..., None]
    tiny = torch.finfo(values.dtype).eps
    basis: list[tuple[Tensor, Tensor, Tensor]] = []  # control, its coordinates in the given ones, 1 / power or 0
    gamma = torch.zeros_like(deviations[..., 0, :])
    for k in range(count):
        control = deviations[..., k]
        coordinates = torch.zeros_like(gamma)
        coordinates[..., k] = 1.0
        full = control.square().mean(-1)
        for earlier, place, inverse in basis:
            overlap = (control * earlier).mean(-1) * inverse
            control = control - overlap[..., None] * earlier
            coordinates = coordinates - overlap[..., None] * place
        power = control.square().mean(-1)
        varies = (power > (1e-5) ** 2 * full) & (full > (16 * tiny * scale[..., k]) ** 2)
        inverse = torch.where(varies, 1 / torch.where(varies, power, torch.ones_like(power)), torch.zeros_like(power))
        basis.append((control, coordinates, inverse))
        gamma = gamma + ((residual * control).mean(-1) * inverse)[..., None] * coordinates
    return gamma


class _Fit(NamedTuple):
    """The corrected mean (...,), the plain one, C - B (..., L, K), and which draws took which coefficients (..., K)."""

    value: Tensor
    plain: Tensor
    deviations: Tensor
    pieces: list[tuple[slice, Tensor]]


def _fit(values: Tensor, controls: Tensor, control_means: Tensor, detach_gamma: bool, cross_fit: bool) -> _Fit:
    if controls.ndim < 2 or controls.shape[-2] != values.shape[-1] or control_means.shape[-1:] != controls.shape[-1:]:
        raise ValueError(
            "controls must be (..., L, K) and control_means (..., K) for values (..., L), got "
            f"{tuple(controls.shape)}, {tuple(control_means.shape)} and {tuple(values.shape)}"
        )
    draws, count = values.shape[-1], controls.shape[-1]
    need = (count + 2) * (2 if cross_fit else 1)
    if draws < need:
        halves = " cross-fitted in two halves" if cross_fit else ""
        raise ValueError(f"{count} control variate(s){halves} need at least {need} draws, got {draws}: draw more, or use none")
    deviations = controls - control_means[..., None, :]
    scale = (controls.detach().abs().amax(-2) + control_means.detach().abs()).expand((*deviations.shape[:-2], count))
    # Detached before and not after, so that no graph of the coefficients is recorded.
    held = (values.detach(), deviations.detach()) if detach_gamma else (values, deviations)

    def coefficients(part: slice) -> Tensor:
        return _coefficients(held[0][..., part], held[1][..., part, :], scale)

    if cross_fit:
        first, second = slice(0, draws // 2), slice(draws // 2, draws)
        pieces = [(first, coefficients(second)), (second, coefficients(first))]
    else:
        pieces = [(slice(0, draws), coefficients(slice(0, draws)))]
    value = plain = values.mean(-1)
    for part, gamma in pieces:
        value = value - torch.linalg.vecdot(gamma, deviations[..., part, :].sum(-2)) / draws
    return _Fit(value, plain, deviations, pieces)


def control_variate_value(
    values: Tensor, controls: Tensor, control_means: Tensor, *, detach_gamma: bool = True, cross_fit: bool = False
) -> Tensor:
    """The value (...,) of `control_variate_mean` alone, to the bit, without its variances: for training loops."""
    return _fit(values, controls, control_means, detach_gamma, cross_fit).value


def control_variate_mean(
    values: Tensor, controls: Tensor, control_means: Tensor, *, detach_gamma: bool = True, cross_fit: bool = False
) -> ControlledMean:
    """The mean of `values` over draws, corrected by controls whose means are known: A - gamma.(Cbar - B).

    values (..., L); controls (..., L, K), drawn with the values; control_means B (..., K). gamma solves
    [mean (C - B)(C - B)^T] gamma = mean (W - A)(C - B), deviations from the *known* mean in both places. For K = 1 this is the
    estimator of Nguyen and Ho; their paper has no K > 1. gamma from the same draws biases the mean by O(1/L), toward zero for
    non-negative values that grow with their controls; `cross_fit` takes gamma from the other half of the draws, which removes
    the bias at some variance.
    With detach_gamma the gradient holds gamma fixed. Controls without variance leave the plain mean. Time and memory O(L K^2).

    Raises ValueError for shapes that do not fit and for fewer than K + 2 draws (in each half, when cross-fitted).
    Source: Nguyen and Ho (2024), section 3.
    """
    fit = _fit(values, controls, control_means, detach_gamma, cross_fit)
    draws, count = values.shape[-1], controls.shape[-1]
    with torch.no_grad():
        gamma = torch.stack([g for _, g in fit.pieces]).mean(0)
        parts = [values[..., part] - torch.linalg.vecdot(fit.deviations[..., part, :], g[..., None, :]) for part, g in fit.pieces]
        corrected = torch.cat(parts, -1)
        before = values.var(-1) / draws
        spread = (corrected - corrected.mean(-1, keepdim=True)).square().sum(-1) / (draws - 1 - count)
        after = spread / draws
        ratio = torch.where(before > 0, after / torch.where(before > 0, before, torch.ones_like(before)), torch.ones_like(before))
    return ControlledMean(fit.value, fit.plain, gamma, after, before, ratio)


__all__ = ["ControlledMean", "control_variate_mean", "control_variate_value"]
