"""Hadamard rotations against matrices, Haar's law against its closed forms, diagnostics against enumeration and SciPy."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import ot
import pytest
import torch
from scipy import linalg, stats

from discrepancy import SlicedWasserstein
from discrepancy.directions import (
    Hadamard,
    HadamardRotation,
    Padding,
    haar_images,
    haar_rotation,
    hadamard_images,
    hadamard_transform,
    hadamard_w2_to_sphere,
    marginal_ks,
    sign_quantisation_cosine,
    sketch_distortion,
    sphere_coordinate_cdf,
    vertex_gap,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("d", [1, 2, 4, 16, 32, 64, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transform_is_the_matrix(d: int, dtype: torch.dtype) -> None:
    x = torch.randn(3, 2, d, generator=seeded(), dtype=dtype)
    H = torch.from_numpy(linalg.hadamard(d)).to(dtype) / math.sqrt(d)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(hadamard_transform(x), x @ H, **tolerance)
    assert hadamard_transform(x).dtype == dtype


def test_transform_of_views_and_integers() -> None:
    x = torch.randn(8, 5, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(hadamard_transform(x.T), hadamard_transform(x.T.contiguous()))
    torch.testing.assert_close(hadamard_transform([1, 0, 0, 0]), torch.full((4,), 0.5))
    for bad in (torch.ones(3), torch.ones(2, 0), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="power of two"):
            hadamard_transform(bad)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize(("dim", "padding"), [(32, Padding.FORBIDDEN), (11, Padding.WINDOWS), (11, Padding.ZEROS)])
def test_rotations_are_orthogonal_invertible_and_differentiable(blocks: int, dim: int, padding: Padding) -> None:
    T = HadamardRotation(dim, blocks, padding=padding, generator=seeded())
    M = T.matrix()
    torch.testing.assert_close(M.T @ M, torch.eye(dim, dtype=torch.float64))
    x = torch.randn(4, dim, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(T(x), x @ M.T)
    torch.testing.assert_close(T.inverse(T(x)), x)
    y = torch.randn(4, T.size, generator=seeded(2), dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close((T(x) * y).sum(), (x * T.inverse(y)).sum())  # the transpose
    assert torch.autograd.gradcheck(T, (x,))
    assert torch.autograd.gradcheck(T.inverse, (y,))


def test_order_and_scale_of_the_blocks() -> None:
    """T2 = H D1 H D2 / d, and D2, the last drawn, acts first or last alike in law; here signs[0] acts first."""
    T = HadamardRotation(8, generator=seeded(3))
    H = torch.from_numpy(linalg.hadamard(8)).double()
    first, second = (torch.diag(s.double()) for s in T.signs)
    torch.testing.assert_close(T.matrix(), H @ second @ H @ first / 8)


def test_signs_are_fixed_seeded_and_saved() -> None:
    T = HadamardRotation(64, generator=seeded(1))
    x = torch.randn(5, 64, generator=seeded())
    assert torch.equal(T(x), T(x))
    assert torch.equal(HadamardRotation(64, generator=seeded(1))(x), T(x))
    other = HadamardRotation(64, generator=seeded(2))
    assert not torch.equal(other(x), T(x))
    other.load_state_dict(T.state_dict())
    assert torch.equal(other(x), T(x))
    assert T(x).dtype == torch.float32
    assert T.half()(x.double()).dtype == torch.float64  # the signs are integers: they take the input's dtype


@pytest.mark.parametrize("seed", range(3))
def test_float32_keeps_lengths(seed: int) -> None:
    x = torch.randn(8, 2**14, generator=seeded(seed))
    y = HadamardRotation(2**14, generator=seeded(seed))(x)
    assert float((y.double().norm(dim=-1) / x.double().norm(dim=-1) - 1).abs().max()) < 1e-5


def test_bad_rotations() -> None:
    with pytest.raises(ValueError, match="the next is 16"):
        HadamardRotation(12)
    with pytest.raises(ValueError, match="blocks"):
        HadamardRotation(16, 0)
    with pytest.raises(ValueError, match="dim"):
        HadamardRotation(0)
    with pytest.raises(TypeError, match=r"Padding\.ZEROS"):
        HadamardRotation(12, padding="zero")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must have 16 coordinates"):
        HadamardRotation(16)(torch.ones(3, 8))
    with pytest.raises(ValueError, match="16"):
        HadamardRotation(16).inverse(torch.ones(8))
    for draw in (hadamard_images, haar_images):
        with pytest.raises(ValueError, match="u is zero"):
            draw(torch.zeros(8), 10)
        with pytest.raises(ValueError, match="one vector"):
            draw(torch.ones(2, 8), 10)
    with pytest.raises(ValueError, match="power of two"):
        hadamard_images(torch.ones(12), 10)
    with pytest.raises(ValueError, match="zero vector"):
        vertex_gap(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="k must"):
        sketch_distortion(torch.ones(4), 5)
    with pytest.raises(ValueError, match="blocks"):
        Hadamard(10, blocks=0)


def test_haar_images_and_matrices_agree_in_law() -> None:
    """The first column of a Haar rotation is uniform on the sphere, and its determinant takes both signs."""
    U = torch.stack([haar_rotation(4, generator=seeded(k)) for k in range(400)])
    torch.testing.assert_close(U @ U.mT, torch.eye(4, dtype=torch.float64).expand(400, 4, 4))
    assert float(marginal_ks(U[:, 2, 1], 4)) < 1.95 / math.sqrt(400)  # one in a thousand
    assert 0.4 < float((torch.linalg.det(U) > 0).double().mean()) < 0.6
    y = haar_images(torch.tensor([3.0, 4.0, 0.0, 0.0], dtype=torch.float64), 2000, generator=seeded())
    torch.testing.assert_close(y.norm(dim=-1), torch.full((2000,), 5.0, dtype=torch.float64))
    assert float(marginal_ks(y[:, 0] / 5, 4)) < 1.95 / math.sqrt(2000)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 16, 1000])
def test_coordinate_law(d: int) -> None:
    t = torch.tensor([-1.5, -1.0, -0.9999, -0.3, 0.0, 0.2, 0.7, 1.0, 2.0], dtype=torch.float64)
    F = sphere_coordinate_cdf(t, d)
    if d == 1:
        assert F.tolist() == [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1, 1]
        assert sphere_coordinate_cdf(t, 1, left=True).tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1]
        return
    beta = stats.beta.cdf(np.minimum(t.numpy() ** 2, 1), 0.5, (d - 1) / 2)
    np.testing.assert_allclose(F, 0.5 + np.sign(t.numpy()) * beta / 2, atol=1e-14)
    if d == 2:
        np.testing.assert_allclose(F[1:8], 1 - np.arccos(t[1:8].numpy()) / np.pi, atol=1e-14)  # the arcsine law
    if d == 3:
        np.testing.assert_allclose(F[1:8], (1 + t[1:8].numpy()) / 2, atol=1e-14)  # Archimedes
    # Relative accuracy far in the tail, where 1 - F(-t) would be zero: the area of a small cap.
    far = float(sphere_coordinate_cdf(torch.tensor(-1 + 1e-12, dtype=torch.float64), 16))
    assert far == pytest.approx(0.5 * stats.beta.sf((1 - 1e-12) ** 2, 0.5, 7.5), rel=1e-3)
    assert far > 0


def test_ks_distance_by_hand_and_by_scipy() -> None:
    """Three values with a tie under the uniform law of d = 3, F(t) = (1 + t)/2."""
    # F at the values: 0.5, 0.5, 0.9. Jumps: F_n(0-) = 0, F_n(0) = 2/3, F_n(0.8) = 1. sup = max(0.5, 1/6, 0.9 - 2/3) = 0.5.
    assert float(marginal_ks([0.0, 0.0, 0.8], 3)) == pytest.approx(0.5)
    x = torch.rand(2, 50, generator=seeded(), dtype=torch.float64) * 1.4 - 0.7
    peer = [stats.kstest(row.numpy(), lambda t: sphere_coordinate_cdf(t, 5).numpy()).statistic for row in x]
    np.testing.assert_allclose(marginal_ks(x, 5), peer, rtol=1e-12)
    assert float(marginal_ks([-1.0, 1.0], 1)) == 0.0
    assert float(marginal_ks([1.0, 1.0], 1)) == 0.5
    with pytest.raises(ValueError, match="non-finite"):
        marginal_ks([0.0, float("nan")], 3)


@pytest.mark.parametrize("d", [4, 16, 64, 256])
def test_one_block_on_an_axis_keeps_its_distance(d: int) -> None:
    """All coordinates are +-1/sqrt d, so the distance is F(1/sqrt d) - 1/2: 0.34 in every dimension."""
    axis = torch.zeros(d, dtype=torch.float64)
    axis[0] = 1
    y = hadamard_images(axis, 4000, blocks=1, generator=seeded())
    torch.testing.assert_close(y.abs(), torch.full_like(y, d**-0.5))
    limit = float(sphere_coordinate_cdf(torch.tensor(d**-0.5, dtype=torch.float64), d)) - 0.5
    assert abs(float(marginal_ks(y[:, 0], d)) - limit) < 0.03
    assert float(sign_quantisation_cosine(y).min()) == pytest.approx(1)


@pytest.mark.parametrize(("d", "card"), [(16, 0.097), (64, 0.054), (256, 0.028)])
def test_two_blocks_on_an_axis_give_binomial_coordinates(d: int, card: float) -> None:
    """A coordinate is a sum of d fair signs over d: its exact distance from Haar's law, and what draws of it show."""
    k = np.arange(d + 1)
    value = (2 * k - d) / d
    law = stats.binom(d, 0.5)
    F = sphere_coordinate_cdf(torch.from_numpy(value), d).numpy()
    exact = max(np.abs(law.cdf(k) - F).max(), np.abs(law.cdf(k - 1) - F).max())
    assert exact == pytest.approx(card, abs=0.006)
    y = hadamard_images(torch.eye(d, dtype=torch.float64)[0], 5000, generator=seeded())
    assert abs(float(marginal_ks(y[:, 3], d)) - exact) < 1.95 / math.sqrt(5000)


@pytest.mark.parametrize("d", [2, 4, 8])
def test_full_vector_against_enumeration(d: int) -> None:
    """Two blocks on an axis: all sign patterns give a vertex of the cube, up to H; every vertex as often."""
    axis = torch.zeros(d, dtype=torch.float64)
    axis[0] = 1
    H = torch.from_numpy(linalg.hadamard(d)).double()
    patterns = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=d)), dtype=torch.float64)
    images = patterns / d @ H
    assert float(vertex_gap(images).max()) < 1e-15
    drawn = hadamard_images(axis, 200 * 2**d, generator=seeded())
    found, counts = torch.unique((drawn @ H / math.sqrt(d) * math.sqrt(d)).round(decimals=6), dim=0, return_counts=True)
    assert len(found) == 2**d
    assert float((counts / 200 - 1).abs().max()) < 0.4


def test_closed_form_of_the_distance() -> None:
    for d, square in ((16, 0.37912), (64, 0.39799), (256, 0.40267), (1024, 0.40384)):
        assert hadamard_w2_to_sphere(d) ** 2 == pytest.approx(square, abs=1e-5)
    assert hadamard_w2_to_sphere(1) == 0.0
    assert hadamard_w2_to_sphere(10**9) == pytest.approx(math.sqrt(2 - 2 * math.sqrt(2 / math.pi)), abs=1e-6)
    # d = 2: four vertices of a square against the circle, where each quarter goes to its vertex.
    quarter = 4 / math.pi * math.sqrt(2) / 2
    assert hadamard_w2_to_sphere(2) ** 2 == pytest.approx(2 - 2 * quarter)


def test_closed_form_against_an_exact_solver() -> None:
    """Vertices of the cube in R^3 against a fine sample of the sphere: POT's optimum tends to the closed form."""
    points = haar_images(torch.tensor([1.0, 0, 0], dtype=torch.float64), 4000, generator=seeded()).numpy()
    vertices = np.array(list(itertools.product([-1.0, 1.0], repeat=3))) / math.sqrt(3)
    value = ot.emd2(np.full(8, 1 / 8), np.full(4000, 1 / 4000), ot.dist(vertices, points), numItermax=10**7)
    assert math.sqrt(value) == pytest.approx(hadamard_w2_to_sphere(3), abs=0.01)


def test_vertex_gap_is_the_distance_to_the_nearest_vertex() -> None:
    y = torch.randn(20, 8, generator=seeded(), dtype=torch.float64)
    z = torch.nn.functional.normalize(y, dim=-1) @ torch.from_numpy(linalg.hadamard(8)).double() / math.sqrt(8)
    vertices = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)), dtype=torch.float64) / math.sqrt(8)
    torch.testing.assert_close(vertex_gap(y), torch.cdist(z, vertices).amin(-1))
    torch.testing.assert_close(vertex_gap(y), (2 - 2 * z.abs().sum(-1) / math.sqrt(8)).sqrt())


def test_sketch_distortion_has_the_stated_moments() -> None:
    d, k, n = 32, 8, 40_000
    error = sketch_distortion(haar_images(torch.ones(d, dtype=torch.float64), n, generator=seeded()), k)
    variance = 2 * (d - k) / (k * (d + 2))
    assert abs(float(error.mean())) < 5 * math.sqrt(variance / n)
    assert float(error.var()) == pytest.approx(variance, rel=0.05)
    assert float(sketch_distortion(torch.randn(d, generator=seeded()), d)) == pytest.approx(0, abs=1e-6)


def test_blocks_as_directions_of_a_sliced_distance() -> None:
    """With a full block the squared distance of translates is |shift|^2 / d exactly, whatever the number of blocks."""
    x = torch.randn(30, 16, generator=seeded(), dtype=torch.float64)
    for blocks in (1, 2, 4):
        D = SlicedWasserstein(directions=Hadamard(16, blocks=blocks))
        assert float(D(x, x + 2, generator=seeded(1))) == pytest.approx(2.0, rel=1e-9)
    one = Hadamard(16, blocks=1).draw(16, seeded())
    torch.testing.assert_close(one.abs(), torch.full_like(one, 0.25))


def test_ten_times_faster_than_the_dense_product() -> None:
    d, batch = 2**12, 64
    T = HadamardRotation(d, generator=seeded())
    x, M = torch.randn(batch, d, generator=seeded()), torch.randn(d, d, generator=seeded(1))

    def seconds(f) -> float:
        best = math.inf
        for _ in range(4):
            start = time.process_time()
            f()
            best = min(best, time.process_time() - start)
        return best

    # At 2^12 the ratio is a quarter of that at 2^14, where the recipe measures it; the bound leaves room for a busy machine.
    assert seconds(lambda: x @ M) > 3 * seconds(lambda: T(x))
