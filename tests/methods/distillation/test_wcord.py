"""Contrastive distillation: forms and their formulas, negatives, the bank, Lipschitz heads, a planted dependency, bad input."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from discrepancy import MMD, EnergyDistance, OptimalTransport, SinkhornDivergence, SlicedWasserstein
from discrepancy.costs import Cosine
from discrepancy.kernels import Gaussian
from discrepancy.learning import Training
from discrepancy.methods.distillation.contrastive import DualForm, InfoNCE, MemoryBank, NoiseContrastive, batch_negatives
from discrepancy.methods.distillation.feature_matching import FeatureMatching
from discrepancy.methods.distillation.wcord import LipschitzHead, WCoRD, dual_dependency
from discrepancy.transport import InexactProximal

EXACT = OptimalTransport(Cosine())


def features(b: int = 12, left: int = 5, right: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, left, generator=generator), torch.randn(b, right, generator=generator)


def loss(seed: int = 1, **options) -> WCoRD:
    return WCoRD(5, 7, width=6, generator=torch.Generator().manual_seed(seed), **({"local": EXACT} | options))


def test_forms_are_their_formulas() -> None:
    positive = torch.tensor([1.0, -0.5], dtype=torch.float64)
    negative = torch.tensor([[0.3, 2.0, -1.0], [0.1, 0.2, 9.0]], dtype=torch.float64)
    kept = torch.tensor([[True, True, True], [True, True, False]])
    dual = (1.3 / 3 + 0.3 / 2) / 2 - 0.25
    assert float(DualForm().loss(positive, negative, kept)) == pytest.approx(dual)

    def log_s(g: float) -> float:
        return -math.log1p(math.exp(math.log(3) - g))

    def log_not(g: float) -> float:
        return -math.log1p(math.exp(g - math.log(3)))

    rows = [sum(map(log_not, (0.3, 2.0, -1.0))) / 3, sum(map(log_not, (0.1, 0.2))) / 2]
    truth = -(log_s(1.0) + log_s(-0.5)) / 2 - 3 * sum(rows) / 2
    assert float(NoiseContrastive().loss(positive, negative, kept)) == pytest.approx(truth)
    shares = [math.exp(1) / (math.exp(1) + math.exp(0.3) + math.exp(2) + math.exp(-1))]
    shares.append(math.exp(-0.5) / (math.exp(-0.5) + math.exp(0.1) + math.exp(0.2)))
    assert float(InfoNCE().loss(positive, negative, kept)) == pytest.approx(-sum(map(math.log, shares)) / 2)


def test_the_best_score_of_noise_contrast_is_the_log_density_ratio() -> None:
    # x, y in {0, 1}: the score of each cell is free; with M negatives from the product the optimum is log p(x, y) / p(x) p(y).
    joint = torch.tensor([[0.4, 0.1], [0.2, 0.3]], dtype=torch.float64)
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    score = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([score], max_iter=200, tolerance_grad=1e-12, tolerance_change=0.0)
    M = 5

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        form = NoiseContrastive()
        # The expectation under both laws, cell by cell: M equal negatives each.
        value = torch.zeros((), dtype=torch.float64)
        for i in range(2):
            for j in range(2):
                far = torch.full((1, M), -1e4, dtype=torch.float64)
                all_kept = torch.ones(1, M, dtype=torch.bool)
                value = value + joint[i, j] * form.loss(score[i, j].view(1), far, all_kept)
                near = torch.full((1,), 1e4, dtype=torch.float64)
                value = value + product[i, j] * form.loss(near, score[i, j].expand(1, M), all_kept)
        value.backward()
        return value

    optimiser.step(closure)
    np.testing.assert_allclose(score.detach(), (joint / product).log(), atol=1e-5)


def test_scores_are_bounded_and_the_dual_does_not_diverge() -> None:
    s, t = features(200)
    module = loss(form=DualForm(), local_weight=0.0, global_weight=1.0, temperature=0.1)
    optimiser = torch.optim.Adam(module.parameters(), 0.1)
    for _ in range(60):
        optimiser.zero_grad()
        value = module(s, 100 * t)
        value.backward()
        optimiser.step()
    assert -20.0 <= float(value.detach()) <= 20.0  # |<u, v>| / temperature <= 10


def test_the_terms_by_hand() -> None:
    s, t = features()
    module = loss(form=DualForm(), global_weight=0.7, local_weight=0.3).eval()
    found = module.terms(s, t)
    u, v = module.student_head(s), module.teacher_head(t)
    np.testing.assert_allclose(u.norm(dim=1).detach(), 1, rtol=1e-6)
    scores = (v @ u.T / 0.1).detach()
    off = scores.sum() - scores.diagonal().sum()
    dual = float(off / (12 * 11) - scores.diagonal().mean())
    assert float(found.contrast) == pytest.approx(dual, rel=1e-5)
    assert float(found.local) == pytest.approx(float(EXACT(v.detach(), u.detach())), rel=1e-6)
    assert float(found.loss.detach()) == pytest.approx(0.7 * dual + 0.3 * float(found.local), rel=1e-5)


def test_the_local_term_compares_sets_and_the_contrast_pairs() -> None:
    s, t = features(30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    module = loss().eval()
    here, there = module.terms(s, t), module.terms(s, t[order])
    assert float(here.local) == pytest.approx(float(there.local), rel=1e-5)
    assert abs(float(here.contrast - there.contrast)) > 1e-3


@pytest.mark.parametrize(
    "local",
    [
        EXACT,
        InexactProximal(cost=Cosine()),
        SinkhornDivergence(),
        EnergyDistance(),
        MMD(Gaussian(0.5), biased=True),
    ],
    ids=lambda D: type(D).__name__,
)
def test_training_with_any_discrepancy_lowers_it(local) -> None:
    generator = torch.Generator().manual_seed(2)
    t = torch.randn(60, 7, generator=generator)
    x = torch.cat([t, torch.randn(60, 3, generator=generator)], 1)
    student = nn.Linear(10, 5)
    with torch.no_grad():
        for p in student.parameters():
            p.normal_(0, 0.3, generator=generator)
    module = loss(local=local, local_weight=1.0, global_weight=0.0)
    start = module.terms(student(x), t)
    Training(steps=25, learning_rate=2e-2).run(
        [*student.parameters(), *module.parameters()], lambda _: (module(student(x), t, generator=generator), {})
    )
    assert float(module.terms(student(x), t).local) < float(start.local)


@pytest.mark.parametrize("form", [NoiseContrastive(), DualForm(), InfoNCE()], ids=repr)
def test_training_finds_what_the_pairs_share(form) -> None:
    """A student that sees the teacher's features among noise: its own are told apart on pairs that were not trained on."""
    generator = torch.Generator().manual_seed(3)
    t = torch.randn(200, 7, generator=generator)
    x = torch.cat([t, torch.randn(200, 3, generator=generator)], 1)
    student = nn.Linear(10, 5)
    with torch.no_grad():
        for p in student.parameters():
            p.normal_(0, 0.3, generator=generator)
    module = loss(form=form, local_weight=0.0)

    def rank() -> float:
        """How often the own teacher scores above another one, held out."""
        with torch.no_grad():
            scores = module.teacher_head(t[100:]) @ module.student_head(student(x[100:])).T
        return float((scores.diagonal()[:, None] > scores).double().mean())

    before = rank()
    Training(steps=60, learning_rate=2e-2).run(
        [*student.parameters(), *module.parameters()], lambda _: (module(student(x[:100]), t[:100]), {})
    )
    assert rank() > max(0.9, before)


def test_gradients_reach_student_and_heads_and_not_the_teacher() -> None:
    s, t = features()
    s.requires_grad_()
    t.requires_grad_()
    module = loss()
    with pytest.warns(UserWarning, match="detached"):
        module(s, t).backward()
    assert t.grad is None
    assert float(s.grad.abs().sum()) > 0
    assert all(p.grad is not None for p in module.parameters())


def test_gradient_against_finite_differences() -> None:
    s, t = (v.double() for v in features(5))
    for form in (DualForm(), NoiseContrastive(), InfoNCE()):
        module = loss(form=form, temperature=0.5).double().eval()
        assert torch.autograd.gradcheck(lambda s, module=module: module(s, t), (s.clone().requires_grad_(),), atol=1e-5)


def test_negatives_in_a_batch() -> None:
    kept = batch_negatives(6, None, None)
    assert torch.equal(kept, ~torch.eye(6, dtype=torch.bool))
    some = batch_negatives(6, 2, None, generator=torch.Generator().manual_seed(0))
    assert some.sum(1).tolist() == [2] * 6
    assert not bool(some.diagonal().any())
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    other = batch_negatives(6, None, labels)
    assert torch.equal(other, labels[:, None] != labels)
    with pytest.raises(ValueError, match="no negative is left"):
        batch_negatives(4, None, torch.zeros(4))
    with pytest.raises(ValueError, match="batch of one"):
        batch_negatives(1, None, None)
    with pytest.raises(ValueError, match="at most b - 1 = 5"):
        batch_negatives(6, 6, None)


def test_the_bank_never_draws_the_sample_itself_and_follows_its_visits() -> None:
    bank = MemoryBank(9, 4, momentum=0.5, generator=torch.Generator().manual_seed(0))
    index = torch.arange(9)
    source = torch.Generator().manual_seed(1)
    rows = torch.cat([bank.draw(index, 8, generator=source) for _ in range(500)], 1)
    assert not bool((rows == index[:, None]).any())
    counts = torch.stack([torch.bincount(r, minlength=9) for r in rows])
    expected = 4000 / 8
    off = counts[~torch.eye(9, dtype=torch.bool)]
    assert float(((off - expected).abs() / expected).max()) < 0.25
    before, new = bank.student[2].clone(), torch.nn.functional.normalize(torch.ones(1, 4), dim=1)
    bank.update(torch.tensor([2]), new, new, torch.tensor([7]))
    mixed = 0.5 * before + 0.5 * new[0]
    np.testing.assert_allclose(bank.student[2], mixed / mixed.norm(), rtol=1e-6)
    assert int(bank.classes[2]) == 7
    bank.reset()
    assert int(bank.classes.max()) == -1
    np.testing.assert_allclose(bank.teacher.norm(dim=1), 1, rtol=1e-6)


def test_bank_and_batch_scores_agree_on_what_they_share() -> None:
    """A bank that holds the batch's own embeddings, all other entries drawn once each, gives the batch's own dual value."""
    s, t = features(8)
    bank = MemoryBank(8, 6, generator=torch.Generator().manual_seed(0))
    module = loss(bank=bank, negatives=7, form=DualForm(), local_weight=0.0, global_weight=1.0).eval()
    with torch.no_grad():
        bank.student.copy_(module.student_head(s))
        bank.teacher.copy_(module.teacher_head(t))
    others = torch.stack([torch.tensor([j for j in range(8) if j != i]) for i in range(8)])
    bank.draw = lambda index, count, generator=None: others  # type: ignore[method-assign]
    plain = loss(form=DualForm(), local_weight=0.0, global_weight=1.0).eval()
    index = torch.arange(8)
    assert float(module(s, t, index).detach()) == pytest.approx(float(plain(s, t).detach()), rel=1e-5)


def test_a_bank_trains_the_student_and_seeds_repeat() -> None:
    s, t = features(20)
    values = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(3)
        module = loss(bank=MemoryBank(50, 6, generator=generator), negatives=16)
        index = torch.randperm(50, generator=generator)[:20]
        student = s.clone().requires_grad_()
        first = module(student, t, index, generator=generator)
        first.backward()
        assert float(student.grad.abs().sum()) > 0
        values.append([float(first.detach()), float(module(s, t, index, generator=generator).detach())])
    assert values[0] == values[1]


def test_supervised_negatives_leave_out_the_class() -> None:
    s, t = features(6)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    module = loss(form=DualForm(), supervised_negatives=True, local_weight=0.0, global_weight=1.0).eval()
    u, v = module.student_head(s).detach(), module.teacher_head(t).detach()
    scores = v @ u.T / 0.1
    off = [scores[i][labels != labels[i]].mean() for i in range(6)]
    truth = float(sum(off) / 6 - scores.diagonal().mean())
    assert float(module(s, t, labels=labels).detach()) == pytest.approx(truth, rel=1e-5)
    with pytest.raises(ValueError, match="labels are missing"):
        module(s, t)


def test_heads_are_one_lipschitz_into_the_ball() -> None:
    head = LipschitzHead(6, 4, ball=True, generator=torch.Generator().manual_seed(0)).double().eval()
    head.linear.settle(500)
    x, y = torch.randn(2, 500, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slope = (head(x) - head(y)).norm(dim=1) / (x - y).norm(dim=1)
    assert float(slope.detach().max()) <= 1 + 1e-6
    assert float(head(5 * x).norm(dim=1).detach().max()) <= 1 + 1e-9


def test_the_planted_dependency_is_seen_and_bounded() -> None:
    generator = torch.Generator().manual_seed(4)
    values = []
    for rho in (0.0, 0.5, 0.9):
        x, z = torch.randn(2, 2000, 4, generator=generator)
        found = dual_dependency(x, rho * x + math.sqrt(1 - rho**2) * z, training=Training(60, 3e-2), generator=generator)
        values.append(found)
    assert abs(float(values[0])) < max(0.05, 3 * float(values[0].standard_error))
    assert float(values[0]) < float(values[1]) < float(values[2]) <= 2
    # A lower bound of the true dependency: W_1 between (x, x) and its shuffled copy under the sum metric is at most E|x - x'|.
    x = torch.randn(2000, 4, generator=generator)
    found = dual_dependency(0.1 * x, 0.1 * x, training=Training(60, 3e-2), generator=generator)
    assert float(found) <= 0.1 * float(torch.cdist(x[:1000], x[1000:]).mean()) + 3 * float(found.standard_error)


def test_a_forgotten_optimiser_is_noticed() -> None:
    s, t = features()
    module = loss()
    for _ in range(2):
        module(s.clone().requires_grad_(), t).backward()
    with pytest.warns(UserWarning, match=r"loss.parameters\(\)"):
        module(s.clone().requires_grad_(), t)
    good = loss()
    optimiser = torch.optim.Adam(good.parameters(), 1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            optimiser.zero_grad(set_to_none=True)
            good(s.clone().requires_grad_(), t).backward()
            optimiser.step()


def test_feature_matching() -> None:
    s, t = features()
    module = FeatureMatching(5, 7, generator=torch.Generator().manual_seed(0))
    truth = (module.projection(s) - t).square().mean()
    assert float(module(s, t).detach()) == pytest.approx(float(truth.detach()), rel=1e-6)
    swapped = FeatureMatching(5, 7, SlicedWasserstein(), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    assert float(swapped(s, t, generator=generator).detach()) > 0
    with pytest.raises(TypeError, match="discrepancy must be"):
        FeatureMatching(5, 7, "l2")  # type: ignore[arg-type]


def test_refusals() -> None:
    s, t = features()
    bank = MemoryBank(20, 6)
    with pytest.raises(ValueError, match="got 12 and 5"):
        loss()(s, t[:5])
    with pytest.raises(ValueError, match=r"pool them first, features.flatten\(2\).mean\(-1\)"):
        loss()(s[:, :, None, None], t)
    with pytest.raises(ValueError, match="batch of one"):
        loss()(s[:1], t[:1])
    with pytest.raises(ValueError, match="index is missing"):
        loss(bank=bank)(s, t)
    with pytest.raises(ValueError, match="at most size - 1 = 19"):
        loss(bank=bank, negatives=20)
    with pytest.raises(ValueError, match="must lie in"):
        loss(bank=bank)(s, t, torch.arange(12) + 15)
    with pytest.raises(TypeError, match="index must be"):
        loss(bank=bank)(s, t, torch.rand(12))
    with pytest.raises(TypeError, match="width 6"):
        loss(bank=MemoryBank(20, 8))
    with pytest.raises(TypeError, match="form must be"):
        loss(form="nce")
    with pytest.raises(TypeError, match="local must be a Discrepancy"):
        loss(local="ipot")
    with pytest.raises(ValueError, match="temperature"):
        loss(temperature=0)
    with pytest.raises(ValueError, match="global_weight"):
        loss(global_weight=-1)
    with pytest.raises(ValueError, match="momentum"):
        MemoryBank(20, 6, momentum=1.0)
    with pytest.raises(ValueError, match="at least 8 paired rows"):
        dual_dependency(s[:4], t[:4])
    with pytest.raises(TypeError, match="student features must be a floating tensor"):
        loss()(s.long(), t)
    with pytest.raises(ValueError, match="made for 5 features, got 7"):
        loss()(t, t)
    with pytest.raises(ValueError, match="7 and 7 columns, the loss was made for 5 and 7"):
        FeatureMatching(5, 7)(t, t)


def test_half_precision_and_layouts() -> None:
    s, t = features()
    module = loss().eval()
    truth = float(module(s, t).detach())
    assert float(module(s.bfloat16(), t.bfloat16()).detach()) == pytest.approx(truth, rel=0.02)
    assert float(module(s.mT.contiguous().mT, t).detach()) == pytest.approx(truth, rel=1e-6)
    assert torch.isfinite(module(s[:1].expand(12, 5), t))  # one prediction for all
