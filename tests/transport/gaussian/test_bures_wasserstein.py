"""Gaussian transport against the textbook formula in high precision, SciPy, closed forms and finite differences."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import ot
import pytest
import torch

from discrepancy.transport.gaussian.geometry import (
    GaussianMap,
    bures_barycenter,
    bures_exp,
    bures_geodesic,
    bures_log,
    bures_wasserstein,
)
from discrepancy.transport.gaussian.wasserstein import GaussianWasserstein

F64 = torch.float64


def _spd(d: int, seed: int, values: np.ndarray | None = None) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return torch.as_tensor((q * (rng.uniform(0.2, 3, d) if values is None else values)) @ q.T)


def _truth(S: torch.Tensor, R: torch.Tensor) -> float:
    """The textbook formula in 60 digits."""
    with mpmath.workdps(60):

        def exact_root(M: mpmath.matrix) -> mpmath.matrix:
            values, vectors = mpmath.eigsy(M)
            return vectors * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * vectors.T

        def symmetric(M: mpmath.matrix) -> mpmath.matrix:
            return (M + M.T) / 2

        s, r = (symmetric(mpmath.matrix(t.tolist())) for t in (S, R))
        half = exact_root(s)
        inner, _ = mpmath.eigsy(symmetric(half * r * half))
        d = S.shape[0]
        trace = sum(s[i, i] + r[i, i] for i in range(d)) - 2 * sum(mpmath.sqrt(max(v, 0)) for v in inner)
        return float(mpmath.sqrt(max(trace, 0)))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_distance_is_the_textbook_formula(d: int) -> None:
    S, R = _spd(d, 1), _spd(d, 2)
    m = torch.arange(d, dtype=F64)
    ours = bures_wasserstein(m, S, 2 * m, R)
    assert float(ours) == pytest.approx(math.hypot(float(m.norm()), _truth(S, R)), rel=1e-13)
    assert float(ours) == float(bures_wasserstein(2 * m, R, m, S))


def test_nearly_equal_matrices_keep_their_digits() -> None:
    S = _spd(4, 3)
    R = S + 1e-9 * _spd(4, 4)
    assert float(bures_wasserstein(None, S, None, R)) == pytest.approx(_truth(S, R), rel=1e-5)  # the trace form answers 0 or 1e-8


def test_ill_conditioned_and_singular_matrices() -> None:
    spectrum = np.geomspace(1, 1e-12, 5)
    S, R = _spd(5, 5, spectrum), _spd(5, 6, spectrum)
    assert float(bures_wasserstein(None, S, None, R)) == pytest.approx(_truth(S, R), rel=1e-9)
    flat, other = _spd(4, 7, np.array([0.0, 0.0, 1.0, 2.0])), _spd(4, 8, np.array([0.0, 1.0, 1.0, 0.0]))
    assert float(bures_wasserstein(None, flat, None, other)) == pytest.approx(_truth(flat, other), rel=1e-7)
    point = torch.zeros(3, 3, dtype=F64)
    assert float(bures_wasserstein(None, point, None, _spd(3, 9))) == pytest.approx(float(_spd(3, 9).trace().sqrt()), rel=1e-12)


def test_zero_at_equality_with_zero_gradient() -> None:
    S = _spd(3, 10).requires_grad_()
    value = bures_wasserstein(None, S, None, S.detach())
    (slope,) = torch.autograd.grad(value, S)
    assert value.item() == 0
    assert bool((slope == 0).all())


def test_gradients_against_finite_differences() -> None:
    def distance(m1, L1, m2, L2):  # type: ignore[no-untyped-def]
        return bures_wasserstein(m1, L1 @ L1.mT, m2, L2 @ L2.mT)

    rng = torch.Generator().manual_seed(0)
    inputs = [torch.randn(*s, generator=rng, dtype=F64).requires_grad_() for s in ((2, 3), (2, 3, 3), (2, 3), (2, 3, 3))]
    assert torch.autograd.gradcheck(distance, inputs)


def test_batches_broadcast() -> None:
    S = torch.stack([_spd(3, k) for k in range(4)])
    table = bures_wasserstein(None, S[:, None], None, S[None])
    assert table.shape == (4, 4)
    assert bool((table.diagonal() == 0).all())
    assert bool((table == table.T).all())
    assert float(table[1, 2]) == pytest.approx(_truth(S[1], S[2]), rel=1e-12)


def test_generalised_metric_is_a_change_of_coordinates() -> None:
    S, R, M = _spd(3, 11), _spd(3, 12), _spd(3, 13)
    values, vectors = torch.linalg.eigh(M)
    whiten = vectors @ torch.diag(values**-0.5) @ vectors.mT
    m = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    expected = bures_wasserstein(whiten @ m, whiten @ S @ whiten, None, whiten @ R @ whiten)
    assert float(bures_wasserstein(m, S, None, R, metric=M)) == pytest.approx(float(expected), rel=1e-12)
    with pytest.raises(ValueError, match="positive definite"):
        bures_wasserstein(None, S, None, R, metric=torch.diag(torch.tensor([1.0, 0.0, 1.0], dtype=F64)))


def test_map_sends_one_gaussian_to_the_other_at_the_cost_of_the_distance() -> None:
    m1, S, m2, R = torch.ones(3, dtype=F64), _spd(3, 14), torch.zeros(3, dtype=F64), _spd(3, 15)
    T = GaussianMap.between(m1, S, m2, R)
    torch.testing.assert_close(T.matrix @ S @ T.matrix, R, rtol=1e-10, atol=1e-12)
    truth, shift = ot.gaussian.bures_wasserstein_mapping(m1.numpy(), m2.numpy(), S.numpy(), R.numpy())
    x = torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(T(x).numpy(), x.numpy() @ truth + shift, rtol=1e-9)
    eye = torch.eye(3, dtype=F64)
    cost = ((eye - T.matrix) @ S @ (eye - T.matrix)).trace() + (m1 - m2).square().sum()
    assert float(cost.sqrt()) == pytest.approx(float(bures_wasserstein(m1, S, m2, R)), rel=1e-12)


def test_geodesic_has_constant_speed_and_its_ends() -> None:
    m, S, R = torch.ones(3, dtype=F64), _spd(3, 16), _spd(3, 17)
    whole = float(bures_wasserstein(None, S, m, R))
    for t in (0.0, 0.25, 0.6, 1.0):
        at, C = bures_geodesic(None, S, m, R, t)
        assert float(bures_wasserstein(None, S, at, C)) == pytest.approx(t * whole, rel=1e-9, abs=1e-9)
        assert float(bures_wasserstein(at, C, m, R)) == pytest.approx((1 - t) * whole, rel=1e-9, abs=1e-7)


def test_logarithm_has_the_length_of_the_distance_and_exp_inverts_it() -> None:
    P, Q = _spd(4, 18), _spd(4, 19)
    V = bures_log(P, Q)
    from discrepancy.linalg import lyapunov

    assert float((lyapunov(P, V) * V).sum().div(2).sqrt()) == pytest.approx(float(bures_wasserstein(None, P, None, Q)), rel=1e-10)
    torch.testing.assert_close(bures_exp(P, V), Q, rtol=1e-10, atol=1e-12)


def test_barycenter_of_commuting_matrices_and_against_pot() -> None:
    values = torch.tensor([[1.0, 4.0], [9.0, 1.0]], dtype=F64)
    found = bures_barycenter(None, torch.diag_embed(values), [0.25, 0.75])
    expected = (0.25 * values[0].sqrt() + 0.75 * values[1].sqrt()) ** 2
    torch.testing.assert_close(found.covariance, torch.diag(expected), rtol=1e-9, atol=1e-9)
    S = torch.stack([_spd(3, k) for k in (20, 21, 22)])
    m = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    ours = bures_barycenter(m, S)
    mean, truth = ot.gaussian.bures_wasserstein_barycenter(m.numpy(), S.numpy(), eps=1e-12, num_iter=500)
    np.testing.assert_allclose(ours.covariance.numpy(), truth, rtol=1e-7)
    np.testing.assert_allclose(ours.mean.numpy(), np.ravel(mean), rtol=1e-12)


def test_bad_covariances_are_named() -> None:
    S = _spd(2, 23)
    with pytest.raises(ValueError, match="S2 is no covariance"):
        bures_wasserstein(None, S, None, -S)
    with pytest.raises(ValueError, match="S1 is not symmetric"):
        bures_wasserstein(None, torch.tensor([[1.0, 0.5], [0.0, 1.0]]), None, S)
    with pytest.raises(ValueError, match="dimension 2 and S2 3"):
        bures_wasserstein(None, S, None, _spd(3, 1))
    with pytest.raises(ValueError, match="m1 must have shape"):
        bures_wasserstein([0.0, 1.0, 2.0], S, None, S)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 30, 3), (5, 7, 12), (6, 40, 10)])
def test_samples_agree_with_their_moments(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, d)), 1.5 * rng.normal(size=(m, d)) + 0.3
    a = rng.dirichlet(np.ones(n))
    S, R = np.cov(x.T, aweights=a, bias=True), np.cov(y.T, bias=True)
    expected = bures_wasserstein(a @ x, S, y.mean(0), R)
    ours = GaussianWasserstein()(x, y, a)
    assert float(ours) == pytest.approx(float(expected), rel=1e-7)
    assert float(GaussianWasserstein()(y, x, None, a)) == float(ours)
    assert float(ours) <= math.sqrt(ot.emd2(a, np.full(m, 1 / m), ot.dist(x, y))) + 1e-12  # Gelbrich's bound


@pytest.mark.parametrize(("n", "m", "d"), [(9, 8, 2), (4, 5, 7)])
def test_sample_gradients(n: int, m: int, d: int) -> None:
    rng = torch.Generator().manual_seed(3)
    x, y = (torch.randn(2, k, d, dtype=F64, generator=rng).requires_grad_() for k in (n, m))
    logits = torch.randn(2, n, dtype=F64, generator=rng).requires_grad_()

    def distance(x, y, logits):  # type: ignore[no-untyped-def]
        return GaussianWasserstein()(x, y, logits.softmax(-1))

    assert torch.autograd.gradcheck(distance, (x, y, logits), atol=1e-6)


def test_zero_weights_take_no_part() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(8, 2)), rng.normal(size=(6, 2))
    a = np.r_[np.full(4, 0.25), np.zeros(4)]
    assert float(GaussianWasserstein()(x, y, a)) == pytest.approx(float(GaussianWasserstein()(x[:4], y)), rel=1e-12)
    w = torch.as_tensor(a).requires_grad_()
    GaussianWasserstein()(x, y, w).backward()
    assert w.grad is not None
    assert bool(torch.isfinite(w.grad).all())
