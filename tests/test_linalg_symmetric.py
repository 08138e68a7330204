"""Functions of symmetric matrices against SciPy, and their gradients against finite differences at coinciding eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from discrepancy.linalg import lyapunov, symmetric_exp, symmetric_log, symmetric_power


def _spd(d: int, seed: int, values: list[float] | None = None) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    spectrum = rng.uniform(0.5, 3, d) if values is None else np.asarray(values)
    return torch.as_tensor((q * spectrum) @ q.T)


FUNCTIONS = {
    "root": (lambda s: symmetric_power(s, 0.5), scipy.linalg.sqrtm),
    "inverse root": (lambda s: symmetric_power(s, -0.5), lambda s: np.linalg.inv(scipy.linalg.sqrtm(s))),
    "power 0.3": (lambda s: symmetric_power(s, 0.3), lambda s: scipy.linalg.fractional_matrix_power(s, 0.3)),
    "square": (lambda s: symmetric_power(s, 2.0), lambda s: s @ s),
    "log": (symmetric_log, scipy.linalg.logm),
    "exp": (symmetric_exp, scipy.linalg.expm),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_agrees_with_scipy(name: str) -> None:
    ours, truth = FUNCTIONS[name]
    s = _spd(5, 1)
    np.testing.assert_allclose(ours(s).numpy(), truth(s.numpy()), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("values", [None, [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 2.0, 2.0 + 1e-9], [1e-2, 1.0, 1.0, 3.0]])
def test_gradient_agrees_with_finite_differences(name: str, values: list[float] | None) -> None:
    ours, _ = FUNCTIONS[name]
    s = _spd(4, 2, values).requires_grad_()
    probe = torch.as_tensor(np.random.default_rng(3).normal(size=(4, 4)))
    (slope,) = torch.autograd.grad((ours(s) * probe).sum(), s)
    direction = _spd(4, 4) - 1.5 * torch.eye(4, dtype=torch.float64)
    h = 1e-5 * float(np.linalg.eigvalsh(s.detach().numpy())[0])
    up, down = ((ours(s.detach() + t * direction) * probe).sum() for t in (h, -h))
    assert float((slope * direction).sum()) == pytest.approx(float((up - down) / (2 * h)), rel=2e-5, abs=1e-8)


def test_root_of_a_singular_matrix_has_a_finite_gradient() -> None:
    s = _spd(3, 5, [0.0, 1.0, 2.0]).requires_grad_()
    value = symmetric_power(s, 0.5)
    (slope,) = torch.autograd.grad(value.sum(), s)
    assert torch.isfinite(slope).all()
    np.testing.assert_allclose((value @ value).detach().numpy(), s.detach().numpy(), atol=1e-12)


def test_lyapunov_solves_its_equation_and_differentiates() -> None:
    p, v = _spd(4, 6).requires_grad_(), (_spd(4, 7) - torch.eye(4, dtype=torch.float64)).requires_grad_()
    s = lyapunov(p, v)
    np.testing.assert_allclose((p @ s + s @ p).detach().numpy(), v.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(s.detach().numpy(), scipy.linalg.solve_continuous_lyapunov(p.detach().numpy(), v.detach().numpy()))

    def symmetric(p: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return lyapunov((p + p.mT) / 2, (v + v.mT) / 2)

    assert torch.autograd.gradcheck(symmetric, (p, v))
