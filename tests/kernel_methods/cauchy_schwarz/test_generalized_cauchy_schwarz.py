"""Several samples at once: the discrete divergence on the evaluated densities, a closed form, symmetry, bad input."""

from __future__ import annotations

import pytest
import torch

from discrepancy.divergences import GeneralizedCauchySchwarz
from discrepancy.kernel_methods import GeneralizedKernelCauchySchwarz
from discrepancy.kernels import Gaussian, Laplacian

NARROW = GeneralizedKernelCauchySchwarz(Gaussian(0.3))


def normal(n: int, seed: int, d: int = 1) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_is_the_discrete_divergence_of_densities_on_the_pooled_sample() -> None:
    clouds = [normal(20, k, 2) + 0.4 * k for k in range(3)]
    points, k = torch.cat(clouds), Gaussian(0.8).matrix
    density = torch.stack([k(points, z).mean(1) for z in clouds])
    pooled = density / density.sum(1, keepdim=True)
    value = GeneralizedKernelCauchySchwarz(Gaussian(0.8), pooled_measure=True)(clouds)
    assert float(value) == pytest.approx(float(GeneralizedCauchySchwarz().from_probs(pooled)), rel=1e-10)
    weighed = density / density.mean(0) ** (1 / 3)
    weighed = weighed / weighed.sum(1, keepdim=True)
    value = GeneralizedKernelCauchySchwarz(Gaussian(0.8))(clouds)
    assert float(value) == pytest.approx(float(GeneralizedCauchySchwarz().from_probs(weighed)), rel=1e-10)


@pytest.mark.parametrize("means", [(0.0, 1.0), (0.0, 0.7, 1.6)])
def test_normals_against_integrals_on_a_grid_and_in_closed_form(means: tuple[float, ...]) -> None:
    h, chance = 0.15, torch.Generator().manual_seed(0)
    raw = [torch.randn(1000, 1, generator=chance, dtype=torch.float64) for _ in means]
    clouds = [(z - z.mean()) / z.std() + mu for z, mu in zip(raw, means, strict=True)]
    value = float(GeneralizedKernelCauchySchwarz(Gaussian(h))(clouds))
    grid, m = torch.linspace(-7, 9, 1500, dtype=torch.float64)[:, None], len(means)
    p = torch.stack([Gaussian(h).matrix(grid, z).mean(1) for z in clouds])
    assert value == pytest.approx(float((p**m).sum(1).log().mean() - p.prod(0).sum().log()), rel=0.02)
    # For N(mu_i, v): the squared deviations of the mu_i from their mean, over 2 v; the rest is the sample.
    mu = torch.tensor(means)
    assert value == pytest.approx(float((mu - mu.mean()).square().sum()) / (2 * (1 + h * h)), rel=0.1)


def test_zero_at_equality_symmetric_and_never_negative() -> None:
    a, b, c = normal(30, 0, 2), normal(25, 1, 2) + 1, 2 * normal(20, 2, 2)
    for D in (NARROW, GeneralizedKernelCauchySchwarz(), GeneralizedKernelCauchySchwarz(Laplacian(1.0), pooled_measure=True)):
        assert float(D([a, a, a])) == pytest.approx(0.0, abs=1e-12)
        assert float(D([a, b, c])) == pytest.approx(float(D([c, a, b])), rel=1e-12)
        assert float(D([a, b, c])) > 0
    assert float(NARROW([a, a + 1e-6])) >= 0


def test_gradients_and_far_clouds() -> None:
    clouds = tuple((normal(4, k, 2) + k).requires_grad_() for k in range(3))
    assert torch.autograd.gradcheck(lambda *z: GeneralizedKernelCauchySchwarz(Gaussian(0.9))(list(z)), clouds)
    far = (normal(10, 1) + 1e3).requires_grad_()
    value = NARROW([normal(10, 0), far])
    (slope,) = torch.autograd.grad(value, far)
    assert bool(torch.isfinite(value))
    assert float(slope.sum()) > 1


def test_weights_are_repeated_rows() -> None:
    a, b = normal(6, 0), normal(5, 1) + 1
    counts = torch.tensor([1, 3, 0, 1, 2, 1])
    D = GeneralizedKernelCauchySchwarz(Gaussian(0.6))
    assert float(D([a, b], [counts.double() / 8, None])) == pytest.approx(
        float(D([a.repeat_interleave(counts, 0), b])), rel=1e-12
    )


def test_shifts_converge_to_a_common_mean() -> None:
    clouds = [normal(60, k, 2) for k in range(3)]
    shifts = torch.tensor([[0.0, 0.0], [4.0, 1.0], [-2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([shifts], lr=0.1)
    for _ in range(150):
        adam.zero_grad()
        GeneralizedKernelCauchySchwarz()([z + s for z, s in zip(clouds, shifts, strict=True)]).backward()
        adam.step()
    means = torch.stack([z.mean(0) + s for z, s in zip(clouds, shifts, strict=True)]).detach()
    assert float(torch.pdist(means).mean()) < 0.4


def test_bad_input() -> None:
    a = normal(5, 0, 2)
    with pytest.raises(ValueError, match="at least two samples"):
        NARROW([a])
    with pytest.raises(TypeError, match="must be a list"):
        NARROW(a)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 features and samples"):
        NARROW([a, normal(5, 1, 3)])
    with pytest.raises(ValueError, match="one entry"):
        NARROW([a, a], [None])
    with pytest.raises(ValueError, match="take minibatches"):
        GeneralizedKernelCauchySchwarz(memory=1e-9)([a, a])
    with pytest.raises(TypeError, match="kernel"):
        GeneralizedKernelCauchySchwarz("median")  # type: ignore[arg-type]
