"""A regression network with a bottleneck, in the manner of scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy._kinds import Dependence
from discrepancy._validate import at_least, paired_rows, positive, sample, whole_number
from discrepancy.learning import Training
from discrepancy.methods.representation.cs_information_bottleneck import (
    COMPRESSION,
    PREDICTION,
    CSInformationBottleneck,
    Prediction,
)
from discrepancy.networks import MLP


class BottleneckNet(nn.Module):
    """decoder(encoder(x)) in units of standardised x and y: `code(x)` and the prediction, both for x in the data's own units."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, x: Tensor, y: Tensor) -> None:
        """Standardise by the means and deviations of x (n, d) and y (n, m); a constant column keeps its unit."""
        super().__init__()
        self.x_mean: Tensor
        self.x_scale: Tensor
        self.y_mean: Tensor
        self.y_scale: Tensor
        self.encoder, self.decoder = encoder, decoder
        for name, data in (("x", x), ("y", y)):
            scale = data.std(0, correction=0)
            self.register_buffer(f"{name}_mean", data.mean(0))
            self.register_buffer(f"{name}_scale", torch.where(scale > 0, scale, torch.ones_like(scale)))

    def standardised(self, x: Tensor) -> Tensor:
        """x in units of its deviations."""
        return (x - self.x_mean) / self.x_scale

    def code(self, x: Tensor) -> Tensor:
        """The code t (n, k)."""
        return self.encoder(self.standardised(x))

    def forward(self, x: Tensor) -> Tensor:
        """The prediction (n, m)."""
        return self.decoder(self.code(x)) * self.y_scale + self.y_mean


@dataclass
class BottleneckRegressor:
    """A network d - width - width - latent_dim - width - m (ReLU) trained with `CSInformationBottleneck` on standardised data.

    prediction, compression and beta as there; encoder and decoder: modules (latent_dim wide between them) instead of the default
    ones; warm_up_epochs of plain squared error come first, because kernels see little of predictions that are far off. Adam at
    learning_rate, falling to a tenth; batches of batch_size, the rest of an epoch joining the last batch.
    random_state: an integer or None (torch's default generator).

    `fit` sets `module_` (a `BottleneckNet`), `history_` and `n_features_in_`. Options are kept as given, so that scikit-learn's
    `clone`, `GridSearchCV` and pipelines take it; scikit-learn is not needed. Cost O(epochs n batch_size).
    Raises ValueError for options out of range, fewer than 8 rows, and X with another number of features than in `fit`.
    """

    prediction: Prediction = PREDICTION
    compression: Dependence = COMPRESSION
    beta: float = 1e-2
    latent_dim: int = 8
    width: int = 128
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    epochs: int = 60
    warm_up_epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 1e-3
    random_state: int | None = None

    references: ClassVar[tuple[str, ...]] = ("cs-information-bottleneck",)

    def __post_init__(self) -> None:
        """Check the options."""
        CSInformationBottleneck(self.prediction, self.compression, beta=self.beta)
        for name, least in (("latent_dim", 1), ("width", 1), ("epochs", 1), ("warm_up_epochs", 0), ("batch_size", 8)):
            whole_number(getattr(self, name), least, name)
        positive(self.learning_rate, "learning_rate")
        if self.random_state is not None:
            at_least(self.random_state, 0, "random_state")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def set_params(self, **options: Any) -> Self:
        """Change options by name; ValueError for a name that is none."""
        known = {f.name for f in fields(self)}
        for name, value in options.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no option {name!r}; it has {', '.join(sorted(known))}")
            setattr(self, name, value)
        self.__post_init__()
        return self

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from inputs X (n, d) and targets y (n,) or (n, m)."""
        inputs, targets, _ = paired_rows(X, y)
        if inputs.ndim != 2 or len(inputs) < 8:
            raise ValueError(f"X must be a table of at least 8 rows, got shape {tuple(inputs.shape)}")
        self._vector = np.ndim(y) == 1 if not isinstance(y, Tensor) else y.ndim == 1
        inputs, targets = inputs.detach().float(), targets.detach().float()
        chance = torch.Generator()
        chance.manual_seed(int(self.random_state) if self.random_state is not None else torch.seed() % 2**63)
        shape = MLP(self.width, 2, nn.ReLU), MLP(self.width, 1, nn.ReLU)
        encoder = self.encoder or shape[0].build(inputs.shape[1], self.latent_dim, generator=chance)
        decoder = self.decoder or shape[1].build(self.latent_dim, targets.shape[1], generator=chance)
        net = BottleneckNet(encoder, decoder, inputs, targets)
        loss = CSInformationBottleneck(self.prediction, self.compression, beta=self.beta)
        x, z = net.standardised(inputs), (targets - net.y_mean) / net.y_scale
        batches = max(1, len(x) // self.batch_size)
        order = torch.randperm(len(x), generator=chance)

        def step(k: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            nonlocal order
            place = k % batches
            if place == 0:
                order = torch.randperm(len(x), generator=chance)
            rows = order[place * self.batch_size : (place + 1) * self.batch_size if place < batches - 1 else len(x)]
            code = encoder(x[rows])
            predicted = decoder(code)
            if k < self.warm_up_epochs * batches:
                value = F.mse_loss(predicted, z[rows])
                return value, {"prediction": value.detach(), "compression": 0.0}
            terms = loss.terms(x[rows], code, z[rows], predicted, generator=chance)
            return terms.loss, {"prediction": terms.prediction.detach(), "compression": terms.compression.detach()}

        training = Training(steps=self.epochs * batches, learning_rate=self.learning_rate, record_every=batches)
        self.history_ = training.run([*encoder.parameters(), *decoder.parameters()], step)
        self.module_, self.n_features_in_ = net.eval(), inputs.shape[1]
        return self

    def predict(self, X: Any) -> Any:
        """Predictions, of y's shape: a tensor for a tensor, else an array."""
        points = self._points(X)
        with torch.no_grad():
            predicted = self.module_(points)
        predicted = predicted.squeeze(1) if self._vector else predicted
        return predicted if isinstance(X, Tensor) else predicted.numpy()

    def transform(self, X: Any) -> Any:
        """The codes (n, latent_dim)."""
        points = self._points(X)
        with torch.no_grad():
            code = self.module_.code(points)
        return code if isinstance(X, Tensor) else code.numpy()

    def score(self, X: Any, y: Any) -> float:
        """R^2 = 1 - MSE / Var y, the mean over outputs."""
        predicted, targets, _ = paired_rows(torch.as_tensor(self.predict(X)), y)
        error = (predicted - targets).square().mean(0)
        return float((1 - error / targets.var(0, correction=0)).mean())

    def _points(self, X: Any) -> Tensor:
        if not hasattr(self, "module_"):
            raise AttributeError(f"this {type(self).__name__} is not fitted: call fit(X, y) first")
        points = sample(X, "X").float()
        if points.shape[-1] != self.n_features_in_:
            raise ValueError(f"X has {points.shape[-1]} features, but fit saw {self.n_features_in_}")
        return points

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` was called."""
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know: a regressor of one or several targets."""
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True, multi_output=True),
            regressor_tags=RegressorTags(),
            input_tags=InputTags(),
        )


__all__ = ["BottleneckNet", "BottleneckRegressor"]
