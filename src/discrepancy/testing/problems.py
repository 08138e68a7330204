"""Problems with known answers, over sizes, precisions and batches, to hold estimators and solvers against.

Two sorts. A `Population` draws samples of two laws whose discrepancies have closed forms: an estimator must approach them.
A `SampleProblem` is a pair of weighted samples whose own discrepancies are known exactly: a solver must return them.
Answers are looked up by name with `problem.answer("wasserstein", p=2)`; names and parameters are those of the library.
All functions are cheap; memory is that of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

Answers = dict[str, Callable[..., float]]


class _Answered:
    name: str
    answers: Answers

    def answer(self, quantity: str, **parameters: float) -> float:
        """The true value of a quantity; ValueError lists what is known."""
        if quantity not in self.answers:
            raise ValueError(f"{self.name} has no answer for {quantity!r}; known are {', '.join(sorted(self.answers))}")
        return self.answers[quantity](**parameters)


@dataclass(frozen=True)
class Population(_Answered):
    """Two laws: `draw(n, m, generator=..., dtype=..., batch=...)` gives x (..., n, d) and y (..., m, d)."""

    name: str
    dimension: int
    quantile_p: Callable[[Tensor], Tensor] = field(repr=False)  # standard normals or uniforms to draws of P
    quantile_q: Callable[[Tensor], Tensor] = field(repr=False)
    answers: Answers = field(repr=False)
    uniform: bool = False

    def draw(
        self,
        n: int,
        m: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        batch: tuple[int, ...] = (),
    ) -> tuple[Tensor, Tensor]:
        """Independent samples of the two laws."""
        source = torch.rand if self.uniform else torch.randn
        u = source(*batch, n, self.dimension, generator=generator, dtype=torch.float64)
        v = source(*batch, m, self.dimension, generator=generator, dtype=torch.float64)
        return self.quantile_p(u).to(dtype), self.quantile_q(v).to(dtype)


@dataclass(frozen=True)
class SampleProblem(_Answered):
    """Two weighted samples x (..., n, d), y (..., m, d), a, b whose discrepancies are exact."""

    name: str
    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    a: Tensor = field(repr=False)
    b: Tensor = field(repr=False)
    answers: Answers = field(repr=False)


def _normal_cdf(t: float) -> float:
    return math.erfc(-t / math.sqrt(2)) / 2


def mean_norm_of_gaussian(shift: float, variance: float, dimension: int) -> float:
    """E|Z| for Z ~ N(m, variance I) in `dimension` dimensions with |m| = shift: a confluent hypergeometric function."""
    if variance == 0:
        return shift
    from scipy.special import gammaln, hyp1f1

    scale = math.sqrt(2 * variance) * math.exp(gammaln((dimension + 1) / 2) - gammaln(dimension / 2))
    return float(scale * hyp1f1(-0.5, dimension / 2, -(shift**2) / (2 * variance)))


def gaussians(shift: float = 1.0, scale_p: float = 1.0, scale_q: float = 1.0, dimension: int = 1) -> Population:
    """P = N(0, scale_p^2 I) and Q = N(shift e, scale_q^2 I) with a unit vector e along the diagonal.

    Answers: wasserstein(p=2), and p=1 where the scales are equal or d = 1 without shift; squared-sliced-wasserstein (p = 2);
    mmd(bandwidth), the squared MMD of the Gaussian kernel; energy; kl; reverse-kl; total-variation for equal scales.
    """
    if scale_p <= 0 or scale_q <= 0:
        raise ValueError(f"scales must be positive, got {scale_p!r} and {scale_q!r}")
    d, s, t = dimension, scale_p, scale_q
    offset = shift / math.sqrt(d)

    def wasserstein(p: float = 2.0) -> float:
        if s == t:
            return abs(shift)
        if p == 2:
            return math.sqrt(shift**2 + d * (s - t) ** 2)
        if d == 1:  # E|(s - t) Z - shift|^p of a normal: closed for p = 1
            if p == 1:
                return mean_norm_of_gaussian(abs(shift), (s - t) ** 2, 1)
            if shift == 0:
                return abs(s - t) * math.sqrt(2) * (math.gamma((p + 1) / 2) / math.sqrt(math.pi)) ** (1 / p)
        raise ValueError(f"no closed form for W_{p} between {d}-dimensional Gaussians of different scales")

    def mmd(bandwidth: float) -> float:
        def mean(variance: float, distance: float) -> float:
            total = bandwidth**2 + variance
            return (bandwidth**2 / total) ** (d / 2) * math.exp(-(distance**2) / (2 * total))

        return mean(2 * s * s, 0.0) + mean(2 * t * t, 0.0) - 2 * mean(s * s + t * t, shift)

    def energy() -> float:
        across = mean_norm_of_gaussian(abs(shift), s * s + t * t, d)
        return 2 * across - mean_norm_of_gaussian(0.0, 2 * s * s, d) - mean_norm_of_gaussian(0.0, 2 * t * t, d)

    def kl(s: float = s, t: float = t) -> float:
        return d * math.log(t / s) + (d * s * s + shift**2) / (2 * t * t) - d / 2

    answers: Answers = {
        "wasserstein": wasserstein,
        "squared-sliced-wasserstein": lambda: shift**2 / d + (s - t) ** 2,
        "mmd": mmd,
        "energy": energy,
        "kl": lambda: kl(),
        "reverse-kl": lambda: kl(t, s),
    }
    if s == t:
        answers["total-variation"] = lambda: 2 * _normal_cdf(abs(shift) / (2 * s)) - 1
    name = f"N(0, {s:g}^2) and N({shift:g}, {t:g}^2) in {d} dimension(s)"
    return Population(name, d, lambda u: s * u, lambda u: offset + t * u, answers)


def uniforms(shift: float = 0.5) -> Population:
    """P uniform on [0, 1], Q uniform on [shift, 1 + shift], 0 <= shift <= 1.

    Answers: wasserstein(p) = shift for every p; energy = 2 shift^2 - 2 shift^3 / 3; total-variation = shift.
    """
    if not 0 <= shift <= 1:
        raise ValueError(f"shift must lie in [0, 1], got {shift!r}")
    answers: Answers = {
        "wasserstein": lambda p=1.0: shift,
        "energy": lambda: 2 * shift**2 - 2 * shift**3 / 3,
        "total-variation": lambda: shift,
    }
    return Population(f"U[0, 1] and U[{shift:g}, {1 + shift:g}]", 1, lambda u: u, lambda u: u + shift, answers, uniform=True)


def diracs(distance: float = 2.0, dimension: int = 2, *, dtype: torch.dtype = torch.float64) -> SampleProblem:
    """One point each, `distance` apart along the diagonal.

    Answers: wasserstein(p) = distance; energy(exponent) = 2 distance^exponent; mmd(bandwidth) of the Gaussian kernel (biased).
    """
    x = torch.zeros(1, dimension, dtype=dtype)
    one = torch.ones(1, dtype=dtype)
    answers: Answers = {
        "wasserstein": lambda p=1.0: abs(distance),
        "energy": lambda exponent=1.0: 2 * abs(distance) ** exponent,
        "mmd": lambda bandwidth: -2 * math.expm1(-(distance**2) / (2 * bandwidth**2)),
    }
    return SampleProblem(f"two Diracs {distance:g} apart", x, x + distance / math.sqrt(dimension), one, one, answers)


def translation(
    n: int = 20,
    distance: float = 0.7,
    dimension: int = 3,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    batch: tuple[int, ...] = (),
) -> SampleProblem:
    """A random weighted cloud and the same cloud moved by a vector of length `distance`, its rows in another order.

    Answers: wasserstein(p) = distance for every p >= 1, sinkhorn-divergence = distance^2 (squared Euclidean cost, any
    epsilon), squared-sliced-wasserstein = distance^2 / d in the mean over directions.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, n, dimension, generator=generator, dtype=torch.float64)
    a = 0.2 + torch.rand(*batch, n, generator=generator, dtype=torch.float64)
    a = a / a.sum(-1, keepdim=True)
    order = torch.randperm(n, generator=generator)
    y = (x + distance / math.sqrt(dimension))[..., order, :]
    answers: Answers = {
        "wasserstein": lambda p=1.0: abs(distance),
        "sinkhorn-divergence": lambda: distance**2,
        "squared-sliced-wasserstein": lambda: distance**2 / dimension,
    }
    name = f"a cloud of {n} points moved by {distance:g}"
    return SampleProblem(name, x.to(dtype), y.to(dtype), a.to(dtype), a[..., order].to(dtype), answers)


def permutation(n: int = 15, dimension: int = 2, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> SampleProblem:
    """A weighted cloud and the same cloud in another order: every discrepancy of the two measures is 0."""
    problem = translation(n, 0.0, dimension, seed=seed, dtype=dtype)

    def zero(**_: float) -> float:
        return 0.0

    names = ("wasserstein", "energy", "mmd", "sinkhorn-divergence", "squared-sliced-wasserstein")
    return SampleProblem(
        f"a cloud of {n} points in two orders", problem.x, problem.y, problem.a, problem.b, dict.fromkeys(names, zero)
    )


def table(*, dtype: torch.dtype = torch.float64) -> SampleProblem:
    """The laws p = (1/2, 1/4, 1/4) and q = (1/4, 1/4, 1/2) on the points 0, 1, 2 of the line; `a` and `b` hold p and q.

    Answers: wasserstein(p=1) = 1/2, wasserstein(p=2) = 1/sqrt 2, energy = 1/4, kl = reverse-kl = log(2) / 4,
    total-variation = 1/4, chi-squared = 3/8, squared-hellinger = 3/4 - 1/sqrt 2, jensen-shannon.
    """
    points = torch.arange(3, dtype=dtype).unsqueeze(-1)
    p, q = torch.tensor([0.5, 0.25, 0.25], dtype=dtype), torch.tensor([0.25, 0.25, 0.5], dtype=dtype)
    answers: Answers = {
        # The monotone coupling, optimal for every p: a quarter of the mass goes from 0 to 1 and a quarter from 1 to 2.
        "wasserstein": lambda p=1.0: 0.5 ** (1 / p),
        "energy": lambda: 0.25,
        "kl": lambda: math.log(2) / 4,
        "reverse-kl": lambda: math.log(2) / 4,
        "total-variation": lambda: 0.25,
        "chi-squared": lambda: 3 / 8,
        "squared-hellinger": lambda: 0.75 - math.sqrt(0.5),
        "jensen-shannon": lambda: 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3),
    }
    return SampleProblem("two laws on three points", points, points, p, q, answers)


def sample_problems(*, dtype: torch.dtype = torch.float64) -> Iterator[SampleProblem]:
    """All exact problems in one precision, in one and more dimensions, with a batch among them."""
    for dimension in (1, 2, 5):
        yield diracs(dimension=dimension, dtype=dtype)
        yield translation(dimension=dimension, dtype=dtype)
        yield permutation(dimension=dimension, dtype=dtype)
    yield translation(7, 1.5, 2, dtype=dtype, batch=(2, 2))
    yield table(dtype=dtype)


def populations() -> Iterator[Population]:
    """All pairs of laws: equal, shifted, scaled and both, in one and more dimensions."""
    yield gaussians(0.0)
    yield gaussians(1.0)
    yield gaussians(0.0, 1.0, 2.0)
    yield gaussians(0.5, 1.0, 1.5, dimension=1)
    yield gaussians(1.0, 1.0, 1.5, dimension=5)
    yield uniforms(0.0)
    yield uniforms(0.3)
