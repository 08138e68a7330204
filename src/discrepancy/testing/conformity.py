"""The conformity suite: what every `Discrepancy`, ours or yours, must keep, each promise a check of its own.

A third party runs `check_discrepancy(MyDiscrepancy())`, or hands `checks_for(...)` to its test runner so that each check
is a case of its own. A failed check raises AssertionError with the object, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Iterator

from discrepancy._kinds import Discrepancy
from discrepancy.testing import axioms, gradients, inputs, resampling
from discrepancy.testing.case import Case, Check

CHECKS: dict[str, Check] = {
    f"{module.__name__.rpartition('.')[2]}.{check.__name__}": check
    for module in (axioms, inputs, gradients, resampling)
    for check in module.CHECKS
}


def checks_for(D: Discrepancy, *, accuracy: float = 1e-9, width: int | None = None) -> Iterator[tuple[str, Check, Case]]:
    """The checks as (name, check, case); calling `check(case)` runs one.

    accuracy: the relative accuracy of D's float64 values: 1e-9 for closed forms, the solver's own for an iteration; width: the
    dimension of the trial samples where D takes any (3 if None).
    """
    if not isinstance(D, Discrepancy):
        raise TypeError(f"the suite examines an object of a class derived from Discrepancy, got {D!r}")
    case = Case(D, accuracy, width)
    for name, check in CHECKS.items():
        yield name, check, case


def check_discrepancy(D: Discrepancy, *, accuracy: float = 1e-9, width: int | None = None) -> None:
    """Hold a discrepancy to every word of its `claims` and to the contract of `Discrepancy`.

    Runs all checks and raises one AssertionError that lists those that failed; a few seconds on samples of ten points.
    accuracy, width: as in `checks_for`.
    """
    failures = []
    for name, check, case in checks_for(D, accuracy=accuracy, width=width):
        try:
            check(case)
        except Exception as error:  # a crash is a failed promise like any other
            failures.append(f"{name}: {type(error).__name__}: {error}")
    if failures:
        raise AssertionError(f"{D!r} fails {len(failures)} of {len(CHECKS)} checks:\n  " + "\n  ".join(failures))


__all__ = ["CHECKS", "Case", "Check", "check_discrepancy", "checks_for"]
