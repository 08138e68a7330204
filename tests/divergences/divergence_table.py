"""The table of f-divergences as the textbooks print it, in exact arithmetic: the truth that the stable code is held to."""

from mpmath import mp, mpf

from discrepancy import (
    KL,
    Alpha,
    ChiSquared,
    Jeffreys,
    JensenShannon,
    LeCam,
    NeymanChiSquared,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
)

mp.dps = 60
half = mpf(1) / 2


def power(a):
    a = mpf(str(a))
    return (lambda t: (t**a - a * t + a - 1) / (a * (a - 1)), lambda t: (t ** (a - 1) - 1) / (a - 1))


SMOOTH = [
    (KL(), lambda t: t * mp.log(t) - t + 1, lambda t: mp.log(t)),
    (ReverseKL(), lambda t: t - 1 - mp.log(t), lambda t: 1 - 1 / t),
    (Jeffreys(), lambda t: (t - 1) * mp.log(t), lambda t: mp.log(t) + 1 - 1 / t),
    (
        JensenShannon(),
        lambda t: (t * mp.log(t) - (1 + t) * mp.log((1 + t) / 2)) / 2,
        lambda t: mp.log(2 * t / (1 + t)) / 2,
    ),
    (SquaredHellinger(), lambda t: (1 - mp.sqrt(t)) ** 2 / 2, lambda t: (1 - 1 / mp.sqrt(t)) / 2),
    (ChiSquared(), lambda t: (t - 1) ** 2, lambda t: 2 * (t - 1)),
    (NeymanChiSquared(), lambda t: (t - 1) ** 2 / t, lambda t: 1 - 1 / t**2),
    (LeCam(), lambda t: (t - 1) ** 2 / (2 * (t + 1)), lambda t: (t - 1) * (t + 3) / (2 * (t + 1) ** 2)),
    *[(Alpha(a), *power(a)) for a in (-1.5, 0.3, 0.5, 0.75, 2.0, 3.25)],
]
TABLE = [*SMOOTH, (TotalVariation(), lambda t: abs(t - 1) / 2, lambda t: half * mp.sign(t - 1))]
EVERY = [row[0] for row in TABLE]
COMPOSED = [
    2 * JensenShannon() + KL(),
    KL().skewed(0.1),
    KL().skewed(0.1).reversed(),
    Jeffreys().skewed(0.5),
    3 * LeCam().skewed(0.4) + SquaredHellinger(),
]
