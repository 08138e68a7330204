"""For tests of your own: problems with known answers, and the suite that every discrepancy must pass."""

from discrepancy.testing import problems
from discrepancy.testing.conformity import check_discrepancy, checks_for

__all__ = ["check_discrepancy", "checks_for", "problems"]
