"""The influence of each row on a discrepancy, and the standard error that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy._results import NumericalError
from discrepancy._validate import SamplePair
from discrepancy.inference.permutation import pooled_rows, rows_within


def effective_size(a: Tensor) -> float:
    """Kish's effective number of rows, 1 / sum a_i^2 for weights that sum to one."""
    return 1.0 / float(a.double().square().sum())


@dataclass(frozen=True)
class Influence:
    """The centred influence function of D at the two empirical laws.

    `of_x` (n,) = dD/da_i - sum_k a_k dD/da_k and `of_y` (m,) likewise, float64; `value` is D itself, `how` says where the
    derivative came from.
    """

    value: float
    of_x: Tensor
    of_y: Tensor
    how: str

    def standard_error(self, pair: SamplePair) -> float:
        """sqrt(c_a sum a_i^2 psi_i^2 + c_b sum b_j^2 phi_j^2), c = n_eff / (n_eff - 1): the infinitesimal jackknife.

        For equal weights Var(psi)/(n - 1) + Var(phi)/(m - 1); for others the sandwich form, right when weight and
        influence go together. 0 where every row has the same influence.
        """
        total = 0.0
        for w, psi in ((pair.a, self.of_x), (pair.b, self.of_y)):
            size = effective_size(w)
            total += size / (size - 1) * float((w.double() * psi).square().sum())
        return math.sqrt(total)


def influence(D: Discrepancy, pair: SamplePair, seed: int, *, memory: float = 1.0) -> Influence:
    """The influence function of D by its gradient in the weights, or, where it has none, by leaving out one row at a time.

    One forward and one backward pass of D; the jackknife costs n + m evaluations of the pooled statistic. `seed` fixes
    what D draws. Raises NumericalError if the value or a derivative is not finite.
    """
    a, b = pair.a.clone().requires_grad_(), pair.b.clone().requires_grad_()
    value = D(pair.x, pair.y, a, b, generator=_generator(seed, pair.x.device))
    number = float(value.detach())
    if not math.isfinite(number):
        raise NumericalError(f"{D!r} is {number} on these samples: no interval can be given")
    grads = torch.autograd.grad(value, (a, b), allow_unused=True) if value.requires_grad else (None, None)
    if grads[0] is None or grads[1] is None:
        return _jackknife(D, pair, seed, memory)
    of_x, of_y = (_centred(g.double(), w.double()) for g, w in zip(grads, (pair.a, pair.b), strict=True) if g is not None)
    if not bool(torch.isfinite(of_x).all() and torch.isfinite(of_y).all()):
        raise NumericalError(f"the gradient of {D!r} in the weights is not finite: no standard error can be given")
    return Influence(number, of_x, of_y, "gradient in the weights")


def _generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed)


def _centred(psi: Tensor, w: Tensor) -> Tensor:
    return psi - (w * psi).sum()


def _jackknife(D: Discrepancy, pair: SamplePair, seed: int, memory: float) -> Influence:
    """psi_i = (D - D without row i) (1 - a_i) / a_i, centred: the influence by finite differences of weight -a_i."""
    statistic = D.pooled(torch.cat([pair.x, pair.y]), generator=_generator(seed, pair.x.device))
    row_a, row_b = pooled_rows(pair)
    value = float(statistic(row_a[None], row_b[None])[0])
    n, total = len(pair.a), len(row_a)
    step = rows_within(memory, total, row_a.dtype)
    psi = []
    for start in range(0, total, step):
        places = torch.arange(start, min(start + step, total), device=row_a.device)
        A, B = row_a.repeat(len(places), 1), row_b.repeat(len(places), 1)
        local = torch.arange(len(places), device=row_a.device)
        A[local, places] = 0
        B[local, places] = 0
        without = statistic(A / A.sum(1, keepdim=True), B / B.sum(1, keepdim=True)).double()
        w = (row_a + row_b)[places].double()
        psi.append((value - without) * (1 - w) / w)
    joined = torch.cat(psi)
    of_x, of_y = _centred(joined[:n], pair.a.double()), _centred(joined[n:], pair.b.double())
    return Influence(value, of_x, of_y, "leaving out one row at a time")
