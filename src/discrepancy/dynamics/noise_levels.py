"""Which noise levels a score is trained at, how much each of them counts, and which ones a sampler visits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import fraction, generator_or_default, positive, whole_number
from discrepancy.dynamics.schedules import NoiseSchedule


def _count(value: Any, least: int, name: str) -> None:
    whole_number(value, least, name)


class NoiseLevels(ABC):
    """A law of training noise levels: `draw(n, schedule, generator)` gives n of them, in float64."""

    @abstractmethod
    def draw(
        self, n: int, schedule: NoiseSchedule, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Noise levels (n,) on `device`."""

    def girsanov_weight(self, sigma: Tensor, schedule: NoiseSchedule) -> Tensor:
        """w(sigma) with E[w h] = integral over t of g^2/(a sigma)^2 h dt for levels drawn here: what score differences are
        integrated with. Raises TypeError for a law of levels that is no law of times."""
        raise TypeError(
            f"{type(self).__name__} is no law of times with a known density: take LogUniformLevels() or UniformTimes()"
        )


def _uniform(n: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    source = generator_or_default(generator, device)
    return torch.rand(n, generator=source, dtype=torch.float64, device=source.device).to(device)


@dataclass(frozen=True)
class UniformTimes(NoiseLevels):
    """Times uniform on [first, 1]; `stratified`: one in each of n equal parts, which lowers the variance of the loss."""

    stratified: bool = False

    def draw(
        self, n: int, schedule: NoiseSchedule, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """The levels at n random times."""
        u = _uniform(n, generator, device)
        if self.stratified:
            u = (torch.arange(n, dtype=torch.float64, device=device) + u) / n
        return schedule.sigma(schedule.first + (1 - schedule.first) * u)

    def girsanov_weight(self, sigma: Tensor, schedule: NoiseSchedule) -> Tensor:
        """(1 - first) g^2 / (a sigma)^2: far larger at small levels, where few times fall."""
        return (1 - schedule.first) * _rate(schedule.time(sigma), schedule)


@dataclass(frozen=True)
class LogUniformLevels(NoiseLevels):
    """Times with density proportional to g^2/(a sigma)^2 = d log(sigma^2)/dt, that is levels uniform in log sigma.

    Below the time `floor` the density stays what it is at `floor`, since log sigma has no end where sigma(0) = 0. Integrals of
    g^2/(a sigma)^2 h then are plain means of h times the constant `mass`, which depends on the schedule and on the floor.
    `stratified`: one draw in each of n equal parts of the law, for rows whose order means nothing.
    Raises ValueError unless 0 < floor < 1. Source: Song, Durkan, Murray and Ermon (2021); Franzese et al. (2024).
    """

    floor: float = 1e-3
    stratified: bool = False

    def __post_init__(self) -> None:
        """Check the floor."""
        fraction(self.floor, "floor")

    def draw(
        self, n: int, schedule: NoiseSchedule, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """The levels at n random times."""
        u = _uniform(n, generator, device)
        if self.stratified:
            u = (torch.arange(n, dtype=torch.float64, device=device) + u) / n
        return self.quantile(u, schedule)

    def quantile(self, u: Tensor, schedule: NoiseSchedule) -> Tensor:
        """The levels below which shares u in [0, 1] of the draws fall, explicit in log sigma, in float64."""
        low, span, below = self._parts(schedule)
        reached = u.double() * (below + span)
        early = schedule.sigma((reached / below).clamp(1e-12, 1) * self.floor)
        return torch.where(reached < below, early, torch.exp((low + (reached - below).clamp_min(0)) / 2))

    def mass(self, schedule: NoiseSchedule) -> float:
        """What the rate, capped below the floor, integrates to: log(sigma(1)^2/sigma(floor)^2) + floor times the rate there."""
        _, span, below = self._parts(schedule)
        return span + below

    def girsanov_weight(self, sigma: Tensor, schedule: NoiseSchedule) -> Tensor:
        """The constant `mass`: below the floor, where a network knows the score worst, the integrand is taken at its cap."""
        return torch.full_like(sigma, self.mass(schedule))

    def _parts(self, schedule: NoiseSchedule) -> tuple[float, float, float]:
        """log sigma^2 at the floor, how much it rises to time 1, and the mass below the floor."""
        t = torch.tensor(self.floor, dtype=torch.float64)
        low = 2 * float(schedule.sigma(t).log())
        return low, 2 * math.log(schedule.sigma_max) - low, self.floor * float(_rate(t, schedule))


def _rate(t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """g^2/(a sigma)^2 at times t."""
    sigma = schedule.sigma(t)
    return (schedule.diffusion(t) / (schedule.scale(sigma) * sigma)).square()


@dataclass(frozen=True)
class DiscreteTimes(NoiseLevels):
    """One of `count` times, equally spaced from first to 1, each as likely as the others."""

    count: int = 1000

    def __post_init__(self) -> None:
        """Raise ValueError for fewer than two times."""
        _count(self.count, 2, "count")

    def draw(
        self, n: int, schedule: NoiseSchedule, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """The levels at n random times of the grid."""
        k = (_uniform(n, generator, device) * self.count).floor() / (self.count - 1)
        return schedule.sigma(schedule.first + (1 - schedule.first) * k)


@dataclass(frozen=True)
class LogNormalLevels(NoiseLevels):
    """log sigma ~ N(mean, deviation^2), whatever the schedule: trains where denoising is neither trivial nor hopeless.

    Source: Karras, Aittala, Aila and Laine (2022).
    """

    mean: float = -1.2
    deviation: float = 1.2

    def __post_init__(self) -> None:
        """Raise ValueError unless the deviation is positive."""
        positive(self.deviation, "deviation")

    def draw(
        self, n: int, schedule: NoiseSchedule, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """n levels; the schedule is not asked."""
        source = generator_or_default(generator, device)
        z = torch.randn(n, generator=source, dtype=torch.float64, device=source.device).to(device)
        return torch.exp(self.mean + self.deviation * z)


class Weighting(ABC):
    """The weight lambda(sigma) of the squared error of the score at a noise level."""

    @abstractmethod
    def at(self, sigma: Tensor, schedule: NoiseSchedule) -> Tensor:
        """lambda, of the shape of sigma."""


@dataclass(frozen=True)
class NoiseVariance(Weighting):
    """lambda = (a sigma)^2: every level's error counts in units of the noise that was added; a zero score costs 1."""

    def at(self, sigma: Tensor, schedule: NoiseSchedule) -> Tensor:
        """(a sigma)^2."""
        return (schedule.scale(sigma) * sigma).square()


@dataclass(frozen=True)
class MaximumLikelihood(Weighting):
    """lambda = g(t)^2: with uniform times half the loss bounds KL(data || model) up to a constant.

    Source: Song, Durkan, Murray and Ermon (2021).
    """

    def at(self, sigma: Tensor, schedule: NoiseSchedule) -> Tensor:
        """g(t)^2."""
        return schedule.diffusion(schedule.time(sigma)).square()


@dataclass(frozen=True)
class DenoiserVariance(Weighting):
    """lambda = a^2 sigma^2 (sigma^2 + s^2) / s^2, s the standard deviation of the data: the error of the denoised field, in units
    of what a linear denoiser leaves. Source: Karras et al. (2022)."""

    data_deviation: float = 0.5

    def __post_init__(self) -> None:
        """Raise ValueError unless the deviation is positive."""
        positive(self.data_deviation, "data_deviation")

    def at(self, sigma: Tensor, schedule: NoiseSchedule) -> Tensor:
        """a^2 sigma^2 (sigma^2 + s^2) / s^2."""
        return (schedule.scale(sigma) * sigma).square() * (1 + (sigma / self.data_deviation).square())


class Spacing(ABC):
    """Which levels a sampler visits: `levels(schedule, steps)` from the largest down to the smallest."""

    @abstractmethod
    def levels(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """`steps` levels, descending, float64."""


@dataclass(frozen=True)
class UniformSpacing(Spacing):
    """Equal steps of the schedule's time."""

    def levels(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """The levels at times 1, ..., first."""
        _count(steps, 2, "steps")
        return schedule.sigma(torch.linspace(1.0, schedule.first, steps, dtype=torch.float64))


@dataclass(frozen=True)
class KarrasSpacing(Spacing):
    """Equal steps of sigma^(1/rho): more of them at small noise, where paths bend. Source: Karras et al. (2022)."""

    rho: float = 7.0

    def __post_init__(self) -> None:
        """Raise ValueError unless rho is positive."""
        positive(self.rho, "rho")

    def levels(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """(sigma_max^(1/rho) + k/(steps-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho."""
        _count(steps, 2, "steps")
        top, bottom = schedule.sigma_max ** (1 / self.rho), schedule.sigma_min ** (1 / self.rho)
        return torch.linspace(top, bottom, steps, dtype=torch.float64) ** self.rho


__all__ = [
    "DenoiserVariance",
    "DiscreteTimes",
    "KarrasSpacing",
    "LogNormalLevels",
    "LogUniformLevels",
    "MaximumLikelihood",
    "NoiseLevels",
    "NoiseVariance",
    "Spacing",
    "UniformSpacing",
    "UniformTimes",
    "Weighting",
]
