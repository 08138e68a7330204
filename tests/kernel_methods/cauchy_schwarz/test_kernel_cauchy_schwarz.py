"""The Cauchy-Schwarz divergence between samples: definition, closed forms of its limit, far samples, errors, resampling."""

from __future__ import annotations

import math

import pytest
import torch

from discrepancy import bootstrap, permutation_test
from discrepancy.divergences import CauchySchwarz
from discrepancy.kernel_methods import KernelCauchySchwarz
from discrepancy.kernel_methods.cauchy_schwarz.log_sum import LogCrossSum
from discrepancy.kernels import Gaussian, InverseMultiquadric, Kernel, Laplacian, Linear, MedianHeuristic
from discrepancy.testing.conformity import CHECKS, Case

OPTIONS = [
    KernelCauchySchwarz(Gaussian(1.0)),
    KernelCauchySchwarz(Gaussian(0.5) + 2.0 * Laplacian(1.0)),
    KernelCauchySchwarz(InverseMultiquadric(MedianHeuristic(0.5)), memory=1e-9),
]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
@pytest.mark.parametrize("D", OPTIONS, ids=["gaussian", "sum", "streamed"])
def test_keeps_the_contract(D: KernelCauchySchwarz, check) -> None:
    check(Case(D))


def normal(n: int, seed: int, d: int = 1) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masses(n: int, seed: int) -> torch.Tensor:
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return w / w.sum()


@pytest.mark.parametrize(("n", "m"), [(5, 7), (700, 600)])
def test_is_its_definition_under_weights(n: int, m: int) -> None:
    x, y, a, b = normal(n, 0, 3), normal(m, 1, 3) + 0.5, masses(n, 2), masses(m, 3)
    k = Gaussian(1.3).matrix
    truth = (a @ k(x, x) @ a).log() + (b @ k(y, y) @ b).log() - 2 * (a @ k(x, y) @ b).log()
    assert float(KernelCauchySchwarz(Gaussian(1.3))(x, y, a, b)) == pytest.approx(float(truth), rel=1e-10)


def test_is_the_discrete_divergence_where_the_kernel_sees_equality_only() -> None:
    # A very narrow kernel on a few atoms: the Gram matrix is the identity on atoms.
    p, q = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], dtype=torch.float64)
    atoms = torch.tensor([[0.0], [1.0], [2.0]]).double()
    value = KernelCauchySchwarz(Gaussian(1e-2))(atoms, atoms, p, q)
    assert float(value) == pytest.approx(float(CauchySchwarz().from_probs(p, q)), rel=1e-12)


@pytest.mark.parametrize(("shift", "width"), [(1.0, 1.0), (2.0, 0.3)])
def test_limit_for_two_normals(shift: float, width: float) -> None:
    x, y = normal(4000, 4), normal(4000, 5) + shift
    estimate = KernelCauchySchwarz(Gaussian(width)).solve(x, y)
    truth = shift**2 / (2 + width**2)  # each law smoothed by N(0, width^2 / 2)
    assert abs(float(estimate) - truth) < 4 * float(estimate.standard_error)
    assert float(estimate.standard_error) < 0.1 * truth


def test_standard_error_is_the_spread_over_samples() -> None:
    D = KernelCauchySchwarz(Gaussian(1.0))
    found = [D.solve(normal(80, 2 * s), normal(60, 2 * s + 1) + 1.5) for s in range(300)]
    spread = torch.tensor([float(e) for e in found]).std()
    claimed = torch.tensor([float(e.standard_error) for e in found]).median()
    assert float(claimed) == pytest.approx(float(spread), rel=0.15)


def test_far_samples_have_a_value_and_a_pull() -> None:
    x, y = normal(6, 0, 2), (normal(5, 1, 2) + 2000.0).requires_grad_()
    value = KernelCauchySchwarz(Gaussian(1.0))(x, y)
    nearest = (torch.cdist(x, y.detach()) ** 2).min()
    assert float(value.detach()) == pytest.approx(float(nearest), rel=1e-4)
    value.backward()
    assert float(y.grad.sum(0).min()) > 1000  # down the gradient is towards x


def test_a_near_point_of_weight_zero_does_not_bury_the_rest() -> None:
    x, y = normal(4, 0, 2), normal(3, 1, 2) + 100.0
    lure = torch.cat([y, x[:1]])
    b = torch.cat([torch.full((3,), 1 / 3, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    D = KernelCauchySchwarz(Gaussian(1.0))
    assert float(D(x, lure, None, b)) == pytest.approx(float(D(x, y)), rel=1e-12)


def test_log_sum_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from discrepancy.kernel_methods import streaming

    x, y = normal(40, 0, 2).requires_grad_(), (3 * normal(30, 1, 2)).requires_grad_()
    a, b = masses(40, 2).requires_grad_(), masses(30, 3).requires_grad_()

    def gradients() -> tuple[torch.Tensor, ...]:
        value = LogCrossSum.apply(Gaussian(0.2), x[None], a[None], y[None], b[None]).sum()
        return (value.detach(), *torch.autograd.grad(value, (x, a, y, b)))

    whole = gradients()
    monkeypatch.setattr(streaming, "_CPU_PAIRS", 64)
    for got, want in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


class Cut(Kernel):
    """Zero beyond distance 1."""

    def matrix(self, x, y):
        return (1 - torch.cdist(x, y)).clamp_min(0)


def test_infinite_where_every_value_underflows() -> None:
    x, y = normal(4, 0), (normal(4, 1) + 50).requires_grad_()
    with pytest.warns(RuntimeWarning, match="infinite for 1 of 1"):
        value = KernelCauchySchwarz(Cut())(x, y)
    assert float(value.detach()) == math.inf
    value.backward()
    assert not bool(y.grad.any())


def test_what_cannot_be() -> None:
    with pytest.raises(TypeError, match="kernel must be a kernel"):
        KernelCauchySchwarz(1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="memory"):
        KernelCauchySchwarz(memory=0.0)
    with pytest.raises(ValueError, match="negative value"):
        KernelCauchySchwarz(Linear())(normal(5, 0), normal(5, 1))
    assert KernelCauchySchwarz().solve(normal(1, 0), normal(5, 1)).standard_error is None


def test_tests_and_intervals_run_on_it() -> None:
    chance = torch.Generator().manual_seed(0)
    x, y = normal(40, 0, 2), normal(40, 1, 2)
    D = KernelCauchySchwarz()
    assert permutation_test(x, y + 1.5, D, permutations=99, generator=chance).p_value == pytest.approx(0.01)
    assert permutation_test(x, y, D, permutations=99, generator=chance).p_value > 0.05
    interval = bootstrap(x, y + 1.5, KernelCauchySchwarz(Gaussian(1.0)), generator=chance)
    assert interval.low is None or interval.low < float(interval) < interval.high
