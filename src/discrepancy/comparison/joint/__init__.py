"""The multivariate part of a comparison: is the whole different, which pairs of columns, which columns, which rows."""

from discrepancy.comparison.joint.joint import compare_joint, joint_from_sums

__all__ = ["compare_joint", "joint_from_sums"]
