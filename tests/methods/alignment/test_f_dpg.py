"""f-DPG: gradients by enumeration, the sampled tuner against the exact optimum, and what it refuses."""

import math

import pytest
import torch
from torch.func import functional_call, jacrev

from discrepancy import NumericalError
from discrepancy.divergences import (
    KL,
    Alpha,
    ChiSquared,
    CustomDivergence,
    Jeffreys,
    JensenShannon,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
)
from discrepancy.language_models import CausalPolicy, MarkovPolicy, TabularPolicy, tiny_gpt2
from discrepancy.learning import Training
from discrepancy.methods.alignment.energy_based import BooleanScorer, EnergyBasedModel, RewardScorer
from discrepancy.methods.alignment.f_dpg import FDPG, FDPGLoss, FixedProposal, f_dpg_loss, pseudo_rewards
from discrepancy.methods.alignment.importance import effective_sample_size, log_normaliser
from discrepancy.methods.alignment.pseudo_reward_baselines import OtherSamples, PastRewards


def _custom(t):
    return t * t * t


EVERY = [
    KL(),
    2 * JensenShannon(),
    TotalVariation(),
    ChiSquared(),
    Alpha(0.5),
    Alpha(0.5) + 0.3 * KL(),
    KL().skewed(0.2),
    SquaredHellinger(),
    CustomDivergence(_custom, name="cubic"),
]


def _chain(seed=0, length=3, size=3):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(size + 1, size, generator=g, dtype=torch.float64)
    return MarkovPolicy(rows[0], rows[1:], length)


def _holes(strings):
    return (strings[:, 0] != strings[:, -1]) & (strings == 0).any(-1)


def _reward(strings):
    return (strings == 1).sum(-1).double()


def _enumerated(soft):
    """The policy, its strings, log P (not normalised), and log Z."""
    policy, base = _chain(1), _chain(0)
    strings = policy.strings()
    target = EnergyBasedModel(base, (RewardScorer(_reward, 0.7) if soft else BooleanScorer(_holes),))
    log_score = target.log_score(strings) + 3.0
    return policy, strings, log_score, float(torch.logsumexp(log_score, 0))


def _gradient(value, policy):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(policy.parameters()))])


@pytest.mark.parametrize("divergence", [*EVERY, ReverseKL(), Jeffreys()], ids=repr)
def test_expected_gradient_is_that_of_the_divergence(divergence):
    policy, strings, log_score, log_z = _enumerated(soft=not math.isfinite(divergence.at_zero))
    exact = _gradient(divergence.from_logits(log_score, policy.log_prob(strings)), policy)
    # The expectation over the policy by enumeration: every string once, as a proposal's sample with q uniform.
    log_pi = policy.log_prob(strings)
    uniform = torch.full_like(log_pi, -math.log(len(strings))).detach()
    for baseline in (0.0, 5.0):
        loss = f_dpg_loss(log_pi, log_score, log_z, divergence, proposal_log_probs=uniform, baseline=baseline)
        torch.testing.assert_close(_gradient(loss, policy), exact, rtol=1e-9, atol=1e-11)
        log_pi = policy.log_prob(strings)


@pytest.mark.parametrize(
    ("divergence", "printed"),
    [
        (KL(), lambda z: -torch.exp(-z)),
        (ReverseKL(), lambda z: z + 1),
        (2 * JensenShannon(), lambda z: math.log(2) - torch.nn.functional.softplus(-z)),
        (TotalVariation(), lambda z: torch.sign(z) / 2),
        (ChiSquared(), lambda z: 1 - torch.exp(-2 * z)),
    ],
    ids=["kl", "reverse kl", "js", "tv", "chi2"],
)
def test_rewards_are_the_papers_up_to_a_constant(divergence, printed):
    z = torch.linspace(-6, 6, 25, dtype=torch.float64)
    ours, theirs = pseudo_rewards(z, torch.zeros_like(z), 0.0, divergence), -printed(z)
    difference = ours - theirs
    torch.testing.assert_close(difference, difference[:1].expand_as(z), rtol=0, atol=1e-10 * float(theirs.abs().max()))
    assert float(ours[z == 0]) == pytest.approx(0, abs=1e-12)  # centred: no reward at equality


def test_rewards_where_the_target_has_no_mass():
    log_pi, log_p = torch.tensor([-1.0, -2.0]), torch.tensor([-math.inf, -2.0])
    expected = {KL(): -1.0, 2 * JensenShannon(): -math.log(2), TotalVariation(): -0.5, ChiSquared(): -1.0}
    for divergence, limit in expected.items():
        assert float(pseudo_rewards(log_pi, log_p, 0.0, divergence)[0]) == pytest.approx(limit)
    with pytest.raises(ValueError, match=r"no mass at 1 of 2 samples, the first at index 0.*RewardScorer"):
        pseudo_rewards(log_pi, log_p, 0.0, ReverseKL())


def test_extreme_ratios_are_exact_or_refused():
    log_pi, log_p = torch.tensor([-1e4, 0.0], dtype=torch.float64), torch.tensor([0.0, -1e4], dtype=torch.float64)
    rewards = pseudo_rewards(log_pi, log_p, 0.0, 2 * JensenShannon())
    torch.testing.assert_close(rewards, torch.tensor([1e4 - math.log(2), -math.log(2)], dtype=torch.float64))
    assert pseudo_rewards(log_pi, log_p, 0.0, ReverseKL()).tolist() == pytest.approx([1e4, -1e4])
    with pytest.raises(NumericalError, match=r"overflows at index 0, where log p - log pi is 10000"):
        pseudo_rewards(log_pi, log_p, 0.0, KL())
    assert pseudo_rewards(log_pi, log_p, 0.0, KL(), clip=7.0).tolist() == [7.0, -1.0]


def test_a_sample_impossible_under_both_counts_for_nothing():
    log_pi = torch.tensor([-math.inf, -0.5, -1.0], dtype=torch.float64, requires_grad=True)
    log_p = torch.tensor([-math.inf, -0.3, -1.2], dtype=torch.float64)
    loss = f_dpg_loss(log_pi, log_p, 0.0, KL(), proposal_log_probs=torch.full((3,), -1.1, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss, log_pi)
    assert bool(torch.isfinite(loss))
    assert float(gradient[0]) == 0
    assert bool(torch.isfinite(gradient).all())


def test_rewards_carry_no_gradient_and_keep_dtypes():
    for dtype in (torch.float32, torch.float64):
        log_pi = torch.tensor([-1.0, -2.0, -0.5], dtype=dtype, requires_grad=True)
        log_p = torch.tensor([-1.5, -1.0, -2.0], dtype=dtype)
        loss = f_dpg_loss(log_pi, log_p, 0.0, KL())
        (gradient,) = torch.autograd.grad(loss, log_pi)
        rewards = pseudo_rewards(log_pi, log_p, 0.0, KL())
        assert loss.dtype == dtype
        assert not rewards.requires_grad
        torch.testing.assert_close(gradient, (-rewards / 3).to(dtype))
        expected = torch.expm1(log_p.double() - log_pi.detach().double())
        torch.testing.assert_close(rewards, expected)


def _score_matrix(policy, strings):
    """d log pi(x) / d parameters, (strings, parameters)."""
    parameters = {k: v.detach() for k, v in policy.named_parameters()}

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = policy

        def forward(self, x):
            return self.inner.log_prob(x)

    named = {f"inner.{k}": v for k, v in parameters.items()}
    jacobian = jacrev(lambda p: functional_call(Wrapped(), p, (strings,)))(named)
    return torch.cat([j.flatten(1) for j in jacobian.values()], -1)


def test_a_baseline_of_other_samples_keeps_the_gradient_and_cuts_its_variance():
    policy, strings, log_score, log_z = _enumerated(soft=False)
    divergence = 2 * JensenShannon()
    pi = policy.log_prob(strings).detach().exp()
    rewards = pseudo_rewards(policy.log_prob(strings), log_score, log_z, divergence)
    scores = _score_matrix(policy, strings)
    exact = _gradient(divergence.from_logits(log_score, policy.log_prob(strings)), policy)
    variances = []
    for base in (0.0, float(pi @ rewards)):
        each = -(rewards - base).unsqueeze(-1) * scores
        torch.testing.assert_close(pi @ each, exact, rtol=1e-9, atol=1e-12)
        variances.append(float(pi @ (each - exact).square().sum(-1)))
    assert variances[1] < variances[0]


@pytest.mark.parametrize("baseline", [None, PastRewards(), OtherSamples()], ids=["none", "past", "others"])
def test_tuner_reaches_a_target_that_the_policy_can_represent(baseline):
    target_law = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0], dtype=torch.float64)

    class Target:
        def log_score(self, samples):
            return torch.log(target_law)[samples] + 2.0

    policy = TabularPolicy(torch.zeros(5, dtype=torch.float64))
    method = FDPG(
        training=Training(steps=300, learning_rate=0.05, final_share=0.05), samples=128, baseline=baseline, warm_up=1000
    )
    result = method.tune(policy, Target(), generator=torch.Generator().manual_seed(0))
    assert float(TotalVariation().from_probs(target_law, policy.probs.detach())) < 0.04
    assert result.log_z[0] == pytest.approx(2.0, abs=0.05)
    assert result.effective_sample_size > 100
    found = result.divergences[repr(TotalVariation())]
    assert float(found) < 0.1
    assert result.history["step"][-1] == 299


def test_same_seed_same_bits():
    def run():
        policy = _chain(1)
        target = EnergyBasedModel(_chain(0), (BooleanScorer(_holes),))
        method = FDPG(training=Training(steps=5, learning_rate=0.02), samples=32, proposal=FixedProposal(2))
        method.tune(policy, target, generator=torch.Generator().manual_seed(3))
        return policy.transition.detach()

    assert torch.equal(run(), run())


def test_off_policy_reaches_the_target_and_renews_its_proposal():
    target = EnergyBasedModel(_chain(0), (RewardScorer(_reward, 1.0),))
    policy = _chain(1)
    before = float(KL().from_logits(target.log_score(policy.strings()), policy.log_prob(policy.strings()).detach()))
    method = FDPG(
        divergence=KL(),
        training=Training(steps=250, learning_rate=0.05, final_share=0.05),
        samples=128,
        proposal=FixedProposal(5),
    )
    result = method.tune(policy, target, generator=torch.Generator().manual_seed(0))
    after = float(KL().from_logits(target.log_score(policy.strings()), policy.log_prob(policy.strings()).detach()))
    assert result.proposals >= 3
    assert after < 0.1 * before  # an exponential tilt of a chain is a chain of changing rows: not quite representable


def test_contexts_have_normalisers_of_their_own():
    shared = torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    laws = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], dtype=torch.float64)

    class Row:
        def __init__(self, c):
            self.c = c

        def sample(self, n, generator=None):
            return torch.multinomial(torch.softmax(shared[self.c].detach(), -1), n, replacement=True, generator=generator)

        def log_prob(self, x):
            return torch.log_softmax(shared[self.c], -1)[x]

        def parameters(self):
            return [shared]

    class Goal:
        def __init__(self, c):
            self.c = c

        def log_score(self, x):
            return torch.log(laws[self.c])[x] + 4.0 * self.c

    method = FDPG(training=Training(steps=300, learning_rate=0.05, final_share=0.05), samples=128, window=50)
    result = method.tune([Row(0), Row(1)], [Goal(0), Goal(1)], generator=torch.Generator().manual_seed(1))
    assert result.log_z == pytest.approx((0.0, 4.0), abs=0.05)
    assert float((torch.softmax(shared.detach(), -1) - laws).abs().max()) < 0.05


def test_causal_models_are_policies():
    model = tiny_gpt2(6, layers=1, width=16, heads=2, positions=16)
    policy = CausalPolicy(model, torch.tensor([0]), 4)
    base = CausalPolicy(tiny_gpt2(6, layers=1, width=16, heads=2, positions=16), torch.tensor([0]), 4)
    target = EnergyBasedModel(base, (BooleanScorer(lambda x: (x == 3).any(-1)),))
    before = float((base.sample(2000, torch.Generator().manual_seed(0)) == 3).any(-1).double().mean())
    method = FDPG(training=Training(steps=60, learning_rate=3e-3, final_share=1.0), samples=64)
    method.tune(policy, target, generator=torch.Generator().manual_seed(0))
    after = float((policy.sample(2000, torch.Generator().manual_seed(0)) == 3).any(-1).double().mean())
    assert after > before + 0.15


def test_dropout_is_off_while_tuning():
    seen = []

    class Watched(TabularPolicy):
        def log_prob(self, indices):
            seen.append(self.training)
            return super().log_prob(indices)

    policy = Watched(torch.zeros(3)).train()
    FDPG(samples=8, training=Training(steps=2)).tune(policy, _Constant(0.0))
    assert seen == [False, False]
    assert policy.training


def test_module_is_the_function():
    log_pi, log_p = torch.tensor([-1.0, -2.0], requires_grad=True), torch.tensor([-1.5, -1.0])
    assert torch.equal(FDPGLoss()(log_pi, log_p, 0.0), f_dpg_loss(log_pi, log_p, 0.0, 2 * JensenShannon()))


class _Constant:
    def __init__(self, score):
        self.score = score

    def log_score(self, samples):
        return torch.full((len(samples),), self.score)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (_Constant(math.inf), ValueError, r"log_score is inf at index 0"),
        (_Constant(math.nan), ValueError, r"log_score is nan at index 0 \(8 of 8"),
        (_Constant(-math.inf), NumericalError, r"no sample satisfies the target: soften the scorer, or warm up Z"),
        (object(), TypeError, r"object lacks it"),
    ],
    ids=["infinite", "nan", "nothing", "no score"],
)
def test_bad_targets(target, error, message):
    with pytest.raises(error, match=message):
        FDPG(samples=8).tune(TabularPolicy(torch.zeros(3)), target)


def test_reverse_kl_refuses_hard_constraints():
    target = EnergyBasedModel(_chain(0), (BooleanScorer(_holes),))
    with pytest.raises(ValueError, match=r"soften the target, exp\(r\(x\) / beta\)"):
        FDPG(divergence=ReverseKL(), samples=64).tune(_chain(1), target)


def test_bad_policies_and_options():
    class NoLogProb:
        sample = parameters = staticmethod(lambda *a, **k: [])

    with pytest.raises(TypeError, match="NoLogProb lacks log_prob"):
        FDPG().tune(NoLogProb(), _Constant(0.0))
    with pytest.raises(ValueError, match="got 2 and 1"):
        FDPG().tune([_chain(), _chain()], [_Constant(0.0)])
    with pytest.raises(TypeError, match="f_dpg takes an object of kind FDivergence"):
        FDPG(divergence="js")
    with pytest.raises(ValueError, match="samples must be a whole number of at least 2, got 1"):
        FDPG(samples=1)
    with pytest.raises(ValueError, match="clip must be positive"):
        FDPG(clip=-1.0)
    with pytest.raises(ValueError, match=r"must be \(n,\), got shapes \(2,\) and \(3,\)"):
        f_dpg_loss(torch.zeros(2), torch.zeros(3), 0.0, KL())
    with pytest.raises(NumericalError, match="log Z is -inf"):
        f_dpg_loss(torch.zeros(2), torch.zeros(2), -math.inf, KL())
    with pytest.raises(ValueError, match="NaN or \\+inf"):
        f_dpg_loss(torch.tensor([math.nan, 0.0]), torch.zeros(2), 0.0, KL())


def test_normaliser_and_effective_size():
    policy, _, _, log_z = _enumerated(soft=False)
    drawn = policy.sample(20_000, torch.Generator().manual_seed(0))
    target = EnergyBasedModel(_chain(0), (BooleanScorer(_holes),))
    found = log_normaliser(target.log_score(drawn) + 3.0, policy.log_prob(drawn).detach())
    assert abs(float(found) - log_z) < 4 * float(found.standard_error)
    assert float(found.standard_error) < 0.05
    assert effective_sample_size(torch.tensor([0.0, 0.0, -math.inf])) == pytest.approx(2.0)
    assert effective_sample_size(torch.tensor([1e4, 0.0])) == pytest.approx(1.0)
    assert effective_sample_size(torch.tensor([-math.inf])) == 0.0
    with pytest.raises(NumericalError, match="no sample satisfies"):
        log_normaliser(torch.tensor([-math.inf]), torch.tensor([0.0]))
    with pytest.raises(ValueError, match="index 1 is inf"):
        log_normaliser(torch.zeros(2), torch.tensor([0.0, -math.inf]))
