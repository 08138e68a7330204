"""How far the images of a vector under random rotations are from uniform on the sphere: coordinate by coordinate, and whole.

All take images y (..., n, d) of one vector, such as `hadamard_images` draws. "Works on random inputs" proves nothing: the worst
inputs of structured rotations are sparse, or Walsh functions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import as_tensor, require_finite, whole_number
from discrepancy.directions.walsh_hadamard import hadamard_transform


def _dimension(d: int) -> int:
    whole_number(d, 1, "d")
    return d


def sphere_coordinate_cdf(t: Any, d: int, *, left: bool = False) -> Tensor:
    """P(U_1 <= t) for U uniform on the unit sphere of R^d, whose U_1^2 ~ Beta(1/2, (d - 1)/2) and whose sign is fair.

    F(t) = I_{1 - t^2}((d - 1)/2, 1/2) / 2 for t <= 0 and 1 - F(-t) above, to full relative accuracy in the lower tail. With
    left=True, P(U_1 < t), which differs for d = 1 only (atoms at -1 and 1). t of any shape, in units of the radius; no gradient.
    """
    from scipy.special import betainc

    _dimension(d)
    t = as_tensor(t, "t").detach()
    x = t.double()
    if d == 1:
        at_or_above = (lambda bound: x > bound) if left else (lambda bound: x >= bound)
        return ((at_or_above(-1.0).double() + at_or_above(1.0).double()) / 2).to(t.dtype)
    inside = x.clamp(-1, 1)
    outer = (1 - inside) * (1 + inside)  # 1 - t^2 without cancellation at the ends
    tail = torch.as_tensor(betainc((d - 1) / 2, 0.5, outer.cpu().numpy()), device=x.device) / 2
    return torch.where(x <= 0, tail, 1 - tail).to(t.dtype)


def marginal_ks(values: Any, d: int) -> Float[Tensor, "..."]:
    """The Kolmogorov distance sup_t |F_n(t) - F(t)| between values (..., n) of one coordinate of the image of a unit vector and
    the law of a coordinate under Haar's, `sphere_coordinate_cdf(., d)`.

    Both one-sided limits are taken at every value, so that atoms count in full: an axis under one Hadamard block, all of
    whose coordinates are +-1/sqrt(d), is at distance 0.34 in every dimension. Without any difference, n values show about
    0.87/sqrt(n), and more than 1.36/sqrt(n) in one case of twenty. n log n time. Raises ValueError for no values or NaN.
    """
    values = as_tensor(values, "values").detach()
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"values must have shape (..., n) with n of at least 1, got {tuple(values.shape)}")
    require_finite(values, "values")
    x = values.double().sort(-1).values
    n = x.shape[-1]
    k = torch.arange(n, dtype=torch.float64, device=x.device)
    above = (k + 1) / n - sphere_coordinate_cdf(x, d)  # among ties the last has the whole jump
    below = sphere_coordinate_cdf(x, d, left=True) - k / n  # and the first none of it
    return torch.maximum(above, below).amax(-1)


def _units(y: Any) -> Tensor:
    y = as_tensor(y, "y")
    if y.ndim == 0:
        raise ValueError("y must hold vectors (..., d), got a single number")
    require_finite(y, "y")
    length = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    if not bool((length > 0).all()):
        raise ValueError(f"y has {int((length == 0).sum())} zero vector(s): their direction is undefined")
    return y / length


def vertex_gap(y: Any) -> Float[Tensor, "..."]:
    """The distance from each vector (..., d), turned by H / sqrt(d), to the nearest vertex of the cube [-1, 1]^d / sqrt(d).

    |z - sign(z)/sqrt d| = sqrt(2 - 2 |z|_1 / sqrt d) for z = H y / (sqrt d |y|), a function of slope at most 1 that witnesses
    the Wasserstein distance: its mean is 0 for two Hadamard blocks on an axis, and under Haar's law tends to
    sqrt(2 - 2 sqrt(2/pi)) = 0.6358. d a power of two. Raises ValueError for zero vectors.
    """
    z = hadamard_transform(_units(y))
    # The difference is formed before it is squared: the closed form above would keep half of the digits at a vertex.
    vertex = torch.where(z >= 0, 1.0, -1.0).to(z) / math.sqrt(z.shape[-1])
    return torch.linalg.vector_norm(z - vertex, dim=-1)


def hadamard_w2_to_sphere(d: int) -> float:
    """W_2 between two Hadamard blocks applied to an axis and the uniform law of the unit sphere in R^d, exactly.

    W_2^2 = 2 - 2 sqrt(d) E|U_1| = 2 - 2 sqrt(d) Gamma(d/2) / (sqrt(pi) Gamma((d + 1)/2)), rising to 2 - 2 sqrt(2/pi) = 0.40423:
    the image is, up to a rotation, a uniform vertex of the cube, and x -> sign(x)/sqrt(d) is the gradient of the convex
    |x|_1/sqrt(d), hence optimal. Any d of at least 1 (d = 1: zero).
    """
    from scipy.special import beta

    if _dimension(d) == 1:
        return 0.0
    mean = float(beta(d / 2, 0.5)) / math.pi  # the quotient of Gamma functions without their size
    return math.sqrt(max(2 - 2 * math.sqrt(d) * mean, 0.0))


def sketch_distortion(y: Any, k: int) -> Float[Tensor, "..."]:
    """(d/k) sum_{j <= k} y_j^2 / |y|^2 - 1, the relative error of squared length when the first k of d coordinates are kept.

    The Johnson-Lindenstrauss error of a rotation followed by k coordinates; its mean is 0 and, under Haar's law, its variance
    2 (d - k) / (k (d + 2)). y (..., d).
    """
    z = _units(y)
    d = z.shape[-1]
    if not 1 <= _dimension(k) <= d:
        raise ValueError(f"k must lie between 1 and the dimension {d}, got {k}")
    return z[..., :k].square().sum(-1) * (d / k) - 1


def sign_quantisation_cosine(y: Any) -> Float[Tensor, "..."]:
    """The cosine between y (..., d) and its signs, |y|_1 / (sqrt(d) |y|_2): what one bit a coordinate keeps of a direction.

    Under Haar's law it tends to sqrt(2/pi) = 0.798; it is 1 exactly at the vertices of the cube.
    """
    z = _units(y)
    return z.abs().sum(-1) / math.sqrt(z.shape[-1])


__all__ = [
    "hadamard_w2_to_sphere",
    "marginal_ks",
    "sign_quantisation_cosine",
    "sketch_distortion",
    "sphere_coordinate_cdf",
    "vertex_gap",
]
