"""The Cauchy-Schwarz bottleneck: its two terms, any prediction and compression, gradients, bad input, and the regressor."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from discrepancy import HSIC, MMD, cite
from discrepancy.kernel_methods import (
    CauchySchwarzInformation,
    ConditionalCauchySchwarz,
    DegenerateKernelWarning,
    KernelCauchySchwarz,
)
from discrepancy.kernels import Gaussian, MedianHeuristic
from discrepancy.methods.representation.bottleneck_regressor import BottleneckRegressor
from discrepancy.methods.representation.cs_information_bottleneck import (
    COMPRESSION,
    PREDICTION,
    CSInformationBottleneck,
    cs_information_bottleneck,
    information_plane,
)


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(n: int = 20) -> tuple[torch.Tensor, ...]:
    x = normal(n, 3, 0)
    t = torch.tanh(x @ normal(3, 2, 1))
    y = x[:, :1].sin()
    return x, t, y, y + 0.3 * normal(n, 1, 2)


def test_is_the_sum_of_its_terms() -> None:
    x, t, y, z = batch()
    terms = CSInformationBottleneck(beta=0.5).terms(x, t, y, z)
    assert float(terms.prediction) == pytest.approx(float(PREDICTION(x, y, z)))
    assert float(terms.compression) == pytest.approx(float(COMPRESSION(x, t)))
    assert float(terms.loss) == pytest.approx(float(terms.prediction + 0.5 * terms.compression))
    assert float(cs_information_bottleneck(x, t, y, z, beta=0.5)) == pytest.approx(float(terms.loss))
    assert float(CSInformationBottleneck(beta=0.0).terms(x, t, y, z).compression) == 0


def test_a_discrepancy_compares_the_joint_samples() -> None:
    x, t, y, z = batch()
    for D in (MMD(biased=True), KernelCauchySchwarz()):
        found = CSInformationBottleneck(D, HSIC(), beta=2.0).terms(x, t, y, z)
        assert float(found.prediction) == pytest.approx(float(D(torch.cat([x, y], 1), torch.cat([x, z], 1))))
        assert float(found.compression) == pytest.approx(float(HSIC()(x, t)))


def test_a_function_takes_prediction_and_target() -> None:
    x, t, y, z = batch()
    assert float(CSInformationBottleneck(F.mse_loss, beta=0.0)(x, t, y, z)) == pytest.approx(float((y - z).square().mean()))
    orders = CSInformationBottleneck(lambda a, b: (2 * a - b).sum(), beta=0.0)(x, t, y, z)
    assert float(orders) == pytest.approx(float((2 * z - y).sum()))


def test_gradients_against_finite_differences() -> None:
    x, t, y, z = batch(9)
    loss = CSInformationBottleneck(
        ConditionalCauchySchwarz(Gaussian(0.8), Gaussian(0.5)),
        CauchySchwarzInformation(Gaussian(1.0), Gaussian(0.7), normalized=True),
        beta=0.3,
    )
    assert torch.autograd.gradcheck(lambda t, z: loss(x, t, y, z), (t.requires_grad_(), z.requires_grad_()), atol=1e-7)


def test_vectors_do_not_broadcast() -> None:
    x, t, y, z = batch()
    loss = CSInformationBottleneck(F.mse_loss, beta=0.0)
    assert float(loss(x, t, y.squeeze(1), z)) == pytest.approx(float(loss(x, t, y, z)))
    with pytest.raises(ValueError, match="a prediction for each target"):
        loss(x, t, y, torch.cat([z, z], 1))
    with pytest.raises(ValueError, match="paired"):
        loss(x, t, y.T, z)


def test_bad_input() -> None:
    x, t, y, z = batch()
    loss = CSInformationBottleneck()
    with pytest.raises(ValueError, match="beta"):
        CSInformationBottleneck(beta=-1.0)
    with pytest.raises(ValueError, match="at least 8 rows"):
        loss(x[:7], t[:7], y[:7], z[:7])
    bad = z.clone()
    bad[0] = math.nan
    with pytest.raises(ValueError, match="y_hat has 1 non-finite"):
        loss(x, t, y, bad)
    with pytest.raises(TypeError, match="prediction"):
        CSInformationBottleneck("mse")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="prediction"):
        CSInformationBottleneck(MMD)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="compression"):
        CSInformationBottleneck(compression=MMD())  # type: ignore[arg-type]
    with pytest.warns(DegenerateKernelWarning, match="degenerate"):
        CSInformationBottleneck(ConditionalCauchySchwarz(Gaussian(1.0)))(1000 * x, t, y, z)
    assert "2404.17951" in cite(loss)


def test_information_plane_of_a_gaussian_channel() -> None:
    x, y = normal(4000, 1, 3), normal(4000, 1, 4)
    z = y + 0.5 * normal(4000, 1, 5)
    point = information_plane(x[:500], x[:500], y[:500], z[:500])
    assert point.about_target == pytest.approx(1.0, abs=0.1)  # log2(1 / 0.25) / 2
    assert point.about_input == pytest.approx(1.0)
    assert information_plane(x[:50], x[:50], y[:50], 9 + z[:50]).about_target == 0.0
    assert information_plane(x[:50], x[:50], torch.ones(50, 1), torch.ones(50, 1)).about_target == 0.0


def test_compression_is_learnt() -> None:
    x = normal(96, 4, 6).float()
    y = x[:, :1] + 0.1 * normal(96, 1, 7).float()
    kept = []
    for beta in (0.0, 1.0):
        model = BottleneckRegressor(beta=beta, epochs=40, width=32, batch_size=96, random_state=0).fit(x, y)
        kept.append(float(COMPRESSION(x, model.transform(x))))
    assert kept[1] < 0.7 * kept[0]


def test_regressor_learns_and_keeps_its_seed() -> None:
    x = normal(160, 2, 8).float()
    y = (x[:, 0] * 50 + 300).numpy()
    options = {"epochs": 60, "width": 32, "batch_size": 64, "learning_rate": 1e-2, "random_state": 3}
    first, again = (BottleneckRegressor(**options).fit(x.numpy(), y) for _ in range(2))
    assert first.score(x.numpy(), y) > 0.8
    assert first.predict(x.numpy()).shape == (160,)
    assert (first.predict(x.numpy()) == again.predict(x.numpy())).all()
    assert first.transform(x).shape == (160, 8)
    two = BottleneckRegressor(epochs=1, random_state=0).fit(x, torch.stack([x[:, 0], x[:, 1]], 1))
    assert two.predict(x).shape == (160, 2)


def test_regressor_with_scikit_learn() -> None:
    from sklearn.base import clone, is_regressor
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = normal(60, 2, 9).numpy(), normal(60, 1, 10).squeeze(1).numpy()
    model = BottleneckRegressor(PREDICTION, HSIC(), epochs=2, width=8, random_state=0)
    assert is_regressor(model)
    assert clone(model).compression == HSIC()
    search = GridSearchCV(make_pipeline(StandardScaler(), model), {"bottleneckregressor__beta": [0.0, 0.1]}, cv=2).fit(x, y)
    assert search.best_params_["bottleneckregressor__beta"] in (0.0, 0.1)
    with pytest.raises(ValueError, match="no option 'gamma'"):
        model.set_params(gamma=1)
    with pytest.raises(AttributeError, match="not fitted"):
        model.predict(x)
    with pytest.raises(ValueError, match="3 features, but fit saw 2"):
        clone(model).fit(x, y).predict(normal(5, 3, 0).numpy())
    with pytest.raises(ValueError, match="at least 8 rows"):
        model.fit(x[:5], y[:5])
    with pytest.raises(ValueError, match="latent_dim"):
        BottleneckRegressor(latent_dim=0)


def test_regressor_takes_modules_and_a_constant_column() -> None:
    x = torch.cat([normal(40, 2, 11), torch.ones(40, 1)], 1).float()
    encoder, decoder = torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)
    prediction = ConditionalCauchySchwarz(Gaussian(MedianHeuristic(0.5)))
    model = BottleneckRegressor(prediction, encoder=encoder, decoder=decoder, epochs=2).fit(x, x[:, 0])
    assert model.module_.encoder is encoder
    assert bool(torch.isfinite(model.predict(x)).all())
