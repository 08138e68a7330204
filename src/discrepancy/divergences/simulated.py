"""Divergences between distributions by simulation: draws of one of them, with a standard error."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import Distribution

from discrepancy._results import Estimate
from discrepancy._validate import generator_or_default, whole_number
from discrepancy.divergences.divergence import Divergence
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.ratio import RatioDivergence


def monte_carlo_between(
    divergence: Divergence,
    P: Any,
    Q: Any,
    samples: int = 10_000,
    generator: torch.Generator | None = None,
    *,
    from_given: bool = False,
    linear: float = 0.0,
    level: float = 0.95,
) -> Estimate:
    """The divergence between two distributions that can be drawn from, by Monte Carlo, of their batch shape.

    P, Q: `torch.distributions` objects on one space (mixtures, flows, anything with `sample` and `log_prob`); the mean of
    f(p/q) over `samples` draws of Q, or, with from_given, that of the reversed divergence's generator at q/p over draws of P:
    choose the law that reaches where the other one has its mass. `linear` is the coefficient of the control variate
    ratio - 1 (of t = p/q, or of q/p with from_given, where linear=-1 makes KL the plain mean of log p/q).
    Unbiased for an f-divergence of laws with one support; the standard error is O(1/sqrt(samples)). The draws come from a
    stream of their own, seeded by `generator`: same state, same bits. Raises TypeError for a divergence that is no function
    of the density ratio. Time O(samples).
    """
    if not isinstance(divergence, FDivergence | RatioDivergence):
        raise TypeError(
            f"{divergence!r} is no function of the density ratio and has no such estimator: use an FDivergence such as KL() or a "
            "RatioDivergence such as Renyi(2)"
        )
    for name, law in (("P", P), ("Q", Q)):
        if not (isinstance(law, Distribution) or (hasattr(law, "sample") and hasattr(law, "log_prob"))):
            raise TypeError(f"{name} must have sample and log_prob, as a torch.distributions object, got {type(law).__name__}")
    count = whole_number(samples, 2, "samples")
    base, other = (P, Q) if from_given else (Q, P)
    batch = torch.broadcast_shapes(*(getattr(law, "batch_shape", ()) for law in (P, Q)))
    if tuple(getattr(base, "batch_shape", ())) != tuple(batch):
        base = base.expand(batch)
    source = generator_or_default(generator)
    seed = int(torch.randint(2**62, (), generator=source, device=source.device))
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(seed)
        draws = base.sample(torch.Size((count,)))
    log_r = (other.log_prob(draws) - base.log_prob(draws)).movedim(0, -1)
    direction = divergence.reversed() if from_given else divergence
    assert isinstance(direction, FDivergence | RatioDivergence)
    return direction.from_log_ratio(log_r, linear=linear, level=level)


__all__ = ["monte_carlo_between"]
