"""Plain methods that representation learning compares with: correlation alignment, the variational bottleneck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from discrepancy._kinds import Claims, Discrepancy
from discrepancy._validate import SamplePair, at_least, generator_or_default
from discrepancy.networks import MLP


@dataclass(frozen=True)
class CorrelationAlignment(Discrepancy):
    """|C_x - C_y|_F^2 / (4 d^2), C the covariance matrices (divisor: the weights' sum, one) of two samples: CORAL.

    Sees second moments only, about each sample's own mean: zero for laws with equal covariance. In units of x^4. O((n + m) d^2).
    Source: Sun and Saenko (2016).
    """

    claims: ClassVar[Claims] = Claims(degree=4.0)
    references: ClassVar[tuple[str, ...]] = ("sun-saenko-2016",)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        covariances = []
        for z, w in ((pair.x, pair.a), (pair.y, pair.b)):
            centred = z - (w.unsqueeze(-1) * z).sum(-2, keepdim=True)
            covariances.append((w.unsqueeze(-1) * centred).mT @ centred)
        return (covariances[0] - covariances[1]).square().sum((-2, -1)) / (4 * pair.x.shape[-1] ** 2)


class VariationalBottleneck(nn.Module):
    """A Gaussian code t ~ N(mean(x), diag(exp(log_variance(x)))), and a prediction read off it.

    Trained by `loss`: the squared error at a drawn code plus beta KL(N(mean, diag) || N(0, I)), the variational bound of
    min -I(y; t) + beta' I(x; t) with Gaussian noise of fixed variance. Calling it predicts from the mean code.
    Sizes d - width - width - 2 latent_dim and latent_dim - width - outputs, ReLU.
    Source: Alemi, Fischer, Dillon and Murphy (2017).
    """

    references: ClassVar[tuple[str, ...]] = ("alemi-2017",)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        latent_dim: int = 8,
        width: int = 128,
        beta: float = 1e-2,
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the networks; ValueError for a negative beta."""
        super().__init__()
        self.beta = at_least(beta, 0, "beta")
        self.encoder = MLP(width, 2, nn.ReLU).build(inputs, 2 * latent_dim, generator=generator)
        self.decoder = MLP(width, 1, nn.ReLU).build(latent_dim, outputs, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """The prediction (n, m) at the mean code."""
        return self.decoder(self.encoder(x).chunk(2, -1)[0])

    def loss(self, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """mean |y_hat - y|^2 + beta mean_i KL_i, in nats."""
        mean, log_variance = self.encoder(x).chunk(2, -1)
        noise = torch.randn(mean.shape, generator=generator_or_default(generator), dtype=mean.dtype)
        predicted = self.decoder(mean + torch.exp(log_variance / 2) * noise)
        if predicted.shape != y.shape:
            raise ValueError(f"the prediction has shape {tuple(predicted.shape)} and y {tuple(y.shape)}: they must be the same")
        divergence = (mean.square() + torch.expm1(log_variance) - log_variance).sum(-1) / 2
        return (predicted - y).square().mean() + self.beta * divergence.mean()


__all__ = ["CorrelationAlignment", "VariationalBottleneck"]
