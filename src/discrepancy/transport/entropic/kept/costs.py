"""The cost matrix that a problem keeps: squared distances on the CPU without temporaries, any other as the cost computes it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from discrepancy.costs import Cost, SquaredEuclidean

# Up to this dimension direct differences cost less than a matrix product, and nothing cancels.
_DIRECT = 6


def written_at_once(x: Tensor, cost: Cost) -> bool:
    """Whether the matrix takes no memory beside itself."""
    return type(cost) is SquaredEuclidean and x.device.type == "cpu"


@torch.no_grad()
def kept_costs(x: Tensor, y: Tensor, cost: Cost) -> Tensor:
    """c(x_i, y_j), (B, n, m) in float64, for x (B, n, d) and y (B, m, d)."""
    x, y = x.detach().double(), y.detach().double()
    if not written_at_once(x, cost) or x.shape[1] * y.shape[1] < 64:
        return cost.matrix(x, y)
    from discrepancy._loops.entropic.distances import complete_squares, squared_distances

    # NumPy asks the system for large pages, which makes first touching this much memory several times cheaper.
    out = np.empty((x.shape[0], x.shape[1], y.shape[1]))
    if x.shape[-1] <= _DIRECT:
        left, right = x.numpy(), y.mT.contiguous().numpy()
        for k in range(len(out)):
            squared_distances(left[k], right[k], out[k])
        return torch.from_numpy(out)
    # Far from the origin the expansion would cancel; about the mean of y it is as accurate as the spread allows.
    centre = y.mean(-2, keepdim=True)
    x, y = x - centre, y - centre
    products = torch.from_numpy(out)
    torch.matmul(x, y.mT, out=products)
    left, right = x.square().sum(-1).numpy(), y.square().sum(-1).numpy()
    for k in range(len(out)):
        complete_squares(left[k], right[k], out[k])
    return products


__all__ = ["kept_costs", "written_at_once"]
