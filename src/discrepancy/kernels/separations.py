"""How far apart two points are, as the radial kernels need it: squared Euclidean and L1 separations with exact pullbacks.

A separation has two operations on blocks, without autograd: `matrix(x, y)` (..., n, m), and `pullback(x, y, s, M)`, the
gradients in x and y of sum_ij M_ij s_ij. The kernels build values and gradients from these two.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Up to this dimension s is summed coordinate by coordinate, which is exact and, for so few passes, as fast as a GEMM.
_DIRECT_DIMENSION = 2
# The GEMM form |x|^2 + |y|^2 - 2 x.y loses the digits of a distance that is small against the norms: below this ratio
# the pair is computed again by differences. What is left has relative error 1e-11 in float64.
_CANCELLATION = 1e-5
# Above this share of such pairs (tight clusters far apart) the whole block is cheaper by differences.
_DENSE = 1 / 16

Pairs = tuple[Tensor, ...]


class SquaredEuclidean:
    """s = |x - y|^2; the distance is its root."""

    def distance(self, s: Tensor) -> Tensor:
        """|x - y| from s."""
        return s.sqrt()

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """All |x_i - y_j|^2, exact where points coincide or nearly do; x (..., n, d), y (..., m, d) -> (..., n, m)."""
        if x.shape[-1] <= _DIRECT_DIMENSION:
            return _by_differences(x, y)
        x, y, nx, ny = _centred(x, y)
        # The norms ride along as two more coordinates: one product, and no further pass over the block.
        left = torch.cat([-2 * x, nx.unsqueeze(-1), torch.ones_like(x[..., :1])], -1)
        right = torch.cat([y, torch.ones_like(y[..., :1]), ny.unsqueeze(-1)], -1)
        s = left @ right.mT
        near = _near(s, nx, ny)
        if near is None:
            return s
        if _dense(near, s):
            return _by_differences(x, y)
        s[near] = _differences(x, y, near).square().sum(-1)
        return s

    def pullback(self, x: Tensor, y: Tensor, s: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of sum_ij M_ij |x_i - y_j|^2: 2 sum_j M_ij (x_i - y_j) in x_i, and likewise in y_j."""
        if x.shape[-1] <= _DIRECT_DIMENSION:
            return _pull_differences(x, y, M)
        x, y, nx, ny = _centred(x, y)
        near = _near(s, nx, ny)
        if near is not None and _dense(near, s):
            return _pull_differences(x, y, M)
        far = M if near is None else M.index_put(near, M.new_zeros(()))
        gx = 2 * (far.sum(-1).unsqueeze(-1) * x - far @ y)
        gy = 2 * (far.sum(-2).unsqueeze(-1) * y - far.mT @ x)
        if near is not None:  # these carry the largest M where the profile has a cusp: they too go by differences
            pull = 2 * M[near].unsqueeze(-1) * _differences(x, y, near)
            gx.index_put_((*near[:-2], near[-2]), pull, accumulate=True)
            gy.index_put_((*near[:-2], near[-1]), -pull, accumulate=True)
        return gx, gy


class L1:
    """s = |x - y|_1, the sum of the coordinates' differences; it is its own distance."""

    def distance(self, s: Tensor) -> Tensor:
        """s itself."""
        return s

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """All |x_i - y_j|_1, coordinate by coordinate."""
        s = x.new_zeros(*x.shape[:-1], y.shape[-2])
        for k in range(x.shape[-1]):
            s += (x[..., :, None, k] - y[..., None, :, k]).abs_()
        return s

    def pullback(self, x: Tensor, y: Tensor, s: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of sum_ij M_ij |x_i - y_j|_1: signs, with sign(0) = 0."""
        gx, gy = torch.empty_like(x), torch.empty_like(y)
        for k in range(x.shape[-1]):
            signed = (x[..., :, None, k] - y[..., None, :, k]).sign_().mul_(M)
            gx[..., k] = signed.sum(-1)
            gy[..., k] = -signed.sum(-2)
        return gx, gy


def _centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both blocks about the mean of the second, and their squared norms: data far from the origin loses no digits."""
    centre = y.mean(-2, keepdim=True)
    x, y = x - centre, y - centre
    return x, y, x.square().sum(-1), y.square().sum(-1)


def _near(s: Tensor, nx: Tensor, ny: Tensor) -> Pairs | None:
    """The indices of the pairs whose distance is small against their norms, or None where there are none."""
    if float(s.min()) > _CANCELLATION * float(nx.max() + ny.max()):  # one pass settles most blocks
        return None
    return (s <= _CANCELLATION * (nx.unsqueeze(-1) + ny.unsqueeze(-2))).nonzero(as_tuple=True)


def _dense(pairs: Pairs, s: Tensor) -> bool:
    return len(pairs[0]) > _DENSE * s.numel()


def _differences(x: Tensor, y: Tensor, pairs: Pairs) -> Tensor:
    return x[(*pairs[:-2], pairs[-2])] - y[(*pairs[:-2], pairs[-1])]


def _by_differences(x: Tensor, y: Tensor) -> Tensor:
    s = x.new_zeros(*x.shape[:-1], y.shape[-2])
    for k in range(x.shape[-1]):
        difference = x[..., :, None, k] - y[..., None, :, k]
        s.addcmul_(difference, difference)
    return s


def _pull_differences(x: Tensor, y: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
    gx, gy = torch.empty_like(x), torch.empty_like(y)
    for k in range(x.shape[-1]):
        pulled = (x[..., :, None, k] - y[..., None, :, k]).mul_(M)
        gx[..., k] = 2 * pulled.sum(-1)
        gy[..., k] = -2 * pulled.sum(-2)
    return gx, gy


SQUARED_EUCLIDEAN = SquaredEuclidean()
L1_DISTANCE = L1()
