"""Slimmable layers are slices of the full ones, statistics are recalibrated, and the sandwich rule trains what it says."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from discrepancy.divergences import KL
from discrepancy.methods.distillation import (
    AdaptiveDivergenceLoss,
    Epochs,
    KnowledgeDistillation,
    Sandwich,
    SlimmableBatchNorm,
    SlimmableConv1d,
    SlimmableConv2d,
    SlimmableLinear,
    recalibrate_batchnorm,
    set_width,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0):
    g = generator(seed)
    return nn.Sequential(
        SlimmableConv1d(1, 8, 3, padding=1, bias=False, generator=g),
        SlimmableBatchNorm(8),
        nn.ReLU(),
        nn.Flatten(),
        SlimmableLinear(8 * 6, 16, generator=g),
        nn.ReLU(),
        SlimmableLinear(16, 3, fixed=True, generator=g),
    )


def data(n=240):
    x = torch.randn(n, 1, 6, generator=generator(9))
    return x, (x.sum((1, 2)) > 1).long() + (x.sum((1, 2)) > -1).long()


def test_layers_are_slices_of_the_full_ones():
    linear, conv1, conv2 = SlimmableLinear(6, 4), SlimmableConv1d(4, 6, 3, stride=2, padding=1), SlimmableConv2d(4, 6, 3)
    for layer in (linear, conv1, conv2):
        layer.share = 0.5
    x = torch.randn(5, 3)
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight[:2, :3], linear.bias[:2]))
    x = torch.randn(5, 2, 9)
    torch.testing.assert_close(conv1(x), F.conv1d(x, conv1.weight[:3, :2], conv1.bias[:3], stride=2, padding=1))
    x = torch.randn(5, 2, 7, 7)
    torch.testing.assert_close(conv2(x), F.conv2d(x, conv2.weight[:3, :2], conv2.bias[:3]))


def test_a_narrow_network_is_the_corner_of_the_wide_one():
    net = network().eval()
    x, _ = data(5)
    full = net(x)
    set_width(net, 0.5)
    narrow = net(x)
    assert narrow.shape == full.shape == (5, 3)
    # By hand: half the channels of the convolution, whole channels of the flattened signal, half the hidden units.
    conv, norm, first, last = net[0], net[1], net[4], net[6]
    h = F.relu(F.batch_norm(F.conv1d(x, conv.weight[:4], padding=1), norm.running_mean[:4], norm.running_var[:4],
                            norm.weight[:4], norm.bias[:4]))  # fmt: skip
    h = F.relu(F.linear(h.flatten(1), first.weight[:8, : 4 * 6], first.bias[:8]))
    torch.testing.assert_close(narrow, F.linear(h, last.weight[:, :8], last.bias))
    set_width(net, 1.0)
    torch.testing.assert_close(net(x), full, rtol=0, atol=0)


def test_the_narrowest_keeps_one_unit_and_fixed_layers_all():
    layer, head = SlimmableLinear(3, 5), SlimmableLinear(5, 4, fixed=True)
    net = nn.Sequential(layer, head)
    set_width(net, 0.01)
    assert layer.active == 1
    assert head.active == 4
    assert net(torch.randn(2, 3)).shape == (2, 4)


def test_unused_weights_get_no_gradient():
    net = network()
    set_width(net, 0.25)
    net(data(10)[0]).sum().backward()
    assert bool((net[0].weight.grad[2:] == 0).all())
    assert float(net[0].weight.grad[:2].abs().max()) > 0


def test_batch_norm_at_full_width_is_torchs():
    ours, theirs = SlimmableBatchNorm(6), nn.BatchNorm1d(6)
    for _ in range(3):
        x = 3 * torch.randn(20, 6) + 1
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))


def test_recalibration_gives_the_statistics_of_the_data_and_restores_the_modes():
    net = nn.Sequential(nn.Dropout(0.5), SlimmableBatchNorm(4))
    net[1].eval()
    x = 5 * torch.randn(400, 4, generator=generator()) - 2
    assert recalibrate_batchnorm(net, x.split(100)) == 4
    torch.testing.assert_close(net[1].running_mean, x.mean(0))
    torch.testing.assert_close(net[1].running_var, torch.stack([part.var(0) for part in x.split(100)]).mean(0))
    assert net.training
    assert net[0].training
    assert not net[1].training
    assert net[1].momentum == 0.1
    assert recalibrate_batchnorm(net, x.split(10), most=3) == 3
    plain = nn.BatchNorm1d(4)
    recalibrate_batchnorm(plain, x.split(100))
    torch.testing.assert_close(plain.running_mean, x.mean(0))


def test_bad_widths_and_networks_are_refused():
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        set_width(network(), 0.0)
    with pytest.raises(ValueError, match="no slimmable layer"):
        set_width(nn.Linear(2, 2), 0.5)
    with pytest.raises(ValueError, match="no batch normalisation"):
        recalibrate_batchnorm(nn.Linear(2, 2), [torch.zeros(1, 2)])
    with pytest.raises(ValueError, match="batches is empty"):
        recalibrate_batchnorm(SlimmableBatchNorm(2), [])
    with pytest.raises(ValueError, match="at most 3 inputs, got 4"):
        SlimmableLinear(3, 2)(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="at most 3 channels, got 4"):
        SlimmableBatchNorm(3)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="outputs"):
        SlimmableLinear(3, 0)
    with pytest.raises(ValueError, match="two different shares"):
        Sandwich(None, widths=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        Sandwich(None, widths=(0.5, 1.5))


def test_the_sandwich_is_the_widest_the_narrowest_and_two_between():
    rule = Sandwich(None)
    drawn = [rule.drawn(generator(k)) for k in range(30)]
    assert all(len(widths) == 3 and widths[0] == 0.25 for widths in drawn)
    assert {w for widths in drawn for w in widths[1:]} == {0.5, 0.75}
    assert {w for k in range(20) for w in Sandwich(None, widths=(0.5, 1.0)).drawn(generator(k))} == {0.5, 1.0}


def test_one_steps_loss_is_the_sum_of_its_parts():
    net = network()
    net.eval()
    x, y = data(20)
    distillation = KnowledgeDistillation(KL(), temperature=1.0, weight=1.0, task_weight=0.0)
    rule = Sandwich(distillation, others=1, widths=(0.25, 0.5, 1.0))
    loss, terms = rule.loss(net, x, y, generator=generator())
    teacher = net(x).detach()
    truth = F.cross_entropy(net(x), y, label_smoothing=0.1)
    for share in (0.25, 0.5):
        set_width(net, share)
        truth = truth + KL().from_logits(teacher, net(x)).mean()
    torch.testing.assert_close(loss, truth)
    assert set(terms) == {"widest", "narrowest", "others"}


def test_dropout_is_for_the_widest_only():
    seen = []

    class Watch(nn.Dropout):
        def forward(self, x):
            seen.append(self.training)
            return super().forward(x)

    net = nn.Sequential(SlimmableLinear(3, 8), Watch(0.5), SlimmableLinear(8, 2, fixed=True))
    Sandwich(None).loss(net, torch.randn(4, 3), torch.zeros(4, dtype=torch.long))
    assert seen == [True, False, False, False]
    assert net[1].training


def test_training_teaches_every_width_and_repeats():
    x, y = data()
    weights = []
    for _ in range(2):
        net = network()
        options = Epochs(25, batch=60, learning_rate=5e-3, gradient_clip=1.0)
        history = Sandwich(AdaptiveDivergenceLoss()).fit(net, x, y, epochs=options, generator=generator(3))
        assert history["widest"][-1] < history["widest"][0]
        weights.append(net[6].weight.detach().clone())
    assert torch.equal(*weights)
    for share, least in ((0.5, 0.55), (1.0, 0.75)):  # a third is chance
        set_width(net, share)
        recalibrate_batchnorm(net, x.split(60))
        net.eval()
        assert float((net(x).argmax(-1) == y).float().mean()) > least


def test_lengths_are_checked():
    with pytest.raises(ValueError, match="20 inputs and 19 targets"):
        Sandwich(None).fit(network(), data(20)[0], data(19)[1])
