"""Is the mean of paired differences zero? The signs are flipped, one block at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from discrepancy._results import TestResult
from discrepancy._validate import as_tensor, generator_or_default, require_finite, whole_number
from discrepancy.inference.designs import make_design
from discrepancy.inference.montecarlo import clopper_pearson, monte_carlo_p
from discrepancy.inference.permutation import numpy_stream


def sign_flip_test(
    differences: Any,
    *,
    blocks: Any = None,
    one_sided: bool = False,
    permutations: int = 9999,
    generator: torch.Generator | None = None,
) -> TestResult:
    """Test that differences (n,) of pairs are symmetric about zero; a mean far from zero rejects (above it, with `one_sided`).

    p = (1 + #{T* >= T}) / (R + 1) for T the absolute mean (the mean, `one_sided`) under random signs; `blocks` (n,) flips all
    differences of a block together, for answers to one question. All sign vectors where there are no more than R + 1.
    Exact under symmetry. Time O(R n). Raises ValueError for non-finite differences or labels that do not fit.
    """
    d = as_tensor(differences, "differences").detach().double()
    if d.ndim != 1 or len(d) == 0:
        raise ValueError(f"differences must be (n,) with at least one entry, got shape {tuple(d.shape)}")
    require_finite(d, "differences")
    whole_number(permutations, 1, "permutations")
    design = make_design(len(d), len(d), blocks=blocks, paired=True)
    values = d.cpu().numpy()
    exact = design.size <= permutations + 1

    def statistic(arrangements: np.ndarray) -> np.ndarray:
        mean = np.where(arrangements[:, : len(values)], values, -values).mean(-1)
        return mean if one_sided else np.abs(mean)

    observed = float(values.mean()) if one_sided else abs(float(values.mean()))
    tie = 1e-12 * float(np.abs(values).max())
    rng = numpy_stream(generator_or_default(generator))
    if exact:
        found = statistic(np.stack(list(design.every())))
        p = float((found >= observed - tie).mean())
        return TestResult(float(values.mean()), p, p, p, method=f"all {len(found)} {design.words}")
    reached, step = 0, max(1, 2**22 // len(values))
    for start in range(0, permutations, step):
        found = statistic(design.draw(min(step, permutations - start), rng))
        reached += int((found >= observed - tie).sum())
    low, high = (float(v) for v in clopper_pearson(reached, permutations))
    p = float(monte_carlo_p(reached, permutations))
    return TestResult(float(values.mean()), p, low, high, method=f"{design.words}, {permutations} draws")


__all__ = ["sign_flip_test"]
