"""Nash mirror prox: the regularised equilibrium of a preference game at a linear rate (Tiapkin et al., 2025, 2505.19731).

A half step answers the present policy, the full step answers the half step's policy, both held to the reference and to the
present policy. In dual vectors s = log pi / ref (up to a constant), with w(mu) = P mu the chances to win against mu:

    s_half = [s_k + (eta / beta) w(pi_k)] / (1 + eta),    s_{k+1} = [s_k + (eta / beta) w(pi_half)] / (1 + eta).

For another divergence than KL(pi || ref), the leash phi(pi) = D(ref || pi) is its own mirror map: s = g'(pi / ref), and the
proximal term is phi's Bregman divergence B. The paper's argument then needs, a step,

    (eta / beta) <w(pi_half) - w(pi_k), pi_{k+1} - pi_half>  <=  B(pi_half, pi_k) + (1 + eta) B(pi_{k+1}, pi_half),

and gives B(pi*, pi_{k+1}) <= B(pi*, pi_k) / (1 + eta). For KL it holds with eta = 2 beta always; for others it is checked, and
the step halved until it holds.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from discrepancy.divergences import FDivergence
from discrepancy.methods.alignment.preference_games import (
    ADMITS,
    Iteration,
    Move,
    NashResult,
    PreferenceGame,
    preference_game,
    solve_game,
)

_ROUNDING = 1e-14  # both sides of the certificate vanish at the equilibrium, to rounding of preferences of order one


def _move(game: PreferenceGame, s: Tensor, eta: float) -> Move:
    policy = game.law(s)
    wins, queries = game.wins(policy), 1
    while True:
        dual_half = (s + eta / game.beta * wins) / (1 + eta)
        half = game.law(dual_half)
        wins_half, queries = game.wins(half), queries + 1
        # The full step starts from the centre s again: from the half step it would be plain mirror descent, twice.
        dual = (s + eta / game.beta * wins_half) / (1 + eta)
        if game.softmax or _certified(game, eta, (policy, s, wins), (half, dual_half, wins_half), game.law(dual)):
            return Move(dual, eta, queries)
        eta /= 2


def _certified(
    game: PreferenceGame, eta: float, here: tuple[Tensor, Tensor, Tensor], half: tuple[Tensor, Tensor, Tensor], full: Tensor
) -> bool:
    gain = eta / game.beta * float((half[2] - here[2]) @ (full - half[0]))
    paid = game.bregman(half[0], here[0], here[1]) + (1 + eta) * game.bregman(full, half[0], half[1])
    return gain <= paid + _ROUNDING


RULE = Iteration("nash_mirror_prox", _move, proven=True)


def nash_mirror_prox(
    preferences: Any,
    reference: Any = None,
    *,
    beta: float = 0.1,
    divergence: FDivergence | None = None,
    eta: float | None = None,
    iterations: int = 1000,
    tolerance: float = 1e-10,
    start: Any = None,
    record: bool = False,
    symmetrize: bool = False,
) -> NashResult:
    """The beta-regularised Nash equilibrium (n,) of a symmetric preference game on n answers.

    preferences (n, n): P[i, j] is the probability that i is preferred to j; reference (n,) positive, uniform where omitted, is
    the P of the `divergence`, whose default ReverseKL() is the paper's KL(pi || ref). `eta` defaults to 2 beta (times g''(1),
    which is 1 for KL), `start` to the reference; `record` keeps the policies. For KL, whatever n,
    KL(pi* || pi_k) <= KL(pi* || ref) (1 + 2 beta)^-k. Stops at a regularised exploitability of `tolerance`; float64.
    Time 2 n^2 an iteration, memory n^2.
    Raises ValueError for a game that is none (see `preference_game`), and warns above the proven step size or unconverged.
    """
    game = preference_game(preferences, reference, beta=beta, divergence=divergence, symmetrize=symmetrize)
    return solve_game(RULE, game, eta=eta, iterations=iterations, tolerance=tolerance, start=start, record=record)


__all__ = ["ADMITS", "RULE", "nash_mirror_prox"]
