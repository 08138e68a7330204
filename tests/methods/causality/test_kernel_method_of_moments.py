"""The kernel method of moments: its dual against a general solver and weak duality, envelope gradients, limits, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from discrepancy import KL, JensenShannon, NeymanChiSquared, NumericalError, ReverseKL, TotalVariation
from discrepancy.kernels import Gaussian, Laplacian
from discrepancy.kernels.landmarks import features_at
from discrepancy.methods.causality import (
    KernelInstruments,
    KernelIVRegressor,
    KernelMethodOfMoments,
    NeuralInstruments,
    ProfileSolver,
    SaddleSolver,
    SmoothedReference,
)
from discrepancy.methods.causality.kmm_dual import InnerProblem


class Number(nn.Module):
    def __init__(self, start=0.0):
        super().__init__()
        self.theta = nn.Parameter(torch.full((1,), float(start)))

    def forward(self, t):
        return self.theta * t


def centred(model, blocks):
    return blocks["x"] - model.theta


def residual(model, blocks):
    return blocks["y"] - model(blocks["t"])


def normal(model, blocks):
    d = blocks["x"] - model.theta
    return torch.cat([d, d.square() - 1], -1)


def _problem(divergence, penalty=0.1, epsilon=0.7):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    features = features_at(points, Gaussian(1.0))(points)
    moments = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    weights = torch.full((12,), 1 / 12, dtype=torch.float64)
    return InnerProblem(features[:8], features, weights, divergence.reversed(), epsilon, penalty), moments


@pytest.mark.parametrize("divergence", [ReverseKL(), KL(), 0.5 * NeymanChiSquared(), JensenShannon()], ids=repr)
def test_newton_finds_the_primal_value(divergence):
    problem, moments = _problem(divergence)
    v = problem.solve(moments, None)
    dual = float(problem.value(v, moments))
    # The primal: a law q on the points, its squared MMD to the data, its divergence, and the penalised restriction.
    gram = problem.features @ problem.features.T
    data = torch.zeros(12, dtype=torch.float64)
    data[:8] = 1 / 8
    law = problem.weights * problem.ratio(v, moments)
    assert float(law.sum()) == pytest.approx(1, abs=1e-9)

    def primal(q):
        q = torch.as_tensor(q, dtype=torch.float64)
        q = q / q.sum()
        gap = q - data
        restriction = (q @ moments).square().sum() / (2 * problem.penalty)
        return float(0.5 * gap @ gram @ gap + problem.epsilon * divergence.from_probs(problem.weights, q) + restriction)

    assert primal(law) == pytest.approx(dual, abs=1e-7)
    found = minimize(primal, problem.weights.numpy(), bounds=[(1e-9, 1)] * 12, method="L-BFGS-B")
    assert dual <= found.fun + 1e-7


def test_the_slope_in_theta_is_that_of_the_envelope():
    problem, moments = _problem(ReverseKL())
    direction = torch.randn(12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    shifted = moments + theta * direction
    value = problem.value(problem.solve(shifted, None), shifted)
    slope = float(torch.autograd.grad(value, theta)[0])
    h = 1e-5
    ends = [float(problem.value(problem.solve(m, None), m)) for m in (moments + h * direction, moments - h * direction)]
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("divergence", [ReverseKL(), KL()], ids=repr)
def test_just_identified_means_are_the_sample_mean(epsilon, divergence):
    x = np.random.default_rng(0).normal(3, 2, 40)
    found = KernelMethodOfMoments(
        Number(),
        centred,
        divergence=divergence,
        epsilon=epsilon,
        reference=SmoothedReference(0),
        start=Number(15.0),
        random_state=0,
    ).fit({"x": x})
    assert float(found.params_) == pytest.approx(x.mean(), abs=1e-3 * x.std())
    assert found.value_ == pytest.approx(0, abs=1e-8)


def test_few_points_need_the_reference():
    close = np.array([0.9, 1.0, 1.1, 1.2, 1.3])  # range below 2: no reweighting has variance one
    with pytest.raises(NumericalError, match="no law near"):
        KernelMethodOfMoments(Number(), normal, penalty=0.0, reference=SmoothedReference(0), random_state=0).fit({"x": close})
    found = KernelMethodOfMoments(Number(), normal, epsilon=1.0, random_state=0).fit({"x": close})
    assert 0.0 < float(found.params_) < 2.2


def test_heteroskedastic_slopes_beat_least_squares():
    ours, plain = [], []
    for seed in range(50, 56):
        random = np.random.default_rng(seed)
        t = np.exp(random.uniform(-1.5, 1.5, 100))
        y = 1.7 * t + t**2 * random.normal(size=100)
        model = KernelIVRegressor(Number(), epsilon=1.0, random_state=0).fit(t, y, t)
        ours.append((float(model.estimator_.params_) - 1.7) ** 2)
        plain.append(((t @ y) / (t @ t) - 1.7) ** 2)
    assert np.mean(ours) < 0.3 * np.mean(plain)
    assert model.predict(t).shape == (100, 1)
    assert isinstance(model.predict(torch.from_numpy(t)), torch.Tensor)


def _instrumented(n=300, seed=0):
    random = np.random.default_rng(seed)
    z, e = random.uniform(-3, 3, (n, 2)), random.normal(size=n)
    t = z[:, 0] + e + 0.1 * random.normal(size=n)
    return z, t, -0.8 * t + 2 * e


@pytest.mark.parametrize(
    ("instruments", "solver"),
    [
        (KernelInstruments(), None),
        (KernelInstruments(Laplacian()), None),
        (NeuralInstruments(), SaddleSolver(steps=300, rate=2e-3)),
    ],
    ids=["gaussian", "laplacian", "neural"],
)
def test_instruments_remove_confounding(instruments, solver):
    z, t, y = _instrumented()
    least = float(t @ y / (t @ t))
    model = KernelMethodOfMoments(
        Number(), residual, epsilon=1.0, instruments=instruments, solver=solver, kernel=Gaussian(1.0), random_state=0
    ).fit({"t": t, "y": y}, z)
    assert abs(least + 0.8) > 0.3
    assert abs(float(model.params_) + 0.8) < 0.15
    again = KernelMethodOfMoments(
        Number(), residual, epsilon=1.0, instruments=instruments, solver=solver, kernel=Gaussian(1.0), random_state=0
    ).fit({"t": t, "y": y}, z)
    assert torch.equal(model.params_, again.params_)
    assert model.history_


def test_the_saddle_solver_agrees_with_the_profile_solver():
    x = np.random.default_rng(1).normal(0.4, 1, 200)
    options = {"epsilon": 1.0, "penalty": 0.1, "random_state": 0}
    profile = KernelMethodOfMoments(Number(), normal, solver=ProfileSolver(), **options).fit({"x": x})
    saddle = KernelMethodOfMoments(Number(), normal, solver=SaddleSolver(steps=300, rate=5e-3), **options).fit({"x": x})
    assert float(saddle.params_) == pytest.approx(float(profile.params_), abs=0.1)


def test_bad_input():
    x = np.random.default_rng(0).normal(size=30)
    good = KernelMethodOfMoments(Number(), centred)
    with pytest.raises(ValueError, match=r"same rows.*t: 30, y: 20"):
        KernelMethodOfMoments(Number(), residual).fit({"t": x, "y": x[:20]})
    with pytest.raises(ValueError, match="non-finite"):
        good.fit({"x": np.r_[x, np.nan]})
    with pytest.raises(ValueError, match="mapping"):
        good.fit(x)
    with pytest.raises(ValueError, match="need instruments"):
        KernelMethodOfMoments(Number(), centred, instruments=KernelInstruments()).fit({"x": x})
    with pytest.raises(ValueError, match="instruments is None"):
        good.fit({"x": x}, x)
    with pytest.raises(ValueError, match="moment 0 is constant"):
        KernelMethodOfMoments(Number(), lambda m, b: b["x"] * 0 + m.theta - 1, start=Number(3)).fit({"x": x})
    with pytest.warns(UserWarning, match=r"read as \(30, 1\)"):
        KernelMethodOfMoments(Number(), lambda m, b: (b["x"] - m.theta)[:, 0], random_state=0).fit({"x": x})
    with pytest.raises(ValueError, match="one row of moments"):
        KernelMethodOfMoments(Number(), lambda m, b: (b["x"] - m.theta)[:5], random_state=0).fit({"x": x})
    levels = np.arange(30) % 3
    with pytest.warns(UserWarning, match="one-hot"):
        KernelMethodOfMoments(Number(), residual, instruments=KernelInstruments(), random_state=0).fit(
            {"t": x, "y": x + levels + 0.1 * x**2}, levels
        )
    with pytest.raises(ValueError, match="epsilon must be positive"):
        KernelMethodOfMoments(Number(), centred, epsilon=0.0)
    with pytest.raises(TypeError, match="twice differentiable"):
        KernelMethodOfMoments(Number(), centred, divergence=TotalVariation())
    with pytest.raises(TypeError, match="finite everywhere"):
        KernelMethodOfMoments(Number(), centred, divergence=KL(), solver=SaddleSolver())
    with pytest.raises(TypeError, match="concave dual"):
        KernelMethodOfMoments(Number(), centred, instruments=NeuralInstruments(), solver=ProfileSolver())
    with pytest.raises(TypeError, match="must be a kernel"):
        KernelMethodOfMoments(Number(), centred, kernel="gaussian")
    with pytest.raises(ValueError, match="no parameters"):
        KernelMethodOfMoments(nn.ReLU(), centred).fit({"x": x})
    with pytest.raises(ValueError, match="bandwidth"):
        SmoothedReference(10, 0.0)
    with pytest.raises(ValueError, match="held_out"):
        SaddleSolver(held_out=1.0)
