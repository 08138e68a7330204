"""Pass@k: the probability that one of k answers is right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import whole_number


def pass_at_k(n: Any, c: Any, k: int) -> Tensor:
    """1 - C(n - c, k) / C(n, k), elementwise: the unbiased estimate of pass@k from n answers of which c were right.

    n and c are whole numbers or integer tensors that broadcast, one a prompt; average the result over prompts. Computed as
    1 - prod over i of (1 - k / i), i from n - c + 1 to n, in float64. Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    Source: Chen et al. (2021), 2107.03374.
    """
    whole_number(k, 1, "k")
    total, right = torch.broadcast_tensors(torch.as_tensor(n), torch.as_tensor(c))
    if total.is_floating_point() or right.is_floating_point():
        raise ValueError(f"n and c are counts: whole numbers, got {total.dtype} and {right.dtype}")
    if not bool(((right >= 0) & (right <= total)).all()):
        raise ValueError("c must lie between 0 and n: the number of right answers among n")
    if not bool((total >= k).all()):
        raise ValueError(f"k must be at most n, got k = {k} and a smallest n of {int(total.min())}: draw more answers")
    # log C(n - c, k) / C(n, k) = sum of log(n - c - j) - log(n - j), j < k; zero if n - c < k.
    j = torch.arange(k, device=total.device, dtype=torch.float64)
    wrong = (total - right).double().unsqueeze(-1) - j
    share = (torch.log(wrong.clamp_min(1)) - torch.log(total.double().unsqueeze(-1) - j)).sum(-1)
    missed = torch.where((wrong > 0).all(-1), torch.exp(share), torch.zeros_like(share))
    return 1 - missed


__all__ = ["pass_at_k"]
