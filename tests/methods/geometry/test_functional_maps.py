"""Functional maps against planted maps, definitions written out, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from discrepancy import NumericalError, Sinkhorn
from discrepancy.methods.geometry.functional_maps import (
    Correspondence,
    EntropicCorrespondence,
    LossWeights,
    SoftmaxCorrespondence,
    TransportCorrespondence,
    fmap_losses,
    fmap_to_point_map,
    functional_map,
    geodesic_distances,
    geodesic_error,
    point_map_to_fmap,
    resolvent_mask,
    zoom_out,
)
from discrepancy.methods.geometry.laplacians import LaplacianBasis, WaveKernelSignature
from discrepancy.methods.geometry.meshes import Mesh, icosphere, radial, sheet
from discrepancy.transport import RelativeEpsilon


def _animal(subdivisions: int = 2) -> Mesh:
    def radius(u):
        bumps = [((1, 0, 0), 0.7, 0.15), ((0, 1, 0.3), 0.5, 0.2), ((-0.6, 0.2, 0.8), 0.4, 0.12), ((0, -0.5, -1), 0.6, 0.2)]
        total = torch.ones(len(u), dtype=u.dtype)
        for centre, height, width in bumps:
            c = torch.tensor(centre, dtype=u.dtype)
            total = total + height * torch.exp(-(1 - u @ (c / c.norm())) / width)
        return total

    return radial(radius, subdivisions, dtype=torch.float64)


def _pair(k: int = 20, subdivisions: int = 2) -> tuple[LaplacianBasis, LaplacianBasis, torch.Tensor, Mesh]:
    """A shape, the same with its vertices in another order and turned in space, and the true map from the second to the first."""
    generator = torch.Generator().manual_seed(2)
    mesh = _animal(subdivisions)
    truth = torch.randperm(len(mesh.vertices), generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    other = Mesh((mesh.vertices @ turn)[truth], truth.argsort()[mesh.faces])
    return LaplacianBasis.from_mesh(mesh, k=k), LaplacianBasis.from_mesh(other, k=k), truth, mesh


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- maps ------------------------------------------------------------------------------------------------------------------


def test_isometric_shapes_have_a_signed_permutation_and_give_the_points_back():
    x, y, truth, _ = _pair()
    C = point_map_to_fmap(truth, x, y)
    # Simple spectrum: eigenfunctions agree up to sign.
    torch.testing.assert_close(C.abs(), torch.eye(20, dtype=C.dtype), rtol=1e-6, atol=1e-6)
    assert torch.equal(fmap_to_point_map(C, x, y), truth)


def test_direction_of_the_map():
    # C_xy takes the coefficients of f on X to those of f pulled back to Y along y_to_x: a swap of X and Y is its transpose here,
    # and wrong for shapes of different size, so test on a coarse and a fine triangulation.
    fine, coarse = (LaplacianBasis.from_mesh(_animal(s), k=12) for s in (3, 2))
    into_fine = torch.arange(coarse.n)  # the coarse vertices are the first of the fine ones
    C = point_map_to_fmap(into_fine, fine, coarse)
    f = fine.vectors @ _random(0, 12, 3)
    torch.testing.assert_close(C @ fine.coefficients(f), coarse.coefficients(f[into_fine]), rtol=1e-9, atol=1e-9)


def test_mask_by_hand():
    values_x, values_y = torch.tensor([0.0, 1.0, 4.0]), torch.tensor([0.0, 2.0, 3.0])
    D = resolvent_mask(values_x, values_y, gamma=0.5)
    for i in range(3):
        for j in range(3):
            g, h = math.sqrt(float(values_y[i]) / 4), math.sqrt(float(values_x[j]) / 4)
            # |1/(g + 1i) - 1/(h + 1i)|^2, up to sign of the imaginary part
            expected = abs(1 / (g - 1j) - 1 / (h - 1j)) ** 2
            assert float(D[i, j]) == pytest.approx(expected, abs=1e-6)
    assert D[0, 0] == 0
    torch.testing.assert_close(resolvent_mask(values_y, values_x), D.mT)


def test_functional_map_is_the_minimiser():
    x, y, _, _ = _pair(8)
    f, g = _random(1, x.n, 5), _random(2, y.n, 5)
    D = resolvent_mask(x.values, y.values)
    A, B = x.coefficients(f), y.coefficients(g)
    C = functional_map(f, g, x, y, weight=3.0).requires_grad_()
    loss = (C @ A - B).square().sum() + 3.0 * (D * C.square()).sum()
    (slope,) = torch.autograd.grad(loss, C)
    assert slope.abs().max() < 1e-9


def test_functional_map_finds_the_planted_one():
    x, y, truth, _ = _pair()
    C = functional_map(*(WaveKernelSignature(60)(b) for b in (x, y)), x, y, weight=0.1)
    planted = point_map_to_fmap(truth, x, y)
    # Signatures are squares and cannot give the sign away: with features that can, the map is exact.
    f = _random(3, x.n, 40)
    exact = functional_map(f, f[truth], x, y)
    torch.testing.assert_close(exact, planted, rtol=1e-6, atol=1e-6)
    assert torch.equal(fmap_to_point_map(exact, x, y), truth)
    assert C.abs().argmax(1)[:6].tolist() == [0, 1, 2, 3, 4, 5]


def test_gradient_of_the_functional_map():
    x, y, _, _ = _pair(4)
    f, g = (0.3 * _random(4, x.n, 3)).requires_grad_(), (0.3 * _random(5, y.n, 3)).requires_grad_()
    direction = _random(6, x.n, 3), _random(7, y.n, 3)
    weights = _random(8, 4, 4)

    def value(u, v):
        return (weights * functional_map(u, v, x, y, weight=2.0)).sum()

    slopes = torch.autograd.grad(value(f, g), (f, g))
    h = 1e-6
    with torch.no_grad():
        up, down = (value(f + s * direction[0], g + s * direction[1]) for s in (h, -h))
    along = sum(float((s * d).sum()) for s, d in zip(slopes, direction, strict=True))
    assert along == pytest.approx(float((up - down) / (2 * h)), rel=1e-6)


def test_bad_features_and_bases():
    x, y, _, _ = _pair(6)
    f = _random(0, x.n, 4)
    with pytest.raises(ValueError, match=r"take .truncated\(4\)"):
        functional_map(f, f, x, y.truncated(4))
    with pytest.raises(ValueError, match="features_x must have shape"):
        functional_map(f[:5], f, x, y)
    with pytest.raises(ValueError, match="they must correspond"):
        functional_map(f, f[:, :2], x, y)
    with pytest.raises(ValueError, match="non-finite"):
        functional_map(f * math.nan, f, x, y)
    with pytest.raises(ValueError, match="weight must be at least 0"):
        functional_map(f, f, x, y, weight=-1)
    with pytest.raises(ValueError, match="gamma must be positive"):
        functional_map(f, f, x, y, gamma=0)
    with pytest.raises(NumericalError, match="singular system"):
        functional_map(0 * f, f, x, y, weight=0)
    single = LaplacianBasis(x.vectors.float(), x.values.float(), x.mass.float())
    with pytest.raises(TypeError, match="one dtype"):
        functional_map(f.float(), f, single, y)
    with pytest.raises(TypeError, match="convert one of them"):
        functional_map(f.float(), f, x, y)
    with pytest.raises(ValueError, match="C_xy must have shape"):
        fmap_to_point_map(torch.eye(5, dtype=torch.float64), x, y)
    with pytest.raises(ValueError, match="one entry for each"):
        point_map_to_fmap(torch.arange(3), x, y)
    with pytest.raises(ValueError, match="must number points of X"):
        point_map_to_fmap(torch.full((y.n,), x.n), x, y)


def test_zoom_out_from_a_coarse_map():
    x, y, truth, _ = _pair(40, subdivisions=3)
    rough = point_map_to_fmap(truth, x.truncated(6), y.truncated(6)) + 0.15 * _random(9, 6, 6)
    before = (fmap_to_point_map(rough, x.truncated(6), y.truncated(6)) == truth).double().mean()
    fine = zoom_out(rough, x, y, step=4)
    after = (fmap_to_point_map(fine, x, y) == truth).double().mean()
    assert before < 0.3
    assert after > 0.95
    with pytest.raises(ValueError, match="step"):
        zoom_out(rough, x, y, step=0)
    with pytest.raises(ValueError, match="at most 40 rows"):
        zoom_out(torch.eye(41, dtype=torch.float64), x, y)


# ---- soft correspondences ----------------------------------------------------------------------------------------------------


def test_softmax_by_hand_and_without_features():
    f, g = _random(0, 4, 3), _random(1, 5, 3)
    maps = SoftmaxCorrespondence(0.5)(f, g)
    cosine = torch.nn.functional.cosine_similarity(f[:, None], g[None], dim=-1)
    torch.testing.assert_close(maps.xy, torch.softmax(cosine / 0.5, 1))
    torch.testing.assert_close(maps.yx, torch.softmax(cosine.mT / 0.5, 1))
    f = f.clone()
    f[2] = 0
    f.requires_grad_()
    maps = SoftmaxCorrespondence()(f, g)
    torch.testing.assert_close(maps.xy[2].detach(), torch.full((5,), 0.2, dtype=torch.float64))
    (slope,) = torch.autograd.grad(maps.xy.square().sum() + maps.yx.square().sum(), f)
    assert slope.isfinite().all()
    assert slope[2].abs().max() == 0


def test_entropic_sweeps_by_hand():
    f, g = _random(2, 6, 2), _random(3, 4, 2)
    squares = torch.cdist(f, g).square()
    plan = torch.exp(-squares / squares.mean() / (2 * 0.5**2))
    for _ in range(10):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0)
    maps = EntropicCorrespondence(0.5)(f, g)
    torch.testing.assert_close(maps.xy, plan / plan.sum(1, keepdim=True))
    torch.testing.assert_close(maps.yx, (plan / plan.sum(0)).mT)


def test_many_sweeps_are_the_optimal_plan():
    # Two routes to one plan: alternating normalisations, and the library's solver with its implicit gradient.
    f, g = _random(2, 7, 2).requires_grad_(), _random(3, 5, 2).requires_grad_()
    weights = _random(9, 7, 5)
    swept, solved = EntropicCorrespondence(0.3, 3000), TransportCorrespondence(Sinkhorn(RelativeEpsilon(2 * 0.3**2)))
    slopes = []
    for soft in (swept, solved):
        maps = soft(f, g)
        value = (weights * maps.xy).sum() + (weights.mT * maps.yx).sum()
        slopes.append(torch.autograd.grad(value, f)[0])
    torch.testing.assert_close(solved(f, g).xy, swept(f, g).xy, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(solved(f, g).yx, swept(f, g).yx, rtol=1e-5, atol=1e-6)
    # The solver's relative epsilon is held fixed, the sweeps' moves with the mean distance: compare at a fixed scale.
    scale = float(torch.cdist(f, g).square().mean().detach())
    fixed = TransportCorrespondence(Sinkhorn(2 * 0.3**2 * scale))(f, g)
    value = (weights * fixed.xy).sum() + (weights.mT * fixed.yx).sum()
    torch.testing.assert_close(torch.autograd.grad(value, f)[0], slopes[1], rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match="must be a Sinkhorn"):
        TransportCorrespondence(SoftmaxCorrespondence())  # type: ignore[arg-type]


def test_signs_of_eigenfunctions_do_not_matter():
    x, y, truth, _ = _pair(12)
    signs = torch.where(_random(1, 12) > 0, 1.0, -1.0).to(torch.float64)
    flipped = LaplacianBasis(x.vectors * signs, x.values, x.mass)
    f, g = _random(3, x.n, 30), _random(3, x.n, 30)[truth]
    a, b = functional_map(f, g, x, y), functional_map(f, g, flipped, y)
    torch.testing.assert_close(b, a * signs)
    assert torch.equal(fmap_to_point_map(a, x, y), fmap_to_point_map(b, flipped, y))


def test_entropic_limits_do_not_overflow():
    f = _random(4, 30, 3).float()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    maps = EntropicCorrespondence(0.003, 50)(1e3 * f, 1e3 * f[order])
    assert torch.equal(maps.yx.argmax(1), order)
    assert maps.xy.isfinite().all()
    same = EntropicCorrespondence()(torch.ones(3, 2), torch.ones(4, 2))
    torch.testing.assert_close(same.xy, torch.full((3, 4), 0.25))


@pytest.mark.parametrize("soft", [SoftmaxCorrespondence(0.3), EntropicCorrespondence(0.4, 3)])
def test_gradients_of_soft_maps(soft):
    f, g = _random(5, 5, 3).requires_grad_(), _random(6, 4, 3).requires_grad_()
    v, w = _random(7, 5, 4), _random(8, 4, 5)
    if isinstance(soft, EntropicCorrespondence):
        # The centre and nothing else is held fixed: it moves no distance.
        assert torch.allclose(soft(f, g).xy, soft(f + 3, g + 3).xy)

    def value(a, b):
        maps = soft(a, b)
        return (v * maps.xy).sum() + (w * maps.yx).sum()

    assert torch.autograd.gradcheck(value, (f, g))


def test_options_out_of_range():
    for bad in (
        lambda: SoftmaxCorrespondence(0),
        lambda: EntropicCorrespondence(-1.0),
        lambda: EntropicCorrespondence(sweeps=0),
        lambda: LossWeights(transport=-1),
    ):
        with pytest.raises(ValueError, match=r"positive|at least"):
            bad()


# ---- losses ------------------------------------------------------------------------------------------------------------------


def test_the_true_map_has_no_loss():
    x, y, truth, _ = _pair(10)
    C_xy, C_yx = point_map_to_fmap(truth, x, y), point_map_to_fmap(truth.argsort(), y, x)
    exact = torch.eye(x.n, dtype=torch.float64)
    maps = Correspondence(exact[truth].mT, exact[truth])
    weights = LossWeights(commutativity=1.0, dirichlet=1.0)
    losses = fmap_losses(C_xy, C_yx, maps, x, y, weights=weights)
    for name in ("bijectivity", "orthogonality", "commutativity", "alignment"):
        assert float(getattr(losses, name)) < 1e-9, name
    # Coordinates pulled over are the coordinates: twice the area (in the units of points), one for each of two directions.
    assert losses.dirichlet > 0
    torch.testing.assert_close(losses.dirichlet, x.dirichlet_energy(x.points))
    swapped = fmap_losses(C_xy, C_yx, Correspondence(maps.yx, maps.xy), x, y, weights=weights)
    assert float(swapped.alignment) > 1  # the wrong direction is seen


def test_terms_by_hand_and_their_sum():
    x, y, _, _ = _pair(3)
    C, E = _random(0, 3, 3), _random(1, 3, 3)
    maps = SoftmaxCorrespondence()(_random(2, x.n, 4), _random(3, y.n, 4))
    w = LossWeights(2.0, 3.0, 5.0, 7.0, 11.0, 0.0)
    got = fmap_losses(C, E, maps, x, y, weights=w, transport=torch.tensor(0.5, dtype=torch.float64))
    eye = torch.eye(3, dtype=torch.float64)

    def norm(M):
        return float(torch.linalg.matrix_norm(M)) ** 2

    top = max(float(x.values[-1]), float(y.values[-1]))
    X, Y = torch.diag(x.values / top), torch.diag(y.values / top)
    terms = {
        "bijectivity": norm(C @ E - eye) + norm(E @ C - eye),
        "orthogonality": norm(C.T @ C - eye) + norm(E.T @ E - eye),
        "commutativity": norm(C @ X - Y @ C) + norm(E @ Y - X @ E),
        "alignment": norm(C - y.vectors.T @ torch.diag(y.mass) @ maps.yx @ x.vectors)
        + norm(E - x.vectors.T @ torch.diag(x.mass) @ maps.xy @ y.vectors),
    }
    for name, value in terms.items():
        assert float(getattr(got, name)) == pytest.approx(value, rel=1e-9), name
    assert float(got.total) == pytest.approx(sum(f * v for f, v in zip((2, 3, 5, 7), terms.values(), strict=True)) + 5.5)


def test_dirichlet_needs_coordinates():
    x, y, _, _ = _pair(3)
    bare = LaplacianBasis(x.vectors, x.values, x.mass, x.stiffness)
    maps = SoftmaxCorrespondence()(_random(2, x.n, 4), _random(3, y.n, 4))
    with pytest.raises(TypeError, match="coordinates"):
        fmap_losses(torch.eye(3), torch.eye(3), maps, bare, y, weights=LossWeights(dirichlet=1.0))


# ---- geodesics -----------------------------------------------------------------------------------------------------------------


def test_distances_on_a_sheet_and_between_parts():
    mesh = sheet(11, 11, dtype=torch.float64)
    D = geodesic_distances(mesh)
    assert D.shape == (121, 121)
    # The diagonals of the grid run one way: along them and along the axes the path is straight.
    assert float(D[0, 10]) == pytest.approx(1.0)
    assert float(D[0, 120]) == pytest.approx(math.sqrt(2))
    assert float(D[10, 110]) == pytest.approx(2.0)
    torch.testing.assert_close(geodesic_distances(mesh, sources=torch.tensor([3, 7])), D[[3, 7]])
    two = Mesh(torch.cat([mesh.vertices, mesh.vertices + 5]), torch.cat([mesh.faces, mesh.faces + 121]))
    assert geodesic_distances(two)[0, 200].isinf()


def test_distances_on_the_sphere():
    mesh = icosphere(3, dtype=torch.float64)
    D = geodesic_distances(mesh, sources=torch.tensor([0]))[0]
    arc = torch.acos((mesh.vertices @ mesh.vertices[0]).clamp(-1, 1))
    assert (D[1:] / arc[1:]).min() > 0.98  # chords are shorter than arcs
    assert (D[1:] / arc[1:]).max() < 1.25


def test_error_in_units_of_size_and_up_to_symmetry():
    mesh = sheet(5, 5, dtype=torch.float64)
    D = geodesic_distances(mesh)
    truth = torch.arange(25)
    off = truth.clone()
    off[0] = 1
    error = geodesic_error(off, truth, D, size=1.0)
    assert error.mean == pytest.approx(0.25 / 25)
    assert error.largest == pytest.approx(0.25)
    assert error.within(0.1) == 24 / 25
    assert geodesic_error(off, truth, D).largest == pytest.approx(0.25 / float(D.max()))
    # The half-turn keeps this sheet: a map that is turned is right up to symmetry, and only then.
    turn = truth.flip(0)
    assert geodesic_error(turn, truth, D).mean > 0.3
    right = geodesic_error(turn, truth, D, symmetries=[turn])
    assert right.mean == 0
    assert right.symmetry == 1
    assert geodesic_error(truth, truth, D, symmetries=[turn]).symmetry == 0


def test_errors_that_will_not_do():
    D = geodesic_distances(sheet(3, 3))
    index = torch.arange(9)
    with pytest.raises(ValueError, match="one entry a point of Y"):
        geodesic_error(index, index[:4], D)
    with pytest.raises(ValueError, match="square"):
        geodesic_error(index, index, D[:4])
    with pytest.raises(ValueError, match="must number points of X"):
        geodesic_error(index + 1, index, D)
    with pytest.raises(ValueError, match="a symmetry must"):
        geodesic_error(index, index, D, symmetries=[index[:4]])
    with pytest.raises(ValueError, match="size must be positive"):
        geodesic_error(index, index, D, size=0.0)
