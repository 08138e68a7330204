"""Coverage of the intervals of mutual information and entropy from neighbours, on laws whose truth is known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, gammaln

from discrepancy import conditional_mutual_information, entropy, mutual_information

pytestmark = pytest.mark.calibration

DRAWS = {200: 1000, 1000: 500, 5000: 250}
FIRST_SEED = 50_000


def gaussian(rho, d=1):
    def draw(r, n):
        x = r.normal(size=(n, d))
        return x, rho * x + math.sqrt(1 - rho**2) * r.normal(size=(n, d))

    return draw, -d / 2 * math.log(1 - rho**2)


def student(freedom, rho):
    def draw(r, n):
        z = r.normal(size=(n, 2))
        z[:, 1] = rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]
        z /= np.sqrt(r.chisquare(freedom, size=(n, 1)) / freedom)
        return z[:, :1], z[:, 1:]

    def h(d):
        half = (freedom + d) / 2
        tail = digamma(half) - digamma(freedom / 2)
        return gammaln(freedom / 2) - gammaln(half) + d / 2 * math.log(freedom * math.pi) + half * tail

    return draw, 2 * h(1) - h(2) - math.log(1 - rho**2) / 2


def uniform_noise(width):
    def draw(r, n):
        x = r.random((n, 1))
        return x, x + width * (2 * r.random((n, 1)) - 1)

    return draw, width - math.log(2 * width) if width < 0.5 else 1 / (4 * width)


def two_modes():
    def draw(r, n):
        side = np.where(r.random((n, 1)) < 0.5, -1.5, 1.5)
        return side + r.normal(size=(n, 1)), side + r.normal(size=(n, 1))

    grid = np.linspace(-9, 9, 3001)
    left, right = stats.norm.pdf(grid, -1.5), stats.norm.pdf(grid, 1.5)
    joint, margin = (np.outer(left, left) + np.outer(right, right)) / 2, (left + right) / 2
    return draw, float((joint * np.log(joint / np.outer(margin, margin))).sum() * (grid[1] - grid[0]) ** 2)


def added_exponential():
    def draw(r, n):
        x = r.exponential(size=(n, 1))
        return x, x + r.exponential(size=(n, 1))

    return draw, float(stats.gamma(2).entropy()) - 1


def clayton(theta):
    def draw(r, n):
        u, w = r.random((n, 1)), r.random((n, 1))
        v = ((w ** (-theta / (1 + theta)) - 1) * u**-theta + 1) ** (-1 / theta)
        return u**3, -np.log(v)

    return draw, _clayton_by_quadrature(theta)


def _clayton_by_quadrature(theta):
    nodes, weights = np.polynomial.legendre.leggauss(400)
    u, w = np.meshgrid((nodes + 1) / 2, (nodes + 1) / 2)
    v = ((w ** (-theta / (1 + theta)) - 1) * u**-theta + 1) ** (-1 / theta)
    density = math.log(1 + theta) - (1 + theta) * np.log(u * v) - (2 + 1 / theta) * np.log(u**-theta + v**-theta - 1)
    return float((density * np.outer(weights, weights)).sum() / 4)


def twice(law):
    draw, truth = law

    def both(r, n):
        left, right = draw(r, n), draw(r, n)
        return np.hstack([left[0], right[0]]), np.hstack([left[1], right[1]])

    return both, 2 * truth


def categories():
    def draw(r, n):
        flag = r.integers(0, 2, (n, 1))
        return flag, r.random((n, 1)) + 0.5 * flag

    return draw, math.log(2) / 2


PROBLEMS: dict[str, tuple[Callable, float]] = {
    "independent Gaussians": gaussian(0.0),
    "Gaussians of correlation 0.9": gaussian(0.9),
    "Cauchy pairs, uncorrelated": student(1, 0.0),
    "Student, 2 degrees of freedom, correlation 0.6": student(2, 0.6),
    "uniform with uniform noise of width 0.25": uniform_noise(0.25),
    "Clayton copula, theta = 2": clayton(2.0),
    "two modes": two_modes(),
    "sum of exponentials": added_exponential(),
    "two categories and overlapping uniforms": categories(),
}
# Where the interval reaches from no correction to that for edges, and so covers more often than it says.
WIDE: dict[str, tuple[Callable, float]] = {
    "2 + 2 Gaussians of correlation 0.6": gaussian(0.6, 2),
    "2 + 2, two pairs uniform with uniform noise of width 0.75": twice(uniform_noise(0.75)),
    "2 + 2, two Clayton pairs, theta = 2": twice(clayton(2.0)),
}
ENTROPIES: dict[str, tuple[Callable, float]] = {
    "normal": (lambda r, n: r.normal(size=n), stats.norm.entropy()),
    "Student, 3 degrees of freedom": (lambda r, n: r.standard_t(3, size=n), stats.t(3).entropy()),
    "uniform square": (lambda r, n: r.random((n, 2)), 0.0),
    "two exponentials": (lambda r, n: r.exponential(size=(n, 2)), 2.0),
}


def covered(record, group, cell, estimate, truth, n, *, wide=False):
    above = below = given = 0
    values, centres, errors = [], [], []
    draws = DRAWS[n] // 4 if wide else DRAWS[n]  # four dimensions take longer, and the target is wider
    for seed in range(FIRST_SEED, FIRST_SEED + draws):
        got = estimate(np.random.default_rng(seed))
        if got.low is None:  # what is left of a large drift is not known, and the estimate says so
            continue
        given += 1
        above += got.low > truth
        below += got.high < truth
        values.append(got.value)
        centres.append((got.low + got.high) / 2)
        errors.append((got.high - got.low) / 2 / stats.t(24).ppf(0.975))
    assert given >= (0.6 if wide else 0.8) * draws
    few = "fewer than 500 rows" if n < 500 else ""
    return record.coverage(
        group,
        f"{cell}, n = {n}",
        draws=given,
        missed_low=int(above),
        missed_high=int(below),
        first_seed=FIRST_SEED,
        target=(0.91 if n < 500 else 0.93, 1.0 if wide else 0.98 if n < 500 else 0.97),
        note="more than two dimensions: the interval holds both extremes of the bias" if wide else few,
        truth=truth,
        bias=float(np.mean(values)) - truth,
        bias_of_centre=float(np.mean(centres)) - truth,
        spread=float(np.std(centres)),
        stated_error=float(np.sqrt(np.mean(np.square(errors)))),
    )


@pytest.mark.parametrize("n", DRAWS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_mutual_information(record, name, n):
    draw, truth = PROBLEMS[name]
    cell = covered(record, "information", f"mutual information, {name}", lambda r: mutual_information(*draw(r, n)), truth, n)
    assert cell["held"]


@pytest.mark.parametrize("n", DRAWS)
@pytest.mark.parametrize("name", WIDE)
def test_mutual_information_in_four_dimensions(record, name, n):
    draw, truth = WIDE[name]
    cell = f"mutual information, {name}"
    assert covered(record, "information", cell, lambda r: mutual_information(*draw(r, n)), truth, n, wide=True)["held"]


@pytest.mark.parametrize("n", [200, 1000])
def test_conditional_mutual_information(record, n):
    def estimate(r):
        x, e, z = (r.normal(size=n) for _ in range(3))
        return conditional_mutual_information(x + z, 0.6 * x + 0.8 * e + z, z)

    truth = -math.log(1 - 0.36) / 2
    cell = covered(record, "information", "conditional information, Gaussians of correlation 0.6", estimate, truth, n, wide=True)
    assert cell["held"]


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("name", ENTROPIES)
def test_entropy(record, name, n):
    draw, truth = ENTROPIES[name]
    cell = covered(record, "information", f"entropy, {name}", lambda r: entropy(draw(r, n)), float(truth), n)
    assert cell["held"]
