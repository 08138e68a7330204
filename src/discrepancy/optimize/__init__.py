"""Finding roots of monotone functions, and minima of a smooth function plus a simple one."""

from discrepancy.optimize.composite import (
    AcceleratedGradient,
    CompositeProblem,
    CompositeSolution,
    ProximalGradient,
)
from discrepancy.optimize.penalties import MCP, SCAD, Lasso, SparsePenalty, soft_threshold
from discrepancy.optimize.proximal_cg import ProximalSolution, prox_ncg
from discrepancy.optimize.roots import increasing_root

__all__ = [
    "MCP",
    "SCAD",
    "AcceleratedGradient",
    "CompositeProblem",
    "CompositeSolution",
    "Lasso",
    "ProximalGradient",
    "ProximalSolution",
    "SparsePenalty",
    "increasing_root",
    "prox_ncg",
    "soft_threshold",
]
