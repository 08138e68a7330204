"""The U-Net: sizes, seeds, conditions; and the average of weights along training."""

import pytest
import torch
from torch import nn

from discrepancy.learning import ExponentialAverage, Training
from discrepancy.networks import UNet


def seeded(k=0):
    return torch.Generator().manual_seed(k)


def awake(plan, *sizes, **options):
    """The network with its last layer drawn instead of zero."""
    net = plan.build(*sizes, generator=seeded(), **options)
    nn.init.normal_(net.exit.weight, generator=seeded(1))
    return net


def test_default_size_and_zero_start():
    net = UNet().build(1, 1, 1, generator=seeded())
    assert 80_000 < sum(p.numel() for p in net.parameters()) < 110_000
    x = torch.randn(2, 1, 24, 24, generator=seeded())
    assert float(net(x, torch.zeros(2), x).detach().abs().max()) == 0


@pytest.mark.parametrize("size", [(24, 24), (7, 5), (1, 3)])
@pytest.mark.parametrize("channels", [(4,), (4, 6), (4, 6, 8)])
def test_any_height_and_width(size, channels):
    net = awake(UNet(channels, 8, 4), 2, 3, 1, dtype=torch.float64)
    x, c = torch.randn(2, 2, *size, dtype=torch.float64), torch.randn(2, 1, *size, dtype=torch.float64)
    out = net(x, torch.tensor([0.1, -0.4], dtype=torch.float64), c)
    assert out.shape == (2, 3, *size)
    assert out.dtype == torch.float64


def test_level_and_condition_matter_and_rows_are_independent():
    net = awake(UNet((4, 6), 8, 4), 1, 1, 1)
    x, c = torch.randn(3, 1, 8, 8, generator=seeded(2)), torch.randn(3, 1, 8, 8, generator=seeded(3))
    level = torch.tensor([0.1, 0.2, 0.3])
    out = net(x, level, c)
    assert (net(x, level + 0.5, c) - out).abs().amax((1, 2, 3)).min() > 1e-3
    assert (net(x, level, c + 1) - out).abs().amax((1, 2, 3)).min() > 1e-3
    assert torch.allclose(net(x[1:2], level[1:2], c[1:2]), out[1:2], atol=1e-5)
    assert torch.equal(net(x, level), net(x, level, torch.zeros_like(c)))
    again = awake(UNet((4, 6), 8, 4), 1, 1, 1)
    assert torch.equal(again(x, level, c), out)


def test_bad_sizes():
    net = UNet((4,), 8, 4).build(1, 1, 1)
    with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
        net(torch.zeros(1, 4, 4), torch.zeros(1))
    with pytest.raises(ValueError, match="condition must have shape"):
        net(torch.zeros(1, 1, 4, 4), torch.zeros(1), torch.zeros(1, 1, 2, 2))
    for bad in (lambda: UNet(()), lambda: UNet((0,)), lambda: UNet(embedding=1), lambda: UNet(groups=0)):
        with pytest.raises(ValueError, match="at least"):
            bad()


def test_average_follows_its_recursion():
    net = nn.Linear(2, 1)
    average = ExponentialAverage(net, 0.9)
    expected = net.weight.detach().clone()
    for k in range(30):
        with torch.no_grad():
            net.weight.add_(1.0)
        average.update()
        d = min(0.9, (1 + k) / (10 + k))
        expected = d * expected + (1 - d) * net.weight.detach()
    assert torch.allclose(average.state["weight"], expected)
    own = net.weight.detach().clone()
    with average.applied():
        assert torch.allclose(net.weight, expected)
    assert torch.equal(net.weight, own)
    average.keep()
    assert torch.allclose(net.weight, expected)
    with pytest.raises(ValueError, match="decay"):
        ExponentialAverage(net, 1.0)


def test_training_warms_up_clips_and_calls_back():
    # Adam's first step is the learning rate whatever the gradient: it shows the warm-up; the callback sees moved weights
    weight = nn.Parameter(torch.zeros(1))
    seen = []
    training = Training(steps=4, learning_rate=0.1, warm_up=4, final_share=1.0, gradient_clip=1e-3)
    training.run([weight], lambda k: (1000 * weight.sum(), {}), after=lambda k: seen.append(float(weight.detach())))
    steps = [b - a for a, b in zip([0.0, *seen[:-1]], seen, strict=True)]
    assert steps == pytest.approx([-0.025, -0.05, -0.075, -0.1], rel=1e-3)
    assert float(weight.grad) == pytest.approx(1e-3, rel=1e-3)
    for bad in ({"warm_up": -1}, {"gradient_clip": 0.0}):
        with pytest.raises(ValueError, match="must"):
            Training(**bad)
