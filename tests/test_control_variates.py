"""Control variates: exact where the values are linear in the controls, unbiased when cross-fitted, harmless when degenerate."""

from __future__ import annotations

import pytest
import torch

from discrepancy.control_variates import control_variate_mean


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("cross_fit", [False, True])
def test_linear_values_without_residual_have_their_exact_mean(count, cross_fit) -> None:
    """W = w0 + gamma.(C - B): with Cbar = B removed from the draws the mean is w0 exactly; else up to the O(1/L) of gamma."""
    controls, means = normal(200, count), torch.zeros(count, dtype=torch.float64)
    controls = torch.cat([controls, -controls])  # antithetic: Cbar = B exactly, in either half of even and odd pairs
    controls = controls.reshape(2, 200, count).transpose(0, 1).reshape(400, count)
    gamma = torch.arange(1.0, count + 1, dtype=torch.float64)
    found = control_variate_mean(3 + controls @ gamma, controls, means, cross_fit=cross_fit)
    assert float(found.value) == pytest.approx(3, abs=1e-12)
    torch.testing.assert_close(found.gamma, gamma, atol=1e-10, rtol=0)
    assert float(found.ratio) < 1e-20


def test_single_control_is_the_papers_formula() -> None:
    values, control, mean = normal(50).exp(), normal(50, seed=1) + 0.3 * normal(50), torch.tensor([0.1], dtype=torch.float64)
    deviation = control - mean
    gamma = ((values - values.mean()) * deviation).mean() / deviation.square().mean()
    found = control_variate_mean(values, control[:, None], mean)
    assert float(found.value) == pytest.approx(float(values.mean() - gamma * (control.mean() - mean)), rel=1e-13)
    assert float(found.plain) == pytest.approx(float(values.mean()), rel=1e-15)


def test_several_controls_solve_the_normal_equations() -> None:
    values, controls, mean = normal(80).exp(), normal(80, 3, seed=1), torch.tensor([0.1, -0.2, 0.0], dtype=torch.float64)
    deviations = controls - mean
    moment = deviations.T @ deviations / 80
    gamma = torch.linalg.solve(moment, deviations.T @ (values - values.mean()) / 80)
    torch.testing.assert_close(control_variate_mean(values, controls, mean).gamma, gamma, atol=1e-11, rtol=1e-11)


def test_cross_fitting_removes_the_bias() -> None:
    """Values that are a parabola of the control: the shared-draw coefficient biases the mean, the crossed one does not."""
    c = normal(40_000, 8, seed=2)
    values = (c + 1).square() + c.pow(3)
    zero = torch.zeros(40_000, 1, dtype=torch.float64)
    truth = 2.0
    shared = control_variate_mean(values, c[..., None], zero).value - truth
    crossed = control_variate_mean(values, c[..., None], zero, cross_fit=True).value - truth
    assert abs(float(shared.mean())) > 10 * float(shared.std()) / 200  # a bias is there to be removed
    assert abs(float(crossed.mean())) < 4 * float(crossed.std()) / 200


def test_degenerate_controls_leave_the_plain_mean() -> None:
    values = normal(20)
    constant = torch.full((20, 1), 2.0, dtype=torch.float64)
    found = control_variate_mean(values, constant, constant[0])
    assert float(found.value) == float(values.mean())
    assert float(found.gamma) == 0
    twice = normal(20, 1, seed=1).expand(20, 2)
    once = control_variate_mean(values, twice[:, :1], torch.zeros(1, dtype=torch.float64))
    both = control_variate_mean(values, twice, torch.zeros(2, dtype=torch.float64))
    assert float(both.value) == pytest.approx(float(once.value), rel=1e-12)


def test_gradient_holds_gamma_fixed_only_when_detached() -> None:
    values, controls, mean = normal(30), normal(30, 1, seed=1), torch.zeros(1, dtype=torch.float64)

    def value(v: torch.Tensor, detach: bool) -> torch.Tensor:
        return control_variate_mean(v, controls, mean, detach_gamma=detach).value

    leaf = values.clone().requires_grad_()
    (fixed,) = torch.autograd.grad(value(leaf, True), leaf)
    torch.testing.assert_close(fixed, torch.full_like(fixed, 1 / 30))
    (whole,) = torch.autograd.grad(value(leaf, False), leaf)
    step = torch.zeros_like(values)
    step[4] = 1e-6
    finite = (value(values + step, False) - value(values - step, False)) / 2e-6
    assert float(whole[4]) == pytest.approx(float(finite), abs=1e-9)


def test_variance_is_that_of_repeats() -> None:
    c, noise = normal(4000, 30, seed=3), normal(4000, 30, seed=4)
    found = control_variate_mean(2 * c + noise, c[..., None], torch.zeros(4000, 1, dtype=torch.float64))
    assert float(found.variance.mean()) == pytest.approx(float(found.value.var()), rel=0.1)
    assert float(found.ratio.mean()) == pytest.approx(0.2, rel=0.1)


def test_refusals() -> None:
    one = torch.zeros(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="at least 3 draws"):
        control_variate_mean(normal(2), normal(2, 1), one)
    with pytest.raises(ValueError, match="at least 6 draws"):
        control_variate_mean(normal(5), normal(5, 1), one, cross_fit=True)
    with pytest.raises(ValueError, match="controls must be"):
        control_variate_mean(normal(5), normal(4, 1), one)
