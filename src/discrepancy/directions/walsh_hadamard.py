"""The fast Walsh-Hadamard transform."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import as_tensor


def is_power_of_two(d: int) -> bool:
    """Whether d is 1, 2, 4, 8, ..."""
    return d >= 1 and d & (d - 1) == 0


def next_power_of_two(d: int) -> int:
    """The smallest power of two that is not below d."""
    return 1 << max(d - 1, 0).bit_length()


@cache
def _signs(bits: int) -> Tensor:
    """Sylvester's matrix of +-1 of size 2^bits, by H_2k = [[H_k, H_k], [H_k, -H_k]]; at most 32 x 32."""
    H = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(bits):
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H


def hadamard_transform(x: Any) -> Float[Tensor, "... d"]:
    """The orthonormal Walsh-Hadamard transform H x / sqrt(d) of the last axis (..., d), d a power of two; its own inverse.

    H of size 2^k is the Kronecker product of matrices of size 16 or less, so that the transform is about k/4 products with
    small matrices, which run at the speed of BLAS: 16 d log2(d) / 4 multiplications a row and k/4 passes over memory, in place
    of d^2. Linear, hence differentiable to any order. float32 and float64 are kept; integers become the default float.
    Raises ValueError where d is no power of two.
    """
    x = as_tensor(x, "x")
    if x.ndim == 0 or not is_power_of_two(x.shape[-1]):
        got = "a single number" if x.ndim == 0 else str(x.shape[-1])
        raise ValueError(f"the last axis must be a power of two, got {got}")
    d, shape = x.shape[-1], x.shape
    k = d.bit_length() - 1
    parts = -(-k // 4)
    after = 1  # the product of the factors to the right of the present one
    for i in range(parts):
        bits = k // parts + (i < k % parts)
        H = _signs(bits).to(x)
        if i == parts - 1:
            H = H / math.sqrt(d)  # scaled once: sums of integers stay exact until here
        x = x.reshape(-1, 1 << bits) @ H if after == 1 else torch.matmul(H, x.reshape(-1, 1 << bits, after))
        after <<= bits
    return x.reshape(shape)


__all__ = ["hadamard_transform", "is_power_of_two", "next_power_of_two"]
