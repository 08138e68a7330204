"""Neural network divergences: known distances, bounds, held-out evaluation, streams, bad input."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from discrepancy import KL, MMD, GaussianWasserstein, JensenShannon, TotalVariation
from discrepancy._results import NumericalError
from discrepancy.divergences import ChiSquared, CustomDivergence, FDivergence
from discrepancy.divergences.variational import log_ratio_values, variational_bound
from discrepancy.learning import GradientPenalty, Training
from discrepancy.learning.gradient_penalty import slopes_at, slopes_between
from discrepancy.methods.generation.critic_objectives import FDivergenceCritic, WassersteinCritic
from discrepancy.methods.generation.neural_net_divergences import NeuralNetDivergence, memorization_report
from discrepancy.methods.generation.sample_streams import Resampled
from discrepancy.networks import MLP
from discrepancy.networks.convolutional import ConvolutionalNet


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _metric(**options: object) -> NeuralNetDivergence:
    small = {
        "critic": MLP(32, 2, nn.SiLU),
        "training": Training(steps=150, learning_rate=3e-3, final_share=0.0),
        "decay": 0.97,
        "evaluation": 20,
        "folds": 1,
    }
    return NeuralNetDivergence(**(small | options))  # type: ignore[arg-type]


def _shifted(by: float, width: int = 2) -> Callable[[int, torch.Generator], torch.Tensor]:
    return lambda n, g: torch.randn(n, width, generator=g) + by


def test_bounds_in_the_log_ratio_are_the_variational_bounds() -> None:
    u, v = (3 * torch.randn(50, generator=_generator(k), dtype=torch.float64) for k in (1, 2))
    custom = CustomDivergence(lambda t: t * torch.log(t) - t + 1)
    for f in (KL(), JensenShannon(), ChiSquared(), KL().reversed(), 2 * JensenShannon() + KL(), KL().skewed(0.2), custom):
        at_p, at_q = log_ratio_values(f, u, v)
        truth = variational_bound(f, f.derivative(log_t=u), f.derivative(log_t=v))
        assert float(at_p.mean() - at_q.mean()) == pytest.approx(float(truth), rel=1e-6), f


def test_named_forms() -> None:
    u, v = (torch.randn(40, generator=_generator(k), dtype=torch.float64) for k in (3, 4))
    at_p, at_q = log_ratio_values(JensenShannon(), u, v)
    entropy = nn.functional.softplus(-u).mean() / 2 + nn.functional.softplus(v).mean() / 2
    assert float(at_p.mean() - at_q.mean()) == pytest.approx(math.log(2) - float(entropy), abs=1e-12)
    at_p, at_q = log_ratio_values(KL(), u, v)
    assert float(at_p.mean() - at_q.mean()) == pytest.approx(float(u.mean() - v.exp().mean() + 1), abs=1e-12)
    far = torch.tensor([-80.0, 80.0])
    assert all(bool(torch.isfinite(t).all()) for t in log_ratio_values(JensenShannon(), far, far))
    with pytest.raises(TypeError, match="not smooth"):
        log_ratio_values(TotalVariation(), u, v)


def test_slopes_and_their_penalty() -> None:
    weights = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    x, y = torch.randn(6, 2, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    slopes = slopes_between(lambda z: z @ weights, x, y, generator=_generator())
    assert torch.allclose(slopes, torch.full((6,), 5.0, dtype=torch.float64))
    penalty = GradientPenalty(2.0).of(slopes)
    assert float(penalty.detach()) == pytest.approx(2 * 16)
    penalty.backward()
    # d/dw 2 (|w| - 1)^2 = 4 (|w| - 1) w / |w|
    assert weights.grad is not None
    assert torch.allclose(weights.grad, 4 * 4 * torch.tensor([0.6, 0.8], dtype=torch.float64))
    flat = slopes_at(lambda z: (z * 0).sum(-1) * weights[0], x)
    flat.sum().backward()
    assert float(flat.detach().sum()) == 0
    assert bool(torch.isfinite(weights.grad).all())
    assert float(GradientPenalty(1.0, one_sided=True).of(torch.tensor([0.2, 0.9]))) == 0


def test_wasserstein_critic_reaches_the_shift() -> None:
    real = torch.randn(4000, 2, generator=_generator(5))
    longer = _metric(training=Training(steps=400, learning_rate=1e-3, final_share=0.0), evaluation=40)
    found = longer(real, _shifted(1.0), generator=_generator(6))
    # W_1 of a shift is its length s, and with weight w a linear critic reaches s + s^2 / (4 w), 1.46; less the room to train.
    assert float(found) == pytest.approx(math.sqrt(2) + 2 / 40, abs=0.12)
    assert found.low is not None
    assert found.high is not None
    assert found.low < float(found) < found.high
    nothing = _metric()(real, _shifted(0.0), generator=_generator(6))
    assert abs(float(nothing)) < 0.2


@pytest.mark.parametrize(("divergence", "truth"), [(KL(), 1.0), (JensenShannon(), None)], ids=["KL", "JS"])
def test_divergences_are_lower_bounds(divergence: FDivergence, truth: float | None) -> None:
    real = torch.randn(800, 2, generator=_generator(7))
    found = _metric(objective=divergence, folds=2)(real, _shifted(1.0), generator=_generator(8))
    if truth is None:  # Jensen-Shannon of N(0, 1) and N(sqrt 2, 1), by quadrature
        t = torch.linspace(-10, 12, 20001, dtype=torch.float64)
        p, q = (torch.exp(-((t - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (0.0, math.sqrt(2)))
        m = (p + q) / 2
        truth = float(torch.trapezoid(torch.special.xlogy(p, p / m) + torch.special.xlogy(q, q / m), t)) / 2
    assert 0.6 * truth < float(found) < truth + 3 * float(found.standard_error)  # type: ignore[arg-type]


def test_a_critic_that_knows_its_rows_by_heart_gains_nothing() -> None:
    # Forty rows, no difference between the laws: the critic fits its twenty rows, and the others do not agree.
    real = torch.randn(40, 8, generator=_generator(9))
    found = _metric(objective=JensenShannon(), critic=MLP(128, 2, nn.SiLU))(real, _shifted(0.0, 8), generator=_generator(10))
    assert found.train_value > 0.3
    assert float(found) < 0.05


def test_seeds_dtypes_and_images() -> None:
    real = torch.rand(40, 1, 8, 8, generator=_generator(11), dtype=torch.float64)
    quick = _metric(critic=ConvolutionalNet((4, 8), 3), training=Training(steps=5), evaluation=2, noise=0.01, folds=2)

    def model(n: int, g: torch.Generator) -> torch.Tensor:
        return torch.rand(n, 1, 8, 8, generator=g, dtype=torch.float64)

    first, again, other = (quick(real, model, generator=_generator(s)) for s in (1, 1, 2))
    assert float(first) == float(again) != float(other)
    assert first.train_value == again.train_value
    assert len(first.history) == 2
    assert first.history[0]["objective"]

    def built(shape: tuple[int, ...], g: torch.Generator) -> nn.Module:
        return nn.Sequential(nn.Flatten(), MLP(8, 1).build(math.prod(shape), 1, generator=g, dtype=torch.float64))

    assert math.isfinite(float(_metric(critic=built, training=Training(steps=3), evaluation=1)(real, model)))


def test_report_of_a_memoriser() -> None:
    source = _generator(12)
    train, held_out = torch.randn(10, 2, generator=source), torch.randn(400, 2, generator=source)
    report = memorization_report(
        train, held_out, _shifted(0.0), {"critic": _metric(), "moments": GaussianWasserstein(), "MMD": MMD()}, generator=source
    )
    assert report.requires_generalization("critic")
    assert float(report.values["critic"]["real"]) < float(report.values["critic"]["memoriser"])
    assert set(report.values["MMD"]) == {"model", "memoriser", "real"}
    with pytest.raises(TypeError, match="metric 'x'"):
        memorization_report(train, held_out, _shifted(0.0), {"x": KL()})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="rows of shape"):
        memorization_report(train[:, :1], held_out, _shifted(0.0), {"MMD": MMD()})


def test_finite_samples_and_copies_are_warned_of() -> None:
    real = torch.randn(60, 2, generator=_generator(13))
    quick = _metric(training=Training(steps=2), evaluation=1)
    with pytest.warns(UserWarning, match="finite model sample"):
        quick(real, torch.randn(50, 2))
    with pytest.warns(UserWarning, match="finite model sample"):
        quick(real, lambda n, g: torch.randn(n // 2, 2, generator=g))
    with pytest.warns(UserWarning, match="stand in `real` too"):
        quick(real, Resampled(real))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(real, Resampled(real, 0.1))
        quick(real, torch.randn(2000, 2))


def test_bad_input() -> None:
    real = torch.randn(20, 2)
    quick = _metric(training=Training(steps=2), evaluation=1)
    with pytest.raises(ValueError, match="rows of shape"):
        quick(real, _shifted(0.0, 3))
    with pytest.raises(TypeError, match="float64"):
        quick(real, lambda n, g: torch.randn(n, 2, generator=g, dtype=torch.float64))
    with pytest.raises(TypeError, match="must return a tensor"):
        quick(real, lambda n, g: [[0.0, 0.0]] * n)
    with pytest.raises(ValueError, match="n >= 4"):
        quick(real[:3], _shifted(0.0))
    with pytest.raises(ValueError, match="non-finite"):
        quick(torch.full((20, 2), math.nan), _shifted(0.0))
    with pytest.raises(ValueError, match="one score a row"):
        _metric(critic=lambda shape, g: nn.Linear(2, 3))(real, _shifted(0.0))
    with pytest.raises(ValueError, match="scores images"):
        _metric(critic=ConvolutionalNet())(real, _shifted(0.0))
    with pytest.raises(TypeError, match="NeuralNetDivergence"):
        NeuralNetDivergence(objective=TotalVariation())
    with pytest.raises(TypeError, match="KL\\(\\)"):
        NeuralNetDivergence(objective=KL)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="folds"):
        NeuralNetDivergence(folds=3)
    with pytest.raises(ValueError, match="odd"):
        ConvolutionalNet(kernel=4)

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight * math.nan

    with pytest.raises(NumericalError, match="step 0"):
        _metric(objective=FDivergenceCritic(KL()), critic=lambda shape, g: Broken())(real, _shifted(0.0))
    assert WassersteinCritic().slopes == GradientPenalty(10.0)
