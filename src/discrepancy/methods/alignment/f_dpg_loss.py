"""The loss of f-DPG: a score-function surrogate whose gradient is that of D_f(p || pi), from samples and an estimate of Z.

P is the target p = P / Z, Q the policy pi, as everywhere: D_f(p || pi) = E_pi f(p / pi). The paper writes f on pi / p, so its
generator is our `f.reversed()`'s, and its names map onto ours as

    its KL, which is GDC/DPG          KL()                    pseudo-reward  p / pi - 1
    its reverse KL, RL with KL penalty ReverseKL()                           log p - log pi
    its JS (twice the usual)          2 * JensenShannon()                    softplus(-z) - log 2,  z = log pi - log p
    its TV                            TotalVariation()                       -sign(z) / 2
    its chi-squared                   ChiSquared()                           (p / pi)^2 - 1

Generators are centred, which changes no gradient: pseudo-rewards differ from the paper's by a constant.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy._validate import positive
from discrepancy.divergences import FDivergence, JensenShannon
from discrepancy.divergences.admission import Admission
from discrepancy.learning import score_function_loss
from discrepancy.methods.alignment.energy_based import checked_scores

ADMITS = Admission(
    method="f_dpg", kinds=(FDivergence,), examples=("KL()", "ReverseKL()", "2 * JensenShannon()", "TotalVariation()")
)


def pseudo_rewards(
    policy_log_probs: Tensor, target_log_scores: Tensor, log_z: float, divergence: FDivergence, *, clip: float | None = None
) -> Tensor:
    """-g'(pi / p) (n,), g the generator on pi / p: what REINFORCE maximises to descend D_f(p || pi). Detached, float64.

    Computed from z = log pi - log P + log Z, so that ratios of sequences do not overflow before the divergence makes them.
    `clip` bounds its absolute value, on request: it biases KL and chi-squared, whose rewards are p / pi and its square.
    Raises TypeError for a divergence that is none of f, ValueError for scores of +inf or NaN and for hard zeros of the target
    under a divergence with f(0) = inf (reverse KL), and NumericalError where a reward overflows.
    """
    ADMITS.check(divergence)
    if clip is not None:
        positive(clip, "clip")
    if policy_log_probs.shape != target_log_scores.shape or policy_log_probs.ndim != 1:
        raise ValueError(
            f"policy_log_probs and target_log_scores must be (n,), got shapes {tuple(policy_log_probs.shape)} and "
            f"{tuple(target_log_scores.shape)}"
        )
    if not math.isfinite(log_z):
        raise NumericalError(f"log Z is {log_z}: no sample satisfies the target; soften the scorer or warm up Z")
    log_p = checked_scores(target_log_scores.detach(), len(target_log_scores)).double() - log_z
    holes = log_p == -torch.inf
    if divergence.at_zero == math.inf and bool(holes.any()):
        raise ValueError(
            f"the target has no mass at {int(holes.sum())} of {len(holes)} samples, the first at index "
            f"{int(holes.nonzero()[0])}, and {divergence!r} is infinite there: soften the target, exp(r(x) / beta) as in "
            "RewardScorer, or use 2 * JensenShannon()"
        )
    log_pi = policy_log_probs.detach().double()
    if bool((torch.isnan(log_pi) | (log_pi == torch.inf)).any()):
        raise ValueError("policy_log_probs must be log-probabilities, got NaN or +inf")
    # Where both vanish (a proposal's sample), the weight pi / q is zero and so is what it multiplies.
    nowhere = holes & (log_pi == -torch.inf)
    z = torch.where(nowhere, torch.zeros_like(log_pi), log_pi) - torch.where(nowhere, torch.zeros_like(log_p), log_p)
    rewards = -divergence.reversed().derivative(log_t=z)
    rewards = torch.where(log_pi == -torch.inf, torch.zeros_like(rewards), rewards)
    if clip is not None:
        rewards = rewards.clamp(-clip, clip)
    bad = ~torch.isfinite(rewards)
    if bool(bad.any()):
        where = int(bad.nonzero()[0])
        raise NumericalError(
            f"the pseudo-reward of {divergence!r} overflows at index {where}, where log p - log pi is {-float(z[where]):.1f}: "
            "pass clip=..., start nearer to the target, or use a bounded one such as 2 * JensenShannon()"
        )
    return rewards


def f_dpg_loss(
    policy_log_probs: Tensor,
    target_log_scores: Tensor,
    log_z: float,
    divergence: FDivergence,
    *,
    proposal_log_probs: Tensor | None = None,
    baseline: Tensor | float = 0.0,
    clip: float | None = None,
) -> Tensor:
    """A scalar whose gradient estimates that of D_f(p || pi), from n samples of the policy or of a proposal.

    -mean_i (pi / q)(x_i) (R_i - B) log pi(x_i), with R the pseudo-rewards, weights and rewards held fixed. policy_log_probs (n,)
    carries the gradient; target_log_scores (n,) is log P, log_z = log Z; proposal_log_probs (n,) is log q (default: the policy
    itself); `baseline` a number or (n,), which must not depend on x_i. Unbiased for the exact Z and a baseline of other samples.
    Raises as `pseudo_rewards`. Time and memory O(n). Source: Go, Korbak, Kruszewski, Rozen, Ryu and Dymetman (2023, 2302.08215).
    """
    rewards = pseudo_rewards(policy_log_probs, target_log_scores, log_z, divergence, clip=clip)
    weights = None
    if proposal_log_probs is not None:
        weights = torch.exp(policy_log_probs.detach().double() - proposal_log_probs.detach().double())
        weights = weights.to(policy_log_probs)
    if isinstance(baseline, Tensor):
        baseline = baseline.to(policy_log_probs)
    # log pi = -inf has weight zero and no gradient; zero times infinity would be NaN.
    dead = policy_log_probs.detach() == -torch.inf
    log_pi = torch.where(dead, torch.zeros_like(policy_log_probs), policy_log_probs)
    return score_function_loss(log_pi, rewards.to(policy_log_probs), baseline=baseline, weights=weights)


class FDPGLoss(nn.Module):
    """`f_dpg_loss` as a module: forward(policy_log_probs, target_log_scores, log_z, ...) -> scalar."""

    references = ("f-dpg",)

    def __init__(self, divergence: FDivergence | None = None, *, clip: float | None = None) -> None:
        """The divergence, P = target and Q = policy; by default the paper's JS, 2 * JensenShannon()."""
        super().__init__()
        self.divergence = ADMITS.check(2 * JensenShannon() if divergence is None else divergence)
        self.clip = clip

    def forward(
        self,
        policy_log_probs: Tensor,
        target_log_scores: Tensor,
        log_z: float,
        proposal_log_probs: Tensor | None = None,
        baseline: Tensor | float = 0.0,
    ) -> Tensor:
        """The surrogate loss."""
        return f_dpg_loss(
            policy_log_probs,
            target_log_scores,
            log_z,
            self.divergence,
            proposal_log_probs=proposal_log_probs,
            baseline=baseline,
            clip=self.clip,
        )


__all__ = ["ADMITS", "FDPGLoss", "f_dpg_loss", "pseudo_rewards"]
