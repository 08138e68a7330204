"""Loops of entropic transport on a kept cost matrix: passes over a plan, Newton's method on the semi-dual, annealing."""
