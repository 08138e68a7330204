"""The conformity suite of divergences: what every `Divergence`, ours or yours, must keep, each promise a check of its own."""

from __future__ import annotations

from collections.abc import Iterator

from discrepancy.divergences.divergence import Divergence
from discrepancy.testing.divergence_case import DivergenceCase, DivergenceCheck
from discrepancy.testing.divergence_checks import CHECKS


def divergence_checks_for(D: Divergence, *, accuracy: float = 1e-9) -> Iterator[tuple[str, DivergenceCheck, DivergenceCase]]:
    """The checks as (name, check, case); calling `check(case)` runs one. accuracy: the relative one of D's float64 values."""
    if not isinstance(D, Divergence):
        raise TypeError(f"the suite examines an object of a class derived from Divergence, got {D!r}")
    case = DivergenceCase(D, accuracy)
    for check in CHECKS:
        yield check.__name__, check, case


def check_divergence(D: Divergence, *, accuracy: float = 1e-9) -> None:
    """Hold a divergence to the contract of its kind: signs, zeros, doors, supports, gradients, refusals, pickling.

    Runs all checks and raises one AssertionError that lists those that failed; below a second.
    """
    failures = []
    for name, check, case in divergence_checks_for(D, accuracy=accuracy):
        try:
            check(case)
        except Exception as error:  # a crash is a failed promise like any other
            failures.append(f"{name}: {type(error).__name__}: {error}")
    if failures:
        raise AssertionError(f"{D!r} fails {len(failures)} of {len(CHECKS)} checks:\n  " + "\n  ".join(failures))


__all__ = ["check_divergence", "divergence_checks_for"]
