"""Diversity-preserving reinforcement learning on verifiable rewards (Li et al., 2025, 2509.07430).

Prompts that the initial policy has mastered are not optimised but rehearsed: on stored correct answers of its own, the trained
policy is held by an f-divergence evaluated in generator form, with no reference model in memory. The other prompts are explored
by a clipped policy gradient without a penalty. P is the initial policy, Q the trained one, u = Q/P at samples of P, and the loss
a token is g(u) + linear (u - 1) with g = `divergence.reversed()`, the generator in Q/P. The paper's names in ours:

    forward KL (DPH-F)     KL(), linear = -1 (its -log u; 0 gives the centred u - 1 - log u)
    Jensen-Shannon         2 * JensenShannon(), linear = 0
    alpha in (0, 1)        Alpha(alpha), linear = 0
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from discrepancy._validate import at_least, generator_or_default, positive, whole_number
from discrepancy.divergences import KL, FDivergence
from discrepancy.divergences.admission import Admission
from discrepancy.language_models import token_mean
from discrepancy.methods.alignment.group_relative import GRPO, Aggregate, PolicyFit, Reward, grpo_loss
from discrepancy.methods.alignment.penalties import generator_terms
from discrepancy.methods.alignment.preference_loss import checked_log_probs
from discrepancy.methods.alignment.presampling import PresampleSplit
from discrepancy.methods.alignment.response_policy import ResponsePolicy

ADMITS = Admission(method="dph_rl", kinds=(FDivergence,))


def divergence_from_reference(
    log_probs: Tensor,
    reference_log_probs: Tensor,
    mask: Tensor,
    divergence: FDivergence | None = None,
    *,
    linear: float = 0.0,
    aggregate: Aggregate = token_mean,
    reach: float = 20.0,
) -> Tensor:
    """D(reference || policy), the aggregate of g(u_t) + linear (u_t - 1), u_t = policy / reference, at tokens of the REFERENCE.

    log_probs, reference_log_probs and boolean mask of one shape (..., L); `divergence` defaults to KL(), with linear = -1 the
    negative log-likelihood of the stored tokens up to a constant. Unbiased for any `linear` where the answers are all that the
    reference drew. Of answers filtered to be correct E[u] is no longer 1: KL() with linear = -1 then raises them all, where the
    centred form holds each at its old probability. A sum over tokens is the divergence of whole responses for KL() only.
    Only members with f'(inf) = inf grow without bound as the policy drops an answer; Jensen-Shannon, Hellinger and Alpha(a < 1)
    stay finite. Beyond |log u| = `reach` the terms go on along tangents.
    Raises ValueError for shapes that do not fit, log-probabilities above 0, an empty mask.
    """
    if log_probs.shape != reference_log_probs.shape or log_probs.shape != mask.shape:
        raise ValueError(
            f"log_probs, reference_log_probs and mask must be of the same tokens, got shapes {tuple(log_probs.shape)}, "
            f"{tuple(reference_log_probs.shape)} and {tuple(mask.shape)}: were they stored with another tokeniser?"
        )
    choice = ADMITS.check(KL() if divergence is None else divergence)
    now = checked_log_probs(log_probs, "log_probs")
    stored = checked_log_probs(reference_log_probs, "reference_log_probs", like=now).detach()
    return aggregate(generator_terms(choice.reversed(), now - stored, linear=linear, reach=reach), mask)


class RehearsalLoss(nn.Module):
    """`divergence_from_reference` as a module with its options."""

    references = ("dph-rl",)

    def __init__(
        self,
        divergence: FDivergence | None = None,
        *,
        linear: float = 0.0,
        aggregate: Aggregate = token_mean,
        reach: float = 20.0,
    ) -> None:
        """Raises TypeError for what is no f-divergence, ValueError for a reach that is not positive."""
        super().__init__()
        self.divergence = ADMITS.check(KL() if divergence is None else divergence)
        self.linear, self.aggregate, self.reach = linear, aggregate, positive(reach, "reach")

    def forward(self, log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor) -> Tensor:
        """The divergence from tokens (..., L) that the reference drew."""
        return divergence_from_reference(
            log_probs, reference_log_probs, mask, self.divergence,
            linear=self.linear, aggregate=self.aggregate, reach=self.reach,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.divergence!r}, linear={self.linear:g}"


def dph_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    mask: Tensor,
    advantages: Tensor,
    rehearsal_log_probs: Tensor,
    rehearsal_reference: Tensor,
    rehearsal_mask: Tensor,
    divergence: FDivergence | None = None,
    *,
    eta: float,
    linear: float = 0.0,
    clip: tuple[float, float] = (0.2, 0.28),
    aggregate: Aggregate = token_mean,
) -> Tensor:
    """The clipped policy gradient of explored responses plus eta times the divergence on rehearsed ones.

    The first four arguments are those of `grpo_loss`, the next three those of `divergence_from_reference`.
    """
    explored = grpo_loss(log_probs, old_log_probs, mask, advantages, clip=clip, aggregate=aggregate)
    kept = divergence_from_reference(
        rehearsal_log_probs, rehearsal_reference, rehearsal_mask, divergence, linear=linear, aggregate=aggregate
    )
    return explored + at_least(eta, 0.0, "eta") * kept


@dataclass(frozen=True)
class DPHRL:
    """Trains on a `PresampleSplit`: `search` explores, `batch` stored answers a step are rehearsed with weight `eta`.

    The default is the paper's forward KL. Its `eta`: 0.01 to 0.05 for KL and alpha, 0.05 to 0.2 for Jensen-Shannon, on language
    models; more on small problems.
    """

    divergence: FDivergence = field(default_factory=KL)
    eta: float = 0.05
    linear: float = -1.0
    batch: int = 32
    search: GRPO = field(default_factory=GRPO)
    reach: float = 20.0

    references = ("dph-rl",)

    def __post_init__(self) -> None:
        """Check the options."""
        ADMITS.check(self.divergence)
        at_least(self.eta, 0.0, "eta")
        whole_number(self.batch, 1, "batch")
        if self.search.penalty is not None:
            raise ValueError("dph_rl explores without a penalty: leave search.penalty at None")

    def fit(
        self, policy: ResponsePolicy, split: PresampleSplit, reward: Reward, *, generator: torch.Generator | None = None
    ) -> PolicyFit:
        """Train in place. No reference policy is kept: its log-probabilities are those stored, at the policy's own temperature.

        Raises ValueError where there is nothing to explore, and warns where there is nothing to rehearse.
        """
        if len(split.explore) == 0:
            raise ValueError("every prompt is mastered: nothing to learn")
        source = generator_or_default(generator, split.explore.device)
        count = split.rehearsed
        if count == 0:
            warnings.warn("no prompt is mastered: training runs without rehearsal", stacklevel=2)

        def rehearse() -> Tensor:
            rows = torch.randint(count, (self.batch,), generator=source, device=source.device)
            log_probs, mask = policy.log_probs(split.rehearsal_prompts[rows], split.rehearsal_responses[rows])
            kept = divergence_from_reference(
                log_probs, split.rehearsal_log_probs[rows], mask, self.divergence,
                linear=self.linear, aggregate=self.search.aggregate, reach=self.reach,
            )  # fmt: skip
            return self.eta * kept

        extra = rehearse if count and self.eta else None
        return self.search.fit(policy, split.explore, reward, extra=extra, generator=source)


__all__ = ["ADMITS", "DPHRL", "RehearsalLoss", "divergence_from_reference", "dph_loss"]
