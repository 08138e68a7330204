"""Maps with two doors: closed forms, POT's and scikit-learn's facts, clone and Pipeline, weights, dtypes, bad input."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import ot
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.base import clone
from sklearn.covariance import ledoit_wolf
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from discrepancy import OptimalTransport, Sinkhorn, SinkhornDivergence, UnbalancedSinkhorn
from discrepancy.costs import Manhattan
from discrepancy.networks import MLP
from discrepancy.transport import (
    BarycentricTransportMap,
    EntropicTransportMap,
    GaussianTransportMap,
    LedoitWolfCovariance,
    NeuralMap,
    RidgeCovariance,
    SampleCovariance,
    SemiDualNewton,
)

MAPS: dict[str, Any] = {
    "barycentric": BarycentricTransportMap(),
    "entropic": EntropicTransportMap(Sinkhorn(0.5)),
    "debiased": EntropicTransportMap(SinkhornDivergence(0.5)),
    "gaussian": GaussianTransportMap(),
    "neural": NeuralMap(network=MLP(8, 1), steps=5, random_state=0),
}


def clouds(n: int = 60, m: int = 50, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) @ np.diag(np.linspace(0.5, 2, d)) + 1


@pytest.mark.parametrize("name", MAPS)
def test_both_doors_clone_pipeline_and_pickle(name: str) -> None:
    X, Y = clouds()
    model = clone(MAPS[name])
    assert not hasattr(model, "module_")
    image = model.fit_transform(X, Y)
    assert isinstance(image, np.ndarray)
    assert image.shape == X.shape
    tensor = torch.from_numpy(X)
    assert torch.equal(model.transform(tensor), torch.from_numpy(image))
    np.testing.assert_allclose(model.module_(tensor).detach().numpy(), image, atol=1e-12)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), image)
    piped = make_pipeline(StandardScaler(), clone(MAPS[name])).fit(X, Y)
    direct = clone(MAPS[name]).fit(StandardScaler().fit_transform(X), Y)
    np.testing.assert_allclose(piped.transform(X), direct.transform(StandardScaler().fit_transform(X)), atol=1e-12)


def test_clone_keeps_a_cost_function() -> None:
    def cost(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (u - v).abs().sum(-1)

    assert clone(NeuralMap(cost=cost)).cost is not None  # type: ignore[arg-type]


def test_options_by_name() -> None:
    model = GaussianTransportMap()
    assert set(model.get_params()) == {"covariance"}
    assert model.set_params(covariance=SampleCovariance()).covariance == SampleCovariance()
    with pytest.raises(ValueError, match="no option 'reg'"):
        model.set_params(reg=1.0)
    with pytest.raises(TypeError, match="covariance must be"):
        model.set_params(covariance=0.1)


def test_gaussian_map_matches_moments_and_pot() -> None:
    X, Y = clouds(400, 300)
    model = GaussianTransportMap(SampleCovariance()).fit(X, Y)
    image = model.transform(X)
    np.testing.assert_allclose(image.mean(0), Y.mean(0), atol=1e-12)
    np.testing.assert_allclose(np.cov(image.T, bias=True), np.cov(Y.T, bias=True), atol=1e-10)
    S, R = np.cov(X.T, bias=True), np.cov(Y.T, bias=True)
    half = np.real(sqrtm(S))
    A = np.linalg.inv(half) @ np.real(sqrtm(half @ R @ half)) @ np.linalg.inv(half)
    np.testing.assert_allclose(model.module_.matrix.numpy(), A, atol=1e-10)
    np.testing.assert_allclose(model.inverse_transform(image), X, atol=1e-9)
    theirs = ot.da.LinearTransport(reg=1e-12).fit(Xs=X, Xt=Y).transform(Xs=X)
    np.testing.assert_allclose(image, theirs, rtol=0.02, atol=0.02)  # they divide by n - 1 and n - 1


def test_gaussian_map_weighs_points() -> None:
    X, Y = clouds(40, 30)
    counts = np.random.default_rng(1).integers(0, 4, 40)
    weighted = GaussianTransportMap(SampleCovariance()).fit(X, Y, counts / counts.sum())
    repeated = GaussianTransportMap(SampleCovariance()).fit(np.repeat(X, counts, 0), Y)
    np.testing.assert_allclose(weighted.transform(X), repeated.transform(X), atol=1e-10)


def test_ledoit_wolf_is_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    for n, d in ((30, 50), (200, 5), (2, 3)):
        x = rng.normal(size=(n, d)) * np.linspace(0.2, 2, d)
        w = torch.full((n,), 1 / n, dtype=torch.float64)
        _, S = LedoitWolfCovariance().estimate(torch.from_numpy(x), w)
        np.testing.assert_allclose(S.numpy(), ledoit_wolf(x)[0], atol=1e-12)


def test_fewer_points_than_dimensions() -> None:
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(10, 30)), 2 * rng.normal(size=(12, 30))
    z = rng.normal(size=(5, 30))
    for covariance in (LedoitWolfCovariance(), RidgeCovariance(0.1)):
        model = GaussianTransportMap(covariance).fit(X, Y)
        np.testing.assert_allclose(model.inverse_transform(model.transform(z)), z, atol=1e-8)
    assert float(torch.linalg.matrix_rank(GaussianTransportMap(SampleCovariance()).fit(X, Y).module_.matrix)) <= 9
    one = GaussianTransportMap().fit(X[:1], Y[:1])
    np.testing.assert_allclose(one.transform(X[:1]), Y[:1])


def test_barycentric_map_is_the_permutation_and_pots() -> None:
    X, Y = clouds(50, 50)
    model = BarycentricTransportMap().fit(X, Y)
    theirs = ot.da.EMDTransport().fit(Xs=X, Xt=Y).transform(Xs=X)
    np.testing.assert_allclose(model.transform(X), theirs, atol=1e-12)
    assert {tuple(row) for row in model.transform(X).round(10)} == {tuple(row) for row in Y.round(10)}
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), X, atol=1e-10)


def test_translations_are_found_everywhere() -> None:
    X, _ = clouds()
    shift = np.array([3.0, -1.0, 0.5])
    z = np.random.default_rng(4).normal(size=(7, 3))
    for model in (
        BarycentricTransportMap(),
        EntropicTransportMap(SinkhornDivergence(0.3, solver=SemiDualNewton(tolerance=1e-9))),
        GaussianTransportMap(),
    ):
        np.testing.assert_allclose(model.fit(X, X + shift).transform(z), z + shift, atol=1e-6)


def test_entropic_map_is_pots_at_the_samples_and_a_mean_elsewhere() -> None:
    X, Y = clouds()
    epsilon = 1.0
    model = EntropicTransportMap(Sinkhorn(epsilon, solver=SemiDualNewton(tolerance=1e-10))).fit(X, Y)
    plan = ot.sinkhorn(np.full(60, 1 / 60), np.full(50, 1 / 50), ot.dist(X, Y), epsilon, stopThr=1e-14, numItermax=20_000)
    np.testing.assert_allclose(model.transform(X), plan @ Y / plan.sum(1, keepdims=True), atol=1e-7)
    back = plan.T @ X / plan.sum(0)[:, None]
    np.testing.assert_allclose(model.inverse_transform(Y), back, atol=1e-7)
    barycentric = BarycentricTransportMap(Sinkhorn(epsilon, solver=SemiDualNewton(tolerance=1e-10))).fit(X, Y)
    np.testing.assert_allclose(barycentric.transform(X), model.transform(X), atol=1e-7)
    z = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    model.module_(z).sum().backward()
    assert float(z.grad.norm()) > 0  # type: ignore[union-attr]


def test_entropic_map_estimates_the_gaussian_one() -> None:
    rng = np.random.default_rng(5)
    X, Y = rng.normal(size=(1500, 2)), rng.normal(size=(1500, 2)) * np.array([2.0, 0.5]) + 1
    z = rng.normal(size=(100, 2)) * 0.7
    truth = z * np.array([2.0, 0.5]) + 1
    errors = {
        name: float(np.square(model.fit(X, Y).transform(z) - truth).mean())
        for name, model in (
            ("entropic", EntropicTransportMap(Sinkhorn(0.5))),
            ("debiased", EntropicTransportMap(SinkhornDivergence(0.5))),
            ("barycentric", BarycentricTransportMap()),
            ("gaussian", GaussianTransportMap()),
        )
    }
    assert errors["debiased"] < errors["entropic"] < 0.1
    assert errors["gaussian"] < 0.01
    assert errors["debiased"] < errors["barycentric"]


def test_weights_and_zeros() -> None:
    X, Y = clouds(20, 15)
    a = np.zeros(20)
    a[:5] = 0.2
    for transport in (OptimalTransport(), Sinkhorn(0.5)):
        some = BarycentricTransportMap(transport).fit(X, Y, a).transform(X[:5])
        alone = BarycentricTransportMap(transport).fit(X[:5], Y).transform(X[:5])
        np.testing.assert_allclose(some, alone, atol=1e-5)


def test_relaxed_marginals_leave_outliers_out() -> None:
    X, Y = clouds(40, 40)
    Y = np.vstack([Y, np.full((2, 3), 100.0)])
    image = EntropicTransportMap(UnbalancedSinkhorn(0.5)).fit(X, Y).transform(X)
    assert np.abs(image).max() < 10


@pytest.mark.parametrize("name", MAPS)
def test_single_precision_is_kept(name: str) -> None:
    X, Y = (v.astype(np.float32) for v in clouds())
    model = clone(MAPS[name]).fit(X, Y)
    assert model.transform(X).dtype == np.float32
    if name != "neural":
        double = clone(MAPS[name]).fit(X.astype(np.float64), Y.astype(np.float64)).transform(X.astype(np.float64))
        np.testing.assert_allclose(model.transform(X), double, atol=5e-3)


def test_a_strided_sample_and_one_dimension() -> None:
    rng = np.random.default_rng(6)
    wide = rng.normal(size=(60, 6))
    x, y = wide[::2, ::2], wide[1::2, 1::2]
    for model in (BarycentricTransportMap(), EntropicTransportMap(), GaussianTransportMap()):
        np.testing.assert_allclose(model.fit(x, y).transform(x), clone(model).fit(x.copy(), y.copy()).transform(x.copy()))
    line = BarycentricTransportMap().fit(x[:, 0], y[:, 0])
    np.testing.assert_allclose(np.sort(line.transform(x[:, :1]).ravel()), np.sort(y[:, 0]), atol=1e-12)


def test_costs_that_carry_no_displacement() -> None:
    X, Y = clouds(20, 20)
    model = BarycentricTransportMap(OptimalTransport(Manhattan())).fit(X, Y)
    assert model.module_.carries  # type: ignore[union-attr]
    opaque = BarycentricTransportMap(OptimalTransport(lambda u, v: (u * v).sum(-1).square())).fit(X, Y)
    image = opaque.transform(X + 1e-9)
    np.testing.assert_allclose(image, opaque.transform(X), atol=1e-12)


def test_bad_input_is_named() -> None:
    X, Y = clouds(10, 10)
    with pytest.raises(AttributeError, match="not fitted"):
        GaussianTransportMap().transform(X)
    with pytest.raises(AttributeError, match="not fitted"):
        EntropicTransportMap().inverse_transform(X)
    with pytest.raises(ValueError, match="same space"):
        GaussianTransportMap().fit(X, Y[:, :2])
    with pytest.raises(ValueError, match="batch"):
        EntropicTransportMap().fit(X[None], Y[None])
    with pytest.raises(ValueError, match="a must sum to 1"):
        BarycentricTransportMap().fit(X, Y, np.ones(10))
    with pytest.raises(TypeError, match="transport must be"):
        EntropicTransportMap(OptimalTransport())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="transport must be"):
        BarycentricTransportMap("emd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ridge"):
        RidgeCovariance(-1.0)
    with pytest.raises(ValueError, match="non-finite"):
        GaussianTransportMap().fit(np.full((3, 2), np.nan), Y[:, :2])
