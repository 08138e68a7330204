"""A small quadratic programme over the probability simplex, solved exactly by an active set."""

from __future__ import annotations

import numpy as np

_ROUNDING = 1e-13


def _to_minimum(Q: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, bool]:
    """From a point with that slope, the step to the minimum on the plane of sum one, and whether it ends there: where the
    objective falls for ever along a direction without curvature, that direction instead."""
    size = len(slope)
    if size == 1:
        return np.zeros(1), True
    # An orthonormal basis of the vectors of sum zero.
    basis = np.linalg.qr(np.column_stack([np.ones(size), np.eye(size)[:, 1:]]))[0][:, 1:]
    values, vectors = np.linalg.eigh(basis.T @ Q @ basis)
    vectors = basis @ vectors
    along = vectors.T @ slope
    flat = values <= _ROUNDING * max(float(np.abs(Q).max()), 0.0)
    falling = flat & (np.abs(along) > _ROUNDING * float(np.abs(slope).max()))
    if falling.any():
        return -(vectors[:, falling] @ along[falling]), False
    return -(vectors[:, ~flat] @ (along[~flat] / values[~flat])), True


def simplex_program(Q: np.ndarray, f: np.ndarray) -> np.ndarray:
    """The lambda >= 0, sum 1, that minimises f.lambda + lambda.Q.lambda / 2 for a positive semi-definite Q (k, k), f (k,).

    Corners enter one at a time, the most negative reduced slope first; on the corners in play the minimum is a linear system,
    and a corner that would turn negative on the way leaves. Finitely many steps, each lowering the objective; a step with s
    corners in play costs s^3.
    """
    weights = np.zeros(len(f))
    chosen = [int(np.argmin(f + np.diag(Q) / 2))]
    weights[chosen[0]] = 1.0
    scale = float(np.abs(Q).max() + np.abs(f).max())
    for _ in range(10 * len(f) + 10):
        slope = Q @ weights + f
        entering = int(np.argmin(slope))
        if entering in chosen or slope[entering] >= float(weights @ slope) - 1e-15 * scale:
            break
        chosen.append(entering)
        while True:
            now = weights[chosen]
            step, ends = _to_minimum(Q[np.ix_(chosen, chosen)], (Q @ weights + f)[chosen])
            falling = step < 0
            ratios = np.where(falling, now / np.where(falling, -step, 1.0), np.inf)
            share = float(ratios.min())
            if ends and share >= 1.0:
                moved = np.maximum(now + step, 0.0)
                weights[chosen] = moved / moved.sum()
                break
            leaving = int(np.argmin(ratios))
            moved = np.maximum(now + share * step, 0.0)
            moved[leaving] = 0.0
            weights[chosen] = moved / moved.sum()
            del chosen[leaving]
    return weights


__all__ = ["simplex_program"]
