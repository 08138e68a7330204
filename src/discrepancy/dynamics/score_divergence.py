"""KL divergence and entropy from scores: what two diffusions from the same noise tell apart, added up over time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate, NumericalError
from discrepancy._validate import generator_or_default, positive, whole_number
from discrepancy.dynamics.denoising import Score, clean_fields, evaluate, perturb, spread
from discrepancy.dynamics.noise_levels import LogUniformLevels, NoiseLevels
from discrepancy.dynamics.schedules import NoiseSchedule, VariancePreserving

# integrand(noisy fields, levels) -> (B,): the squared norms that are added up
Integrand = Callable[[Tensor, Tensor], Tensor]


def score_divergence(
    score_p: Score,
    score_q: Score,
    y0: Any,
    schedule: NoiseSchedule | None = None,
    condition: Tensor | None = None,
    *,
    levels: NoiseLevels | None = None,
    passes: int = 10,
    generator: torch.Generator | None = None,
) -> Estimate:
    """KL(P || Q) = 1/2 integral g^2 E|grad log p_t(Y_t) - grad log q_t(Y_t)|^2 dt + KL(p_1 || q_1), Y_t from draws y0 of P.

    y0 (n, ...), score(y, sigma, condition) as everywhere in `dynamics`; `schedule` None is `VariancePreserving()`. The last term
    is left out: at t = 1 hardly anything of the data is left. Times are drawn from `levels`, `LogUniformLevels()` by default,
    `passes` of them for each draw. Unbiased for the integral with exact scores, but for the first `floor` of time; any error of
    the scores adds its square. The standard error is that of a mean over the n draws. 2 n `passes` evaluations of a score.
    Raises ValueError as `denoising_score_matching` does, NumericalError for scores that are not finite.
    Source: Girsanov's theorem; Franzese, Bounoua and Michiardi (2024).
    """
    rule = VariancePreserving() if schedule is None else schedule

    def gap(y: Tensor, sigma: Tensor) -> Tensor:
        # In units of the noise: a sigma times the score is minus the noise that was added, of size one at every level.
        unit = spread(rule.scale(sigma) * sigma, y)
        apart = evaluate(score_p, y, sigma, condition) - evaluate(score_q, y, sigma, condition)
        return (unit * apart).flatten(1).square().sum(1)

    value = girsanov_integral(gap, clean_fields(y0)[0], rule, levels=levels, passes=passes, generator=generator)
    return _estimate(value, f"difference of scores, {passes} times a draw")


def score_entropy(
    score: Score,
    y0: Any,
    schedule: NoiseSchedule | None = None,
    condition: Tensor | None = None,
    *,
    deviation: float = 1.0,
    levels: NoiseLevels | None = None,
    passes: int = 10,
    generator: torch.Generator | None = None,
) -> Estimate:
    """h(P) = N/2 log(2 pi s^2) + E|Y_0|^2/(2 s^2) - KL(P || N(0, s^2 I)), the last term from the score of P, s = `deviation`.

    The reference stays Gaussian under noise, with variance chi_t = a^2 (s^2 + sigma^2) and score -y/chi_t; what is left of
    KL(p_1 || N(0, chi_1 I)) is that of a Gaussian with P's variance at t = 1. Draws y0 (n, ...) of P with N entries; best at a
    deviation near that of the data. Other arguments, costs and errors as in `score_divergence`.
    """
    rule, s = VariancePreserving() if schedule is None else schedule, positive(deviation, "deviation")
    fields = clean_fields(y0)[0]

    def gap(y: Tensor, sigma: Tensor) -> Tensor:
        a = spread(rule.scale(sigma), y)
        sigma_y = spread(sigma, y)
        reference = -y / (a * a * (s * s + sigma_y * sigma_y))
        return (a * sigma_y * (evaluate(score, y, sigma, condition) - reference)).flatten(1).square().sum(1)

    apart = girsanov_integral(gap, fields, rule, levels=levels, passes=passes, generator=generator)
    return _estimate(reference_entropy(fields.flatten(1), s, rule) - apart, f"score against N(0, {s:g}^2), {passes} times a draw")


def girsanov_integral(
    integrand: Integrand,
    y0: Tensor,
    schedule: NoiseSchedule,
    *,
    levels: NoiseLevels | None = None,
    passes: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """1/2 integral g^2/(a sigma)^2 E[integrand(Y_t, sigma_t)] dt for each draw y0 (n, ...), by `passes` random times: (n,)."""
    whole_number(passes, 1, "passes")
    source = generator_or_default(generator, y0.device)
    rule = LogUniformLevels() if levels is None else levels
    total = y0.new_zeros(len(y0))
    for k in range(passes):
        sigma = rule.draw(len(y0), schedule, source, y0.device)
        noisy, _ = perturb(y0, sigma, schedule, generator=source)
        value = integrand(noisy, sigma.to(y0.dtype))
        if not bool(torch.isfinite(value).all()):
            raise NumericalError(
                f"pass {k}: the scores are not finite at {int((~torch.isfinite(value)).sum())} of {len(y0)} draws"
            )
        total = total + rule.girsanov_weight(sigma, schedule).to(y0.dtype) * value
    return total / (2 * passes)


def reference_entropy(y0: Tensor, deviation: float, schedule: NoiseSchedule) -> Tensor:
    """What each draw y0 (n, N) adds to N/2 log(2 pi s^2) + E|Y_0|^2/(2 s^2) - KL(p_1 || N(0, chi_1)), with p_1 taken for a
    Gaussian of the entropy that data of unit variance have at t = 1."""
    width, square = y0.shape[1], y0.square().sum(1)
    end = torch.tensor(schedule.sigma_max, dtype=torch.float64)
    a = float(schedule.scale(end))
    chi = a * a * (deviation**2 + float(end) ** 2)
    last = a * a * (square + width * float(end) ** 2)
    unit = a * a * (1 + float(end) ** 2)
    left_over = (width * math.log(chi / unit) - width + last / chi) / 2
    return width / 2 * math.log(2 * math.pi * deviation**2) + square / (2 * deviation**2) - left_over


def _estimate(values: Tensor, method: str) -> Estimate:
    value = values.mean()
    error = values.detach().std() / math.sqrt(len(values)) if len(values) > 1 else None
    note = "no interval: the error of the scores themselves is not known; the standard error is that of draws and times"
    return Estimate(value, error, method=method, note=note)


__all__ = ["girsanov_integral", "reference_entropy", "score_divergence", "score_entropy"]
