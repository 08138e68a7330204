"""The same bits wherever the heap puts the arrays: D(x, x) is exactly zero, D(x, y) = D(y, x), and repeats are equal."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from discrepancy import Discrepancy, Sinkhorn, SinkhornDivergence


@pytest.mark.parametrize("D", [SinkhornDivergence(0.2), SinkhornDivergence(), Sinkhorn(0.05)], ids=["fixed", "relative", "plain"])
def test_values_do_not_depend_on_where_arrays_lie(D: Discrepancy) -> None:
    chance = random.Random(0)
    heap: list[list[np.ndarray]] = []
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        n, m = chance.randint(3, 60), chance.randint(3, 60)
        x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        y = torch.randn(m, 2, generator=generator, dtype=torch.float64) + 0.4
        values = set()
        for k in range(8):
            # Blocks of all sizes come and go, so that the next arrays land elsewhere, now and then beside each other.
            heap.append([np.empty(chance.randint(1, 90)) for _ in range(chance.randint(0, 20))])
            if len(heap) > 30:
                heap.pop(chance.randrange(30))
            values.add(float(D(x, y) if k % 2 else D(y, x)))
            if isinstance(D, SinkhornDivergence):
                assert float(D(x, x.clone())) == 0
        assert len(values) == 1
