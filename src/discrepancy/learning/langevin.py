"""Stochastic gradient Langevin dynamics at temperature one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import positive, whole_number


@dataclass(frozen=True)
class DecayingStep:
    """a_t = start (1 + t / scale)^(-exponent): with an exponent in (1/2, 1] the bias of the steps vanishes in the long run."""

    start: float = 0.01
    scale: float = 100.0
    exponent: float = 0.55

    def __post_init__(self) -> None:
        """Raise ValueError unless all are positive and exponent <= 1."""
        for name in ("start", "scale", "exponent"):
            positive(getattr(self, name), name)
        if self.exponent > 1:
            raise ValueError(f"exponent must be at most 1, or the chain stops short, got {self.exponent!r}")

    def __call__(self, t: int) -> float:
        """a_t."""
        return self.start * (1 + t / self.scale) ** -self.exponent


@dataclass(frozen=True)
class Langevin:
    """z <- z + (a/2) grad log density + sqrt(a) xi, xi standard normal: `burn_in` steps, then `samples` kept every `thinning`
    steps.

    The gradient may be stochastic if it is unbiased for the whole sum, hence N/B times that of a batch. A constant `step` leaves
    a bias of order a; it must stay below 2 / the largest curvature of the negative log density. Source: welling-teh-2011.
    """

    step: float | DecayingStep = 0.01
    burn_in: int = 500
    samples: int = 20
    thinning: int = 25

    references = ("welling-teh-2011",)

    def __post_init__(self) -> None:
        """Check the options."""
        if not isinstance(self.step, DecayingStep):
            positive(self.step, "step")
        whole_number(self.burn_in, 0, "burn_in")
        whole_number(self.samples, 1, "samples")
        whole_number(self.thinning, 1, "thinning")

    def run(self, gradient: Callable[[Tensor], Tensor], start: Tensor, generator: torch.Generator) -> Tensor:
        """The kept states (samples, *start.shape) of chains that begin at `start`; gradient: z -> grad log density, its shape.

        Raises NumericalError, naming the step, where a state is not finite: the step is too large.
        """
        z, kept = start.detach().clone(), []
        for t in range(self.burn_in + self.samples * self.thinning):
            a = self.step(t) if isinstance(self.step, DecayingStep) else self.step
            noise = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
            z = z + a / 2 * gradient(z) + math.sqrt(a) * noise
            if not bool(torch.isfinite(z.sum())):
                raise NumericalError(f"Langevin step {t}: the state is not finite; a step of {a:g} is too large")
            if t >= self.burn_in and (t - self.burn_in + 1) % self.thinning == 0:
                kept.append(z)
        return torch.stack(kept)


__all__ = ["DecayingStep", "Langevin"]
