"""Ten thousand points a side: who forms matrices of all pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from discrepancy import SinkhornDivergence
from discrepancy.transport import SemiDualNewton
from side_by_side import entropic, kernels
from side_by_side.measure import Case, Contender, gradient_of


def cases(quick: bool) -> Iterator[Case]:
    """The MMD with gradient and the Sinkhorn divergence, once each."""
    n = 1_000 if quick else 10_000
    yield kernels.large_mmd(n)
    x, y, epsilon = entropic.samples(n, 10)
    truth, slope = entropic.reference(x, y, epsilon)
    left, right = torch.from_numpy(x), torch.from_numpy(y)

    yield Case(
        f"Sinkhorn divergence with gradient, n = m = {n:,}, d = 10, float64",
        [
            Contender("discrepancy", gradient_of(SinkhornDivergence(epsilon), left, right), True),
            Contender(
                "discrepancy, tolerance 1e-2",
                gradient_of(SinkhornDivergence(epsilon, solver=SemiDualNewton(1e-2)), left, right),
                True,
            ),
            Contender("GeomLoss (default, scaling 0.5)", gradient_of(entropic.geomloss(epsilon), left, right)),
        ],
        truth,
        slope,
        once=True,
    )
