"""The Student copula against SciPy and quadrature, and information by difference from it on planted laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from discrepancy import mutual_information
from discrepancy.estimation.ksg import KSG
from discrepancy.estimation.referenced_information import ReferencedInformation
from discrepancy.estimation.student_copula import StudentCopula, _Fit, _ranks


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _copula(degrees: float, width: int, rho: float, pairs: int) -> StudentCopula:
    """`pairs` correlated pairs between blocks of `width` columns."""
    correlations = torch.eye(2 * width, dtype=torch.float64)
    for i in range(pairs):
        correlations[i, width + i] = correlations[width + i, i] = rho
    return StudentCopula(degrees, correlations, width, -0.5 * pairs * math.log(1 - rho**2))


@pytest.mark.parametrize("degrees", [1.0, 3.0, 12.0])
def test_information_by_quadrature(degrees: float) -> None:
    law = _copula(degrees, 1, 0.6, 1)
    # In probability coordinates, where the copula's density is bounded away from the corners.
    nodes, weights = np.polynomial.legendre.leggauss(400)
    u, w = (nodes + 1) / 2, weights / 2
    z = stats.t.ppf(u, degrees)
    points = np.stack(np.meshgrid(z, z, indexing="ij"), -1)
    log_joint = stats.multivariate_t(shape=law.correlations.numpy(), df=degrees).logpdf(points)
    margin = stats.t.logpdf(z, degrees)
    log_copula = log_joint - margin[:, None] - margin[None]
    truth = np.einsum("i,j,ij->", w, w, np.exp(log_copula) * log_copula)
    assert law.mutual_information == pytest.approx(truth, rel=5e-3)


def test_large_degrees_are_gaussian() -> None:
    assert _copula(1e7, 3, 0.5, 2).mutual_information == pytest.approx(_copula(math.inf, 3, 0.5, 2).mutual_information, abs=1e-5)


@pytest.mark.parametrize("degrees", [2.0, math.inf])
def test_likelihood_is_that_of_the_copula(degrees: float) -> None:
    x, y = _copula(degrees, 2, 0.5, 1).draw(300, _generator(1))
    ranks = _ranks(torch.cat([x, y], 1))
    fitted = _Fit.at(degrees, ranks, 2)
    level = (ranks.numpy() + 0.5) / 300
    shape = fitted.correlations.numpy()
    if math.isinf(degrees):
        z = stats.norm.ppf(level)
        truth = stats.multivariate_normal(cov=shape).logpdf(z) - stats.norm.logpdf(z).sum(1)
    else:
        z = stats.t.ppf(level, degrees)
        truth = stats.multivariate_t(shape=shape, df=degrees).logpdf(z) - stats.t.logpdf(z, degrees).sum(1)
    assert fitted.likelihood == pytest.approx(float(truth.mean()), rel=1e-9)


@pytest.mark.parametrize("degrees", [2.5, 8.0, math.inf])
def test_fit_finds_what_was_planted(degrees: float) -> None:
    law = _copula(degrees, 3, 0.7, 2)
    x, y = law.draw(3000, _generator(2))
    found = StudentCopula.fit(x.exp().clamp_max(1e30), -y)  # any monotone maps of the columns
    assert found.mutual_information == pytest.approx(law.mutual_information, rel=0.08)
    assert math.isinf(found.degrees) if math.isinf(degrees) else 0.75 < found.degrees / degrees < 1.35
    correlation = float(found.correlations[0, 3]) if math.isinf(degrees) or degrees > 1 else 0.0
    assert abs(correlation) == pytest.approx(0.7, abs=0.06)


def test_draws_have_their_correlations_and_margins() -> None:
    x, y = _copula(4.0, 2, 0.6, 1).draw(20_000, _generator(3))
    assert stats.kendalltau(x[:2000, 0], y[:2000, 0]).statistic == pytest.approx(2 / math.pi * math.asin(0.6), abs=0.04)
    assert stats.kstest(x[:, 1].numpy(), stats.t(4.0).cdf).pvalue > 1e-3


def _laws() -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    source = _generator(4)
    laws = {}
    for name, law in (("Gaussian 5 + 5", _copula(math.inf, 5, 0.8, 2)), ("Student 3 + 3", _copula(2.0, 3, 0.0, 0))):
        laws[name] = (*law.draw(1500, source), law.mutual_information)
    x, y = _copula(math.inf, 10, 0.7, 4).draw(1500, source)
    laws["Gaussian 10 + 10, other margins"] = (x**3, torch.special.ndtr(y), -2 * math.log(1 - 0.49))
    return laws


@pytest.mark.parametrize("name", list(_laws()))
def test_closer_than_the_bare_estimator(name: str) -> None:
    x, y, truth = _laws()[name]
    bare = float(mutual_information(x, y, KSG()))
    found = float(mutual_information(x, y, ReferencedInformation(), generator=_generator(5)))
    assert abs(found - truth) < 0.5 * abs(bare - truth) + 0.03
    assert abs(found - truth) < 0.12 * max(truth, 1.0)


def test_no_harm_where_no_ellipse_fits() -> None:
    # Y_i = X_i + N_i, X_i uniform on [0, 1] and N_i on [-3/4, 3/4]: by integration 1/3 of a nat for each pair.
    u, noise = (torch.rand(1500, 3, generator=_generator(k), dtype=torch.float64) for k in (13, 14))
    y = u + 1.5 * (noise - 0.5)
    bare = float(mutual_information(u, y, KSG()))
    found = float(mutual_information(u, y, ReferencedInformation(), generator=_generator(5)))
    assert bare - 0.03 < found < 1.05


def test_few_rows_in_many_dimensions_show_nothing_that_is_not_there() -> None:
    for n, width in ((30, 40), (100, 50), (220, 25)):
        x, y = (torch.randn(n, width, generator=_generator(k), dtype=torch.float64) for k in (15, 16))
        assert abs(float(mutual_information(x, y, ReferencedInformation(), generator=_generator()))) < 0.2


def test_independence_seeds_and_symmetry() -> None:
    x, y = (torch.randn(800, 4, generator=_generator(k), dtype=torch.float64) for k in (6, 7))
    first, again = (mutual_information(x, y, ReferencedInformation(), generator=_generator(8)) for _ in range(2))
    assert float(first) == float(again)
    assert abs(float(first)) < 0.08
    assert first.low is None
    assert "no interval" in (first.note or "")
    assert float(mutual_information(y, x, ReferencedInformation(draws=4), generator=_generator(8))) == pytest.approx(0, abs=0.08)


def test_degenerate_and_bad_input() -> None:
    x, y = (torch.randn(60, 3, generator=_generator(k), dtype=torch.float64) for k in (9, 10))
    flat = torch.cat([x, torch.ones(60, 1)], 1)
    assert float(mutual_information(flat, y, ReferencedInformation(), generator=_generator())) == pytest.approx(
        float(mutual_information(x, y, ReferencedInformation(), generator=_generator()))
    )
    assert float(mutual_information(torch.ones(60, 2), y, ReferencedInformation())) == 0
    with pytest.raises(ValueError, match="draws"):
        ReferencedInformation(draws=0)
    with pytest.raises(TypeError, match="KSG"):
        ReferencedInformation(KSG)  # type: ignore[arg-type]
