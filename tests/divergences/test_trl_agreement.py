"""Generalised knowledge distillation as TRL computes it: values and gradients, for all shares and temperatures.

TRL's student is our Q and its teacher our P. Its beta is the share of the teacher in the mixture, SkewedJensenShannon(beta), but
for the ends: beta = 0 is KL(teacher || student) and beta = 1 KL(student || teacher), and not the limits of the family, which
are zero (the limits over beta (1 - beta) are these two).
"""

import warnings

import pytest
import torch

from discrepancy import KL, JensenShannon, ReverseKL
from discrepancy.divergences import SkewedJensenShannon

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    gkd = pytest.importorskip("trl.experimental.gkd")

SHARES = [0.0, 0.01, 0.1, 0.3, 0.5, 0.75, 0.9, 0.99, 1.0]


def ours(beta):
    return KL() if beta == 0 else ReverseKL() if beta == 1 else SkewedJensenShannon(beta)


def logits(seed=0):
    draw = torch.Generator().manual_seed(seed)
    student = 3 * torch.randn(3, 7, 60, generator=draw, dtype=torch.float64)
    return student.requires_grad_(), 3 * torch.randn(3, 7, 60, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("beta", SHARES)
def test_values_and_gradients(beta, temperature):
    student, teacher = logits()
    labels = torch.zeros(3, 7, dtype=torch.long)
    labels[0, :4] = labels[2, 6] = -100
    theirs = gkd.GKDTrainer.generalized_jsd_loss
    want = theirs(student, teacher, labels=labels, beta=beta, temperature=temperature)
    where = labels != -100
    got = ours(beta).from_logits(teacher / temperature, student / temperature, where=where).sum() / where.sum()
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    slope, wanted = torch.autograd.grad(got, student)[0], torch.autograd.grad(want, student)[0]
    torch.testing.assert_close(slope, wanted, rtol=1e-7, atol=1e-12)
    each = theirs(student, teacher, beta=beta, temperature=temperature, reduction="none").sum(-1)
    torch.testing.assert_close(ours(beta).from_logits(teacher / temperature, student / temperature), each, rtol=1e-9, atol=1e-15)


def test_the_middle_is_jensen_shannon():
    student, teacher = logits(1)
    want = gkd.GKDTrainer.generalized_jsd_loss(student, teacher, beta=0.5, reduction="none").sum(-1)
    torch.testing.assert_close(JensenShannon().from_logits(teacher, student), want, rtol=1e-9, atol=0)


def test_the_ends_are_limits_over_the_shares():
    student, teacher = (t / 6 for t in logits(2))
    for beta, end in ((1e-6, KL()), (1 - 1e-6, ReverseKL())):
        family = SkewedJensenShannon(beta).from_logits(teacher, student) / (beta * (1 - beta))
        torch.testing.assert_close(family, end.from_logits(teacher, student), rtol=1e-4, atol=0)


def test_far_logits_where_theirs_still_holds():
    student, teacher = logits(3)
    for beta in (0.0, 0.3, 1.0):
        want = gkd.GKDTrainer.generalized_jsd_loss(student * 100, teacher * 100, beta=beta, reduction="none").sum(-1)
        torch.testing.assert_close(ours(beta).from_logits(teacher * 100, student * 100), want, rtol=1e-9, atol=1e-12)
