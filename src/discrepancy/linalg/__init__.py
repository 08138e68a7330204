"""Small pieces of linear algebra with exact limits: roots, functions of symmetric matrices, Lyapunov's operator, the affine-invariant geometry."""

from discrepancy.linalg.lyapunov import lyapunov
from discrepancy.linalg.roots import root
from discrepancy.linalg.symmetric import symmetric_exp, symmetric_function, symmetric_log, symmetric_power

__all__ = ["lyapunov", "root", "symmetric_exp", "symmetric_function", "symmetric_log", "symmetric_power"]
