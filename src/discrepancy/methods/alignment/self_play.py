"""Nash mirror prox for policies that are trained: each proximal step is a few policy-gradient steps on sampled comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import generator_or_default, positive, whole_number
from discrepancy.learning import Training, leave_one_out, score_function_loss
from discrepancy.methods.alignment.response_policy import (
    ResponsePolicy,
    as_of,
    response_log_probs,
    restore,
    snapshot,
    trained_weights,
)

# (prompts (n, ...), first (n, c, L), second (n, c, L)) -> probabilities that the first is preferred, (n, c).
Judge = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, repr=False)
class SelfPlayFit(Result):
    """What self-play came to: mean preference of the last inner step's samples over their opponents, and `observed` values."""

    preference: float
    iterations: int
    queries: int
    history: dict[str, list[float]] = field(repr=False)
    observed: list[float] = field(repr=False)


_INNER = Training(steps=20, learning_rate=1e-2)


@dataclass(frozen=True)
class NashMirrorProx:
    """Self-play of a policy against its own half steps, on KL leashes to the reference and to the present centre.

    An iteration solves two proximal problems from the same centre pi_k by `inner` steps each: first against samples of pi_k,
    then, from the centre's weights again, against samples of the half step's policy. The loss is the score-function estimate of
    E[P(y' > y)] / beta + KL(pi || ref) + KL(pi || pi_k) / eta with a leave-one-out baseline, on `prompts` prompts a step with
    `group` responses each. The reference is the policy as it comes. Only trained weights are copied: with PEFT, the adapter's.
    """

    beta: float = 0.1
    eta: float | None = None
    iterations: int = 20
    prompts: int = 1
    group: int = 64
    inner: Training = _INNER

    references = ("nash-mirror-prox",)

    def __post_init__(self) -> None:
        """Check the options."""
        positive(self.beta, "beta")
        if self.eta is not None:
            positive(self.eta, "eta")
        whole_number(self.iterations, 1, "iterations")
        whole_number(self.prompts, 1, "prompts")
        whole_number(self.group, 2, "group")

    def fit(
        self,
        policy: ResponsePolicy,
        prompts: Tensor,
        judge: Judge,
        *,
        reference: list[Tensor] | None = None,
        observe: Callable[[], float] | None = None,
        generator: torch.Generator | None = None,
    ) -> SelfPlayFit:
        """Train in place on prompts (n, ...); `observe()` is called behind each iteration, with the new centre in place.

        `reference` holds the reference's trained weights (`response_policy.snapshot`), where the policy does not start there.

        Time an iteration: 2 `inner` steps, each with two generations, one scoring under three sets of weights and one backward
        pass. Raises ValueError for a judge whose answers are no probabilities.
        """
        if len(prompts) == 0:
            raise ValueError("there is no prompt: nothing to learn")
        source = generator_or_default(generator, prompts.device)
        leash = snapshot(policy) if reference is None else reference
        centre = snapshot(policy)
        history: dict[str, list[float]] = {}
        observed: list[float] = []
        for _ in range(self.iterations):
            self._solve(policy, prompts, judge, leash, centre, centre, source)
            opponent = snapshot(policy)
            restore(policy, centre)
            history = self._solve(policy, prompts, judge, leash, centre, opponent, source)
            centre = snapshot(policy)
            if observe is not None:
                observed.append(float(observe()))
        queries = 2 * self.iterations * self.inner.steps * self.prompts * self.group
        return SelfPlayFit(history["preference"][-1], self.iterations, queries, history, observed)

    def _solve(
        self,
        policy: ResponsePolicy,
        prompts: Tensor,
        judge: Judge,
        reference: list[Tensor],
        centre: list[Tensor],
        opponent: list[Tensor],
        source: torch.Generator,
    ) -> dict[str, list[float]]:
        eta = 2 * self.beta if self.eta is None else self.eta

        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            rows = torch.randint(len(prompts), (self.prompts,), generator=source, device=source.device)
            chosen = prompts[rows]
            mine = policy.sample(chosen, self.group, generator=source)
            with as_of(policy, opponent):
                theirs = policy.sample(chosen, self.group, generator=source)
            wins = _judged(judge, chosen, mine, theirs)
            with as_of(policy, reference):
                at_reference = response_log_probs(policy, chosen, mine)
            with as_of(policy, centre):
                at_centre = response_log_probs(policy, chosen, mine)
            # Last, because weights must not change between the forward pass and its backward pass.
            log_probs = response_log_probs(policy, chosen, mine)
            now = log_probs.detach()
            reward = (wins - 0.5) / self.beta - (now - at_reference) - (now - at_centre) / eta
            baseline = leave_one_out(reward)
            return score_function_loss(log_probs, reward, baseline=baseline), {"preference": float(wins.mean())}

        return self.inner.run(trained_weights(policy), step)


def _judged(judge: Judge, prompts: Tensor, first: Tensor, second: Tensor) -> Tensor:
    wins = torch.as_tensor(judge(prompts, first, second)).detach()
    wins = wins if wins.is_floating_point() else wins.float()
    if wins.shape != first.shape[:2]:
        raise ValueError(f"a judge gives one probability a pair, {tuple(first.shape[:2])}, got shape {tuple(wins.shape)}")
    if not bool(((wins >= 0) & (wins <= 1)).all()):
        raise ValueError(
            f"a judge's answers must lie in [0, 1], got values from {float(wins.min()):.4g} to {float(wins.max()):.4g}"
        )
    return wins


__all__ = ["Judge", "NashMirrorProx", "SelfPlayFit"]
