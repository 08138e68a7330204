"""Every registered discrepancy, and a few with other options, held to the contract, one check a case."""

from __future__ import annotations

import importlib.util

import pytest

from discrepancy._kinds import Discrepancy
from discrepancy._registry import lookup, names
from discrepancy.testing.conformity import CHECKS, Case

# Relative accuracy of the values where a solver stops at a tolerance; closed forms keep the suite's 1e-9.
ACCURACY = {"Sinkhorn": 1e-5, "SinkhornDivergence": 1e-5}


def _classes() -> list[type]:
    found = []
    for name in names():
        try:
            cls = lookup(name)
        except (ImportError, AttributeError):  # a part that is still being built
            continue
        if issubclass(cls, Discrepancy):
            found.append(cls)
    return found


def _cases() -> list[Case]:
    found = [cls() for cls in _classes()]
    if importlib.util.find_spec("discrepancy.kernel_methods") is not None:
        from discrepancy.kernel_methods import MMD, EnergyDistance
        from discrepancy.kernels import Gaussian, InverseMultiquadric, Laplacian, MedianHeuristic

        found += [
            MMD(biased=True),
            MMD(Gaussian(1.5)),
            MMD(Gaussian(0.5) + 2.0 * Laplacian(1.0), biased=True),
            MMD(InverseMultiquadric(MedianHeuristic(0.5))),
            EnergyDistance(exponent=1.5),
        ]
    if importlib.util.find_spec("discrepancy.transport") is not None:
        from discrepancy.costs import Euclidean, Manhattan
        from discrepancy.directions import Orthogonal
        from discrepancy.transport import BothBounds, LowerBound, SinkhornDivergence, SlicedWasserstein, Wasserstein

        found += [
            Wasserstein(2),
            Wasserstein(1.5),
            SlicedWasserstein(1, Orthogonal(12)),
            # Gradients that hold the coefficient fixed are not those of the value: the suite sees the other kind.
            SlicedWasserstein(1.5, control_variate=LowerBound(detach_gamma=False)),
            SlicedWasserstein(control_variate=BothBounds(detach_gamma=False, cross_fit=True)),
            SinkhornDivergence(0.5, Euclidean()),
            SinkhornDivergence(cost=Manhattan()),
        ]
    return [Case(D, ACCURACY.get(type(D).__name__, 1e-9)) for D in found]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
@pytest.mark.parametrize("case", _cases(), ids=lambda case: repr(case.D))
def test_keeps_its_promise(case: Case, check) -> None:
    check(case)
