"""The affine-invariant geometry, powers of Lyapunov's operator and eigenvalue floors against SciPy and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from discrepancy import ConvergenceWarning
from discrepancy.linalg import (
    affine_invariant_distance,
    affine_invariant_exp,
    affine_invariant_geodesic,
    affine_invariant_log,
    affine_invariant_mean,
    congruence,
    lyapunov,
    lyapunov_power,
    symmetric_floor,
)


def _spd(d: int, seed: int, count: int | None = None) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1 if count is None else count, d, d + 3))
    out = torch.as_tensor(x @ x.swapaxes(-1, -2) / (d + 3))
    return out[0] if count is None else out


def _symmetric(d: int, seed: int) -> torch.Tensor:
    x = torch.as_tensor(np.random.default_rng(seed).normal(size=(d, d)))
    return (x + x.mT) / 2


def _operator(P: torch.Tensor) -> np.ndarray:
    """Lyapunov's operator as a matrix on row-stacked vectors."""
    p, eye = P.numpy(), np.eye(P.shape[-1])
    return np.kron(p, eye) + np.kron(eye, p)


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.5, 1.0, 2.0])
def test_lyapunov_power_is_the_power_of_the_operator(exponent: float) -> None:
    P, V = _spd(4, 0), _symmetric(4, 1)
    truth = scipy.linalg.fractional_matrix_power(_operator(P), exponent) @ V.numpy().ravel()
    np.testing.assert_allclose(lyapunov_power(P, V, exponent).numpy().ravel(), truth, rtol=1e-9, atol=1e-12)


def test_lyapunov_power_inverts_and_agrees_with_the_solution() -> None:
    P, V = _spd(5, 2, 3), _symmetric(5, 3)
    torch.testing.assert_close(lyapunov_power(P, V, -1.0), lyapunov(P, V.expand(3, 5, 5)))
    torch.testing.assert_close(lyapunov_power(P, lyapunov_power(P, V, -0.5), 0.5), V.expand(3, 5, 5))


@pytest.mark.parametrize("exponent", [-0.5, 0.5])
@pytest.mark.parametrize("start", ["general", "identity"])
def test_lyapunov_power_differentiates_in_both(exponent: float, start: str) -> None:
    P = _spd(4, 4) if start == "general" else torch.eye(4, dtype=torch.float64)  # all eigenvalues coincide
    V = torch.stack([_symmetric(4, 5), _symmetric(4, 6)])

    def function(p: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return lyapunov_power((p + p.mT) / 2, (v + v.mT) / 2, exponent)

    assert torch.autograd.gradcheck(function, (P.requires_grad_(), V.requires_grad_()))


def test_lyapunov_power_is_zero_on_the_null_space() -> None:
    P = torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64))
    found = lyapunov_power(P, torch.ones(2, 2, dtype=torch.float64), -0.5)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0], [1.0, 2**-0.5]], dtype=torch.float64))


def test_floor_raises_eigenvalues_only_below_it() -> None:
    q, _ = torch.linalg.qr(_symmetric(4, 7))
    values = torch.tensor([-1.0, 0.2, 0.5, 2.0], dtype=torch.float64)
    raised = torch.tensor([0.5, 0.5, 0.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(symmetric_floor((q * values) @ q.mT, 0.5), (q * raised) @ q.mT)


def test_floor_differentiates_away_from_the_kink() -> None:
    q, _ = torch.linalg.qr(_symmetric(5, 8))
    matrix = (q * torch.tensor([-1.0, 0.2, 0.2, 0.9, 2.0], dtype=torch.float64)) @ q.mT
    assert torch.autograd.gradcheck(lambda s: symmetric_floor((s + s.mT) / 2, 0.5), matrix.requires_grad_())


def test_affine_distance_is_the_norm_of_generalised_log_eigenvalues() -> None:
    P, Q = _spd(5, 9), _spd(5, 10)
    truth = np.sqrt((np.log(scipy.linalg.eigh(Q.numpy(), P.numpy(), eigvals_only=True)) ** 2).sum())
    assert float(affine_invariant_distance(P, Q)) == pytest.approx(truth, rel=1e-12)
    A = torch.as_tensor(np.random.default_rng(11).normal(size=(5, 5)))
    assert float(affine_invariant_distance(congruence(A, P), congruence(A, Q))) == pytest.approx(truth, rel=1e-8)
    assert float(affine_invariant_distance(torch.linalg.inv(P), torch.linalg.inv(Q))) == pytest.approx(truth, rel=1e-9)


def test_affine_distance_vanishes_at_equality_with_its_gradient_and_differentiates() -> None:
    P, Q = _spd(3, 12).requires_grad_(), _spd(3, 13).requires_grad_()
    same = affine_invariant_distance(P, P.detach())
    assert float(same.detach()) == 0.0
    (slope,) = torch.autograd.grad(same, P)
    assert float(slope.abs().max()) == 0.0
    assert torch.autograd.gradcheck(lambda p, q: affine_invariant_distance((p + p.mT) / 2, (q + q.mT) / 2), (P, Q))


def test_affine_log_exp_and_geodesic_agree() -> None:
    P, Q = _spd(4, 14, 3), _spd(4, 15, 3)
    V = affine_invariant_log(P, Q)
    torch.testing.assert_close(affine_invariant_exp(P, V), Q)
    inverse = torch.linalg.inv(P)
    length = torch.einsum("kab,kbc,kcd,kda->k", inverse, V, inverse, V).sqrt()  # |V|_P^2 = tr(P^-1 V P^-1 V)
    torch.testing.assert_close(length, affine_invariant_distance(P, Q))
    middle = affine_invariant_geodesic(P, Q, 0.25)
    torch.testing.assert_close(affine_invariant_exp(P, 0.25 * V), middle)
    torch.testing.assert_close(affine_invariant_distance(P, middle), 0.25 * length)


def test_affine_mean_closed_forms() -> None:
    P, Q = _spd(4, 16), _spd(4, 17)
    pair, half = torch.stack([P, Q]), torch.tensor([0.7, 0.3], dtype=torch.float64)
    torch.testing.assert_close(affine_invariant_mean(pair, half), affine_invariant_geodesic(P, Q, 0.3))
    diagonal = torch.diag_embed(torch.as_tensor(np.random.default_rng(18).lognormal(size=(6, 4), sigma=3)))
    share = torch.full((6,), 1 / 6, dtype=torch.float64)
    truth = torch.diag(diagonal.diagonal(dim1=-2, dim2=-1).log().mean(0).exp())
    torch.testing.assert_close(affine_invariant_mean(diagonal, share), truth)


def test_affine_mean_is_equivariant_and_stationary() -> None:
    matrices, share = _spd(5, 19, 12), torch.full((12,), 1 / 12, dtype=torch.float64)
    center = affine_invariant_mean(matrices, share)
    A = torch.as_tensor(np.random.default_rng(20).normal(size=(5, 5)))
    torch.testing.assert_close(affine_invariant_mean(congruence(A, matrices), share), congruence(A, center), rtol=1e-6, atol=1e-8)
    assert float(affine_invariant_log(center, matrices).mean(0).norm()) < 1e-9
    single = affine_invariant_mean(matrices.float(), share.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), center, rtol=1e-4, atol=1e-5)


def test_affine_mean_says_when_it_stops_early() -> None:
    matrices = _spd(4, 21, 5)
    with pytest.warns(ConvergenceWarning, match="affine_invariant_mean"):
        affine_invariant_mean(matrices, torch.full((5,), 0.2, dtype=torch.float64), max_iterations=1)


def test_singular_matrices_are_infinitely_far() -> None:
    with pytest.raises(ValueError, match="positive definite"):
        affine_invariant_distance(torch.zeros(2, 2), torch.eye(2))
