"""f-DPG: move a generator towards an unnormalised target under any f-divergence, by policy gradient.

P is the target p = P / Z, Q the policy pi, as everywhere: D_f(p || pi) = E_pi f(p / pi); `f_dpg_loss.py` maps the paper's
names onto ours. This is the loop: sample, estimate Z, descend, keep a record.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from discrepancy._results import Estimate, Result
from discrepancy._validate import generator_or_default, positive, whole_number
from discrepancy.divergences import KL, FDivergence, JensenShannon, TotalVariation
from discrepancy.learning import Training
from discrepancy.methods.alignment.energy_based import Target, checked_scores
from discrepancy.methods.alignment.f_dpg_loss import ADMITS, FDPGLoss, f_dpg_loss, pseudo_rewards
from discrepancy.methods.alignment.importance import RunningNormaliser, divergence_to_target, effective_sample_size
from discrepancy.methods.alignment.pseudo_reward_baselines import Baseline, PastRewards


@runtime_checkable
class Policy(Protocol):
    """A generator that is trained: `CausalPolicy`, `MarkovPolicy`, `TabularPolicy` or one's own."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Any:
        """n samples."""
        ...

    def log_prob(self, samples: Any, /) -> Tensor:
        """log pi(x) (n,), differentiable in the parameters."""
        ...

    def parameters(self) -> Any:
        """The parameters that are trained."""
        ...


@dataclass(frozen=True)
class FixedProposal:
    """Off-policy sampling: a copy of the policy proposes, and is replaced when the policy is nearer to the target.

    Every `every` steps the two divergences to the target, estimated by importance sampling from the samples of these steps, are
    compared under `criterion`.
    """

    every: int = 10
    criterion: FDivergence = field(default_factory=TotalVariation)

    def __post_init__(self) -> None:
        whole_number(self.every, 1, "every")
        ADMITS.check(self.criterion)


@dataclass(frozen=True, repr=False)
class FDPGResult(Result):
    """How a tuning went: final log Z (one a context), the effective sample size of the last batch's P / q, how often the proposal
    was replaced, the tracked divergences of the last step by name, and the history."""

    log_z: tuple[float, ...]
    effective_sample_size: float
    proposals: int
    divergences: Mapping[str, Estimate]
    history: Mapping[str, list[float]] = field(repr=False)


@dataclass(frozen=True)
class FDPG:
    """f-DPG: samples, an importance estimate of Z, the policy gradient of D_f(p || pi), and a record of several divergences.

    `divergence` any `FDivergence` (P = target, Q = policy); `samples` a step and context; `baseline` an object or None;
    `proposal` None (on-policy) or `FixedProposal(...)`; `window` batches make Z (None: all); `warm_up` samples of the start
    policy estimate Z first; `contexts` is how many of the contexts each step takes; `track` the divergences recorded, with their
    standard errors. The policy's parameters are trained in place. Source: Go et al. (2023, 2302.08215).
    """

    divergence: FDivergence = field(default_factory=lambda: 2 * JensenShannon())
    training: Training = field(default_factory=lambda: Training(steps=200, learning_rate=1e-4, final_share=1.0, record_every=10))
    samples: int = 256
    baseline: Baseline | None = field(default_factory=PastRewards)
    proposal: FixedProposal | None = None
    window: int | None = None
    warm_up: int = 0
    contexts: int = 1
    clip: float | None = None
    track: tuple[FDivergence, ...] = field(default_factory=lambda: (KL(), TotalVariation(), 2 * JensenShannon()))

    references = ("f-dpg",)

    def __post_init__(self) -> None:
        for divergence in (self.divergence, *self.track):
            ADMITS.check(divergence)
        whole_number(self.samples, 2, "samples")
        whole_number(self.warm_up, 0, "warm_up")
        whole_number(self.contexts, 1, "contexts")
        if self.window is not None:
            whole_number(self.window, 1, "window")
        if self.clip is not None:
            positive(self.clip, "clip")

    def tune(
        self, policy: Policy | Sequence[Policy], target: Target | Sequence[Target], *, generator: torch.Generator | None = None
    ) -> FDPGResult:
        """Train the policy in place towards the target; lists give one policy and one target a context, sharing parameters.

        Raises TypeError for a policy or target without what it needs, ValueError for lists of unequal lengths, NumericalError
        where no sample has mass under the target or a reward overflows.
        """
        policies, targets = _contexts(policy, target)
        source = generator_or_default(generator)
        state = _State(
            proposals=None if self.proposal is None else copy.deepcopy(policies),
            normalisers=[RunningNormaliser(self.window) for _ in policies],
            baselines=[None if self.baseline is None else self.baseline.start() for _ in policies],
        )
        if self.warm_up:
            for own, goal, z in zip(policies, targets, state.normalisers, strict=True):
                drawn = own.sample(self.warm_up, generator=source)
                with torch.no_grad():
                    z.update(_scores(goal, drawn, self.warm_up), own.log_prob(drawn))

        def step(k: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            chosen = range(len(policies))
            if self.contexts < len(policies):
                chosen = torch.randperm(len(policies), generator=source)[: self.contexts].tolist()
            losses = [self._one(policies[c], targets[c], c, state, source) for c in chosen]
            if self.proposal is not None and (k + 1) % self.proposal.every == 0:
                state.renew(policies, self.proposal.criterion)
            terms: dict[str, Tensor | float] = {}
            if self.training.records(k):
                terms = state.report(self.track, list(chosen))
            return torch.stack(losses).mean(), terms

        weights = {id(w): w for own in policies for w in own.parameters() if w.requires_grad}
        with _evaluating(policies):
            history = self.training.run(list(weights.values()), step)
        return FDPGResult(
            log_z=tuple(z.value for z in state.normalisers),
            effective_sample_size=state.effective,
            proposals=state.replaced,
            divergences=state.tracked,
            history=history,
        )

    def _one(self, policy: Policy, target: Target, c: int, state: _State, source: torch.Generator) -> Tensor:
        proposer = policy if state.proposals is None else state.proposals[c]
        drawn = proposer.sample(self.samples, generator=source)
        log_p = _scores(target, drawn, self.samples)
        log_pi = policy.log_prob(drawn)
        if log_pi.shape != (self.samples,):
            raise ValueError(f"log_prob must give ({self.samples},), one number a sample, got shape {tuple(log_pi.shape)}")
        with torch.no_grad():
            log_q = log_pi.detach() if state.proposals is None else proposer.log_prob(drawn)
        log_p = log_p.to(log_pi)
        state.normalisers[c].update(log_p, log_q)
        log_z = state.normalisers[c].require()
        rewards = pseudo_rewards(log_pi, log_p, log_z, self.divergence, clip=self.clip)
        importance = torch.exp((log_pi.detach() - log_q).double())
        running = state.baselines[c]
        base = 0.0 if running is None else running.before(rewards, importance)
        state.batches[c] = (log_p, log_pi.detach(), log_q, log_z)
        state.seen.setdefault(c, []).append((drawn, log_p, log_q))
        if state.proposals is None:
            state.seen[c].clear()
        return f_dpg_loss(
            log_pi,
            log_p,
            log_z,
            self.divergence,
            proposal_log_probs=None if state.proposals is None else log_q,
            baseline=base,
            clip=self.clip,
        )


@dataclass
class _State:
    """What changes during a tuning."""

    proposals: list[Policy] | None
    normalisers: list[RunningNormaliser]
    baselines: list[Any]
    batches: dict[int, tuple[Tensor, Tensor, Tensor, float]] = field(default_factory=dict)
    seen: dict[int, list[tuple[Any, Tensor, Tensor]]] = field(default_factory=dict)
    tracked: dict[str, Estimate] = field(default_factory=dict)
    effective: float = 0.0
    replaced: int = 0

    @torch.no_grad()
    def renew(self, policies: list[Policy], criterion: FDivergence) -> None:
        """Propose from copies of the policies if these are nearer to the targets, on the samples seen since the last time."""
        ours = theirs = 0.0
        for c, batches in self.seen.items():
            log_z = self.normalisers[c].require()
            log_p, log_q = torch.cat([b[1] for b in batches]), torch.cat([b[2] for b in batches])
            log_pi = torch.cat([policies[c].log_prob(b[0]) for b in batches])
            ours += float(divergence_to_target(criterion, log_p, log_pi, log_z, proposal_log_probs=log_q))
            theirs += float(divergence_to_target(criterion, log_p, log_q, log_z))
        self.seen.clear()
        if ours < theirs:
            self.proposals = copy.deepcopy(policies)
            self.replaced += 1

    def report(self, track: tuple[FDivergence, ...], chosen: list[int]) -> dict[str, Tensor | float]:
        """The record of a step: log Z, the effective sample size and the tracked divergences, means over its contexts."""
        terms: dict[str, Tensor | float] = {}
        batches = [self.batches[c] for c in chosen]
        self.effective = sum(effective_sample_size(p - q) for p, _, q, _ in batches) / len(batches)
        terms["log Z"] = sum(b[3] for b in batches) / len(batches)
        terms["effective samples"] = self.effective
        for divergence in track:
            found = [divergence_to_target(divergence, p, pi, z, proposal_log_probs=q) for p, pi, q, z in batches]
            mean = sum(float(e) for e in found) / len(found)
            errors = [math.inf if e.standard_error is None else float(e.standard_error) for e in found]
            spread = math.sqrt(sum(e * e for e in errors)) / len(found)
            self.tracked[repr(divergence)] = Estimate(
                mean, spread if math.isfinite(spread) else None, method=found[0].method, note=found[0].note
            )
            terms[repr(divergence)], terms[f"standard error of {divergence!r}"] = mean, spread
        return terms


@contextmanager
def _evaluating(policies: list[Policy]) -> Iterator[None]:
    """Dropout off for the time: the law that is scored must be the one that was sampled."""
    modules = {id(m): m for own in policies if isinstance(m := getattr(own, "model", own), nn.Module)}
    modes = [(m, m.training) for m in modules.values()]
    for module, _ in modes:
        module.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.train(mode)


def _contexts(policy: Any, target: Any) -> tuple[list[Policy], list[Target]]:
    policies = list(policy) if isinstance(policy, list | tuple) else [policy]
    targets = list(target) if isinstance(target, list | tuple) else [target]
    if len(policies) != len(targets) or not policies:
        raise ValueError(f"policy and target must be one each, or lists of one length, got {len(policies)} and {len(targets)}")
    for own in policies:
        missing = [name for name in ("sample", "log_prob", "parameters") if not callable(getattr(own, name, None))]
        if missing:
            raise TypeError(f"a policy needs sample, log_prob and parameters; {type(own).__name__} lacks {', '.join(missing)}")
    for goal in targets:
        if not callable(getattr(goal, "log_score", None)):
            raise TypeError(f"a target needs log_score(samples), as EnergyBasedModel has; {type(goal).__name__} lacks it")
    return policies, targets


def _scores(target: Target, drawn: Any, n: int) -> Tensor:
    with torch.no_grad():
        return checked_scores(torch.as_tensor(target.log_score(drawn)).detach(), n)


__all__ = ["ADMITS", "FDPG", "FDPGLoss", "FDPGResult", "FixedProposal", "Policy", "f_dpg_loss", "pseudo_rewards"]
