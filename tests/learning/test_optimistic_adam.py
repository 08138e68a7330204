"""Optimistic Adam: the game on which plain Adam circles, and a plain minimum."""

import pytest
import torch
from torch import nn

from discrepancy.learning.optimistic_adam import OptimisticAdam


def _play(players_of, steps=3000):
    x, y = (nn.Parameter(torch.ones((), dtype=torch.float64)) for _ in range(2))
    players = players_of(x, y)
    for _ in range(steps):
        for player in players:
            player.zero_grad()
        (x * y).backward()
        for player in players:
            player.step()
    return float((x * x + y * y).detach().sqrt())


def test_the_bilinear_game_is_damped():
    # Plain descent and ascent spiral outwards, by a factor sqrt(1 + rate^2) a step.
    plain = _play(lambda x, y: (torch.optim.SGD([x], 0.02), torch.optim.SGD([y], 0.02, maximize=True)))
    assert plain == pytest.approx(2**0.5 * (1 + 0.02**2) ** 1500, rel=1e-9)
    assert _play(lambda x, y: (OptimisticAdam([x], 0.01), OptimisticAdam([y], 0.01, maximise=True))) < 0.1


def test_a_quadratic_is_minimised_and_options_are_checked():
    x = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimiser = OptimisticAdam([x], 0.05)
    for _ in range(500):
        optimiser.zero_grad()
        (x - 1).square().sum().backward()
        optimiser.step()
    torch.testing.assert_close(x.detach(), torch.ones(2), atol=1e-2, rtol=0)
    with pytest.raises(ValueError, match="rate must be positive"):
        OptimisticAdam([x], 0.0)
    with pytest.raises(ValueError, match="betas"):
        OptimisticAdam([x], betas=(1.0, 0.5))
