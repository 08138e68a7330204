"""f-divergences from the log-ratios of sampled tokens, term by term: the leash of policy-gradient methods."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._validate import at_least, positive
from discrepancy.divergences import FDivergence, ReverseKL
from discrepancy.divergences.admission import Admission
from discrepancy.methods.alignment.linear_tails import linear_beyond

ADMITS = Admission(method="a divergence penalty from samples", kinds=(FDivergence,))


def generator_terms(f: FDivergence, log_t: Tensor, *, linear: float = 0.0, reach: float = 20.0) -> Tensor:
    """f(t) + linear (t - 1) at t = e^log_t, elementwise; its mean over samples of the law below the ratio is D_f, if E[t] = 1.

    Beyond |log t| = `reach` the terms go on along their tangents in log t, so that one token of vanished probability neither
    overflows nor loses its gradient. Computed in float64, returned in the input's dtype.
    """
    if not math.isfinite(linear):
        raise ValueError(f"linear must be finite, got {linear!r}")
    reach = positive(reach, "reach")

    def value(u: Tensor) -> Tensor:
        estimate = f.from_log_ratio(u.unsqueeze(-1), linear=linear).value
        assert isinstance(estimate, Tensor)
        return estimate

    def slope(u: Tensor) -> Tensor:
        return torch.exp(u) * (f.derivative(log_t=u) + linear)

    return linear_beyond(value, slope, log_t, -reach, reach)


@dataclass(frozen=True)
class DivergencePenalty:
    """weight * D(reference || policy), a token at a time, on samples of the policy.

    With t = reference / policy the terms are f(t) + linear (t - 1): for `ReverseKL()` these are log(policy / reference) with
    linear = -1 (the estimator k1) and the non-negative t - 1 - log t with linear = 0 (k3). Summed over tokens only KL divergences
    are those of whole responses; others are leashes on each token's law.
    """

    divergence: FDivergence = field(default_factory=ReverseKL)
    weight: float = 0.02
    linear: float = 0.0

    def __post_init__(self) -> None:
        """Check the options."""
        ADMITS.check(self.divergence)
        at_least(self.weight, 0.0, "weight")

    def terms(self, log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
        """The penalty of each token, elementwise, differentiable in the policy's `log_probs`."""
        if log_probs.shape != reference_log_probs.shape:
            raise ValueError(
                f"log_probs has shape {tuple(log_probs.shape)} and reference_log_probs {tuple(reference_log_probs.shape)}: "
                "they must be those of the same tokens"
            )
        return self.weight * generator_terms(self.divergence, reference_log_probs.detach() - log_probs, linear=self.linear)


__all__ = ["ADMITS", "DivergencePenalty", "generator_terms"]
