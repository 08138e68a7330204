"""Wasserstein predictive coding: slopes in closed form, the bound's ceiling, the dual against exact transport, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from discrepancy import Wasserstein
from discrepancy.learning import GradientPenalty, Training
from discrepancy.methods.representation.wasserstein_dependency import (
    PredictiveCoding,
    WassersteinDual,
    WassersteinPredictiveCoding,
    pair_slopes,
)
from discrepancy.networks import MLP, BilinearCritic, ConcatenatedCritic


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_objectives_in_closed_form() -> None:
    scores = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    rows = scores.tolist()
    coding = sum(r[i] - math.log(sum(math.exp(v) for v in r) / 3) for i, r in enumerate(rows)) / 3
    assert float(PredictiveCoding().value(scores)) == pytest.approx(coding)
    off = sum(v for i, r in enumerate(rows) for j, v in enumerate(r) if i != j) / 6
    assert float(WassersteinDual().value(scores)) == pytest.approx(2.0 - off)
    assert float(PredictiveCoding().value(1e4 * torch.eye(32))) == pytest.approx(math.log(32))


def test_slopes_of_linear_and_flat_critics() -> None:
    x, y = torch.randn(10, 3, generator=_generator()), torch.randn(10, 2, generator=_generator(1))
    u, v = torch.tensor([1.0, -2.0, 2.0]), torch.tensor([3.0, 4.0])
    slopes = pair_slopes(lambda a, b: a @ u + b @ v, x, y, generator=_generator())
    torch.testing.assert_close(slopes, torch.full((10,), math.sqrt(9 + 25)))
    flat = pair_slopes(lambda a, b: (a.sum(-1) + b.sum(-1)) * 0, x, y, generator=_generator())
    assert not bool(flat.any())
    assert float(GradientPenalty(2.0).of(torch.tensor([0.5, 2.0]))) == pytest.approx(2 * (0.25 + 1) / 2)
    assert float(GradientPenalty(2.0, one_sided=True).of(torch.tensor([0.5, 2.0]))) == pytest.approx(1.0)


def test_the_penalty_has_the_right_derivative() -> None:
    x, y = (torch.randn(6, 2, generator=_generator(s), dtype=torch.float64) for s in (0, 1))
    critic = BilinearCritic(2, 2, generator=_generator(2), dtype=torch.float64)
    loss = WassersteinPredictiveCoding(nn.Identity(), nn.Identity(), critic)
    weight = critic.weight.detach().clone()

    def value(w: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(loss, {"critic.weight": w}, (x, y), {"generator": _generator(3)})

    assert torch.autograd.gradcheck(value, (weight.requires_grad_(),), eps=1e-6, atol=1e-6)


def test_the_dual_reaches_the_transport_distance() -> None:
    # The pairs sit on two points, (0, 0) and (4, 4); the product on four: W_1 = 1/2 of the mass over distance 4.
    signs = torch.randint(0, 2, (40, 1), generator=_generator()).float() * 4
    x = y = signs
    product = torch.cat([signs, signs[torch.randperm(40, generator=_generator(1))]], -1)
    truth = float(Wasserstein(1)(torch.cat([x, y], -1), product))
    critic = ConcatenatedCritic(1, 1, MLP(32, 2, nn.Softplus), generator=_generator(2))
    loss = WassersteinPredictiveCoding(
        nn.Identity(), nn.Identity(), critic, objective=WassersteinDual(), penalty=GradientPenalty(one_sided=True)
    )
    chance = _generator(3)
    Training(steps=250, learning_rate=1e-2).run(loss.parameters(), lambda _: (loss(x, y, generator=chance), {}))
    found = loss.terms(x, y, generator=chance)
    assert truth == pytest.approx(2.0, rel=0.1)
    assert float(found.objective) == pytest.approx(2.0, rel=0.15)
    assert 0.5 < float(found.slope) < 1.2


def test_embeddings_and_no_penalty() -> None:
    tokens = torch.randint(0, 5, (8, 1), generator=_generator())

    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(x[:, 0])

    critic = BilinearCritic(4, 4)
    with pytest.raises(TypeError, match="penalise embeddings"):
        WassersteinPredictiveCoding(Embedding(), Embedding(), critic)(tokens, tokens)
    loss = WassersteinPredictiveCoding(Embedding(), Embedding(), critic, penalise_embeddings=True)
    loss(tokens, tokens).backward()
    assert all(p.grad is not None for p in loss.parameters())
    bare = WassersteinPredictiveCoding(Embedding(), Embedding(), critic, penalty=None).terms(tokens, tokens)
    assert torch.equal(bare.loss, -bare.objective)


def test_bad_input() -> None:
    x = torch.randn(4, 2)
    plain = WassersteinPredictiveCoding(nn.Identity(), nn.Identity(), BilinearCritic(2, 2))
    with pytest.raises(ValueError, match="batch of one"):
        plain(x[:1], x[:1])
    with pytest.raises(ValueError, match="paired row by row"):
        plain(x, x[:3])
    with pytest.raises(TypeError, match="critic must score"):
        WassersteinPredictiveCoding(nn.Identity(), nn.Identity(), nn.Linear(2, 2))
    with pytest.raises(TypeError, match="objective"):
        WassersteinPredictiveCoding(nn.Identity(), nn.Identity(), BilinearCritic(2, 2), objective="wpc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight"):
        GradientPenalty(-1.0)
    with pytest.raises(ValueError, match="slope"):
        GradientPenalty(slope=0.0)
    with pytest.warns(UserWarning, match="normalises over the batch"):
        WassersteinPredictiveCoding(nn.BatchNorm1d(2), nn.Identity(), BilinearCritic(2, 2))
