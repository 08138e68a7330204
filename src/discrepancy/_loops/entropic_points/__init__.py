"""Passes over all pairs of two clouds that never hold the pairs: costs, exponents and sums are fused, a row at a time."""
