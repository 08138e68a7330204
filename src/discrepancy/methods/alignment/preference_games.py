"""Regularised preference games: two policies compete in being preferred, each on a leash to one reference.

max over pi, min over pi':  P(pi > pi') - beta D(ref || pi) + beta D(ref || pi'),  P(pi > pi') = pi^T P pi'.

With g the generator of D in Q/P, phi(pi) = sum_i ref_i g(pi_i / ref_i) is the leash and at the same time the mirror map: a law is
held by its dual vector s = g'(pi / ref), known up to a constant, so that nothing underflows and the reference is s = 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Outcome, Result
from discrepancy._validate import as_tensor, positive, require_finite, whole_number
from discrepancy._validate import weights as checked_weights
from discrepancy.divergences import FDivergence, ReverseKL
from discrepancy.divergences.admission import BARRIER_IN_Q, SMOOTH, Admission
from discrepancy.methods.alignment.regularised_optimum import regularised_optimum

ADMITS = Admission(
    method="nash_mirror_prox",
    kinds=(FDivergence,),
    conditions=(SMOOTH, BARRIER_IN_Q),
    examples=("ReverseKL()", "KL()", "JensenShannon()"),
)
_ANTISYMMETRY = 1e-6


@dataclass(frozen=True, eq=False)
class PreferenceGame:
    """The game of n answers: `preferences` (n, n), P[i, j] the probability that i is preferred to j, `reference` (n,) and `beta`.

    `divergence` is the leash D(reference || policy); the papers' KL(policy || reference) is ReverseKL(), the default.
    """

    preferences: Tensor
    reference: Tensor
    beta: float
    divergence: FDivergence = field(default_factory=ReverseKL)

    @property
    def size(self) -> int:
        """The number of answers."""
        return len(self.reference)

    @property
    def _multiple(self) -> float | None:
        """c where the leash is c KL(pi || ref), whose laws and best responses are closed forms."""
        powers = self.divergence.powers()
        return powers[0.0] if powers is not None and set(powers) == {0.0} else None

    def law(self, dual: Tensor) -> Tensor:
        """The policy (n,) with g'(pi / ref) = dual + const."""
        c = self._multiple
        if c is not None:
            return torch.softmax(torch.log(self.reference) + dual / c, -1)
        return regularised_optimum(self.reference, dual, self.divergence)

    def dual(self, policy: Tensor) -> Tensor:
        """g'(pi / ref), (n,)."""
        return self.divergence.reversed().derivative(log_t=torch.log(policy) - torch.log(self.reference))

    def wins(self, policy: Tensor) -> Tensor:
        """P(i > policy) of each answer, (n,): one preference query."""
        return self.preferences @ policy

    def leash(self, policy: Tensor) -> Tensor:
        """D(reference || policy)."""
        return self.divergence.from_probs(self.reference, policy)

    def best_response(self, policy: Tensor) -> Tensor:
        """The law (n,) that does best against a policy on its leash."""
        return self.law(self.wins(policy) / self.beta)

    def bregman(self, x: Tensor, y: Tensor, dual_y: Tensor) -> float:
        """phi(x) - phi(y) - <phi'(y), x - y>, the leash's own divergence; for KL(pi || ref) it is KL(x || y)."""
        return float(self.leash(x) - self.leash(y) - dual_y @ (x - y))

    def longest_step(self) -> float:
        """The step size to begin with: 2 beta c for a leash c KL(pi || ref), 2 beta g''(1) for others."""
        c = self._multiple
        if c is None:
            c = float(self.divergence.reversed().curvature(torch.ones((), dtype=torch.float64)))
        return 2 * self.beta * c

    @property
    def softmax(self) -> bool:
        """Whether the leash is a multiple of KL(pi || ref)."""
        return self._multiple is not None

    def exploitability(self, policy: Tensor) -> float:
        """max over mu of [P(mu > pi) - beta D(ref || mu)] + beta D(ref || pi) - 1/2, which is 0 at the equilibrium only."""
        wins, c = self.wins(policy), self._multiple
        if c is not None:
            log_ref = torch.log(self.reference)
            leash = c * (torch.xlogy(policy, policy) - policy * log_ref).sum()
            best_value = self.beta * c * torch.logsumexp(log_ref + wins / (self.beta * c), -1)
        else:
            leash, best = self.leash(policy), self.best_response(policy)
            best_value = best @ wins - self.beta * self.leash(best)
        return max(0.0, float(best_value + self.beta * leash - 0.5))

    def gap(self, policy: Tensor) -> float:
        """max over answers of P(i > pi) - 1/2: what the policy loses to its best opponent without a leash."""
        return float(self.wins(policy).max()) - 0.5


def preference_game(
    preferences: Any,
    reference: Any = None,
    *,
    beta: float = 0.1,
    divergence: FDivergence | None = None,
    symmetrize: bool = False,
) -> PreferenceGame:
    """A checked game in float64; `reference` is uniform where omitted.

    `symmetrize` replaces P by (P + 1 - P^T) / 2. Raises ValueError unless P is square, in [0, 1] and P + P^T = 1 within 1e-6, the
    reference is positive and beta > 0; TypeError for a divergence that is not smooth or lets probabilities reach zero.
    """
    P = as_tensor(preferences, "preferences").detach().double()
    if P.ndim != 2 or P.shape[0] != P.shape[1] or len(P) == 0:
        raise ValueError(f"preferences must be square (n, n), got shape {tuple(P.shape)}")
    require_finite(P, "preferences")
    if bool(((P < 0) | (P > 1)).any()):
        raise ValueError(f"preferences must lie in [0, 1], got values from {float(P.min()):.4g} to {float(P.max()):.4g}")
    off = float((P + P.T - 1).abs().max())
    if off > _ANTISYMMETRY and not symmetrize:
        raise ValueError(
            f"preferences must satisfy P + P^T = 1 (its diagonal is then 1/2), off by {off:.3g}: pass symmetrize=True to use "
            "(P + 1 - P^T) / 2"
        )
    P = (P + 1 - P.T) / 2
    if not float(beta) > 0:
        raise ValueError(f"beta must be positive, got {beta!r}: the linear rate needs a leash; without one, average the iterates")
    ref = checked_weights(reference, (len(P),), "reference", like=P).contiguous()
    if bool((ref <= 0).any()):
        raise ValueError(f"reference has {int((ref <= 0).sum())} zero(s): an answer that it never gives can never be learned")
    choice = ADMITS.check(ReverseKL() if divergence is None else divergence)
    return PreferenceGame(P, ref, positive(beta, "beta"), choice)


@dataclass(frozen=True, repr=False)
class NashResult(Result):
    """A policy (n,), its regularised `exploitability`, the unregularised `gap`, the preference queries spent, and the outcome.

    `history` holds the exploitability behind each iteration, `path` (iterations + 1, n) the policies if they were asked for.
    """

    policy: Tensor
    exploitability: float
    gap: float
    iterations: int
    queries: int
    outcome: Outcome
    history: Tensor = field(repr=False)
    path: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Move:
    """A step taken: the next dual vector, the step size that was used, and the preference queries that it took."""

    dual: Tensor
    eta: float
    queries: int


@dataclass(frozen=True)
class Iteration:
    """A solver's rule: `move(game, s, eta)` steps from a dual vector; `proven`: warn of an eta above `longest_step`."""

    name: str
    move: Callable[[PreferenceGame, Tensor, float], Move]
    proven: bool = False


def solve_game(
    rule: Iteration,
    game: PreferenceGame,
    *,
    eta: float | None,
    iterations: int,
    tolerance: float,
    start: Any = None,
    record: bool = False,
) -> NashResult:
    """Iterate until the exploitability is at most `tolerance`. Time O(n^2) an iteration; warns where it is not reached."""
    whole_number(iterations, 1, "iterations")
    positive(tolerance, "tolerance")
    longest = game.longest_step()
    wanted = positive(longest if eta is None else eta, "eta")
    if rule.proven and game.softmax and wanted > longest * (1 + 1e-9):
        warnings.warn(f"{rule.name}: eta = {wanted:g} is above {longest:g}, up to which convergence is proven", stacklevel=3)
    s = torch.zeros_like(game.reference)
    if start is not None:
        first = checked_weights(start, (game.size,), "start", like=game.reference)
        if bool((first <= 0).any()):
            raise ValueError("start must be positive everywhere")
        s = game.dual(first)
    policy = game.law(s)
    values, path = [game.exploitability(policy)], [policy]
    done, queries, step = 0, 0, wanted
    while done < iterations and values[-1] > tolerance:
        move = rule.move(game, s, step)
        s = move.dual - move.dual.max()
        # A step that had to be shortened may grow again.
        queries, step = queries + move.queries, min(wanted, 2 * move.eta)
        policy = game.law(s)
        values.append(game.exploitability(policy))
        if record:
            path.append(policy)
        done += 1
    outcome = Outcome.CONVERGED if values[-1] <= tolerance else Outcome.ITERATION_LIMIT
    outcome.warn(rule.name, stacklevel=4)
    return NashResult(
        policy, values[-1], game.gap(policy), done, queries, outcome,
        torch.tensor(values, dtype=torch.float64), torch.stack(path) if record else None,
    )  # fmt: skip


def exploitability(
    policy: Any, preferences: Any, reference: Any = None, *, beta: float = 0.0, divergence: FDivergence | None = None
) -> float:
    """What the best opponent gains on a policy (n,): `PreferenceGame.exploitability`, with beta = 0 the gap without a leash."""
    game = preference_game(preferences, reference, beta=beta if beta else 1.0, divergence=divergence)
    law = checked_weights(policy, (game.size,), "policy", like=game.reference)
    return game.exploitability(law) if beta else game.gap(law)


__all__ = ["ADMITS", "Iteration", "Move", "NashResult", "PreferenceGame", "exploitability", "preference_game", "solve_game"]
