"""Size of the permutation test: 1,000 null data sets a cell, seeds 0 to 999, level 0.05."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy.directions import Uniform
from discrepancy.inference import BesagClifford, permutation_test
from discrepancy.kernel_methods import MMD, EnergyDistance
from discrepancy.transport import SinkhornDivergence, SlicedWasserstein, Wasserstein

pytestmark = pytest.mark.calibration

DRAWS = 1000
Problem = tuple[Tensor, Tensor, dict[str, Any]]


def normal(g: torch.Generator, n: int, d: int = 1) -> Tensor:
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def rejections(D: Discrepancy, draw: Callable[[torch.Generator], Problem], permutations: int = 99) -> int:
    rejected = 0
    for seed in range(DRAWS):
        g = torch.Generator().manual_seed(seed)
        x, y, options = draw(g)
        # 100 or 20 arrangements with the observed one: 5 % of them is a whole number, so the size is exact, not below.
        rejected += permutation_test(x, y, D, permutations=permutations, generator=g, **options).p_value <= 0.05
    return rejected


@pytest.mark.parametrize(
    ("name", "D", "d", "permutations"),
    [
        ("MMD, median bandwidth", MMD(), 3, 99),
        ("energy distance", EnergyDistance(), 3, 99),
        ("W1 on the line", Wasserstein(1), 1, 99),
        ("W2 on the line", Wasserstein(2), 1, 99),
        ("sliced W2, 10 directions", SlicedWasserstein(2, directions=Uniform(10)), 3, 99),
        ("Sinkhorn divergence, 5 % of the mean cost", SinkhornDivergence(), 2, 19),
    ],
)
def test_rows(record: Any, name: str, D: Discrepancy, d: int, permutations: int) -> None:
    n, m = (12, 8) if permutations == 19 else (20, 15)
    found = rejections(D, lambda g: (normal(g, n, d), normal(g, m, d), {}), permutations)
    cell = f"{name}, {n} against {m} normal rows, d = {d}"
    assert record.size("permutation", cell, rejections=found, draws=DRAWS, permutations=permutations)["held"]


def test_heavy_tails_and_ties(record: Any) -> None:
    def cauchy(g: torch.Generator) -> Problem:
        draw = [torch.empty(n, 1, dtype=torch.float64).cauchy_(generator=g) for n in (20, 15)]
        return draw[0], draw[1], {}

    def coins(g: torch.Generator) -> Problem:
        draw = [(torch.rand(n, 1, generator=g) < 0.3).double() for n in (20, 15)]
        return draw[0], draw[1], {}

    found = rejections(Wasserstein(1), cauchy)
    assert record.size("permutation", "W1, Cauchy rows, 20 against 15", rejections=found, draws=DRAWS)["held"]
    found = rejections(Wasserstein(1), coins)
    entry = record.size(
        "permutation", "W1, Boolean rows (ties count), 20 against 15", rejections=found, draws=DRAWS, conservative=True
    )
    assert entry["held"]


def test_weights(record: Any) -> None:
    def draw(g: torch.Generator) -> Problem:
        x, y = normal(g, 40), normal(g, 30)
        a, b = (torch.distributions.Gamma(2.0, 1.0).sample((n,)).double() for n in (40, 30))
        return x, y, {"a": a / a.sum(), "b": b / b.sum()}

    torch.manual_seed(0)
    found = rejections(EnergyDistance(), draw)
    assert record.size("permutation", "weights: gamma(2) beside normal rows, 40 against 30", rejections=found, draws=DRAWS)[
        "held"
    ]


def test_strata(record: Any) -> None:
    """Strata of different means and different shares: a test that ignored them would nearly always reject."""

    def draw(g: torch.Generator) -> Problem:
        strata = torch.arange(20) < 14, torch.arange(20) < 6
        x, y = (normal(g, 20) + 3 * s[:, None] for s in strata)
        return x, y, {"strata": (strata[0].numpy(), strata[1].numpy())}

    found = rejections(Wasserstein(1), draw)
    assert record.size("permutation", "strata: means 0 and 3, shares 0.7 and 0.3", rejections=found, draws=DRAWS)["held"]
    ignored = rejections(Wasserstein(1), lambda g: (*draw(g)[:2], {}))
    record.power("permutation", "strata ignored, for contrast", rejections=ignored, draws=DRAWS)


def test_blocks(record: Any) -> None:
    """Rows of one block share a random effect: rows are not exchangeable, blocks are."""

    def draw(g: torch.Generator) -> Problem:
        blocks = [torch.randint(0, 12, (48,), generator=g) for _ in range(2)]
        x, y = (normal(g, 48) * 0.5 + normal(g, 12)[b] for b in blocks)
        return x, y, {"blocks": (blocks[0].numpy(), blocks[1].numpy())}

    found = rejections(MMD(), draw)
    assert record.size("permutation", "blocks: about 12 of unequal size a sample", rejections=found, draws=DRAWS)["held"]
    ignored = rejections(MMD(), lambda g: (*draw(g)[:2], {}))
    record.power("permutation", "blocks ignored, for contrast", rejections=ignored, draws=DRAWS)


def test_pairs(record: Any) -> None:
    def draw(g: torch.Generator) -> Problem:
        common = normal(g, 20, 2)
        return common + 0.3 * normal(g, 20, 2), common + 0.3 * normal(g, 20, 2), {"paired": True}

    found = rejections(EnergyDistance(), draw)
    assert record.size("permutation", "pairs of correlation 0.92", rejections=found, draws=DRAWS)["held"]


def test_early_stop(record: Any) -> None:
    def draw(g: torch.Generator) -> Problem:
        return normal(g, 20), normal(g, 15), {"early_stop": BesagClifford(10)}

    found = rejections(Wasserstein(1), draw, permutations=199)
    assert record.size("permutation", "early stop at 10 exceedances of at most 199", rejections=found, draws=DRAWS)["held"]
