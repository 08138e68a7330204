"""The Sobolev distance between samples: the graph it builds, tests with it, and what it refuses. The suite holds the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from discrepancy import MetricMeasureSpace, SobolevDistance, SobolevIPM, permutation_test


@pytest.mark.parametrize("p", [1.5, 2.0, math.inf])
def test_is_the_norm_on_the_neighbour_graph_of_the_pooled_points(p: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2)), rng.normal(size=(15, 2)) + 1
    space = MetricMeasureSpace.from_points(np.r_[x, y], 5, connected=True)
    one = MetricMeasureSpace(space.edges, space.lengths, space.lengths / space.lengths.sum())
    mu, nu = np.r_[np.full(20, 1 / 20), np.zeros(15)], np.r_[np.zeros(20), np.full(15, 1 / 15)]
    assert float(SobolevDistance(p, 5)(x, y)) == pytest.approx(float(SobolevIPM(one, p)(mu, nu)), rel=1e-10)


def test_falls_to_the_graphs_w1_which_follows_the_data() -> None:
    # Points along three quarters of a circle: the way along the data is 3 pi / 2, the straight one sqrt 2.
    angle = np.linspace(0, 1.5 * math.pi, 400)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    x, y = circle[:1], circle[-1:]
    cloud = torch.as_tensor(circle)
    a, b = torch.zeros(1, 400, dtype=torch.float64), torch.zeros(1, 400, dtype=torch.float64)
    a[0, 0], b[0, -1] = 1, 1
    values = [float(SobolevDistance(p, 2).pooled(cloud)(a, b)) for p in (2.0, 5.0, math.inf)]
    # A single path but for the ends' second neighbours: its flow is one everywhere, so every norm is the length.
    assert values == pytest.approx([1.5 * math.pi] * 3, rel=3e-3)
    assert values[2] == pytest.approx(1.5 * math.pi, rel=1e-4)
    assert float(SobolevDistance()(x, y)) == pytest.approx(math.sqrt(2))


def test_two_far_clusters_still_make_a_test() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator)
    y = torch.randn(40, 2, generator=generator) + torch.tensor([200.0, 0.0])
    assert permutation_test(x, y, SobolevDistance(k=3), permutations=199, generator=generator).p_value == pytest.approx(0.005)
    same = permutation_test(x[:20], x[20:], SobolevDistance(k=3), permutations=199, generator=generator)
    assert same.p_value > 0.01


def test_duplicates_across_samples_are_one_vertex() -> None:
    x = torch.tensor([[0.0], [1.0], [1.0]], dtype=torch.float64)
    y = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    # Masses 1/3, 2/3 - 1/2, -1/2 at 0, 1, 3: W_1 = 1/3 + 2 * 1/2 on the line.
    assert float(SobolevDistance(math.inf, 1)(x, y)) == pytest.approx(1 / 3 + 1)
    assert float(SobolevDistance()(torch.ones(3, 2), torch.ones(5, 2))) == 0.0


def test_bad_options() -> None:
    for options, message in (({"p": 1.0}, "p must"), ({"k": 0}, "k must"), ({"k": 2.5}, "k must"), ({"tolerance": -1.0}, "tol")):
        with pytest.raises(ValueError, match=message):
            SobolevDistance(**options)  # type: ignore[arg-type]
