"""Strings under a constraint that no Markov chain can satisfy exactly: small enough that every gradient is a sum."""

from __future__ import annotations

import torch
from torch import Tensor

from discrepancy.divergences import FDivergence
from discrepancy.language_models import MarkovPolicy
from discrepancy.learning import Training
from discrepancy.methods.alignment.energy_based import BooleanScorer, EnergyBasedModel, RewardScorer
from discrepancy.methods.alignment.f_dpg import pseudo_rewards

PENALTY = 10.0


def markov_base(seed: int) -> MarkovPolicy:
    """A chain over four symbols, length five, whose rows are draws of Dirichlet(1/2)."""
    generator = torch.Generator().manual_seed(seed)
    # Dirichlet(1/2) rows: squared normal deviates are Gamma(1/2), the factor cancels in the ratio.
    rows = torch.randn(5, 4, generator=generator, dtype=torch.float64).square()
    logs = torch.log(rows / rows.sum(-1, keepdim=True))
    return MarkovPolicy(logs[0], logs[1:], 5)


def allowed(strings: Tensor) -> Tensor:
    """Symbol 0 at least twice, and another symbol at the end than at the beginning."""
    return ((strings == 0).sum(-1) >= 2) & (strings[:, 0] != strings[:, -1])


def violation(strings: Tensor) -> Tensor:
    """The reward: 0 where the constraint holds, else -1."""
    return -(~allowed(strings)).double()


def targets(base: MarkovPolicy) -> tuple[EnergyBasedModel, EnergyBasedModel]:
    """The hard target and the soft one."""
    frozen = MarkovPolicy(base.start.detach(), base.transition.detach(), base.length)
    return (
        EnergyBasedModel(frozen, (BooleanScorer(allowed),)),
        EnergyBasedModel(frozen, (RewardScorer(violation, 1 / PENALTY),)),
    )


def exact_optimum(base: MarkovPolicy, target: Tensor, divergence: FDivergence, steps: int, rate: float) -> MarkovPolicy:
    """The chain nearest to the target, by exact gradients from the base."""
    policy = MarkovPolicy(base.start.detach(), base.transition.detach(), base.length)
    strings = policy.strings()

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        return divergence.from_logits(target, policy.log_prob(strings)), {}

    Training(steps=steps, learning_rate=rate, final_share=0.1, record_every=steps).run(policy.parameters(), step)
    return policy


def variances_left(tuned: MarkovPolicy, base: MarkovPolicy, log_score: Tensor, divergence: FDivergence) -> dict[str, float]:
    """The share of the variance of one sample's gradient that the exact mean reward leaves as baseline, by enumeration: at the
    base, at the tuned policy and halfway between."""
    row: dict[str, float] = {}
    strings = base.strings()
    log_z = float(torch.logsumexp(log_score, 0))
    halfway = MarkovPolicy((base.start + tuned.start) / 2, (base.transition + tuned.transition) / 2, base.length)
    for place, policy in (("start", base), ("halfway", halfway), ("optimum", tuned)):
        log_pi = policy.log_prob(strings)
        pi = log_pi.detach().exp()
        rewards = pseudo_rewards(log_pi, log_score, log_z, divergence)
        squares = _squared_scores(policy, strings)
        scores = torch.stack([_weighted_score(policy, strings, pi * (rewards - b)) for b in (0.0, float(pi @ rewards))])
        variances = [
            float(pi @ ((rewards - b).square() * squares)) - float(scores[k].square().sum())
            for k, b in enumerate((0.0, float(pi @ rewards)))
        ]
        row[f"variance left by the baseline, {place}"] = variances[1] / variances[0]
    return row


def _squared_scores(policy: MarkovPolicy, strings: Tensor) -> Tensor:
    """|grad log pi(x)|^2 (n,): in logits the score is a table of counts minus its expectation given the rows visited."""
    start, rows = torch.softmax(policy.start.detach(), -1), torch.softmax(policy.transition.detach(), -1)
    size, n = policy.size, len(strings)
    first = torch.nn.functional.one_hot(strings[:, 0], size) - start
    table = torch.zeros(n, size, size, dtype=rows.dtype)
    for t in range(strings.shape[1] - 1):
        step = torch.nn.functional.one_hot(strings[:, t + 1], size) - rows[strings[:, t]]
        table[torch.arange(n), strings[:, t]] += step
    return first.square().sum(-1) + table.square().sum((-1, -2))


def _weighted_score(policy: MarkovPolicy, strings: Tensor, weights: Tensor) -> Tensor:
    """sum_x w(x) grad log pi(x), flat."""
    value = (weights.detach() * policy.log_prob(strings)).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(policy.parameters()))])


__all__ = ["PENALTY", "allowed", "exact_optimum", "markov_base", "targets", "variances_left", "violation"]
