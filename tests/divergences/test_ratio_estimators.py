"""Estimators from log-ratios on laws small enough to enumerate: means, variances and gradients are exact sums."""

import itertools
import math

import pytest
import torch
from divergence_table import EVERY

from discrepancy import KL, Alpha, ChiSquared, JensenShannon, NumericalError, ReverseKL, SquaredHellinger, TotalVariation
from discrepancy.divergences.estimators import (
    Centred,
    FittedLinear,
    Linear,
    Plain,
    Squared,
    estimate_from_p,
    estimate_from_q,
    sequence_estimate,
    surrogate_from_p,
    surrogate_from_q,
    token_estimate,
)

f64 = torch.float64


def laws(k=6, apart=0.7, seed=0):
    draw = torch.Generator().manual_seed(seed)
    u = torch.randn(k, generator=draw, dtype=f64)
    v = u + apart * torch.randn(k, generator=draw, dtype=f64)
    return torch.log_softmax(u, -1), torch.log_softmax(v, -1)


def moments(terms, weights):
    mean = float((weights * terms).sum())
    return mean, float((weights * (terms - mean) ** 2).sum())


@pytest.mark.parametrize("D", EVERY, ids=repr)
def test_every_unbiased_estimator_is_exact_in_expectation(D):
    log_p, log_q = laws()
    p, q = log_p.exp(), log_q.exp()
    want = float(D.from_probs(p, q))
    flat = torch.full_like(q, 1 / 6)
    for estimator in (Centred(), Plain(), Linear(0.7)):
        mean, _ = moments(estimator.terms(D, log_p - log_q, flat), q)
        assert mean == pytest.approx(want, rel=1e-11)
        mean, _ = moments(estimator.terms(D.reversed(), log_q - log_p, flat), p)
        assert mean == pytest.approx(want, rel=1e-11)
    # With the laws themselves as weights the estimate is the expectation.
    assert float(estimate_from_q(D, log_p - log_q, weights=q)) == pytest.approx(want, rel=1e-11)
    assert float(estimate_from_p(D, log_p - log_q, weights=p)) == pytest.approx(want, rel=1e-11)
    assert float(estimate_from_q(D, log_p - log_q, FittedLinear(), weights=q)) == pytest.approx(want, rel=1e-11)


def test_names_that_people_use():
    u = torch.linspace(-2, 2, 9, dtype=f64)
    t, flat = u.exp(), torch.full((9,), 1 / 9, dtype=f64)
    for D, estimator, want in (
        (ReverseKL(), Plain(), -u),
        (ReverseKL(), Squared(), u * u / 2),
        (ReverseKL(), Centred(), t - 1 - u),
        (KL(), Plain(), t * u),
        (ChiSquared(), Plain(), t * (t - 1)),
        (Alpha(0.5), Plain(), 4 * (1 - t.sqrt())),
        (SquaredHellinger(), Plain(), 1 - t.sqrt()),
        (TotalVariation(), Plain(), (1 - t).clamp(min=0)),
        (JensenShannon(), Squared(), u * u / 8),
    ):
        torch.testing.assert_close(estimator.terms(D, u, flat), want, rtol=1e-11, atol=1e-14)
    with pytest.raises(TypeError, match="not smooth"):
        Squared().terms(TotalVariation(), u, flat)


@pytest.mark.parametrize("D", [D for D in EVERY if D.smooth], ids=repr)
def test_variances_next_to_equality(D):
    log_p, log_q = laws(apart=0.02)
    q, u = log_q.exp(), log_p - log_q
    value = float(D.from_probs(log_p.exp(), q))
    spread = {e: moments(e.terms(D, u, q), q)[1] for e in (Centred(), Linear(1.0), Linear(-1.0), FittedLinear())}
    assert spread[Centred()] < 0.02 * min(spread[Linear(1.0)], spread[Linear(-1.0)])
    assert spread[FittedLinear()] <= min(spread.values()) * (1 + 1e-9)  # the best coefficient, at the true weights
    assert moments(Squared().terms(D, u, q), q)[0] == pytest.approx(value, rel=0.05)


def test_bias_of_squared_is_of_third_order():
    gaps = []
    for apart in (0.1, 0.05):
        log_p, log_q = laws(apart=apart)
        gaps.append(
            abs(
                moments(Squared().terms(ReverseKL(), log_p - log_q, log_q), log_q.exp())[0]
                - float(ReverseKL().from_probs(log_p.exp(), log_q.exp()))
            )
        )
    assert gaps[0] / gaps[1] == pytest.approx(8, rel=0.25)


def test_standard_errors_and_notes():
    log_p, log_q = laws()
    draw = torch.Generator().manual_seed(0)
    x = torch.multinomial(log_q.exp().float(), 300 * 400, replacement=True, generator=draw).reshape(300, 400)
    u = (log_p - log_q)[x]
    want = float(KL().from_probs(log_p.exp(), log_q.exp()))
    for estimator in (Plain(), Centred(), FittedLinear()):
        found = estimate_from_q(KL(), u, estimator)
        errors = (found.value - want) / found.standard_error
        assert abs(float(errors.mean())) < 4 / math.sqrt(300)
        assert float(errors.std()) == pytest.approx(1, abs=0.15)
    assert float(estimate_from_q(KL(), u, FittedLinear()).standard_error.mean()) < float(
        estimate_from_q(KL(), u).standard_error.mean()
    )
    assert "1/n" in str(estimate_from_q(KL(), u[0], FittedLinear()).note)
    assert "third order" in str(estimate_from_q(KL(), u[0], Squared()).note)
    assert estimate_from_q(KL(), u[0, :1]).standard_error is None
    assert estimate_from_q(KL(), u[0, :2], FittedLinear()).standard_error is None
    assert estimate_from_q(KL(), u[0].float()).value.dtype == torch.float32


def test_refusals():
    u = torch.zeros(4)
    with pytest.raises(ValueError, match="1 NaN of 4"):
        estimate_from_q(KL(), torch.tensor([0.0, torch.nan, 0.0, 0.0]))
    with pytest.raises(ValueError, match="samples along its last dimension"):
        estimate_from_q(KL(), torch.zeros(3, 0))
    with pytest.raises(TypeError, match="RatioEstimator such as Centred"):
        estimate_from_q(KL(), u, "k3")
    with pytest.raises(TypeError, match="expected an FDivergence"):
        estimate_from_p("kl", u)
    with pytest.raises(ValueError, match="coefficient must be finite"):
        Linear(math.inf)
    with pytest.raises(NumericalError, match="no coefficient can be fitted"):
        estimate_from_q(ReverseKL(), torch.tensor([0.0, 800.0]).double(), FittedLinear())
    with pytest.raises(ValueError, match=r"mask leaves 1 of 2 sequence"):
        sequence_estimate(KL(), torch.zeros(2, 3), torch.tensor([[True] * 3, [False] * 3]))
    with pytest.raises(ValueError, match="mask must be boolean of shape"):
        token_estimate(KL(), torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="shape"):
        token_estimate(KL(), torch.zeros(3))
    with pytest.raises(TypeError, match="no fitted coefficient"):
        token_estimate(KL(), torch.zeros(2, 3), estimator=FittedLinear())
    with pytest.raises(ValueError, match="one shape"):
        surrogate_from_q(KL(), torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="infinite slope at 1 of 2"):
        surrogate_from_q(ReverseKL(), torch.tensor([-torch.inf, -1.0]), torch.tensor([-1.0, -1.0]))


class Chain:
    """Sequences of three letters of two: the law of each letter depends on the one before."""

    def __init__(self, seed):
        draw = torch.Generator().manual_seed(seed)
        self.first = torch.log_softmax(torch.randn(2, generator=draw, dtype=f64), -1)
        self.next = torch.log_softmax(torch.randn(2, 2, generator=draw, dtype=f64), -1)
        self.strings = torch.tensor(list(itertools.product(range(2), repeat=3)))

    def tokens(self):
        s = self.strings
        return torch.stack([self.first[s[:, 0]], self.next[s[:, 0], s[:, 1]], self.next[s[:, 1], s[:, 2]]], -1)


def test_sequences_and_tokens_by_enumeration():
    p, q = Chain(0), Chain(1)
    u, weight = p.tokens() - q.tokens(), q.tokens().sum(-1).exp()
    spare = torch.cat([u, torch.full((8, 1), 7.0)], -1)  # padding, which counts for nothing
    mask = torch.ones(8, 4, dtype=torch.bool)
    mask[:, 3] = False
    laws_p, laws_q = p.tokens().sum(-1).exp(), weight
    for D in (KL(), ReverseKL(), JensenShannon()):
        rows = list(zip(spare, mask, strict=True))
        each = torch.tensor([float(sequence_estimate(D, row[None], m[None])) for row, m in rows], dtype=f64)
        assert float((weight * each).sum()) == pytest.approx(float(D.from_probs(laws_p, laws_q)), rel=1e-10)
        tokens = torch.tensor([float(token_estimate(D, row[None], m[None])) for row, m in rows], dtype=f64)
        two = torch.tensor([float(D.from_logits(p.next[a], q.next[a])) for a in range(2)], dtype=f64)
        s = q.strings
        want = float(D.from_logits(p.first, q.first)) + float((weight * (two[s[:, 0]] + two[s[:, 1]])).sum())
        assert float((weight * tokens).sum()) == pytest.approx(want, rel=1e-10)
        if isinstance(D, ReverseKL):
            assert want == pytest.approx(float(D.from_probs(laws_p, laws_q)), rel=1e-10)


@pytest.mark.parametrize("D", EVERY, ids=repr)
def test_surrogates_have_the_exact_gradient_in_expectation(D):
    log_p, _ = laws(5)
    theta = torch.randn(5, generator=torch.Generator().manual_seed(4), dtype=f64).requires_grad_()

    def log_q():
        return torch.log_softmax(theta, -1)

    (want,) = torch.autograd.grad(D.from_logits(log_p, theta), theta)
    q, p = log_q().detach().exp(), log_p.exp()
    pairs = list(itertools.product(range(5), repeat=2))  # all samples of size two
    got_q, got_p, plain = torch.zeros(5, dtype=f64), torch.zeros(5, dtype=f64), torch.zeros(5, dtype=f64)
    for i, j in pairs:
        x = torch.tensor([i, j])
        got_q += q[i] * q[j] * torch.autograd.grad(surrogate_from_q(D, log_p[x], log_q()[x]), theta)[0]
        got_p += p[i] * p[j] * torch.autograd.grad(surrogate_from_p(D, log_p[x], log_q()[x]), theta)[0]
    for i in range(5):
        x = torch.tensor([i])
        plain += q[i] * torch.autograd.grad(surrogate_from_q(D, log_p[x], log_q()[x], baseline=False), theta)[0]
    for got in (got_q, got_p, plain):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_differentiating_a_value_at_samples_of_q_is_another_gradient():
    log_p, _ = laws(5)
    theta = torch.randn(5, generator=torch.Generator().manual_seed(4), dtype=f64).requires_grad_()
    q = torch.softmax(theta, -1).detach()

    def expected(estimator):
        terms = estimator.terms(ReverseKL(), log_p - torch.log_softmax(theta, -1), q)
        return torch.autograd.grad((q * terms).sum(), theta)[0]

    torch.testing.assert_close(expected(Plain()), torch.zeros(5, dtype=f64), rtol=0, atol=1e-14)
    (forward,) = torch.autograd.grad(KL().from_logits(log_p, theta), theta)
    torch.testing.assert_close(expected(Centred()), forward, rtol=1e-10, atol=1e-12)
