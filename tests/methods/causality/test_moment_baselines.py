"""The plain estimators from moments, against closed forms."""

import numpy as np
import pytest
import torch
from torch import nn

from discrepancy.kernels import Gaussian
from discrepancy.methods.causality import gmm, least_squares, maximum_moment_restriction, mmr_statistic, sieve_minimum_distance


def _residual(model, blocks):
    return blocks["y"] - model(blocks["t"])


def _instrumented(n=200):
    random = np.random.default_rng(3)
    z, e = random.normal(size=(n, 2)), random.normal(size=n)
    t = z @ np.array([1.0, 0.5]) + e
    return z, t, 2 * t - 3 * e + 1


def _fitted(model):
    return np.array([float(model.weight.detach()), float(model.bias.detach())])


def test_least_squares_is_the_normal_equations():
    _, t, y = _instrumented()
    design = np.c_[t, np.ones_like(t)]
    want = np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(_fitted(least_squares(nn.Linear(1, 1), t, y)), want, atol=1e-6)


def test_one_step_of_the_sieve_is_two_stage_least_squares():
    z, t, y = _instrumented()
    standard = (z - z.mean(0)) / z.std(0, ddof=1)
    basis, design = np.c_[np.ones(len(z)), standard], np.c_[t, np.ones_like(t)]
    projection = basis @ np.linalg.solve(basis.T @ basis, basis.T)
    want = np.linalg.solve(design.T @ projection @ design, design.T @ projection @ y)
    found = sieve_minimum_distance(nn.Linear(1, 1), _residual, {"t": t, "y": y}, z, degree=1, steps=1)
    np.testing.assert_allclose(_fitted(found), want, atol=1e-5)


def test_two_step_gmm_weights_by_the_inverse_covariance():
    random = np.random.default_rng(0)
    x = np.c_[random.normal(1, 1, 300), random.normal(1, 3, 300)]

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(1))

    found = gmm(Mean(), lambda m, b: b["x"] - m.theta, {"x": x})
    weight = np.linalg.inv(np.cov(x.T, bias=True))
    want = weight.sum(0) @ x.mean(0) / weight.sum()
    assert float(found.theta.detach()) == pytest.approx(want, abs=1e-6)
    plain = gmm(Mean(), lambda m, b: b["x"] - m.theta, {"x": x}, steps=1)
    assert float(plain.theta.detach()) == pytest.approx(x.mean(), abs=1e-6)


def test_the_mmr_statistic_and_its_minimum():
    z, t, y = _instrumented(60)
    kernel = Gaussian(1.0)
    K = np.exp(-((z[:, None] - z[None]) ** 2).sum(-1) / 2)
    psi = np.random.default_rng(1).normal(size=(60, 2))
    want = np.einsum("ik,jk,ij->", psi, psi, K) / 60**2
    assert float(mmr_statistic(psi, z, kernel)) == pytest.approx(want, rel=1e-9)
    design = np.c_[t, np.ones_like(t)]
    best = np.linalg.solve(design.T @ K @ design, design.T @ K @ y)
    found = maximum_moment_restriction(nn.Linear(1, 1), _residual, {"t": t, "y": y}, z, kernel=kernel)
    np.testing.assert_allclose(_fitted(found), best, atol=1e-4)
    with pytest.raises(ValueError, match="must be paired"):
        mmr_statistic(psi, z[:10])
    with pytest.raises(ValueError, match="constant"):
        sieve_minimum_distance(nn.Linear(1, 1), _residual, {"t": t, "y": y}, np.ones(60))
