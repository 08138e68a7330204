"""Denoising score matching: learn the score of noisy data by guessing the noise; and the one-step denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import as_tensor, generator_or_default, require_finite
from discrepancy.dynamics.noise_levels import NoiseLevels, NoiseVariance, UniformTimes, Weighting
from discrepancy.dynamics.schedules import NoiseSchedule

# score(y, sigma, condition): y (B, ...), sigma (B,), condition None or (B, ...), to the shape of y.
Score = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def spread(v: Tensor, like: Tensor) -> Tensor:
    """v (B,) with trailing axes of length one, so that it multiplies `like` (B, ...); in `like`'s dtype."""
    return v.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def evaluate(score: Score, y: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
    """score(y, sigma, condition), its shape checked; raises ValueError where it is not that of y."""
    value = score(y, sigma, condition)
    if value.shape != y.shape:
        raise ValueError(f"the score takes fields of shape {tuple(y.shape)} and returns {tuple(value.shape)}")
    return value


def perturb(
    y0: Tensor, sigma: Tensor, schedule: NoiseSchedule, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """(y, e) with y = a (y0 + sigma e), e ~ N(0, I): y0 (B, ...) at one noise level a field, sigma (B,)."""
    source = generator_or_default(generator, y0.device)
    e = torch.randn(y0.shape, generator=source, dtype=y0.dtype, device=source.device).to(y0.device)
    return spread(schedule.scale(sigma), y0) * (y0 + spread(sigma, y0) * e), e


def denoised(y: Tensor, score: Tensor, sigma: Tensor, schedule: NoiseSchedule) -> Tensor:
    """E[Y_0 | Y = y] = (y + (a sigma)^2 score) / a, Tweedie's formula: y and its score (B, ...), sigma (B,)."""
    a = spread(schedule.scale(sigma), y)
    return (y + (a * spread(sigma, y)).square() * score) / a


@dataclass(frozen=True, repr=False)
class ScoreMatching(Result):
    """What denoising score matching computed: the `loss`, differentiable; the loss `per_field` (B,), whose spread over sqrt(B) is
    the standard error of the loss; the noise levels `sigma` (B,); and, with their graphs, the `noisy` fields, their `score`
    and the one-step `denoised` fields, all of the shape of the data."""

    loss: Tensor
    per_field: Tensor
    sigma: Tensor = field(repr=False)
    noisy: Tensor = field(repr=False)
    score: Tensor = field(repr=False)
    denoised: Tensor = field(repr=False)


def clean_fields(y0: Any, mask: Any = None) -> tuple[Tensor, Tensor | None]:
    """Fields (B, ...) as a tensor and their mask (True where valid) in the same shape; masked entries become zero.

    Raises ValueError for fewer than two axes, non-finite valid entries, a mask that does not broadcast, or a field without a
    single valid entry.
    """
    y = as_tensor(y0, "y0")
    if y.ndim < 2 or y.numel() == 0:
        raise ValueError(f"y0 must hold at least one field, shape (B, ...), got {tuple(y.shape)}")
    if mask is None:
        require_finite(y, "y0")
        return y, None
    valid = torch.as_tensor(mask, device=y.device)
    if valid.dtype != torch.bool:
        raise TypeError(f"mask must be boolean, True where a value is valid, got {valid.dtype}: pass mask.bool()")
    try:
        valid = valid.expand(y.shape)
    except RuntimeError:
        raise ValueError(f"mask has shape {tuple(valid.shape)}, which does not fit y0's {tuple(y.shape)}") from None
    empty = (~valid).flatten(1).all(1)
    if bool(empty.any()):
        raise ValueError(f"field {int(empty.nonzero()[0])} has no valid entry: leave it out")
    y = torch.where(valid, y, torch.zeros_like(y))
    require_finite(y, "y0")
    return y, valid


def denoising_score_matching(
    score: Score,
    y0: Any,
    schedule: NoiseSchedule,
    condition: Tensor | None = None,
    *,
    weighting: Weighting | None = None,
    levels: NoiseLevels | None = None,
    mask: Any = None,
    generator: torch.Generator | None = None,
) -> ScoreMatching:
    """L = E_{sigma, e} mean over entries of lambda(sigma) (score(y, sigma, condition) + e / (a sigma))^2, y = a (y0 + sigma e).

    Its minimiser over all functions is the score of the noisy law, grad log p_sigma(y | condition). y0 (B, ...) fields, condition
    (B, ...) or None, `weighting` lambda (default `NoiseVariance()`), one level a field from `levels` (default `UniformTimes()`),
    `mask` True where an entry counts: the others are set to zero before the noise and left out of the mean. One evaluation of
    the score; memory that of the fields and of its graph. Raises as `clean_fields` does, and ValueError for a condition of
    another batch size or a score of another shape. Source: Vincent (2011); Song and Ermon (2019).
    """
    fields, valid = clean_fields(y0, mask)
    if condition is not None and condition.shape[0] != fields.shape[0]:
        raise ValueError(f"condition is for {condition.shape[0]} fields and y0 has {fields.shape[0]}")
    sigma = (levels or UniformTimes()).draw(fields.shape[0], schedule, generator, fields.device)
    noisy, e = perturb(fields, sigma, schedule, generator=generator)
    level = sigma.to(fields.dtype)
    value = evaluate(score, noisy, level, condition)
    weight = (weighting or NoiseVariance()).at(sigma, schedule)
    # lambda (s + e / (a sigma))^2 = lambda / (a sigma)^2 (a sigma s + e)^2, which stays finite as sigma goes to zero.
    deviation = schedule.scale(sigma) * sigma
    error = spread(weight / deviation.square(), fields) * (spread(deviation, fields) * value + e).square()
    if valid is None:
        per_field = error.flatten(1).mean(1)
    else:
        inside = valid.flatten(1)
        per_field = torch.where(inside, error.flatten(1), torch.zeros_like(error.flatten(1))).sum(1) / inside.sum(1)
    return ScoreMatching(per_field.mean(), per_field, level, noisy, value, denoised(noisy, value, sigma, schedule))


__all__ = ["Score", "ScoreMatching", "clean_fields", "denoised", "denoising_score_matching", "evaluate", "perturb", "spread"]
