"""Amortised slices: symmetries of the slicers, closed forms and gradients of the loss, its two stop-gradients, bad input."""

from __future__ import annotations

import math

import pytest
import torch

from discrepancy import MMD
from discrepancy.learning import Training
from discrepancy.methods.geometry.amortized_vdsw import AmortizedSlicedLoss, Reconstruction
from discrepancy.methods.geometry.slicers import LinearSlicer, SelfAttentionSlicer
from discrepancy.networks import MLP, EfficientAttention, LinearAttention, PointCloudAutoencoder, PointNet, SoftmaxAttention
from discrepancy.transport import VonMisesFisherSliced, Wasserstein

KINDS = [SoftmaxAttention(), EfficientAttention()]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clouds(batch: int, n: int, seed: int = 0, d: int = 3) -> torch.Tensor:
    return torch.randn(batch, n, d, generator=seeded(seed), dtype=torch.float64)


def slicer(kind=None, seed: int = 0, **options) -> SelfAttentionSlicer:
    return SelfAttentionSlicer(3, attention=kind, generator=seeded(seed), dtype=torch.float64, **options)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: type(k).__name__)
def test_directions_do_not_see_the_order_of_points_or_of_the_pair(kind) -> None:
    x, y = clouds(4, 9), clouds(4, 6, 1) + 1
    f = slicer(kind)
    at = f(x, y)
    assert at.shape == (4, 3)
    torch.testing.assert_close(at.norm(dim=-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(f(x.flip(1), y), at, atol=1e-13, rtol=0)
    assert torch.equal(f(y, x), at)
    assert float((f(x + torch.tensor([3.0, 0.0, 0.0]), y) - at).detach().abs().max()) > 1e-4


def test_efficient_attention_is_its_formula() -> None:
    f = slicer(EfficientAttention(), key_dim=5)
    x = clouds(1, 7)[0]
    q, k, v = f.query(x), f.key(x), f.value(x)
    summary = (q.exp() / q.exp().sum(1, keepdim=True)) @ ((k.exp() / k.exp().sum(0)).T @ v)
    total = 2 * summary.mean(0)
    torch.testing.assert_close(f(x[None], x[None])[0], total / total.norm())
    soft = slicer(SoftmaxAttention(), key_dim=5)
    weights = (soft.query(x) @ soft.key(x).T / math.sqrt(5)).softmax(1)
    total = (weights @ soft.value(x)).mean(0)
    torch.testing.assert_close(soft(x[None], x[None])[0], total / total.norm())


def test_mixing_attention_keeps_its_number_of_points() -> None:
    f = slicer(LinearAttention(points=8, rank=4))
    x = clouds(2, 8)
    assert f(x, x).shape == (2, 3)
    assert not f.kind.symmetric
    assert float((f(x.flip(1), x) - f(x, x)).detach().abs().max()) > 1e-6
    with pytest.raises(ValueError, match="built for 8 points and got 9"):
        f(clouds(2, 9), x)


def test_linear_slicer_is_its_formula_and_its_kin_run() -> None:
    f = LinearSlicer(3, 4, generator=seeded(), dtype=torch.float64)
    x, y = clouds(1, 4)[0], clouds(1, 4, 1)[0]
    z = f.offset + f.weights[:4] @ x + f.weights[4:] @ y
    torch.testing.assert_close(f(x[None], y[None])[0], z / z.norm())
    for options in ({"inner": MLP(8, 1)}, {"outer": MLP(8, 1)}):
        other = LinearSlicer(3, 4, generator=seeded(), dtype=torch.float64, **options)
        assert float(other(x[None], y[None]).detach().norm()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="built for 4 points and y has 5"):
        f(clouds(1, 4), clouds(1, 5))


def test_the_loss_of_a_translate_and_of_equal_clouds() -> None:
    """Around a direction e, E (theta.t)^2 is |t|^2 times the second moment of the law along t: in space, with A Langevin's
    function, (A / kappa) |t|^2 + (1 - 3 A / kappa) (e.t)^2."""
    x, t = clouds(1, 20), torch.tensor([0.5, 1.0, -2.0], dtype=torch.float64)
    kappa = 4.0
    f = slicer()
    loss = AmortizedSlicedLoss(f, concentration=kappa, directions=40_000)
    share = (1 / math.tanh(kappa) - 1 / kappa) / kappa
    along = float(f(x, x + t)[0].detach() @ t)
    truth = share * float(t @ t) + (1 - 3 * share) * along**2
    assert float(loss(x, x + t, generator=seeded())) ** 2 == pytest.approx(truth, rel=0.02)
    assert float(loss(x, x.clone(), generator=seeded())) == 0.0


def test_infinite_concentration_looks_along_the_centre() -> None:
    x, y = clouds(3, 9), clouds(3, 7, 1) + 1
    f = slicer()
    theta = f(x, y)
    want = torch.stack([Wasserstein(2)(x[k] @ theta[k], y[k] @ theta[k]) for k in range(3)])
    torch.testing.assert_close(AmortizedSlicedLoss(f, concentration=math.inf)(x, y), want)


def test_it_is_the_direct_distance_around_its_own_centre() -> None:
    x, y = clouds(1, 9), clouds(1, 7, 1) + 1
    f = slicer()
    loss = AmortizedSlicedLoss(f, concentration=3.0, directions=30_000)
    direct = VonMisesFisherSliced(3.0, 30_000, location=tuple(f(x, y)[0].tolist()))
    assert float(loss(x, y, generator=seeded())) == pytest.approx(float(direct(x[0], y[0], generator=seeded(1))), rel=0.02)


def test_values_carry_gradients_in_the_samples_and_none_in_the_slicer() -> None:
    x, y = clouds(2, 5).requires_grad_(), (clouds(2, 4, 1) + 1).requires_grad_()
    f = slicer()
    loss = AmortizedSlicedLoss(f, directions=8)
    loss(x, y, generator=seeded()).sum().backward()
    assert all(p.grad is None for p in f.parameters())
    centre = f(x, y).detach()

    def held(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss._mean_cost(x, y, centre, seeded()).sqrt()

    assert torch.autograd.gradcheck(held, (x, y), eps=1e-6, atol=1e-7)
    want = torch.autograd.grad(held(x, y).sum(), x)[0]
    torch.testing.assert_close(x.grad, want)


def test_updates_raise_the_objective_and_leave_the_samples_alone() -> None:
    """Between a cloud and its stretched copy the slicer learns the stretched axis."""
    x = clouds(16, 40)
    y = clouds(16, 40, 1) * torch.tensor([1.0, 3.0, 1.0], dtype=torch.float64)
    y.requires_grad_()
    f = slicer()
    loss = AmortizedSlicedLoss(f, concentration=10.0, directions=20, learning_rate=1e-2)
    generator = seeded(3)
    history = [loss.update_slicer(x, y, generator=generator) for _ in range(150)]
    assert y.grad is None
    assert sum(history[-10:]) > 1.3 * sum(history[:10])
    direct = VonMisesFisherSliced(10.0, 500)(x, y.detach(), generator=seeded()).square().mean()
    many = AmortizedSlicedLoss(f, concentration=10.0, directions=500)
    assert float(many(x, y, generator=seeded()).detach().square().mean()) > 0.9 * float(direct)


def test_single_pairs_seeds_and_precisions() -> None:
    x, y = clouds(1, 9), clouds(1, 6, 1)
    loss = AmortizedSlicedLoss(slicer())
    one = loss(x[0], y[0], generator=seeded())
    assert one.shape == ()
    assert torch.equal(one, loss(x, y, generator=seeded())[0])
    single = AmortizedSlicedLoss(SelfAttentionSlicer(3, generator=seeded()))
    value = single(x.float(), y.float(), generator=seeded())
    assert value.dtype == torch.float32
    double = AmortizedSlicedLoss(slicer())
    double.slicer.load_state_dict(single.slicer.state_dict())
    torch.testing.assert_close(value.double(), double(x, y, generator=seeded()), rtol=1e-5, atol=1e-6)


def test_one_dimension_is_the_line_with_a_warning() -> None:
    x, y = clouds(2, 5, d=1), clouds(2, 4, 1, d=1)
    loss = AmortizedSlicedLoss(slicer())
    with pytest.warns(UserWarning, match="single direction"):
        torch.testing.assert_close(loss(x, y), Wasserstein(2)(x, y))


def test_bad_input_is_named() -> None:
    f = slicer()
    for kappa in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="concentration must be positive"):
            AmortizedSlicedLoss(f, concentration=kappa)
    loss = AmortizedSlicedLoss(f)
    with pytest.raises(ValueError, match="batch shape"):
        loss(clouds(2, 5), clouds(3, 5))
    with pytest.raises(ValueError, match="non-finite"):
        loss(clouds(1, 5) * math.nan, clouds(1, 5))
    with pytest.raises(ValueError, match="features"):
        loss(clouds(1, 5), clouds(1, 5, d=2))
    with pytest.raises(TypeError, match="slicer must be"):
        AmortizedSlicedLoss(lambda x, y: x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="directions must be"):
        AmortizedSlicedLoss(f, directions=0)
    with pytest.raises(ValueError, match="dim must be"):
        SelfAttentionSlicer(1)
    with pytest.raises(TypeError, match="attention must be"):
        SelfAttentionSlicer(3, attention="efficient")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rank must be"):
        LinearAttention(8, rank=0)
    with pytest.raises(TypeError, match="loss must be"):
        Reconstruction().fit(clouds(4, 5), "sliced")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(N, n, d\)"):
        Reconstruction().fit(clouds(4, 5)[0], MMD())


def test_reconstruction_learns_with_an_amortised_loss_and_a_seed_fixes_it() -> None:
    x = clouds(24, 16)
    x = x / 4 + clouds(24, 1, 5)
    small = PointCloudAutoencoder(PointNet((8, 16)), (16,))
    fitting = Reconstruction(small, Training(steps=80, learning_rate=2e-2), batch_size=8)

    def run() -> list[float]:
        return fitting.fit(x, AmortizedSlicedLoss(slicer(), directions=10), generator=seeded())[1]["loss"]

    history = run()
    assert history[-1] < 0.5 * history[0]
    assert run() == history
