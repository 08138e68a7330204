"""The front doors on degenerate samples: copied rows, sparse tables, values that the sample cannot support."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from discrepancy import entropy, mutual_information
from discrepancy.estimation import KSG, SampleSizeWarning, conditional_mutual_information


def _pairs(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return x, x[:, :1] + torch.randn(n, 1, generator=generator, dtype=torch.float64)


def test_copies_count_once() -> None:
    x, y = _pairs(400, 0)
    order = torch.randperm(800, generator=torch.Generator().manual_seed(1))
    twice_x, twice_y = (torch.cat([s, s])[order] for s in (x, y))
    once, twice = mutual_information(x, y), mutual_information(twice_x, twice_y)
    assert float(twice) == pytest.approx(float(once), abs=1e-12)
    assert "400 of 800 rows are copies" in (twice.note or "")
    assert float(entropy(twice_x)) == pytest.approx(float(entropy(x)), abs=1e-12)
    z = torch.randn(400, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    plain = conditional_mutual_information(x, y, z)
    copied = conditional_mutual_information(twice_x, twice_y, torch.cat([z, z])[order])
    assert float(copied) == pytest.approx(float(plain), abs=1e-12)


def test_repeats_that_belong_to_the_law_stay() -> None:
    # Half of the rows are the atom (0, 0); the others independent: I = log 2 whatever the rows' order.
    x, y = (torch.randn(600, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (3, 4))
    x[:300] = y[:300] = 0.0
    found = mutual_information(x, y)
    assert float(found) == pytest.approx(math.log(2), abs=0.1)
    assert "copies" not in (found.note or "")
    labels = torch.arange(600) % 3
    assert float(mutual_information(labels, labels)) == pytest.approx(math.log(3), abs=0.02)


def test_sparse_tables_are_not_plugged_in() -> None:
    generator = torch.Generator().manual_seed(5)
    x, y = (torch.randint(0, 30, (500,), generator=generator) for _ in range(2))
    assert abs(float(mutual_information(x, y))) < 0.15
    z = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    rho = 0.75
    a, b = z[:, 0], rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]
    rounded = mutual_information((10 * a).round() / 10, (10 * b).round() / 10)
    assert float(rounded) == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.1)


def test_no_interval_where_the_sample_cannot_support_the_value() -> None:
    x = torch.randn(300, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    with pytest.warns(SampleSizeWarning, match="cannot support"):
        found = mutual_information(x, 2 * x + 1)
    assert found.low is None
    assert found.standard_error is None
    assert "no interval" in (found.note or "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mutual_information(*_pairs(300, 7)).low is not None


def test_no_interval_where_the_drift_is_too_large_to_be_extrapolated() -> None:
    # Four clusters whose label both sides share, log 4 nats: normal scores close the gaps, which costs a fifth of the value.
    generator = torch.Generator().manual_seed(8)
    label = torch.randint(0, 4, (1000,), generator=generator)
    centres = torch.tensor([[-4.0, -4.0], [4.0, -4.0], [-4.0, 4.0], [4.0, 4.0]], dtype=torch.float64)
    x, y = (centres[label] + 0.5 * torch.randn(1000, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    found = mutual_information(x, y)
    assert found.low is None
    assert found.note is not None
    assert found.note.startswith("no interval: the drift")
    assert float(found) == pytest.approx(math.log(4), abs=0.2)
    on_one_scale = mutual_information(x, y, KSG(margins=None))
    assert float(on_one_scale) == pytest.approx(math.log(4), abs=0.05)
