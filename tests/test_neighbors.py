"""Nearest neighbours by both engines against all distances; ties, duplicates, far-off clouds, blocks."""

import pytest
import torch
from scipy.spatial.distance import cdist

from discrepancy import neighbors
from discrepancy.neighbors import counts_within, nearest_neighbors

ENGINES = pytest.mark.parametrize("engine", ["k-d tree", "box tree", "blocked brute force"])


def cloud(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@ENGINES
@pytest.mark.parametrize("d", [1, 3, 12])
def test_both_engines_are_exact(engine, d):
    x, y = cloud(180, d), cloud(230, d, 1)
    distance, index = torch.from_numpy(cdist(x.numpy(), y.numpy())).sort(1)
    got = nearest_neighbors(x, y, 7, engine=engine)
    torch.testing.assert_close(got.distances, distance[:, :7], rtol=1e-12, atol=0)
    assert torch.equal(got.indices, index[:, :7])
    own = nearest_neighbors(x, x, 4, exclude_self=True, engine=engine)
    every = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    torch.testing.assert_close(own.distances, every.sort(1).values[:, :4], rtol=1e-12, atol=0)
    assert not bool((own.indices == torch.arange(180)[:, None]).any())
    torch.testing.assert_close((x[:, None] - x[own.indices]).norm(dim=-1), own.distances)
    assert own.engine == engine


@ENGINES
def test_duplicates_count_at_distance_zero(engine):
    x = cloud(40, 2).repeat(30, 1)
    got = nearest_neighbors(x, x, 31, exclude_self=True, engine=engine)
    assert bool((got.distances[:, :29] == 0).all())
    assert bool((got.distances[:, 29:] > 0).all())
    assert not bool((got.indices == torch.arange(len(x))[:, None]).any())
    same = nearest_neighbors(x.new_zeros(50, 3), x.new_zeros(50, 3), 5, exclude_self=True, engine=engine)
    assert bool((same.distances == 0).all())
    assert all(len(set(row)) == 5 for row in same.indices.tolist())


def test_brute_force_is_exact_where_the_matrix_product_is_not(monkeypatch):
    # Two tight clumps far apart in float32: |x|^2 + |y|^2 - 2 x.y has no digit left for the distances inside a clump.
    x = cloud(400, 3, dtype=torch.float32) * 1e-3
    x[200:] += 1000
    got = nearest_neighbors(x, x, 3, exclude_self=True, engine="blocked brute force")
    every = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    torch.testing.assert_close(got.distances.double(), every.sort(1).values[:, :3], rtol=1e-5, atol=0)
    assert got.distances.dtype == torch.float32
    monkeypatch.setattr(neighbors, "_BLOCK_BYTES", 10_000)
    blocked = nearest_neighbors(x, x, 3, exclude_self=True, engine="blocked brute force")
    assert torch.equal(blocked.distances, got.distances)


def test_the_engine_follows_the_dimension_and_says_so():
    assert nearest_neighbors(cloud(20, 2), cloud(30, 2), 1).engine == "k-d tree"
    assert nearest_neighbors(cloud(20, 30), cloud(30, 30), 1).engine == "blocked brute force"


def test_refusals():
    x = cloud(5, 2)
    with pytest.raises(ValueError, match="k must lie between 1 and 4"):
        nearest_neighbors(x, x, 5, exclude_self=True)
    with pytest.raises(ValueError, match="one width"):
        nearest_neighbors(x, cloud(5, 3), 1)
    with pytest.raises(ValueError, match="points has 1 non-finite"):
        nearest_neighbors(x, x.clone().index_put_((torch.tensor([1]), torch.tensor([0])), torch.tensor(torch.nan).double()), 1)
    with pytest.raises(ValueError, match="engine must be"):
        nearest_neighbors(x, x, 1, engine="ball tree")  # type: ignore[arg-type]


@ENGINES
@pytest.mark.parametrize("d", [1, 3, 12])
def test_the_maximum_norm(engine, d):
    x, y = cloud(180, d), cloud(230, d, 1)
    distance, index = torch.from_numpy(cdist(x.numpy(), y.numpy(), "chebyshev")).sort(1)
    got = nearest_neighbors(x, y, 7, norm="maximum", engine=engine)
    assert torch.equal(got.distances, distance[:, :7])
    assert torch.equal(got.indices, index[:, :7])
    own = nearest_neighbors(y, y, 4, norm="maximum", exclude_self=True, engine=engine)
    every = torch.from_numpy(cdist(y.numpy(), y.numpy(), "chebyshev")).fill_diagonal_(torch.inf)
    assert torch.equal(own.distances, every.sort(1).values[:, :4])


@pytest.mark.parametrize("engine", ["sorted line", "k-d tree", "box tree", "blocked brute force"])
@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("strict", [False, True])
def test_counts_within_radii_that_are_distances(engine, d, strict):
    if engine == "sorted line" and d > 1:
        pytest.skip("a line has one dimension")
    # Radii that are distances themselves: whether the point at the radius counts must not hang on rounding.
    x, y = cloud(150, d), cloud(200, d, 1)
    distance = torch.from_numpy(cdist(x.numpy(), y.numpy(), "chebyshev"))
    radii = distance.sort(1).values[:, 11]
    got = counts_within(x, y, radii, norm="maximum", strict=strict, engine=engine)
    assert torch.equal(got.counts, torch.full((150,), 11 if strict else 12))
    assert got.engine == engine
    both = torch.stack([radii, 2 * radii], 1)
    many = counts_within(x, y, both, norm="maximum", strict=strict, engine=engine).counts
    assert torch.equal(many[:, 0], got.counts)
    assert torch.equal(many[:, 1], ((distance < both[:, 1:]) if strict else (distance <= both[:, 1:])).sum(1))
    # Whole numbers: many ties at every radius, zero radii among them.
    x, y = torch.round(cloud(300, d)), torch.round(cloud(260, d, 1))
    radii = torch.arange(300).double() % 3
    for norm, name in (("maximum", "chebyshev"), ("euclidean", "euclidean")):
        distance = torch.from_numpy(cdist(x.numpy(), y.numpy(), name))
        inside = distance < radii[:, None] if strict else distance <= radii[:, None]
        assert torch.equal(counts_within(x, y, radii, norm=norm, strict=strict, engine=engine).counts, inside.sum(1))
        own = counts_within(x, x, radii, norm=norm, strict=strict, exclude_self=True, engine=engine).counts
        distance = torch.from_numpy(cdist(x.numpy(), x.numpy(), name)).fill_diagonal_(torch.inf)
        assert torch.equal(own, (distance < radii[:, None] if strict else distance <= radii[:, None]).sum(1))


def test_large_problems_take_the_compiled_tree_and_agree():
    x = cloud(7000, 4)
    got = nearest_neighbors(x, x, 5, exclude_self=True, norm="maximum")
    other = nearest_neighbors(x, x, 5, exclude_self=True, norm="maximum", engine="k-d tree")
    assert got.engine == "box tree"
    assert torch.equal(got.distances, other.distances)
    assert torch.equal(got.indices, other.indices)
    radii = got.distances[:, -1]
    few = counts_within(x[:, :2].contiguous(), x[:, :2].contiguous(), radii, norm="maximum", engine="box tree")
    assert torch.equal(few.counts, counts_within(x[:, :2], x[:, :2], radii, norm="maximum", engine="k-d tree").counts)
    assert nearest_neighbors(x, x, 400, exclude_self=True).engine == "k-d tree"


@ENGINES
def test_queries_that_are_some_of_the_points(engine):
    x = cloud(120, 3)
    x[5] = x[60]
    own = torch.tensor([60, 3, 117, 5, 4])
    got = nearest_neighbors(x[own], x, 6, own=own, engine=engine)
    every = nearest_neighbors(x, x, 6, exclude_self=True, engine=engine)
    assert torch.equal(got.distances, every.distances[own])
    assert torch.equal(got.indices[1:3], every.indices[own][1:3])
    assert got.indices[0, 0] == 5
    assert got.indices[3, 0] == 60
    with pytest.raises(ValueError, match="own must give for each query"):
        nearest_neighbors(x[own], x, 6, own=own + 1, engine=engine)


def test_counts_refuse_what_does_not_fit():
    x = cloud(20, 2)
    with pytest.raises(ValueError, match=r"radii must be non-negative, of shape \(20,\)"):
        counts_within(x, x, -torch.ones(20))
    with pytest.raises(ValueError, match="norm must be"):
        counts_within(x, x, torch.ones(20), norm="manhattan")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one dimension only"):
        counts_within(x, x, torch.ones(20), engine="sorted line")
