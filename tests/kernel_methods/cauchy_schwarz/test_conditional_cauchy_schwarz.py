"""The conditional divergence: zero and a minimum at the targets (where the paper's formula is neither), gradients, bad input."""

from __future__ import annotations

import pytest
import torch

from discrepancy.kernel_methods import ConditionalCauchySchwarz, ConditionalWeights, DegenerateKernelWarning
from discrepancy.kernels import Gaussian, Laplacian

SHARP = ConditionalCauchySchwarz(Gaussian(0.5), Gaussian(0.5))


def normal(n: int, seed: int, d: int = 1) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def regression(n: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = normal(n, seed)
    return x, torch.sin(2 * x) + 0.2 * normal(n, seed + 1)


def by_hand(x, y, z, a, k, form) -> float:
    K = Gaussian(k).matrix(x, x)
    w = K @ a
    if form is ConditionalWeights.SYMMETRIC:
        W = K / (w[:, None] * w)
    elif form is ConditionalWeights.ONE_SIDED:
        W = K / w[:, None] ** 2
    else:
        W = K / (K**2 @ a)[:, None]
    W = W * a[:, None] * a
    on_y = Gaussian(0.5).matrix
    return float((W * on_y(y, y)).sum().log() + (W * on_y(z, z)).sum().log() - 2 * (W * on_y(z, y)).sum().log())


@pytest.mark.parametrize("form", list(ConditionalWeights), ids=lambda f: f.name)
def test_is_its_definition(form: ConditionalWeights) -> None:
    x, y = regression(30)
    z, a = y + normal(30, 5), normal(30, 6).squeeze(1).softmax(0)
    D = ConditionalCauchySchwarz(Gaussian(0.7), Gaussian(0.5), form)
    assert float(D(x, y, z, a)) == pytest.approx(by_hand(x, y, z, a, 0.7, form), rel=1e-10)


def test_zero_at_the_targets_and_positive_elsewhere() -> None:
    x, y = regression()
    assert float(SHARP(x, y, y)) == pytest.approx(0.0, abs=1e-12)
    shuffled = y[torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    for other in (torch.zeros_like(y), y + 1, -y, shuffled):
        assert float(SHARP(x, y, other)) > 0.1
        z = other.clone().requires_grad_()
        (slope,) = torch.autograd.grad(SHARP(x, y, z), z)
        assert bool(torch.isfinite(slope).all())
    assert float(SHARP(x, y, y + 1)) == pytest.approx(float(SHARP(x, y + 1, y)), rel=1e-12)  # symmetric


def _descended(D: ConditionalCauchySchwarz) -> tuple[float, float]:
    x, y = regression()
    z = y.clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=1e-2)
    for _ in range(200):
        adam.zero_grad()
        D(x, y, z).backward()
        adam.step()
    return float(D(x, y, z.detach())), float((z - y).detach().abs().max())


def test_the_symmetric_weights_have_their_minimum_at_the_targets_and_the_papers_do_not() -> None:
    value, moved = _descended(SHARP)
    assert value >= 0
    assert moved < 0.01
    value, moved = _descended(ConditionalCauchySchwarz(Gaussian(0.5), Gaussian(0.5), ConditionalWeights.ONE_SIDED))
    assert value < -0.01
    assert moved > 0.5


@pytest.mark.parametrize(
    "D", [SHARP, ConditionalCauchySchwarz(Laplacian(1.0), Gaussian(0.8), ConditionalWeights.ONE_SIDED)], ids=str
)
def test_gradients_against_finite_differences(D: ConditionalCauchySchwarz) -> None:
    x, y, z, u = normal(6, 1, 2), normal(6, 2), normal(6, 3), normal(6, 4).squeeze(1)
    inputs = tuple(t.requires_grad_() for t in (x, y, z, u))
    assert torch.autograd.gradcheck(lambda x, y, z, u: D(x, y, z, u.softmax(0)), inputs)


def test_far_predictions_are_pulled_back() -> None:
    x, y = regression()
    z = (y + 1e4).requires_grad_()
    value = SHARP(x, y, z)
    assert bool(torch.isfinite(value))
    (slope,) = torch.autograd.grad(value, z)
    assert float(slope.sum()) > 1e4


def test_weights_are_repeated_rows_and_batches_are_loops() -> None:
    x, y = regression(10)
    z = y + 0.3 * normal(10, 9)
    counts = torch.tensor([1, 2, 1, 3, 0, 1, 1, 1, 2, 1])
    rows = [t.repeat_interleave(counts, 0) for t in (x, y, z)]
    assert float(SHARP(x, y, z, counts.double() / counts.sum())) == pytest.approx(float(SHARP(*rows)), rel=1e-12)
    D = ConditionalCauchySchwarz()
    several = D(torch.stack([x, 2 * x]), torch.stack([y, y]), torch.stack([z, z]))
    assert several.shape == (2,)
    torch.testing.assert_close(several, torch.stack([D(x, y, z), D(2 * x, y, z)]))


def test_vectors_and_columns_do_not_broadcast() -> None:
    x, y = regression(20)
    assert float(SHARP(x, y.squeeze(1), y + 0.5)) == pytest.approx(float(SHARP(x, y, y + 0.5)))
    assert SHARP(x.float(), y.float(), y.float() + 0.5).dtype == torch.float32
    with pytest.raises(ValueError, match="a prediction for each target"):
        SHARP(x, y, torch.cat([y, y], 1))
    with pytest.raises(ValueError, match="paired row by row"):
        SHARP(x, y, y.T)


def test_resolved_fixes_the_widths_of_the_targets() -> None:
    x, y = regression(20)
    D = ConditionalCauchySchwarz()
    fixed = D.resolved(x, y)
    for other in (y + 0.1, 50 * y):
        assert float(fixed(x, y, other)) == pytest.approx(float(D(x, y, other)), rel=1e-12)


def test_bad_input() -> None:
    x, y = regression(20)
    with pytest.warns(DegenerateKernelWarning, match="the identity"):
        SHARP(1e4 * x, y, y)
    with pytest.warns(DegenerateKernelWarning, match="all ones"):
        SHARP(1e-6 * x, y, y)
    with pytest.warns(DegenerateKernelWarning, match="all ones"):
        ConditionalCauchySchwarz()(torch.ones_like(x), y, y)
    bad = y.clone()
    bad[3] = torch.nan
    with pytest.raises(ValueError, match="non-finite"):
        SHARP(x, y, bad)
    with pytest.raises(TypeError, match="kernel_x"):
        ConditionalCauchySchwarz(kernel_x=0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weights_of_pairs"):
        ConditionalCauchySchwarz(weights_of_pairs="released")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="take minibatches"):
        ConditionalCauchySchwarz(memory=1e-6)(x, y, y)


def test_a_row_of_weight_zero_has_finite_gradients() -> None:
    x, y = regression(8)
    a = torch.full((8,), 1 / 7, dtype=torch.float64)
    a[2] = 0
    inputs = [t.clone().requires_grad_() for t in (x, y, y + 0.3, a)]
    for grad in torch.autograd.grad(SHARP(*inputs), inputs):
        assert bool(torch.isfinite(grad).all())
    moved = y.clone()
    moved[2] += 100
    assert float(SHARP(x, moved, y + 0.3, a)) == pytest.approx(float(SHARP(x, y, y + 0.3, a)), rel=1e-12)
