"""Monte Carlo means with control variates: the same average with less variance, for any Monte Carlo discrepancy."""

from __future__ import annotations

from dataclasses import dataclass

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


def _coefficients(values: Tensor, deviations: Tensor, scale: Tensor) -> Tensor:
    """gamma (..., K) with M gamma = v, M = mean (C - B)(C - B)^T, v = mean (W - A)(C - B), by Gram-Schmidt on the controls.

    A control that does not vary beyond rounding, or that the earlier ones already span, gets coefficient zero.
    """
    residual = values - values.mean(-1, keepdim=True)
    count = deviations.shape[-1]
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


def control_variate_mean(
    values: Tensor, controls: Tensor, control_means: Tensor, *, detach_gamma: bool = True, cross_fit: bool = False
) -> ControlledMean:
    """The mean of `values` over draws, corrected by controls whose means are known: A - gamma.(Cbar - B).

    values (..., L); controls (..., L, K), drawn with the values; control_means B (..., K). gamma solves
    [mean (C - B)(C - B)^T] gamma = mean (W - A)(C - B), deviations from the *known* mean in both places. For K = 1 this is the
    estimator of
    Nguyen and Ho; their paper has no K > 1. gamma from the same draws biases the mean by O(1/L), toward zero for non-negative
    values that grow
    with their controls; `cross_fit` takes gamma from the other half of the draws, which removes the bias at some variance.
    With detach_gamma the gradient holds gamma fixed. Controls without variance leave the plain mean. Time and memory O(L K^2).

    Raises ValueError for shapes that do not fit and for fewer than K + 2 draws (in each half, when cross-fitted).
    Source: Nguyen and Ho (2024), section 3.
    """
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
    plain = values.mean(-1)
    deviations = controls - control_means[..., None, :]
    scale = (controls.detach().abs().amax(-2) + control_means.detach().abs()).expand((*deviations.shape[:-2], count))

    def coefficients(part: slice) -> Tensor:
        gamma = _coefficients(values[..., part], deviations[..., part, :], scale)
        return gamma.detach() if detach_gamma else gamma

    if cross_fit:
        first, second = slice(0, draws // 2), slice(draws // 2, draws)
        pieces = [(first, coefficients(second)), (second, coefficients(first))]
    else:
        pieces = [(slice(0, draws), coefficients(slice(0, draws)))]
    corrected = torch.cat([values[..., part] - (deviations[..., part, :] * g[..., None, :]).sum(-1) for part, g in pieces], -1)
    with torch.no_grad():
        gamma = torch.stack([g for _, g in pieces]).mean(0)
        before = values.var(-1) / draws
        spread = (corrected - corrected.mean(-1, keepdim=True)).square().sum(-1) / (draws - 1 - count)
        after = spread / draws
        ratio = torch.where(before > 0, after / torch.where(before > 0, before, torch.ones_like(before)), torch.ones_like(before))
    return ControlledMean(corrected.mean(-1), plain, gamma, after, before, ratio)


__all__ = ["ControlledMean", "control_variate_mean"]
