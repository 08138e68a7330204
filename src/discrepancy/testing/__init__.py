"""For tests of your own: problems with known answers, and the suites that every discrepancy and every divergence must pass."""

from discrepancy.testing import problems
from discrepancy.testing.conformity import check_discrepancy, checks_for
from discrepancy.testing.divergence_conformity import check_divergence, divergence_checks_for

__all__ = ["check_discrepancy", "check_divergence", "checks_for", "divergence_checks_for", "problems"]
