"""Subsets by enumeration, losses by hand, a planted dependence, gradients by finite differences, and every bad input."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from discrepancy import KL, CauchySchwarz, CustomDivergence, Hoelder, HoelderPseudo, JensenShannon, ReverseKL
from discrepancy.learning import Training
from discrepancy.methods.representation import (
    MissingModalityModel,
    ReleasedSoftmax,
    SegmentationLoss,
    SharedBackbone,
    SubsetTraining,
    UNetBackbone,
    VariationalTransfer,
    nonempty_subsets,
    segmentation_loss,
    soft_dice,
)
from discrepancy.networks import UNet


def model(modalities=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)

    def layer(a, b):
        found = nn.Linear(a, b, dtype=dtype)
        with torch.no_grad():
            for p in found.parameters():
                p.copy_(torch.randn(p.shape, generator=g, dtype=dtype) / math.sqrt(a))
        return found

    return MissingModalityModel(SharedBackbone([layer(5, 4) for _ in range(modalities)], nn.Tanh(), layer(4, 3)), modalities)


def batch(n=6, modalities=3, dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, modalities, 5, generator=g, dtype=dtype), torch.randint(0, 3, (n,), generator=g)


def test_subsets_are_all_there_once_and_the_full_one_is_last():
    rows = nonempty_subsets(4)
    assert rows.shape == (15, 4)
    assert len({tuple(r) for r in rows.tolist()}) == 15
    assert rows.any(1).all()
    assert rows[-1].all()


@pytest.mark.parametrize("divergence", [None, Hoelder(), KL(), 2 * JensenShannon(), CauchySchwarz()], ids=repr)
def test_terms_are_those_of_a_loop_over_subsets(divergence):
    net, (x, y) = model(), batch()
    transfer = VariationalTransfer(4, 4, generator=torch.Generator().manual_seed(2)).double()
    method = SubsetTraining(divergence=divergence, divergence_weight=0.7, transfer_weight=0.3)
    found = method.terms(net, x, y, transfer)
    supervised, apart, moved = [], [], []
    logits, features = zip(*(net.backbone(x[:, m], m) for m in range(3)))
    full, teacher = sum(logits) / 3, sum(features) / 3
    for size in (1, 2, 3):
        for subset in itertools.combinations(range(3), size):
            own = sum(logits[m] for m in subset) / size
            supervised.append(F.cross_entropy(own, y))
            if divergence is not None:
                apart.append(divergence.from_probs(full.softmax(1), own.softmax(1), dim=1).mean())
            moved.append(transfer(sum(features[m] for m in subset) / size, teacher))
    want = [sum(v) / 7 if v else torch.zeros(()) for v in (supervised, apart, moved)]
    for got, wanted in zip((found.supervised, found.divergence, found.transfer), want):
        torch.testing.assert_close(got.detach(), wanted.detach().double(), rtol=1e-9, atol=1e-12)
    total = want[0] + 0.7 * want[1] + 0.3 * want[2]
    torch.testing.assert_close(found.loss.detach(), total.detach(), rtol=1e-9, atol=1e-12)


def test_the_full_set_teaches_and_is_not_taught():
    net, (x, y) = model(), batch()
    method = SubsetTraining(divergence=KL(), divergence_weight=1.0)
    terms = method.terms(net, x, y)
    given = torch.autograd.grad(terms.divergence, net.backbone.head.weight)[0]
    logits, _ = net.outputs(x)
    full = logits.mean(0)
    frozen = full.detach()
    rows = nonempty_subsets(3).double()
    rows = rows / rows.sum(1, keepdim=True)
    student = torch.einsum("sm,mbc->sbc", rows, logits)
    want = torch.autograd.grad(
        (F.log_softmax(frozen, 1) - F.log_softmax(student, 2)).mul(frozen.softmax(1)).sum(-1).mean(), net.backbone.head.weight
    )[0]
    torch.testing.assert_close(given, want)


def test_missing_modalities_are_not_looked_at():
    net, (x, _) = model(), batch()
    holed = x.clone()
    holed[:, 1] = torch.nan
    want = (net.backbone(x[:, 0], 0)[0] + net.backbone(x[:, 2], 2)[0]) / 2
    torch.testing.assert_close(net(holed, [0, 2]), want)
    torch.testing.assert_close(net([x[:, 0], None, x[:, 2]], [2, 0]), want)
    assert net.training
    assert not net.predict(x, [0]).requires_grad
    assert net.training


def test_bad_modalities_are_refused():
    net, (x, y) = model(), batch()
    for available, words in (([], "available is empty"), ([3], "numbered 0 to 2"), ([-1], "numbered 0 to 2"), ([0, 0], "twice")):
        with pytest.raises(ValueError, match=words):
            net(x, available)
    with pytest.raises(ValueError, match=r"shape \(B, 3"):
        net(x[:, :2])
    with pytest.raises(ValueError, match=r"available=\[0, 2\]"):
        net([x[:, 0], None, x[:, 2]])
    with pytest.raises(ValueError, match="must hold 3"):
        net([x[:, 0]], [0])
    with pytest.raises(ValueError, match="same number of rows"):
        SubsetTraining().fit(net, x, y[:-1])
    with pytest.raises(TypeError, match="Divergence"):
        SubsetTraining(divergence="kl")
    with pytest.raises(ValueError, match="divergence_weight"):
        SubsetTraining(divergence_weight=-1)
    with pytest.raises(ValueError, match="subsets"):
        SubsetTraining(subsets=0)
    with pytest.raises(ValueError, match="entries is empty"):
        SharedBackbone([], nn.Identity(), nn.Identity())


def test_training_learns_reproducibly_and_moves_the_transfer():
    x, y = batch(60, dtype=torch.float32)
    y = (x[:, 0, 0] + x[:, 1, 0] > 0).long()
    runs = []
    for _ in range(2):
        net = model(dtype=torch.float32)
        transfer = VariationalTransfer(4, 4, generator=torch.Generator().manual_seed(3))
        before = copy.deepcopy(transfer.state_dict())
        method = SubsetTraining(subsets=3, batch_size=16, training=Training(steps=60, learning_rate=1e-2, record_every=1))
        history = method.fit(net, x, y, transfer, generator=torch.Generator().manual_seed(4))
        assert history["loss"][-1] < history["loss"][0]
        assert all(not torch.equal(before[k], v) for k, v in transfer.state_dict().items())
        runs.append([*net.state_dict().values(), *transfer.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*runs))


def test_the_planted_loss_is_reached():
    g = torch.Generator().manual_seed(0)
    mixing, deviation = torch.randn(8, 2, generator=g) / 2, 0.6
    left = torch.linalg.inv(torch.eye(2) + mixing.T @ mixing / deviation**2).diagonal()
    transfer = VariationalTransfer(8, 2, generator=g)

    def draw(n):
        t = torch.randn(n, 2, generator=g)
        return t @ mixing.T + deviation * torch.randn(n, 8, generator=g), t

    Training(steps=1800, learning_rate=1e-2).run(transfer.parameters(), lambda _: (transfer(*draw(128)), {}))
    reached, least = float(transfer(*draw(20_000)).detach()), float((left.log() + 1).mean() / 2)
    assert least - 0.02 < reached < least + 0.05 * abs(least) + 0.02


def test_unet_backbone_tells_modalities_apart_and_shows_its_deepest_features():
    net = UNet((4, 6), embedding=8, groups=2).build(1, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.exit.weight.normal_(generator=torch.Generator().manual_seed(1))
    whole = MissingModalityModel(UNetBackbone(net, 2), 2)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    logits, features = whole.outputs(torch.stack([x, x], 1))
    assert logits.shape == (2, 3, 2, 8, 8)
    assert features.shape == (2, 3, 6, 4, 4)
    assert not torch.allclose(logits[0], logits[1])
    assert not net.middle._forward_hooks
    with pytest.raises(TypeError, match="ConditionalUNet"):
        UNetBackbone(nn.Identity(), 2)


# -- transfer ----------------------------------------------------------------------------------------------------------


def test_the_transfer_loss_is_the_gaussian_one_and_stops_at_the_teacher():
    transfer = VariationalTransfer(3, 2, variance=5.0, generator=torch.Generator().manual_seed(0)).double()
    g = torch.Generator().manual_seed(1)
    s = torch.randn(4, 3, 5, 6, generator=g, dtype=torch.float64, requires_grad=True)
    t = torch.randn(4, 2, 5, 6, generator=g, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(transfer.variance, torch.full((2,), 5.0, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    normal = torch.distributions.Normal(transfer.predicted(s), 5.0**0.5)
    want = -normal.log_prob(t).mean() - math.log(2 * math.pi) / 2
    got = transfer(s, t)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    by_s, by_t = torch.autograd.grad(got, (s, t), allow_unused=True)
    assert by_s.abs().sum() > 0
    assert by_t is None
    weights = [layer.weight for layer in transfer.regressor if isinstance(layer, nn.Linear)]
    convolved = s.detach()
    for k, w in enumerate(weights):
        convolved = F.conv2d(convolved, w[:, :, None, None])
        convolved = convolved.relu() if k < 2 else convolved
    torch.testing.assert_close(transfer.predicted(s.detach()), convolved)
    assert all(layer.bias is None for layer in transfer.regressor if isinstance(layer, nn.Linear))


def test_perfect_prediction_has_a_finite_loss():
    transfer = VariationalTransfer(2, 2, variance=1.001e-5)
    nn.init.constant_(transfer.rho, -200.0)
    zeros = torch.zeros(3, 2)
    assert float(transfer(zeros, zeros).detach()) == pytest.approx(math.log(1e-5) / 2)


def test_half_precision_and_strided_features():
    transfer = VariationalTransfer(3, 2, generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    s, t = torch.randn(4, 6, 5, generator=g), torch.randn(4, 2, 5, generator=g)
    want = float(transfer(s[:, ::2].contiguous(), t).detach())
    assert float(transfer(s[:, ::2], t).detach()) == pytest.approx(want, rel=1e-6)
    assert float(transfer(s[:, ::2].to(torch.bfloat16), t.to(torch.bfloat16)).detach()) == pytest.approx(want, rel=0.02)
    one = float(transfer(s[:1, ::2], t[:1]).detach())
    assert float(transfer(s[:1, ::2].expand(4, 3, 5), t[:1].expand(4, 2, 5)).detach()) == pytest.approx(one, rel=1e-6)


def test_bad_features_are_refused():
    transfer = VariationalTransfer(3, 2)
    with pytest.raises(ValueError, match="same samples and places"):
        transfer(torch.ones(2, 3, 4, 4), torch.ones(2, 2, 8, 8))
    with pytest.raises(ValueError, match="same samples and places"):
        transfer(torch.ones(2, 3), torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"source features must have shape \(B, 3"):
        transfer(torch.ones(2, 4), torch.ones(2, 2))
    with pytest.raises(TypeError, match="floating"):
        transfer(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 2))
    with pytest.raises(ValueError, match="variance"):
        VariationalTransfer(3, 2, variance=1e-6)
    with pytest.raises(ValueError, match="source_channels"):
        VariationalTransfer(0, 2)


# -- segmentation ------------------------------------------------------------------------------------------------------


def maps():
    g = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(3, 2, 4, 5, generator=g, dtype=torch.float64)
    masks = (torch.rand(3, 2, 4, 5, generator=g) < 0.4).double()
    masks[1, 0] = 0
    return logits, masks


@pytest.mark.parametrize("divergence", [Hoelder(), HoelderPseudo(1.1).reversed(), KL(), CauchySchwarz()], ids=repr)
def test_the_segmentation_loss_by_hand(divergence):
    logits, masks = maps()
    total = 0.0
    for b, c in itertools.product(range(3), range(2)):
        s, y = logits[b, c].sigmoid().flatten(), masks[b, c].flatten()
        total += 1 - (2 * (s * y).sum() + 1) / (s.sum() + y.sum() + 1)
        if y.sum() > 0:
            total += 0.5 * divergence.from_probs(y / y.sum(), s / s.sum()).abs()
    torch.testing.assert_close(segmentation_loss(logits, masks, divergence, weight=0.5), total / 6)
    torch.testing.assert_close(SegmentationLoss(divergence, weight=0.5)(logits, masks), total / 6)


def test_the_default_is_the_papers_divergence_in_its_order():
    logits, masks = maps()
    a, b = 1.1, 11.0
    s, y = logits.sigmoid().flatten(2), masks.flatten(2)
    cross = (s * y).sum(-1)
    value = -(cross.log() - (s**a).sum(-1).log() / a - (y**b).sum(-1).log() / b)
    value = torch.where(y.sum(-1) > 0, value, 0.0)
    want = soft_dice(logits, masks).mean() + value.abs().mean()
    torch.testing.assert_close(segmentation_loss(logits, masks), want)


def test_the_released_softmax_by_hand_and_how_flat_it_is():
    logits, masks = maps()
    p, q = masks.softmax(2), logits.sigmoid().softmax(2)
    want = soft_dice(logits, masks).mean() + HoelderPseudo(1.1).from_probs(q, p, dim=2).abs().mean()
    got = segmentation_loss(logits, masks, law=ReleasedSoftmax(0))
    torch.testing.assert_close(got, want)
    with pytest.raises(ValueError, match="axis"):
        segmentation_loss(logits, masks, law=ReleasedSoftmax(2))


@pytest.mark.parametrize("divergence", [Hoelder(), None, KL()], ids=["hoelder", "paper", "kl"])
def test_gradients_by_finite_differences(divergence):
    logits, masks = maps()
    assert torch.autograd.gradcheck(
        lambda v: segmentation_loss(v, masks, divergence), (logits.clone().requires_grad_(),), eps=1e-6, atol=1e-6
    )


def test_extreme_logits_half_precision_and_empty_masks():
    logits, masks = maps()
    for size in (1e4, -1e4):
        far = torch.full_like(logits, size).requires_grad_()
        value = segmentation_loss(far, masks)
        value.backward()
        assert math.isfinite(float(value.detach()))
        assert torch.isfinite(far.grad).all()
    half = segmentation_loss(logits.to(torch.bfloat16), masks.to(torch.bfloat16))
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(segmentation_loss(logits, masks)), rel=0.02)
    nothing = torch.zeros_like(masks)
    torch.testing.assert_close(segmentation_loss(logits, nothing), soft_dice(logits, nothing).mean())
    assert float(soft_dice(torch.full_like(logits, -1e4), nothing).max()) == 0
    wide = torch.cat([logits, logits], -1)[..., ::2]
    assert float(segmentation_loss(wide, masks.expand(3, 2, 4, 5))) > 0


def test_bad_maps_and_divergences_are_refused():
    logits, masks = maps()
    with pytest.raises(TypeError, match="no mass"):
        SegmentationLoss(ReverseKL())
    with pytest.raises(TypeError, match="write KL"):
        SegmentationLoss(KL)
    assert float(segmentation_loss(logits, masks, CustomDivergence(lambda t: (t - 1) ** 2))) > 0
    with pytest.raises(ValueError, match="must both have shape"):
        segmentation_loss(logits, masks[:, :1])
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        segmentation_loss(logits, 2 * masks)
    with pytest.raises(ValueError, match="weight"):
        segmentation_loss(logits, masks, weight=-1)
    for alpha in (1.0, 0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="above 1"):
            HoelderPseudo(alpha)
    with pytest.raises(ValueError, match=r"non-negative|negative"):
        Hoelder().from_probs(torch.tensor([-0.1, 1.1]), torch.tensor([0.5, 0.5]))


def test_the_pseudo_divergence_is_smallest_at_a_sharpened_law():
    q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    sharp = q**10 / (q**10).sum()
    assert float(HoelderPseudo(1.1).from_probs(sharp, q)) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(sharp, torch.tensor([0.994, 0.006, 0.0001], dtype=torch.float64), rtol=0.05, atol=5e-4)
