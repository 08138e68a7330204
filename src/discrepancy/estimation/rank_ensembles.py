"""Estimates at several ranks of neighbours, combined so that their leading bias cancels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def ensemble_weights(scales: Sequence[float], exponents: Sequence[float], covariance: Tensor | None = None) -> Tensor:
    """The weights w (T,), sum w = 1, that cancel sum_l w_l scale_l^e for every exponent e, of least variance w' C w.

    Estimates at neighbourhoods of different `scales` with biases c_e scale^e average to one without those biases. `covariance`
    (T, T) is that of the estimates up to a factor and a constant; None is the unit matrix, hence the shortest weights.
    Raises ValueError unless there are more scales, all different, than exponents. Float64; T^3 time.
    Source: Moon, Sricharan, Greenewald and Hero 2018.
    """
    s = torch.tensor([float(v) for v in scales], dtype=torch.float64)
    if len(s) <= len(exponents) or len(set(s.tolist())) < len(s) or not bool((s > 0).all()):
        raise ValueError(f"to cancel {len(exponents)} terms takes more positive scales, all different, got {list(scales)}")
    s = s / s.max()  # the equations are homogeneous in the scale
    rows = torch.stack([torch.ones_like(s), *(s**e for e in exponents)])
    right = torch.zeros(len(rows), dtype=torch.float64)
    right[0] = 1
    if covariance is None:
        return torch.linalg.lstsq(rows, right[:, None], driver="gelsd").solution[:, 0]
    root = torch.linalg.cholesky(covariance)
    inner = torch.linalg.solve_triangular(root, rows.T, upper=False)
    free = torch.linalg.lstsq(inner.T, right[:, None], driver="gelsd").solution
    return torch.linalg.solve_triangular(root.T, free, upper=True)[:, 0]


def shrunken_weights(scales: Sequence[float], exponents: Sequence[float], sizes: Sequence[float]) -> Tensor:
    """The weights w (T,), sum w = 1, that minimise |w|^2 + sum_e size_e (sum_l w_l scale_l^e)^2.

    Where many bias terms are cancelled exactly the weights become large, and multiply what is not of these terms; here each term
    is cancelled as far as it is worth its noise. Raises ValueError for no scales. Float64; T^3 time.
    """
    s = torch.tensor([float(v) for v in scales], dtype=torch.float64)
    if len(s) == 0 or not bool((s > 0).all()):
        raise ValueError(f"scales must be positive, got {list(scales)}")
    rows = torch.stack([math.sqrt(size) * s**e for e, size in zip(exponents, sizes, strict=True)])
    free = torch.linalg.solve(torch.eye(len(s), dtype=torch.float64) + rows.T @ rows, torch.ones_like(s))
    return free / free.sum()


def nested_covariance(ranks: Sequence[int]) -> Tensor:
    """The covariance of estimates from the k-th neighbours, up to a factor and a constant: 1 / max(k, l).

    A ball of l > k points holds that of k: what they share is the noise of the larger one.
    """
    k = torch.tensor([float(v) for v in ranks], dtype=torch.float64)
    return 1 / torch.maximum(k[:, None], k[None])


__all__ = ["ensemble_weights", "nested_covariance", "shrunken_weights"]
