"""Size of the tests on points of metric spaces, and coverage of the Frechet variance, on laws with known answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from discrepancy.inference.metric_jumps import VarianceError, frechet_anova, frechet_jump_test
from discrepancy.metric_spaces import EuclideanSpace, MetricSpace, QuantileSpace, SphereSpace, frechet_variance

pytestmark = [pytest.mark.calibration, pytest.mark.filterwarnings("ignore:the density of X jumps")]

GROUP = "metric-spaces"


def _uniform(n: int, g: torch.Generator) -> Tensor:
    return torch.rand(n, generator=g, dtype=torch.float64)


def _normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def _units(x: Tensor, g: torch.Generator) -> Tensor:
    """50 quantiles of 100 draws of N(0.8 (x - 0.5), 1)."""
    return QuantileSpace(50).from_samples(0.8 * (x - 0.5)[:, None] + _normal(g, len(x), 100))


def _on_a_circle(x: Tensor, g: torch.Generator) -> Tensor:
    angle = x + 0.3 * _normal(g, len(x))
    return torch.stack([angle.cos(), angle.sin()], -1)


CASES: dict[str, tuple[MetricSpace, Any]] = {
    "distributions with a slope": (QuantileSpace(50), _units),
    "vectors in the plane": (EuclideanSpace(), lambda x, g: _normal(g, len(x), 2) + x[:, None]),
    "points on a circle": (SphereSpace(), _on_a_circle),
}


@pytest.mark.parametrize("case", CASES)
def test_size_of_the_jump_test(record: Any, case: str) -> None:
    space, draw = CASES[case]
    for n, h in ((200, 0.2), (500, 0.2)):
        draws, rejected = 500, dict.fromkeys(VarianceError, 0)
        for seed in range(draws):
            g = torch.Generator().manual_seed(seed)
            x = _uniform(n, g)
            Y = draw(x, g)
            for error in VarianceError:
                rejected[error] += frechet_jump_test(Y, x, 0.5, space, bandwidth=h, error=error).p_value <= 0.05
        cell = f"jump test, {case}, n = {n}, bandwidth {h:g}"
        asymptotic, design = (rejected[e] for e in (VarianceError.ASYMPTOTIC, VarianceError.DESIGN))
        found = record.size(GROUP, f"{cell}, the paper's error", rejections=asymptotic, draws=draws, conservative=True)
        record.size(GROUP, f"{cell}, error of the design", rejections=design, draws=draws, note="no claim at small n")
        assert found["rate"] <= 0.08


def test_size_of_the_analysis_of_variance(record: Any) -> None:
    draws, formula, permuted = 1000, 0, 0
    for seed in range(draws):
        g = torch.Generator().manual_seed(seed)
        groups = [_normal(g, n, 2) for n in (40, 60)]
        formula += frechet_anova(groups, EuclideanSpace()).p_value <= 0.05
        permuted += frechet_anova(groups, EuclideanSpace(), permutations=99, generator=g).p_value <= 0.05
    cell = "analysis of variance, 40 and 60 vectors in the plane"
    record.size(GROUP, f"{cell}, chi^2", rejections=formula, draws=draws, note="an approximation for large groups")
    assert record.size(GROUP, f"{cell}, 99 permutations", rejections=permuted, draws=draws)["held"]


def test_coverage_of_the_frechet_variance(record: Any) -> None:
    space = QuantileSpace(20)
    for name, truth in (("vectors in the plane", 2.0), ("distributions that are shifted by N(0, 1)", 1.0)):
        above = below = 0
        for seed in range(1000):
            g = torch.Generator().manual_seed(seed)
            if truth == 2.0:
                found = frechet_variance(_normal(g, 300, 2), EuclideanSpace())
            else:
                found = frechet_variance(_normal(g, 300, 1) + torch.linspace(-1, 1, 20, dtype=torch.float64), space)
            above += float(found.low) > truth  # type: ignore[arg-type]
            below += float(found.high) < truth  # type: ignore[arg-type]
        cell = record.coverage(GROUP, f"Frechet variance of 300 {name}", draws=1000, missed_low=above, missed_high=below)
        assert cell["rate"] >= 0.92
