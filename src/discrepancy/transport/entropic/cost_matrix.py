"""What a cost matrix given by the user must be: numbers, or +inf where a pair is forbidden."""

from __future__ import annotations

import torch
from torch import Tensor


def require_costs(matrix: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise ValueError unless the entries of C (B, n, m) are numbers or +inf and every point with weight may go somewhere.

    One pass over memory where everything is finite.
    """
    costs = matrix.detach()
    if bool(torch.isfinite(costs.sum())):
        return
    bad = costs.isnan() | (costs == -torch.inf)
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"C has {int(bad.sum())} entries that are NaN or -inf, the first at index {where}: give every pair a finite cost, "
            "or +inf to forbid it"
        )
    allowed = torch.isfinite(costs) & (a.detach() > 0)[..., None] & (b.detach() > 0)[:, None]
    for name, weight, reached in (("row", a, allowed.any(-1)), ("column", b, allowed.any(-2))):
        stranded = (weight.detach() > 0) & ~reached
        if bool(stranded.any()):
            where = int(stranded.nonzero()[0, -1])
            raise ValueError(
                f"C forbids (cost +inf) every pair of {name} {where}, which has weight {float(weight[stranded][0]):.6g}, "
                f"and of {int(stranded.sum()) - 1} more such {name}s: no plan is left; allow a pair, or give it weight zero"
            )


def with_reachable_points(matrix: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """C (B, n, m), where a point of weight zero whose pairs are all forbidden gets pairs of cost zero instead.

    They carry nothing, so that no plan changes; without them its potential is +inf, and 0 times that is NaN.
    """
    if bool(torch.isfinite(matrix.detach().sum())):  # one pass, and no copy
        return matrix
    allowed = torch.isfinite(matrix.detach())
    idle_rows = (a.detach() == 0) & ~(allowed & (b.detach() > 0)[:, None]).any(-1)
    idle_columns = (b.detach() == 0) & ~(allowed & (a.detach() > 0)[..., None]).any(-2)
    idle = idle_rows[..., None] | idle_columns[:, None]
    return torch.where(idle, torch.zeros_like(matrix), matrix) if bool(idle.any()) else matrix


__all__ = ["require_costs", "with_reachable_points"]
