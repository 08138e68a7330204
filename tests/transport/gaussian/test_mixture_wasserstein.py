"""Mixture transport against single Gaussians, an assignment done by hand, POT, and the bound by W_2 from samples."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch

from discrepancy.transport.gaussian.geometry import GaussianMap, bures_wasserstein
from discrepancy.transport.gaussian.mixture import GaussianMixture, mixture_wasserstein

F64 = torch.float64


def _mixture(size: int, d: int, seed: int) -> GaussianMixture:
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(size, d, d + 1, generator=g, dtype=F64)
    w = torch.rand(size, generator=g, dtype=F64)
    return GaussianMixture(w / w.sum(), 3 * torch.randn(size, d, generator=g, dtype=F64), A @ A.mT / d)


def test_single_components_are_gaussians() -> None:
    P, Q = _mixture(1, 3, 0), _mixture(1, 3, 1)
    expected = bures_wasserstein(P.means[0], P.covariances[0], Q.means[0], Q.covariances[0])
    found = mixture_wasserstein(P, Q)
    assert float(found.value) == pytest.approx(float(expected), rel=1e-12)
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    T = GaussianMap.between(P.means[0], P.covariances[0], Q.means[0], Q.covariances[0])
    torch.testing.assert_close(found.map()(x), T(x), rtol=1e-9, atol=1e-9)


def test_against_pot() -> None:
    P, Q = _mixture(4, 2, 3), _mixture(6, 2, 4)
    args = [t.numpy() for m in (P, Q) for t in (m.means,)] + [t.numpy() for m in (P, Q) for t in (m.covariances,)]
    weights = [P.weights.numpy(), Q.weights.numpy()]
    expected = ot.gmm.gmm_ot_loss(*args, *weights)
    found = mixture_wasserstein(P, Q)
    assert float(found.cost) == pytest.approx(float(expected), rel=1e-9)
    np.testing.assert_allclose(found.plan().to_dense().numpy(), ot.gmm.gmm_ot_plan(*args, *weights), atol=1e-12)


def test_it_lies_above_the_distance_and_moves_the_law() -> None:
    P, Q = _mixture(2, 2, 5), _mixture(3, 2, 6)
    g = torch.Generator().manual_seed(7)

    def draw(m: GaussianMixture, n: int) -> torch.Tensor:
        k = torch.multinomial(m.weights, n, replacement=True, generator=g)
        noise = torch.randn(n, 2, 1, generator=g, dtype=F64)
        return m.means[k] + (torch.linalg.cholesky(m.covariances)[k] @ noise)[..., 0]

    x, y = draw(P, 1500), draw(Q, 1500)
    u = np.full(1500, 1 / 1500)
    found = mixture_wasserstein(P, Q)
    below = np.sqrt(ot.emd2(u, u, ot.dist(x.numpy(), y.numpy())))
    assert below <= float(found.value) * 1.03  # sampling error of W_2 at n = 1500
    assert float((found.map()(x).mean(0) - y.mean(0)).norm()) < 0.2


def test_gradients_in_all_parameters() -> None:
    P, Q = _mixture(2, 2, 8), _mixture(3, 2, 9)
    logits, means, roots = P.weights.log(), P.means.clone(), torch.linalg.cholesky(P.covariances)
    for t in (logits, means, roots):
        t.requires_grad_()

    def distance(logits, means, roots):  # type: ignore[no-untyped-def]
        return mixture_wasserstein(GaussianMixture(logits.softmax(0), means, roots @ roots.mT), Q).value

    assert torch.autograd.gradcheck(distance, (logits, means, roots), atol=1e-6)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical", "tied"])
def test_fitted_models_of_scikit_learn(kind: str) -> None:
    from sklearn.mixture import GaussianMixture as Fitted

    data = np.random.default_rng(0).normal(size=(200, 3))
    model = Fitted(2, covariance_type=kind, random_state=0).fit(data)
    ours = GaussianMixture.fitted(model)
    x = torch.as_tensor(data[:10])
    np.testing.assert_allclose(ours.responsibilities(x).numpy(), model.predict_proba(data[:10]), rtol=1e-9, atol=1e-12)
    assert float(mixture_wasserstein(ours, ours).value) == 0


def test_bad_mixtures_are_refused() -> None:
    P = _mixture(2, 2, 10)
    with pytest.raises(ValueError, match="dimension 2 and Q 3"):
        mixture_wasserstein(P, _mixture(2, 3, 11))
    with pytest.raises(ValueError, match="weights"):
        GaussianMixture(torch.tensor([0.5, 0.6], dtype=F64), P.means, P.covariances)
    with pytest.raises(TypeError, match="fitted"):
        GaussianMixture.fitted(object())
