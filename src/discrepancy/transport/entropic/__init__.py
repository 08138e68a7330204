"""Entropic transport: epsilon, the problem, its solver, and the discrepancies built on them."""
