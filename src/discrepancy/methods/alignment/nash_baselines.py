"""Other ways to play a preference game against oneself; all take what `nash_mirror_prox` takes.

s is the dual vector log pi / ref, w(mu) = P mu the chances to win against mu:

    mirror descent   s' = [s + (eta/beta) w(pi)] / (1 + eta)        the opponent is the present policy
    Nash-MD          s' = [s + (eta/beta) w(mix)] / (1 + eta)       the opponent leans to the reference: s_mix = s / (1 + eta)
    extragradient    s' = s - eta s_half + (eta/beta) w(pi_half)    explicit steps, s_half = (1 - eta) s + (eta/beta) w(pi)
    best response    s' = w(pi) / beta                              no memory: online preference optimisation to the end
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from discrepancy.divergences import FDivergence
from discrepancy.methods.alignment.preference_games import (
    Iteration,
    Move,
    NashResult,
    PreferenceGame,
    preference_game,
    solve_game,
)


def _descend(game: PreferenceGame, s: Tensor, eta: float) -> Move:
    return Move((s + eta / game.beta * game.wins(game.law(s))) / (1 + eta), eta, 1)


def _mixed(game: PreferenceGame, s: Tensor, eta: float) -> Move:
    return Move((s + eta / game.beta * game.wins(game.law(s / (1 + eta)))) / (1 + eta), eta, 1)


def _extragradient(game: PreferenceGame, s: Tensor, eta: float) -> Move:
    half = (1 - eta) * s + eta / game.beta * game.wins(game.law(s))
    return Move(s - eta * half + eta / game.beta * game.wins(game.law(half)), eta, 2)


def _respond(game: PreferenceGame, s: Tensor, eta: float) -> Move:
    return Move(game.wins(game.law(s)) / game.beta, eta, 1)


MIRROR_DESCENT = Iteration("mirror_descent", _descend)
NASH_MD = Iteration("nash_md", _mixed)
EXTRAGRADIENT = Iteration("extragradient", _extragradient)
BEST_RESPONSE = Iteration("best_response", _respond)


def _solver(rule: Iteration, summary: str) -> Callable[..., NashResult]:
    def solve(
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
        game = preference_game(preferences, reference, beta=beta, divergence=divergence, symmetrize=symmetrize)
        return solve_game(rule, game, eta=eta, iterations=iterations, tolerance=tolerance, start=start, record=record)

    solve.__name__ = solve.__qualname__ = rule.name
    solve.__doc__ = summary
    return solve


mirror_descent = _solver(
    MIRROR_DESCENT, "Self-play mirror descent; may cycle where beta is small. Arguments: `nash_mirror_prox`."
)
nash_md = _solver(
    NASH_MD, "Nash-MD (Munos et al., 2023, 2312.00886), with a last-iterate rate O(1/k). Arguments: `nash_mirror_prox`."
)
extragradient = _solver(EXTRAGRADIENT, "Extragradient with an explicit leash; stable for eta < 1. Arguments: `nash_mirror_prox`.")
best_response = _solver(
    BEST_RESPONSE,
    "Answer the last policy each time, as online preference optimisation; `eta` is not used. Arguments: `nash_mirror_prox`.",
)

__all__ = [
    "BEST_RESPONSE",
    "EXTRAGRADIENT",
    "MIRROR_DESCENT",
    "NASH_MD",
    "best_response",
    "extragradient",
    "mirror_descent",
    "nash_md",
]
