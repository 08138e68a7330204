"""Samplers of diffusion models: from noise to data along the score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import at_least, generator_or_default, positive, whole_number
from discrepancy.dynamics.denoising import Score, evaluate, spread
from discrepancy.dynamics.noise_levels import KarrasSpacing, Spacing, UniformSpacing
from discrepancy.dynamics.schedules import NoiseSchedule


@dataclass(frozen=True)
class Process:
    """A score in the coordinates x = Y / a, where every schedule is plain Brownian motion in sigma^2: x = Y_0 + sigma e."""

    score: Score
    schedule: NoiseSchedule
    condition: Tensor | None
    generator: torch.Generator

    def at(self, x: Tensor, sigma: Tensor) -> Tensor:
        """grad_x of the log density at level sigma (a number), of the shape of x."""
        levels = sigma.to(x.dtype).expand(x.shape[0])
        a = spread(self.schedule.scale(levels), x)
        with torch.no_grad():
            value = a * evaluate(self.score, a * x, levels, self.condition)
        if not bool(torch.isfinite(value).all()):
            raise NumericalError(f"the score is not finite at noise level {float(sigma):.6g}")
        return value

    def noise(self, x: Tensor) -> Tensor:
        """Standard normal draws of the shape of x."""
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype, device=self.generator.device).to(x.device)


class Predictor(ABC):
    """One step of the reverse equation in x, from level `high` down to `low`."""

    @abstractmethod
    def step(self, process: Process, x: Tensor, high: Tensor, low: Tensor) -> Tensor:
        """x at level `low`."""


@dataclass(frozen=True)
class ReverseDiffusion(Predictor):
    """x + (high^2 - low^2) s + sqrt(high^2 - low^2) z: the forward step's own discretisation. Source: Song et al. (2021)."""

    def step(self, process: Process, x: Tensor, high: Tensor, low: Tensor) -> Tensor:
        """One step, one evaluation of the score."""
        gap = (high.square() - low.square()).to(x.dtype)
        return x + gap * process.at(x, high) + gap.sqrt() * process.noise(x)


@dataclass(frozen=True)
class Ancestral(Predictor):
    """x + (high^2 - low^2) s + (low / high) sqrt(high^2 - low^2) z: the exact law of the step when the data are one point, hence
    right at few, wide steps too. Source: Ho, Jain and Abbeel (2020)."""

    def step(self, process: Process, x: Tensor, high: Tensor, low: Tensor) -> Tensor:
        """One step, one evaluation of the score."""
        gap = (high.square() - low.square()).to(x.dtype)
        return x + gap * process.at(x, high) + (low / high).to(x.dtype) * gap.sqrt() * process.noise(x)


class Sampler(ABC):
    """Draws fields from a score: `draw(score, shape, schedule, condition)`."""

    denoise: bool = True
    references: ClassVar[tuple[str, ...]] = ("song-2021", "karras-2022")

    def draw(
        self,
        score: Score,
        shape: Sequence[int],
        schedule: NoiseSchedule,
        condition: Tensor | None = None,
        *,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Fields of `shape` (B, ...), one to each row of the condition (B, ...) where there is one.

        start: the noisy fields at t = 1, drawn from N(0, (a sigma_max)^2 I) where omitted. dtype and device are those of start,
        else of the condition, unless given. No gradients. With `denoise` (default) the last noise is taken away by the one-step
        denoiser. Raises ValueError for shapes that do not fit, NumericalError naming the level where the score is not finite.
        """
        like = start if start is not None else condition
        device = device if device is not None else (like.device if like is not None else "cpu")
        dtype = dtype if dtype is not None else (like.dtype if like is not None else torch.get_default_dtype())
        size = torch.Size(shape)
        if len(size) < 2 or size.numel() == 0:
            raise ValueError(f"shape must be that of at least one field, (B, ...), got {tuple(size)}")
        if condition is not None and condition.shape[0] != size[0]:
            raise ValueError(f"condition is for {condition.shape[0]} fields and shape asks for {size[0]}")
        process = Process(score, schedule, condition, generator_or_default(generator, device))
        top = torch.tensor(schedule.sigma_max, dtype=torch.float64, device=device)
        if start is None:
            x = top.to(dtype) * process.noise(torch.empty(size, dtype=dtype, device=device))
        elif start.shape == size:
            x = start.detach().to(dtype) / float(schedule.scale(top))
        else:
            raise ValueError(f"start has shape {tuple(start.shape)} and shape asks for {tuple(size)}")
        x, last = self._run(process, x)
        if self.denoise:
            return x + last.to(x.dtype).square() * process.at(x, last)
        return float(schedule.scale(last)) * x

    @abstractmethod
    def _run(self, process: Process, x: Tensor) -> tuple[Tensor, Tensor]:
        """x at the last noise level, and that level."""


def _levels(spacing: Spacing, schedule: NoiseSchedule, steps: int, like: Tensor) -> Tensor:
    return spacing.levels(schedule, steps).to(like.device)


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """At each of `steps` levels a predictor's step of the reverse equation, then `corrector_steps` Langevin steps at that level.

    A Langevin step is x + h s + sqrt(2 h) z with h = 2 (signal_to_noise |z| / |s|)^2, norms averaged over the batch (a field
    hence depends, weakly, on its neighbours in the batch). Work: steps (1 + corrector_steps) evaluations of the score.
    Defaults are the paper's; at a few dozen steps `Ancestral()` is the better predictor.
    Source: Song et al. (2021), algorithms 2 and 4.
    """

    steps: int = 1000
    corrector_steps: int = 1
    signal_to_noise: float = 0.16
    predictor: Predictor = field(default_factory=ReverseDiffusion)
    spacing: Spacing = field(default_factory=UniformSpacing)
    denoise: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        _check_steps(self.steps)
        whole_number(self.corrector_steps, 0, "corrector_steps")
        positive(self.signal_to_noise, "signal_to_noise")

    def _run(self, process: Process, x: Tensor) -> tuple[Tensor, Tensor]:
        levels = _levels(self.spacing, process.schedule, self.steps, x)
        for k, low in enumerate(levels):
            if k > 0:
                x = self.predictor.step(process, x, levels[k - 1], low)
            for _ in range(self.corrector_steps):
                x = self._langevin(process, x, low)
        return x, levels[-1]

    def _langevin(self, process: Process, x: Tensor, sigma: Tensor) -> Tensor:
        s, z = process.at(x, sigma), process.noise(x)
        lengths = [torch.linalg.vector_norm(t.flatten(1), dim=1).mean() for t in (z, s)]
        if float(lengths[1]) == 0:  # a flat density: no scale to step by
            return x
        h = 2 * (self.signal_to_noise * lengths[0] / lengths[1]).square()
        return x + h * s + (2 * h).sqrt() * z


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """Euler-Maruyama steps of the reverse equation dY = (drift Y - (1 + churn^2)/2 g^2 s) dt + churn g dW, in the schedule's own
    time and coordinates, backward from t = 1 to `first`.

    churn = 1 is the time reversal of the noising, 0 its probability flow; all have the same laws in the limit, and the error is
    O(1/steps). One evaluation of the score a step. Source: Anderson (1982); Song et al. (2021).
    """

    steps: int = 500
    churn: float = 1.0
    denoise: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        _check_steps(self.steps)
        at_least(self.churn, 0, "churn")

    def _run(self, process: Process, x: Tensor) -> tuple[Tensor, Tensor]:
        schedule = process.schedule
        times = torch.linspace(1.0, schedule.first, self.steps, dtype=torch.float64, device=x.device)
        y = schedule.scale(schedule.sigma(times[0])).to(x.dtype) * x
        for t, after in pairwise(times):
            sigma, step = schedule.sigma(t), float(t - after)
            a, f, g = (float(v) for v in (schedule.scale(sigma), schedule.drift(t), schedule.diffusion(t)))
            s = process.at(y / a, sigma) / a
            y = y - step * (f * y - (1 + self.churn**2) / 2 * g**2 * s)
            if self.churn > 0:
                y = y + self.churn * g * step**0.5 * process.noise(y)
        last = schedule.sigma(times[-1])
        return y / float(schedule.scale(last)), last


@dataclass(frozen=True)
class ProbabilityFlow(Sampler):
    """The ordinary differential equation dx/d sigma = (x - E[Y_0 | x]) / sigma, which carries noise to data without randomness.

    Euler steps between the levels of `spacing`, each corrected by the slope at its end where `heun` (error O(1/steps^2), twice
    the work). Everything random is in the start. Source: Song et al. (2021); Karras et al. (2022), algorithm 1.
    """

    steps: int = 32
    heun: bool = True
    spacing: Spacing = field(default_factory=KarrasSpacing)
    denoise: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        _check_steps(self.steps)

    def _run(self, process: Process, x: Tensor) -> tuple[Tensor, Tensor]:
        levels = _levels(self.spacing, process.schedule, self.steps, x)
        for high, low in pairwise(levels):
            step = (low - high).to(x.dtype)
            slope = -high.to(x.dtype) * process.at(x, high)
            ahead = x + step * slope
            if self.heun:
                slope = (slope - low.to(x.dtype) * process.at(ahead, low)) / 2
                ahead = x + step * slope
            x = ahead
        return x, levels[-1]


def _check_steps(steps: int) -> None:
    whole_number(steps, 2, "steps")


__all__ = [
    "Ancestral",
    "EulerMaruyama",
    "Predictor",
    "PredictorCorrector",
    "ProbabilityFlow",
    "Process",
    "ReverseDiffusion",
    "Sampler",
]
