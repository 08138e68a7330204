"""The intervals of the variational bounds cover the truth where the critic can reach it: Gaussian pairs and shifted Gaussians."""

import math

import pytest
import torch

from discrepancy import KL, estimate
from discrepancy.estimation import CriticTraining, DonskerVaradhan, JensenShannonBound, mutual_information
from discrepancy.learning import EarlyStopping, Training

RUNS = 200
BRIEF = CriticTraining(
    loop=Training(steps=60, learning_rate=2e-3, gradient_clip=1.0),
    stopping=EarlyStopping(every=20, patience=2),
    batch_size=128,
    average=0.95,
)


@pytest.mark.calibration
@pytest.mark.parametrize("n", [200, 800])
@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_information_of_a_gaussian_pair(rho, n):
    truth, covered, given = -math.log1p(-(rho**2)) / 2, 0, 0
    for seed in range(RUNS):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(n, 1, generator=g)
        y = rho * x + math.sqrt(1 - rho**2) * torch.randn(n, 1, generator=g)
        found = mutual_information(x, y, JensenShannonBound(training=BRIEF), generator=g)
        given += found.low is not None
        covered += found.low is not None and found.low <= truth
    assert given >= 0.5 * RUNS
    assert covered / given >= 0.93  # one-sided: a poor critic makes it more


@pytest.mark.calibration
@pytest.mark.parametrize("n", [200, 800])
def test_divergence_of_shifted_gaussians(n):
    covered = given = 0
    for seed in range(RUNS):
        g = torch.Generator().manual_seed(seed)
        x, y = 0.7 + torch.randn(n, 1, generator=g), torch.randn(n, 1, generator=g)
        found = estimate(x, y, KL(), method=DonskerVaradhan(training=BRIEF), generator=g)
        given += found.low is not None
        covered += found.low is not None and found.low <= 0.245
    assert given >= 0.5 * RUNS
    assert covered / given >= 0.93  # one-sided: a poor critic makes it more
