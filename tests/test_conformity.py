"""Every registered discrepancy, and a few with other options, held to the contract, one check a case."""

from __future__ import annotations

import math
import re

import pytest

from discrepancy._kinds import Discrepancy
from discrepancy._registry import registered
from discrepancy.costs import Euclidean, Manhattan
from discrepancy.directions import Orthogonal
from discrepancy.kernel_methods import MMD, EnergyDistance
from discrepancy.kernels import Gaussian, InverseMultiquadric, Laplacian, MedianHeuristic
from discrepancy.testing.conformity import CHECKS, Case
from discrepancy.transport import (
    Balanced,
    BothBounds,
    EnergySlicedWasserstein,
    LowerBound,
    MassShare,
    OptimalTransport,
    PartialSinkhorn,
    PartialTransport,
    PowerEnergy,
    SinkhornDivergence,
    SlicedWasserstein,
    SobolevDistance,
    TotalVariationPenalty,
    UnbalancedSinkhorn,
    UnbalancedSinkhornDivergence,
    Wasserstein,
)

# Relative accuracy of the values where a solver stops at a tolerance; closed forms keep the suite's 1e-9.
ACCURACY = {
    "Sinkhorn": 1e-5,
    "SinkhornDivergence": 1e-5,
    "UnbalancedSinkhorn": 1e-5,
    "UnbalancedSinkhornDivergence": 1e-5,
    "PartialSinkhorn": 1e-5,
}


def lopsided(x, y):
    """A cost that is not symmetric: uphill is dear."""
    return ((y - x) + 2 * (y - x).relu()).square().sum(-1)


def _cases() -> list[Case]:
    found = [cls() for cls in registered(Discrepancy)]
    found += [
        MMD(biased=True),
        MMD(Gaussian(1.5)),
        MMD(Gaussian(0.5) + 2.0 * Laplacian(1.0), biased=True),
        MMD(InverseMultiquadric(MedianHeuristic(0.5))),
        EnergyDistance(exponent=1.5),
        Wasserstein(2),
        Wasserstein(1.5),
        Wasserstein(math.inf),
        OptimalTransport(Euclidean()),
        OptimalTransport(lopsided),
        SlicedWasserstein(1, Orthogonal(12)),
        EnergySlicedWasserstein(1.5, Orthogonal(12), PowerEnergy(2)),
        # Gradients that hold the coefficient fixed are not those of the value: the suite sees the other kind.
        SlicedWasserstein(1.5, control_variate=LowerBound(detach_gamma=False)),
        SlicedWasserstein(control_variate=BothBounds(detach_gamma=False, cross_fit=True)),
        PartialTransport(0.5, Euclidean()),
        PartialTransport(MassShare(1.0)),
        PartialSinkhorn(0.4, 0.5),
        SobolevDistance(math.inf),
        SobolevDistance(3.0, k=4),
        SinkhornDivergence(0.5, Euclidean()),
        SinkhornDivergence(cost=Manhattan()),
        UnbalancedSinkhorn(penalty=(Balanced(), TotalVariationPenalty(3.0))),
        UnbalancedSinkhornDivergence(penalty=TotalVariationPenalty(2.0)),
    ]
    cases = [Case(D, ACCURACY.get(type(D).__name__, 1e-9)) for D in found]
    on_the_line = [Wasserstein(1), Wasserstein(2), Wasserstein(1.5), Wasserstein(math.inf), OptimalTransport()]
    return cases + [Case(D, width=1) for D in on_the_line]


def _named(D: Discrepancy) -> str:
    """The repr without the address that a function's has."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(D))


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
@pytest.mark.parametrize("case", _cases(), ids=lambda case: f"{_named(case.D)}{f', d = {case.width}' if case.width else ''}")
def test_keeps_its_promise(case: Case, check) -> None:
    check(case)
