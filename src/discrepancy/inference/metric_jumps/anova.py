"""Analysis of variance in metric spaces: do groups share their Frechet mean and variance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Outcome, TestResult
from discrepancy._validate import generator_or_default, whole_number
from discrepancy.inference.montecarlo import clopper_pearson, monte_carlo_p
from discrepancy.metric_spaces import MetricSpace
from discrepancy.metric_spaces.means import check_space
from discrepancy.metric_spaces.space import weights_like

_ENTRIES = 1 << 22  # distances' worth of coordinates in one block of permutations, 32 MiB in float64


@dataclass(frozen=True, repr=False, kw_only=True)
class FrechetAnovaResult(TestResult):
    """The test of k groups: `means` (k, *P) and `variances` (k,) of the groups, and the two parts of the statistic."""

    means: Tensor
    variances: Tensor
    variance_component: float
    mean_component: float
    outcome: Outcome

    references = ("dubey-muller-2019",)


@dataclass(frozen=True)
class _Parts:
    variance: Tensor
    mean: Tensor
    V: Tensor
    points: Tensor
    outcome: Outcome


def _parts(space: MetricSpace, Y: Tensor, member: Tensor, pooled: float) -> _Parts:
    """Both parts of T for labelings member (R, k, n) of 0 and 1, with V (R, k) and the groups' means."""
    n = member.sum(-1)
    share = n / Y.shape[0]
    w = member / n[..., None]
    found = space._mean(Y, w.to(weights_like(Y)))
    squares = space.to_center(Y, found.point).double()
    V = (w * squares).sum(-1)
    sigma = (w * squares.square()).sum(-1) - V.square()
    size = (w * squares.square()).sum(-1)
    # A group whose points are all at one distance has no spread to judge by: its own rounding stands in for zero.
    sigma = torch.maximum(sigma, torch.finfo(weights_like(Y).dtype).eps * size)
    ratio = share / sigma
    k = member.shape[1]
    i, j = torch.triu_indices(k, k, 1)
    U = (ratio[:, i] * ratio[:, j] * (V[:, i] - V[:, j]).square()).sum(-1)
    F = pooled - (share * V).sum(-1)
    total = Y.shape[0]
    variance, mean = total * U / ratio.sum(-1), total * F.square() / (share.square() * sigma).sum(-1)
    same = size.amax(-1) == 0
    return _Parts(torch.where(same, 0.0, variance), torch.where(same & (F == 0), 0.0, mean), V, found.point, found.outcome)


@torch.no_grad()
def frechet_anova(
    groups: Sequence[Any],
    space: MetricSpace,
    *,
    permutations: int | None = None,
    generator: torch.Generator | None = None,
) -> FrechetAnovaResult:
    """Test whether k groups of points share one Frechet mean and one Frechet variance.

    groups: k samples (n_j, *P) of `space`, each of two points at least. With shares lambda_j, variances V_j, the variances
    sigma_j^2 of the squared distances, the pooled V_p and F = V_p - sum_j lambda_j V_j (between the groups):

        T = n U / sum_j (lambda_j / sigma_j^2) + n F^2 / sum_j lambda_j^2 sigma_j^2
        U = sum_{j < l} lambda_j lambda_l (V_j - V_l)^2 / (sigma_j^2 sigma_l^2)

    p from chi^2 with k - 1 degrees of freedom, or, with `permutations`, from that many random relabelings: exact at every size
    for groups of one law. It compares whole groups: a trend within them looks like a difference (`frechet_jump_test` does not
    mind). Raises ValueError for fewer than two groups or points. Time: k + 1 Frechet means, k more a permutation.
    Source: Dubey and Mueller (2019).
    """
    check_space(space)
    if not isinstance(groups, Sequence) or len(groups) < 2:
        raise ValueError(f"groups must be a list of at least two samples, got {type(groups).__name__}")
    samples = [space.sample(g, f"groups[{i}]") for i, g in enumerate(groups)]
    for i, s in enumerate(samples):
        if len(s) < 2:
            raise ValueError(f"groups[{i}] has {len(s)} point: a variance needs two")
        if s.shape[1:] != samples[0].shape[1:]:
            raise ValueError(f"groups[{i}] has points of shape {tuple(s.shape[1:])}, groups[0] of {tuple(samples[0].shape[1:])}")
    given, (space, Y) = space, space.tabulated(pooled_sample := torch.cat(samples))
    k, n = len(samples), len(Y)
    label = torch.repeat_interleave(torch.arange(k, device=Y.device), torch.tensor([len(s) for s in samples], device=Y.device))
    member = (label == torch.arange(k, device=Y.device)[:, None]).double()
    whole = space._mean(Y, torch.full((n,), 1 / n, dtype=weights_like(Y).dtype, device=Y.device))
    pooled = float(space.to_center(Y, whole.point).double().mean())
    found = _parts(space, Y, member[None], pooled)
    outcome = found.outcome if whole.outcome.ok else whole.outcome
    outcome.warn("frechet_anova")
    variance, mean = float(found.variance[0]), float(found.mean[0])
    T = variance + mean
    if permutations is None:
        from scipy.special import chdtrc

        p = low = high = float(chdtrc(k - 1, T))
        how = f"chi^2 with {k - 1} degrees of freedom"
    else:
        whole_number(permutations, 1, "permutations")
        source = generator_or_default(generator, Y.device)
        block = max(1, _ENTRIES // (k * max(Y.numel(), n)))
        reached = 0
        for start in range(0, permutations, block):
            rows = min(block, permutations - start)
            order = torch.rand(rows, n, generator=source, dtype=torch.float64, device=Y.device).argsort(-1)
            drawn = _parts(space, Y, member[:, order].transpose(0, 1), pooled)
            reached += int((drawn.variance + drawn.mean >= T * (1 - 1e-9)).sum())
        p = float(monte_carlo_p(reached, permutations))
        low, high = (float(v) for v in clopper_pearson(reached, permutations))
        how = f"{permutations} permutations"
    return FrechetAnovaResult(
        statistic=T,
        p_value=p,
        p_low=low,
        p_high=high,
        method=f"Frechet analysis of variance of {k} groups, {how}; {given!r}",
        note="the means are medoids: approximate" if given.approximate else None,
        means=found.points[0] if space is given else pooled_sample[found.points[0]],
        variances=found.V[0],
        variance_component=variance,
        mean_component=mean,
        outcome=outcome,
    )


__all__ = ["FrechetAnovaResult", "frechet_anova"]
