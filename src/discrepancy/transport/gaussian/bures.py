"""The Bures-Wasserstein distance between covariance matrices, from factors, right where matrices are singular or nearly equal.

For S = A A^T and R = B B^T the squared distance is tr S + tr R - 2 tr (S^1/2 R S^1/2)^1/2 = min over orthogonal O of |A - B O|^2.
The trace form cancels: near equality it keeps half of the digits, and its matrix roots fail on singular matrices. The factor
form does neither: O is the polar factor of B^T A, and the differences are taken before they are squared.
"""

from __future__ import annotations

import torch
from torch import Tensor


def factor(covariance: Tensor) -> Tensor:
    """A (..., d, d) with A A^T = covariance and orthogonal columns: eigenvectors times roots of eigenvalues."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()[..., None, :]


def padded(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Both with as many columns as the wider one; columns of zeros change no covariance."""
    width = max(A.shape[-1], B.shape[-1])
    return tuple(torch.nn.functional.pad(t, (0, width - t.shape[-1])) for t in (A, B))  # type: ignore[return-value]


def aligned(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """A and B O, padded to equal width, with O the rotation that brings them closest: the polar factor of B^T A."""
    A, B = padded(A, B)
    left, _, right = torch.linalg.svd(B.mT @ A)
    return A, B @ (left @ right)


def squared_distance(A: Tensor, B: Tensor) -> Tensor:
    """min over orthogonal O of |A - B O|^2, shape (...), for factors A (..., d, k) and B (..., d, l)."""
    A, B = aligned(A, B)
    return (A - B).square().sum((-1, -2))


def map_factor(A: Tensor, B: Tensor) -> Tensor:
    """W (..., d, k) such that T = W W^T is the transport map from N(0, A A^T) to N(0, B B^T), zero off the range of A.

    T = S^-1/2 (S^1/2 R S^1/2)^1/2 S^-1/2 in terms of covariances. Directions in which A is below rounding of its largest
    singular value are outside its range: no linear map moves the mass that the target has there.
    """
    basis, size, _ = torch.linalg.svd(A, full_matrices=False)
    inverse = _inverse(size, max(A.shape[-2:]))
    kept = torch.where(inverse > 0, size, torch.zeros_like(size))
    left, strength, _ = torch.linalg.svd((basis * kept[..., None, :]).mT @ B, full_matrices=False)
    return (basis * inverse[..., None, :]) @ (left * strength.sqrt()[..., None, :])


def displacement(A: Tensor, B: Tensor, rows: Tensor) -> Tensor:
    """Where points of the span of A move when A is brought to B, as rows (..., n, d) -> (..., n, d): B O A^+ x.

    O is the partial isometry that aligns B with A. Where A has full row rank this is the transport map; where it has not, it
    still is the derivative of the squared distance in the data behind A, which leaves the span.
    """
    basis, size, turn = torch.linalg.svd(A, full_matrices=False)
    inverse = _inverse(size, max(A.shape[-2:]))
    left, strength, right = torch.linalg.svd(B.mT @ A, full_matrices=False)
    live = (_inverse(strength, max(A.shape[-2:])) > 0).to(A.dtype)
    coordinates = ((rows @ basis) * inverse[..., None, :]) @ turn
    return ((coordinates @ right.mT) * live[..., None, :]) @ left.mT @ B.mT


def _inverse(size: Tensor, width: int) -> Tensor:
    """1 / singular values, zero for those that are rounding of the largest."""
    inside = size > size[..., :1] * (width * torch.finfo(size.dtype).eps)
    return torch.where(inside, 1 / torch.where(inside, size, torch.ones_like(size)), torch.zeros_like(size))


def map_matrix(source: Tensor, target: Tensor) -> Tensor:
    """The matrix T (..., d, d) that sends N(0, source) to N(0, target), symmetric positive semidefinite.

    Zero where the source's variance is rounding of its largest one: of a zero eigenvalue 1e-17 is left, whose root 3e-9 would
    pass for a direction with mass and be divided by.
    """
    A = factor(source)
    size = A.square().sum(-2)
    rounding = size.amax(-1, keepdim=True) * (source.shape[-1] * torch.finfo(source.dtype).eps)
    W = map_factor(torch.where((size > rounding)[..., None, :], A, torch.zeros_like(A)), factor(target))
    return W @ W.mT


class _SquaredBures(torch.autograd.Function):
    """The squared distance between covariances; its derivative in the source is I - T."""

    @staticmethod
    def forward(ctx, S, R):  # type: ignore[override]
        ctx.save_for_backward(S, R)
        return covariance_distance(S, R)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        S, R = ctx.saved_tensors
        same = (S == R).flatten(-2).all(-1)[..., None, None]
        eye = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
        slopes = []
        for need, source, target in ((ctx.needs_input_grad[0], S, R), (ctx.needs_input_grad[1], R, S)):
            slope = torch.where(same, torch.zeros_like(eye), eye - map_matrix(source, target)) if need else None
            slopes.append(None if slope is None else grad[..., None, None] * slope)
        return tuple(slopes)


def covariance_distance(S: Tensor, R: Tensor) -> Tensor:
    """The squared distance without gradient: exactly symmetric, exactly zero at equality.

    The trace form, a third of the work, answers for pairs that are well conditioned and well apart, where it loses at most a
    quarter of the digits; the factors answer for the rest.
    """
    first = _precedes(S, R)[..., None, None]
    S, R = torch.where(first, S, R), torch.where(first, R, S)
    value, trusted = _trace_form(S, R)
    if bool(trusted.all()):  # then well apart, all of them
        return value
    rest = ~trusted
    value = value.masked_scatter(rest, squared_distance(factor(S[rest]), factor(R[rest])))
    return torch.where((S == R).flatten(-2).all(-1), torch.zeros_like(value), value)


def _trace_form(S: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    """tr S + tr R - 2 tr (S^1/2 R S^1/2)^1/2 by Cholesky, and where cancellation and small eigenvalues do it no harm."""
    lower, info = torch.linalg.cholesky_ex(S)
    squares = torch.linalg.eigvalsh(lower.mT @ R @ lower)
    total = S.diagonal(dim1=-2, dim2=-1).sum(-1) + R.diagonal(dim1=-2, dim2=-1).sum(-1)
    value = total - 2 * squares.clamp_min(0).sqrt().sum(-1)
    eps = torch.finfo(S.dtype).eps
    return value, (info == 0) & (squares[..., 0] > eps**0.5 * squares[..., -1]) & (value > eps**0.25 * total)


def _precedes(S: Tensor, R: Tensor) -> Tensor:
    """Whether S comes first in an order of matrices, (...): by the first entry that differs."""
    corners = S[..., 0, 0], R[..., 0, 0]
    if bool((corners[0] != corners[1]).all()):
        return corners[0] > corners[1]
    differs = (S != R).flatten(-2)
    k = differs.int().argmax(-1, keepdim=True)
    return (S.flatten(-2).gather(-1, k) >= R.flatten(-2).gather(-1, k))[..., 0]


def squared_bures(S: Tensor, R: Tensor) -> Tensor:
    """The squared Bures-Wasserstein distance (...) between covariances (..., d, d), differentiable in both.

    Where a matrix is singular the derivative along its null space is minus infinity if the other has mass there; the gradient
    returned takes the map's zero extension instead.
    """
    S, R = torch.broadcast_tensors(S, R)
    return _SquaredBures.apply(S, R)  # type: ignore[return-value]


__all__ = [
    "aligned",
    "covariance_distance",
    "displacement",
    "factor",
    "map_factor",
    "map_matrix",
    "padded",
    "squared_bures",
    "squared_distance",
]
