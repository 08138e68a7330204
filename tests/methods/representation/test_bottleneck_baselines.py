"""Correlation alignment by hand, the variational bottleneck's bound, and attacks on models whose worst case is known."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from discrepancy.methods.representation.adversarial_inputs import FastGradientSign, ProjectedGradient
from discrepancy.methods.representation.baselines import CorrelationAlignment, VariationalBottleneck
from discrepancy.testing.conformity import CHECKS, Case


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# It sees covariances only, so that it does not tell a cloud from its translate.
KEPT = {name: check for name, check in CHECKS.items() if not name.endswith("separates")}


@pytest.mark.parametrize("check", KEPT.values(), ids=KEPT.keys())
def test_contract_of_correlation_alignment(check) -> None:
    check(Case(CorrelationAlignment()))


def test_correlation_alignment_by_hand() -> None:
    x, y = normal(20, 3), 2 * normal(30, 3, seed=1)
    gap = torch.cov(x.T, correction=0) - torch.cov(y.T, correction=0)
    assert float(CorrelationAlignment()(x, y)) == pytest.approx(float(gap.square().sum()) / 36)
    assert float(CorrelationAlignment()(x, x + 5)) == pytest.approx(0.0, abs=1e-20)


def test_the_variational_penalty_is_the_divergence_from_the_prior() -> None:
    x, y = normal(10, 3).float(), normal(10, 1, seed=1).float()
    losses = []
    for beta in (0.0, 2.0):
        net = VariationalBottleneck(3, 1, latent_dim=4, width=8, beta=beta, generator=torch.Generator().manual_seed(0))
        losses.append(float(net.loss(x, y, generator=torch.Generator().manual_seed(5)).detach()))
    mean, log_variance = net.encoder(x).detach().chunk(2, -1)
    prior = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(-1).mean()
    assert losses[1] - losses[0] == pytest.approx(2 * float(prior), rel=1e-4)
    torch.testing.assert_close(net(x), net.decoder(mean))
    with pytest.raises(ValueError, match="beta"):
        VariationalBottleneck(3, 1, beta=-1.0)
    with pytest.raises(ValueError, match="must be the same"):
        net.loss(x, y.squeeze(1))


def test_attacks_on_a_linear_model_reach_the_corner() -> None:
    w, x = torch.tensor([[2.0], [-1.0], [0.0]], dtype=torch.float64), normal(6, 3)
    y = x @ w + torch.tensor([[1.0], [-1.0], [2.0], [-2.0], [0.5], [3.0]], dtype=torch.float64)
    one = FastGradientSign(0.3)(lambda z: z @ w, x, y)
    # The residual's size grows by 0.3 |w|_1 for every row, and no more is possible in the box.
    residual = (x @ w - y).abs()
    torch.testing.assert_close((one @ w - y).abs(), residual + 0.3 * 3)
    torch.testing.assert_close(ProjectedGradient(0.3, 0.1, 5)(lambda z: z @ w, x, y), one)
    assert torch.equal(FastGradientSign(0.0)(lambda z: z @ w, x, y), x)


def test_projected_steps_stay_in_the_box_and_do_no_worse() -> None:
    net = VariationalBottleneck(3, 1, generator=torch.Generator().manual_seed(1))
    x, y = normal(20, 3).float(), normal(20, 1, seed=2).float()
    many = ProjectedGradient(0.3, 0.05, 10)(net, x, y)
    assert float((many - x).abs().max()) <= 0.3 + 1e-6
    assert float((net(many) - y).square().mean().detach()) > float((net(x) - y).square().mean().detach())
    assert all(p.grad is None for p in net.parameters())
    assert not many.requires_grad


def test_bad_attacks() -> None:
    x = normal(4, 2)
    with pytest.raises(ValueError, match="they would broadcast"):
        FastGradientSign()(lambda z: z.sum(1, keepdim=True), x, x.sum(1))
    with pytest.raises(ValueError, match="size"):
        FastGradientSign(-0.1)
    with pytest.raises(ValueError, match="steps"):
        ProjectedGradient(steps=0)
