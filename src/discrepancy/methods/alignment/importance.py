"""What samples of a proposal tell about an unnormalised target: its normaliser, effective sample sizes, divergences to it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._results import Estimate, NumericalError
from discrepancy._validate import whole_number
from discrepancy.divergences.f_divergence import FDivergence

_NO_MASS = "no sample satisfies the target: soften the scorer, or warm up Z on samples of a proposal that reaches it"


def log_normaliser(target_log_scores: Tensor, proposal_log_probs: Tensor) -> Estimate:
    """log Z = log mean_i P(x_i) / q(x_i) from samples of q, with the delta method's standard error.

    Both (n,). Z's estimate is unbiased where q > 0 wherever P > 0; its logarithm is biased by about -variance / 2.
    Raises ValueError for shapes or NaN, NumericalError where every score is -inf.
    """
    w = _log_weights(target_log_scores, proposal_log_probs)
    n = len(w)
    value = torch.logsumexp(w, 0) - math.log(n)
    if value == -torch.inf:
        raise NumericalError(_NO_MASS)
    relative = torch.exp(w - value)
    error = relative.std() / math.sqrt(n) if n > 1 else None
    half = 1.959963984540054 * error if error is not None else None
    return Estimate(
        value,
        error,
        None if half is None else value - half,
        None if half is None else value + half,
        None if half is None else 0.95,
        method=f"importance sampling, n = {n}, effective {effective_sample_size(w):.1f}",
    )


def effective_sample_size(log_weights: Tensor) -> float:
    """(sum w)^2 / sum w^2 of weights (n,) given by their logarithms: n for equal weights, 0 where none is positive."""
    total = torch.logsumexp(log_weights.detach().double(), 0)
    if total == -torch.inf:
        return 0.0
    return float(torch.exp(2 * total - torch.logsumexp(2 * log_weights.detach().double(), 0)))


def divergence_to_target(
    divergence: FDivergence,
    target_log_scores: Tensor,
    policy_log_probs: Tensor,
    log_z: float,
    *,
    proposal_log_probs: Tensor | None = None,
) -> Estimate:
    """D_f(p || pi) at samples of the policy, or of a proposal with self-normalised weights pi / q; with its standard error.

    All (n,); log_z is log Z of the target. P is the target, Q the policy. The error does not include that of log_z. For KL and
    chi-squared the terms are heavy-tailed where the policy misses the target: the estimate's note says so.
    """
    log_r = (_log_weights(target_log_scores, policy_log_probs) - log_z).detach()
    weights = None
    if proposal_log_probs is not None:
        weights = torch.softmax(_log_weights(policy_log_probs, proposal_log_probs).detach(), 0)
    return divergence.from_log_ratio(log_r, weights)


@dataclass
class RunningNormaliser:
    """log Z as the mean of the last `window` batches' estimates of Z (None: of all): the state of a training loop, hence mutable.

    Every batch is an unbiased estimate of the same Z, whatever proposal it came from. `value` is -inf before a first hit.
    """

    window: int | None = None
    _batches: deque[tuple[float, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.window is not None:
            whole_number(self.window, 1, "window")
        self._batches = deque(maxlen=self.window)

    def update(self, target_log_scores: Tensor, proposal_log_probs: Tensor) -> None:
        """Add the batch of samples of a proposal."""
        w = _log_weights(target_log_scores, proposal_log_probs).detach()
        self._batches.append((float(torch.logsumexp(w, 0)), len(w)))

    @property
    def value(self) -> float:
        """log of the mean of all weights kept."""
        if not self._batches:
            return -math.inf
        sums = torch.tensor([s for s, _ in self._batches], dtype=torch.float64)
        return float(torch.logsumexp(sums, 0)) - math.log(sum(n for _, n in self._batches))

    def require(self) -> float:
        """The value. Raises NumericalError where no sample so far had any mass under the target."""
        if self.value == -math.inf:
            raise NumericalError(_NO_MASS)
        return self.value


def _log_weights(numerator: Tensor, denominator: Tensor) -> Tensor:
    """log of the ratio in float64; where the numerator is zero it is -inf, whatever the denominator."""
    if numerator.shape != denominator.shape or numerator.ndim != 1 or len(numerator) == 0:
        raise ValueError(
            "log-scores and log-probabilities must be equal in shape, (n,), "
            f"got {tuple(numerator.shape)} and {tuple(denominator.shape)}"
        )
    a, b = numerator.double(), denominator.double()
    ratio = torch.where(a == -torch.inf, a, a - b)
    if bool((torch.isnan(ratio) | (ratio == torch.inf)).any()):
        where = int((torch.isnan(ratio) | (ratio == torch.inf)).nonzero()[0])
        raise ValueError(
            f"the log-ratio at index {where} is {float(ratio[where].detach())}: scores must be below +inf, and a sample must "
            "have positive probability under the law it was drawn from"
        )
    return ratio


__all__ = ["RunningNormaliser", "divergence_to_target", "effective_sample_size", "log_normaliser"]
