"""Fixed points of a batch of maps, with the steps of Anderson's method and a way back where they lead astray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import Outcome

# (states (A, s), indices of the problems (A,)) -> (images (A, s), errors (A,), weights (A, s) that residuals are measured with)
Map = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

# An error this many times the best one so far sends a problem back to its best point.
_ASTRAY = 10.0
# Plain steps at the beginning, which leave the far surroundings of the start.
_WARM_UP = 5


@dataclass(frozen=True)
class FixedPoint:
    """States (B, s), their errors (B,), evaluations of the map, and how it ended."""

    state: Tensor
    error: Tensor
    iterations: int
    outcome: Outcome


def fixed_point(step: Map, start: Tensor, *, tolerance: float, limit: int, memory: int = 8) -> FixedPoint:
    """x = F(x) for each problem of a batch, to errors of at most `tolerance`, in at most `limit` evaluations of F.

    The next point is the combination of the last `memory` images whose residuals, combined alike, are least in the weighted
    norm. Plain iteration where that raised the error. memory copies of the state are kept. Source: Anderson (1965); Walker and
    Ni (2011).
    """
    found, errors = start.clone(), torch.full((len(start),), torch.inf, dtype=torch.float64)
    active, x = torch.arange(len(start)), start
    moves, turns = (torch.zeros(len(start), memory, start.shape[1], dtype=start.dtype) for _ in range(2))
    image_before = residual_before = torch.empty(0)
    best, best_image = errors.clone(), start
    plain = torch.full((len(start),), _WARM_UP)
    done = 0
    while True:
        image, error, weight = step(x, active)
        done += 1
        better = error < errors[active]
        found[active[better]], errors[active[better]] = x[better], error[better]
        stay = error > tolerance
        if done >= limit or not bool(stay.any()):
            break
        residual = image - x
        # Plain steps may raise the error for a while, and are let do so.
        astray = ~(error <= _ASTRAY * best) & (plain == 0)
        if done > 1:
            slot = (done - 2) % memory
            moves[:, slot], turns[:, slot] = image - image_before, residual - residual_before
        if bool(astray.any()):
            moves[astray] = turns[astray] = 0
            best[astray] = torch.inf
            plain[astray] = memory + 2  # until what was seen around the return is overwritten
            image = torch.where(astray[:, None], best_image, image)
            residual = torch.where(astray[:, None], torch.zeros_like(residual), residual)
        fresh = (error < best) & ~astray
        best, best_image = torch.where(fresh, error, best), torch.where(fresh[:, None], image, best_image)
        x = image - torch.einsum("bm,bms->bs", _coefficients(turns, residual, weight, plain), moves)
        image_before, residual_before = image, residual
        plain = (plain - 1).clamp_min(0)
        if not bool(stay.all()):
            active, x, moves, turns, image_before, residual_before, best, best_image, plain = (
                t[stay] for t in (active, x, moves, turns, image_before, residual_before, best, best_image, plain)
            )
    outcome = Outcome.CONVERGED if bool((errors <= tolerance).all()) else Outcome.ITERATION_LIMIT
    return FixedPoint(found, errors, done, outcome)


def _coefficients(turns: Tensor, residual: Tensor, weight: Tensor, plain: Tensor) -> Tensor:
    """The combination of changes of the residual that is nearest to it, (A, memory); zero for problems that step plainly."""
    weighted = turns * weight[:, None, :]
    gram = weighted @ turns.mT
    right = (weighted @ residual[..., None])[..., 0]
    # Old changes are nearly dependent: without a ridge at rounding level the coefficients are noise.
    ridge = 1e-12 * gram.diagonal(dim1=-2, dim2=-1).sum(-1) + torch.finfo(gram.dtype).tiny
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype)
    found, _ = torch.linalg.solve_ex(gram + ridge[:, None, None] * eye, right)
    usable = torch.isfinite(found).all(-1) & (plain == 0)
    return torch.where(usable[:, None], found, torch.zeros_like(found))


__all__ = ["FixedPoint", "Map", "fixed_point"]
