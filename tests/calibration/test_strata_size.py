"""Size and coverage of the stratified tests over simulated studies with rare events."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from discrepancy.inference import binomial_band, cochran_mantel_haenszel, sign_flip_test, stratified_permutation_test

pytestmark = pytest.mark.calibration


def _cells(rng: np.random.Generator, effect: float) -> tuple[np.ndarray, ...]:
    logit = rng.normal(-4.5, 0.9, 60)
    trials_a, trials_b = rng.integers(50, 400, 60), rng.integers(50, 200, 60)
    p, q = (1 / (1 + np.exp(-(logit + e))) for e in (effect, 0.0))
    return rng.binomial(trials_a, p), trials_a, rng.binomial(trials_b, q), trials_b


def test_size_and_coverage() -> None:
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    studies, rejected, cells, exact, covered = 600, 0, 0, 0, 0
    for _ in range(studies):
        a, n, b, m = _cells(rng, 0.0)
        rejected += stratified_permutation_test(a, n, b, m, permutations=199, generator=generator).p_value <= 0.05
        cells += sign_flip_test(a / n - b / m, permutations=199, generator=generator).p_value <= 0.05
        exact += cochran_mantel_haenszel(a, n, b, m).exact_p <= 0.05
        found = cochran_mantel_haenszel(*_cells(rng, 0.7))
        covered += found.low <= math.exp(0.7) <= found.high
    low, high = binomial_band(studies, 0.05)
    assert low <= rejected <= high
    assert exact <= high  # conditional on both margins: discrete, never above its level
    assert studies - covered <= high
    # Flips of whole cells ask for symmetric differences, which unequal arms give only roughly.
    assert cells <= 2 * high
