"""Preference games: the equilibrium, the proven rate, exploitability, other leashes, and self-play of trained policies."""

import math

import pytest
import torch

from discrepancy import ConvergenceWarning
from discrepancy._results import Outcome
from discrepancy.divergences import KL, Alpha, JensenShannon, LeCam, ReverseKL, TotalVariation
from discrepancy.learning import Training
from discrepancy.methods.alignment import (
    CategoricalPolicy,
    NashMirrorProx,
    best_response,
    exploitability,
    extragradient,
    mirror_descent,
    nash_md,
    nash_mirror_prox,
    preference_game,
)

ROCK_PAPER_SCISSORS = torch.tensor([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]], dtype=torch.float64)


def _game(n, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(n, n, generator=generator, dtype=torch.float64)
    reference = torch.rand(n, generator=generator, dtype=torch.float64) + 0.05
    return torch.sigmoid(6 * (a - a.T)), reference / reference.sum()


def _kl(p, q):
    return float((p * (p / q).log()).sum())


def test_a_step_is_the_papers_closed_form():
    """log pi = [eta log ref + log centre - (eta / beta) P^T mu] / (1 + eta), normalised; both centres are pi_k."""
    P, ref = _game(5, 0)
    beta, eta = 0.1, 0.15
    start = torch.softmax(torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), -1)
    with pytest.warns(ConvergenceWarning):
        path = nash_mirror_prox(P, ref, beta=beta, eta=eta, iterations=2, start=start, record=True).path

    def prox(opponent, centre):
        logits = (eta * ref.log() + centre.log() - eta / beta * (P.T @ opponent)) / (1 + eta)
        return torch.softmax(logits, -1)

    centre = start
    for found in path[1:]:
        half = prox(centre, centre)
        centre = prox(half, centre)
        torch.testing.assert_close(found, centre, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(path[0], start)


def test_a_step_solves_its_proximal_problem_for_another_leash():
    P, ref = _game(4, 2)
    beta, eta = 0.5, 0.05
    for divergence in (KL(), 2 * JensenShannon()):
        game = preference_game(P, ref, beta=beta, divergence=divergence)
        with pytest.warns(ConvergenceWarning):
            half = mirror_descent(P, ref, beta=beta, divergence=divergence, eta=eta, iterations=1).policy

        def objective(law, game=game):
            bregman = game.bregman(law, ref, torch.zeros(4, dtype=torch.float64))
            return float(P.T @ ref @ law) / beta + float(game.leash(law)) + bregman / eta

        for i in range(4):
            for sign in (1, -1):
                moved = half.clone()
                moved[i] += sign * 1e-3
                assert objective(half) < objective(moved / moved.sum())


@pytest.mark.parametrize("beta", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("n", [3, 20])
def test_the_proven_rate(n, beta):
    P, ref = _game(n, n)
    solved = nash_mirror_prox(P, ref, beta=beta, iterations=5000, tolerance=1e-14, record=True)
    assert solved.outcome is Outcome.CONVERGED
    start = _kl(solved.policy, ref)
    for k in range(1, min(120, solved.iterations)):
        assert _kl(solved.policy, solved.path[k]) <= start * (1 + 2 * beta) ** -k + 1e-12
    assert solved.queries == 2 * solved.iterations
    assert len(solved.history) == len(solved.path) == solved.iterations + 1
    # At the equilibrium a policy answers itself: log pi / ref = P pi / beta + const.
    torch.testing.assert_close(solved.policy, torch.softmax(ref.log() + P @ solved.policy / beta, -1), atol=1e-6 / beta, rtol=0)


def test_rock_paper_scissors_is_uniform_and_a_dominant_answer_wins():
    skew = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    found = nash_mirror_prox(ROCK_PAPER_SCISSORS, None, beta=0.05, iterations=2000, start=skew)
    torch.testing.assert_close(found.policy, torch.full((3,), 1 / 3, dtype=torch.float64), atol=1e-4, rtol=0)
    assert found.gap < 1e-4
    dominant = torch.tensor([[0.5, 0.9], [0.1, 0.5]], dtype=torch.float64)
    assert float(nash_mirror_prox(dominant, beta=0.01, iterations=3000).policy[0]) > 0.999


def test_mirror_descent_cycles_where_mirror_prox_converges():
    skew = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    with pytest.warns(ConvergenceWarning):
        plain = mirror_descent(ROCK_PAPER_SCISSORS, None, beta=0.01, iterations=800, start=skew)
    assert plain.exploitability > 0.05
    assert nash_mirror_prox(ROCK_PAPER_SCISSORS, None, beta=0.01, iterations=400, start=skew, tolerance=1e-3).outcome.ok


@pytest.mark.parametrize("solver", [mirror_descent, nash_md, extragradient])
def test_baselines_meet_at_the_same_equilibrium(solver):
    P, ref = _game(6, 4)
    wanted = nash_mirror_prox(P, ref, beta=1.0, tolerance=1e-13).policy
    found = solver(P, ref, beta=1.0, eta=0.05, iterations=3000, tolerance=1e-9 if solver is not nash_md else 1e-4)
    torch.testing.assert_close(found.policy, wanted, atol=1e-2 if solver is nash_md else 1e-4, rtol=0)
    assert found.queries == found.iterations * (2 if solver is extragradient else 1)


def test_best_response_is_the_maximiser():
    P, ref = _game(6, 5)
    with pytest.warns(ConvergenceWarning):
        found = best_response(P, ref, beta=0.3, iterations=1).policy
    torch.testing.assert_close(found, torch.softmax(ref.log() + P @ ref / 0.3, -1))


@pytest.mark.parametrize("divergence", [ReverseKL(), 2 * ReverseKL(), KL(), Alpha(0.5)], ids=repr)
def test_exploitability_against_enumeration(divergence):
    P, ref = _game(3, 6)
    policy = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    beta = 0.4
    grid = torch.linspace(0, 1, 301, dtype=torch.float64)
    a, b = torch.meshgrid(grid, grid, indexing="ij")
    inside = (a + b < 1) & (a > 0) & (b > 0)
    laws = torch.stack([a[inside], b[inside], 1 - a[inside] - b[inside]], -1)
    gain = laws @ (P @ policy) - beta * divergence.from_probs(ref.expand_as(laws), laws)
    wanted = float(gain.max() + beta * divergence.from_probs(ref, policy)) - 0.5
    assert exploitability(policy, P, ref, beta=beta, divergence=divergence) == pytest.approx(wanted, abs=2e-4)
    assert exploitability(policy, P) == pytest.approx(float((P @ policy).max()) - 0.5)


@pytest.mark.parametrize("divergence", [KL(), JensenShannon(), Alpha(0.5)], ids=repr)
def test_other_leashes_converge_to_their_own_equilibria(divergence):
    P, ref = _game(5, 7)
    found = nash_mirror_prox(P, ref, beta=0.3, divergence=divergence, iterations=150, tolerance=1e-9)
    assert found.exploitability <= 1e-9
    answer = preference_game(P, ref, beta=0.3, divergence=divergence).best_response(found.policy)
    torch.testing.assert_close(answer, found.policy, atol=1e-3, rtol=0)
    other = nash_mirror_prox(P, ref, beta=0.3, tolerance=1e-12).policy
    assert float((other - found.policy).abs().max()) > 1e-3


@pytest.mark.parametrize("divergence", [ReverseKL(), KL(), JensenShannon()], ids=repr)
def test_the_certified_rate_in_the_leashs_own_divergence(divergence):
    """B(pi*, pi_k) falls by 1 + eta a round where no step had to be shortened."""
    P, ref = _game(4, 12)
    game = preference_game(P, ref, beta=0.3, divergence=divergence)
    eta = game.longest_step()
    solved = nash_mirror_prox(P, ref, beta=0.3, divergence=divergence, iterations=100, tolerance=1e-13, record=True)
    assert solved.queries == 2 * solved.iterations
    distance = [game.bregman(solved.policy, p, game.dual(p)) for p in solved.path[:30]]
    assert distance[0] > 1e-3
    for k in range(len(distance) - 1):
        assert distance[k + 1] <= distance[k] / (1 + eta) + 1e-12


def test_steps_are_shortened_where_the_certificate_fails():
    P, ref = _game(6, 13)
    found = nash_mirror_prox(P, ref, beta=0.05, divergence=JensenShannon(), eta=0.5, iterations=60, tolerance=1e-3)
    assert found.outcome.ok
    assert found.queries > 2 * found.iterations


def test_a_multiple_of_kl_is_a_multiple_of_beta():
    P, ref = _game(5, 8)
    double = nash_mirror_prox(P, ref, beta=0.1, divergence=2 * ReverseKL(), tolerance=1e-12)
    torch.testing.assert_close(double.policy, nash_mirror_prox(P, ref, beta=0.2, tolerance=1e-12).policy, atol=1e-8, rtol=0)
    assert double.iterations == pytest.approx(nash_mirror_prox(P, ref, beta=0.2, tolerance=2e-12).iterations, abs=2)


def test_steep_leashes_do_not_underflow():
    P, ref = _game(8, 9)
    found = nash_mirror_prox(P, ref, beta=1e-3, iterations=300, tolerance=1e-2)
    assert torch.isfinite(found.policy).all()
    assert float(found.policy.sum()) == pytest.approx(1)


def test_bad_input():
    P, ref = _game(3, 10)
    with pytest.raises(ValueError, match="square"):
        nash_mirror_prox(P[:2], ref)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        nash_mirror_prox(2 * P, ref)
    off = P.clone()
    off[0, 1] += 0.01
    with pytest.raises(ValueError, match=r"P \+ P\^T = 1.*symmetrize=True"):
        nash_mirror_prox(off, ref)
    assert nash_mirror_prox(off, ref, symmetrize=True).outcome.ok
    with pytest.raises(ValueError, match="an answer that it never gives"):
        nash_mirror_prox(P, [0.5, 0.5, 0.0])
    for beta in (0.0, -1.0):
        with pytest.raises(ValueError, match="beta must be positive"):
            nash_mirror_prox(P, ref, beta=beta)
    with pytest.warns(UserWarning, match="up to which convergence is proven"):
        nash_mirror_prox(P, ref, beta=0.5, eta=1.5)
    with pytest.raises(ValueError, match="start"):
        nash_mirror_prox(P, ref, start=[1.0, 0.0, 0.0])
    for divergence in (TotalVariation(), LeCam()):
        with pytest.raises(TypeError, match="nash_mirror_prox needs"):
            nash_mirror_prox(P, ref, divergence=divergence)
    with pytest.raises(ValueError, match="non-finite"):
        nash_mirror_prox(P * math.nan, ref)


def _trained(P, ref, seed, **options):
    table = torch.nn.Embedding(1, len(P))
    with torch.no_grad():
        table.weight.copy_(ref.log().float())
    judge = P.float()
    method = NashMirrorProx(beta=0.5, group=128, inner=Training(steps=10, learning_rate=0.1, final_share=0.1), **options)
    fit = method.fit(
        CategoricalPolicy(table),
        torch.zeros(1, dtype=torch.long),
        lambda _, a, b: judge[a[..., 0], b[..., 0]],
        observe=lambda: exploitability(torch.softmax(table.weight.detach()[0].double(), -1), P, ref, beta=0.5),
        generator=torch.Generator().manual_seed(seed),
    )
    return table.weight.detach().clone(), fit


def test_self_play_comes_near_the_equilibrium_and_is_reproducible():
    P, ref = _game(5, 11)
    weights, fit = _trained(P, ref, 0, iterations=8)
    assert fit.observed[-1] < 0.01
    assert fit.observed[-1] < exploitability(ref, P, ref, beta=0.5)
    wanted = nash_mirror_prox(P, ref, beta=0.5).policy
    torch.testing.assert_close(torch.softmax(weights[0].double(), -1), wanted, atol=0.06, rtol=0)
    again, _ = _trained(P, ref, 0, iterations=8)
    assert torch.equal(weights, again)


def test_self_play_checks_its_judge():
    policy = CategoricalPolicy(torch.nn.Embedding(1, 3))
    prompts = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        NashMirrorProx().fit(policy, prompts, lambda _, a, b: 2.0 + 0 * a[..., 0].float())
    with pytest.raises(ValueError, match="one probability a pair"):
        NashMirrorProx().fit(policy, prompts, lambda _, a, b: torch.tensor(0.5))
    with pytest.raises(ValueError, match="no prompt"):
        NashMirrorProx().fit(policy, prompts[:0], lambda _, a, b: torch.tensor(0.5))
    for options in ({"beta": 0.0}, {"eta": -1.0}, {"group": 1}, {"iterations": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            NashMirrorProx(**options)
