"""Before trusting a verifier: does the true output explain the input better than another one?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import Estimate, Result, TestResult
from discrepancy.inference import sign_flip_test
from discrepancy.methods.decoding.verification import Verifier


@dataclass(frozen=True, repr=False)
class PMISanity(Result):
    """Does a verifier tell true outputs from others? `gap`: the mean over inputs of PMI(x; true y) - PMI(x; another's y), with
    its interval; `share`: the inputs where it is positive; `test`: sign flips of the gaps. Do not trust a verifier whose gap is
    not clearly positive: its p(x | y) hardly depends on y.
    """

    gap: Estimate
    share: float
    test: TestResult


def pmi_sanity(verifier: Verifier, pairs: Sequence[tuple[Tensor, Tensor]]) -> PMISanity:
    """Compare the PMI of each input's own output with that of the next pair's output; pairs of tokens (x, y), at least two.

    Raises ValueError for fewer.
    """
    if len(pairs) < 2:
        raise ValueError(f"pmi_sanity needs at least two pairs of input and output, got {len(pairs)}")
    gaps = []
    for (x, y), (_, other) in zip(pairs, [*pairs[1:], pairs[0]], strict=True):
        scores, _cost = verifier.begin(x)
        own, foreign = scores(y[:0], [y, other]).tolist()
        gaps.append(own - foreign)
    values = torch.tensor(gaps, dtype=torch.float64)
    mean, error = float(values.mean()), float(values.std() / math.sqrt(len(gaps)))
    gap = Estimate(mean, error, mean - 1.959964 * error, mean + 1.959964 * error, 0.95, method=f"mean of {len(gaps)} pairs")
    return PMISanity(gap, float((values > 0).double().mean()), sign_flip_test(values, generator=torch.Generator().manual_seed(0)))


__all__ = ["PMISanity", "pmi_sanity"]
