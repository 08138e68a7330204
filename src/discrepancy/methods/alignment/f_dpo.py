"""Direct preference optimisation under any f-divergence leash (Wang et al., 2023, 2309.16240).

The problem max_pi E_pi[r] - beta D(ref || pi) has, where every answer keeps a positive probability, r = beta h(z) + const(prompt)
with z = log pi / ref, h(z) = g'(e^z) and g the generator in Q/P, `divergence.reversed()`. The constant cancels in the
Bradley-Terry likelihood of a pair. P is the reference, Q the policy; the paper's names in ours:

    reverse KL (= DPO)   ReverseKL()              h = z
    forward KL           KL()                     h = 1 - e^-z
    Jensen-Shannon       2 * JensenShannon()      h = log 2 - softplus(-z)
    alpha in (0, 1)      Alpha(alpha)             h = (1 - e^(-alpha z)) / alpha
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._results import Result
from discrepancy._validate import generator_or_default, positive, whole_number
from discrepancy.divergences import FDivergence, ReverseKL
from discrepancy.divergences.admission import BARRIER_IN_Q, SMOOTH, Admission, Condition
from discrepancy.learning import Training
from discrepancy.methods.alignment.linear_tails import linear_beyond, moderate_range
from discrepancy.methods.alignment.preference_loss import (
    PreferenceLoss,
    checked_smoothing,
    logistic_preference_loss,
    pair_log_probs,
)
from discrepancy.methods.alignment.preference_pairs import PreferencePairs
from discrepancy.methods.alignment.response_policy import ResponsePolicy, response_log_probs, trained_weights

# In the paper's direction the slope f'(0+) is that of the reversed generator.
_KKT = Condition(
    "f'(0+) = -inf in the direction policy / reference (else the KKT multipliers of pi >= 0 do not vanish: the optimum may have "
    "probabilities of zero, and the reward is no longer beta f'(pi / ref) + const)",
    BARRIER_IN_Q.holds,
)
ADMITS = Admission(
    method="f_dpo",
    kinds=(FDivergence,),
    conditions=(SMOOTH, _KKT),
    examples=("ReverseKL()", "KL()", "2 * JensenShannon()", "Alpha(0.5)"),
)


@lru_cache(maxsize=256)
def _range(divergence: FDivergence, cap: float) -> tuple[float, float]:
    """Where the slope of the implicit reward in z stays below e^cap times its slope at z = 0."""
    g = divergence.reversed()
    start = torch.log(g.curvature(log_t=torch.zeros((), dtype=torch.float64)))
    start = torch.where(torch.isfinite(start), start, torch.zeros_like(start))
    return moderate_range(lambda v: v + torch.log(g.curvature(log_t=v)) - start, cap)


def implicit_reward(log_ratio: Tensor, divergence: FDivergence, *, cap: float = 10.0) -> Tensor:
    """h(z) = g'(e^z) at z = log pi / ref, elementwise: the reward that pi is optimal for, over beta, up to a constant a prompt.

    Under `KL()` h falls like -e^-z once a response loses probability: where its slope would exceed e^cap times that at z = 0, it
    goes on along its tangent. Raises TypeError for a divergence whose slope in Q/P is finite at zero, where the identity fails.
    """
    g = ADMITS.check(divergence).reversed()
    low, high = _range(divergence, positive(cap, "cap"))
    return linear_beyond(lambda v: g.derivative(log_t=v), lambda v: torch.exp(v) * g.curvature(log_t=v), log_ratio, low, high)


def f_dpo_loss(
    policy_chosen: Any,
    policy_rejected: Any,
    reference_chosen: Any,
    reference_rejected: Any,
    divergence: FDivergence | None = None,
    *,
    beta: float = 0.1,
    label_smoothing: float | Tensor = 0.0,
    cap: float = 10.0,
) -> PreferenceLoss:
    """-log sigmoid(beta [h(z_chosen) - h(z_rejected)]) a pair, z = log pi / ref, from log-probabilities (n,) of whole responses.

    The log-probabilities are sums over a response's tokens (`language_models.sequence_log_probs`): means would change the ratio.
    `divergence` defaults to ReverseKL(), which is DPO. One `beta` is not one strength: `2 * JensenShannon()` has h < log 2.
    Raises TypeError for a divergence that is not admissible, ValueError for shapes, log-probabilities above 0, beta <= 0.
    """
    checked = pair_log_probs(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    chosen, rejected, reference_c, reference_r = checked
    beta = positive(beta, "beta")
    choice = ReverseKL() if divergence is None else divergence
    rewards = [beta * implicit_reward(z, choice, cap=cap) for z in (chosen - reference_c, rejected - reference_r)]
    return logistic_preference_loss(rewards[0], rewards[1], label_smoothing)


class FDPOLoss(nn.Module):
    """`f_dpo_loss` as a module with its options."""

    references = ("f-dpo",)

    def __init__(
        self, divergence: FDivergence | None = None, *, beta: float = 0.1, label_smoothing: float = 0.0, cap: float = 10.0
    ) -> None:
        """Raises TypeError for a divergence that is not admissible, ValueError for options out of range."""
        super().__init__()
        self.divergence = ADMITS.check(ReverseKL() if divergence is None else divergence)
        self.beta, self.cap = positive(beta, "beta"), positive(cap, "cap")
        self.label_smoothing = checked_smoothing(label_smoothing)

    def forward(
        self, policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor
    ) -> PreferenceLoss:
        """The loss a pair, from log-probabilities (n,)."""
        return f_dpo_loss(
            policy_chosen, policy_rejected, reference_chosen, reference_rejected, self.divergence,
            beta=self.beta, label_smoothing=self.label_smoothing, cap=self.cap,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.divergence!r}, beta={self.beta:g}, label_smoothing={self.label_smoothing:g}"


_TRAINING = Training(steps=500, learning_rate=1e-3)


@dataclass(frozen=True, repr=False)
class FDPOFit(Result):
    """What training came to: loss, accuracy of the implicit reward and mean margin of the last record; `history` has them all."""

    loss: float
    accuracy: float
    margin: float
    history: dict[str, list[float]] = field(repr=False)


@dataclass(frozen=True)
class FDPO:
    """Trains a policy on preference pairs; reference log-probabilities are computed once, before the first step.

    `batch` pairs a step (None: all of them). With a PEFT model the reference is the model without its adapters and only those are
    trained; otherwise it is the policy as it comes, unless the pairs bring reference log-probabilities.
    """

    divergence: FDivergence = field(default_factory=ReverseKL)
    beta: float = 0.1
    label_smoothing: float = 0.0
    cap: float = 10.0
    batch: int | None = 64
    training: Training = _TRAINING

    references = ("f-dpo",)

    def __post_init__(self) -> None:
        """Check the options."""
        ADMITS.check(self.divergence)
        positive(self.beta, "beta")
        positive(self.cap, "cap")
        checked_smoothing(self.label_smoothing)
        if self.batch is not None:
            whole_number(self.batch, 1, "batch")

    def fit(self, policy: ResponsePolicy, pairs: PreferencePairs, *, generator: torch.Generator | None = None) -> FDPOFit:
        """Train in place. Time: one forward and backward pass of both responses a pair and step, and one forward pass before."""
        if self.label_smoothing and pairs.label_noise is not None:
            raise ValueError("the pairs bring label_noise of their own: leave label_smoothing at 0")
        known = pairs if pairs.reference is not None else pairs.with_reference(policy)
        assert known.reference is not None
        reference, count = known.reference, len(known)
        device = reference.device
        generator = generator_or_default(generator, device)

        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            if self.batch is None or self.batch >= count:
                rows = torch.arange(count, device=device)
            else:
                rows = torch.randint(count, (self.batch,), generator=generator, device=device)
            log_probs = response_log_probs(policy, known.prompts[rows], known.responses[rows])
            noise = self.label_smoothing if known.label_noise is None else known.label_noise[rows]
            found = f_dpo_loss(
                log_probs[:, 0], log_probs[:, 1], reference[rows, 0], reference[rows, 1], self.divergence,
                beta=self.beta, label_smoothing=noise, cap=self.cap,
            )  # fmt: skip
            return found.mean, {"accuracy": found.accuracy, "margin": found.margin}

        history = self.training.run(trained_weights(policy), step)
        last = {name: values[-1] for name, values in history.items()}
        assert math.isfinite(last["loss"])
        return FDPOFit(last["loss"], last["accuracy"], last["margin"], history)


__all__ = ["ADMITS", "FDPO", "FDPOFit", "FDPOLoss", "f_dpo_loss", "implicit_reward"]
