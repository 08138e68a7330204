"""Logistic regression of a ratio with more features than rows: the optimum of the whole problem, by its stationarity."""

from __future__ import annotations

import torch

from discrepancy import KL, estimate
from discrepancy.estimation.ratios import Logistic


def test_the_optimum_is_that_of_all_features() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 25, generator=generator, dtype=torch.float64) + c for n, c in ((40, 0.3), (50, 0.0)))
    model = Logistic(ridge=0.02).fit(x, y, generator)
    rows = (model.features(model.scaling(torch.cat([x, y]))) - model.centre) / model.spread
    assert rows.shape[1] > len(rows)
    beta = model.beta.clone().requires_grad_()
    u = beta[0] + rows @ beta[1:]
    softplus = torch.nn.functional.softplus
    loss = softplus(-u[:40]).mean() / 2 + softplus(u[40:]).mean() / 2 + 0.02 * beta[1:].square().sum() / 2
    (slope,) = torch.autograd.grad(loss, beta)
    assert float(slope.abs().max()) < 1e-6
    assert float(model.beta[1:].abs().max()) > 1e-3


def test_many_dimensions_and_few_rows() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(30, 100, generator=generator) for _ in range(2))
    assert abs(float(estimate(x, y, KL(), method=Logistic(), generator=generator))) < 0.5
