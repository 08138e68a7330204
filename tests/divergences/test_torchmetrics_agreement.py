"""KL and Jensen-Shannon beside torchmetrics, on probabilities, log-probabilities and logits; values and gradients.

torchmetrics' p is our P, in its `KLDivergence(p, q)` = KL(P || Q); it averages over rows unless told otherwise.
"""

import pytest
import torch

from discrepancy import KL, JensenShannon

functional = pytest.importorskip("torchmetrics.functional.regression")


def rows(seed=0):
    draw = torch.Generator().manual_seed(seed)
    u, v = (2 * torch.randn(40, 9, generator=draw, dtype=torch.float64) for _ in range(2))
    return u.requires_grad_(), v.requires_grad_()


@pytest.mark.parametrize(
    ("D", "theirs"),
    [(KL(), functional.kl_divergence), (JensenShannon(), functional.jensen_shannon_divergence)],
    ids=["KL", "JensenShannon"],
)
def test_values_and_gradients(D, theirs):
    u, v = rows()
    log_p, log_q = torch.log_softmax(u, -1), torch.log_softmax(v, -1)
    # Its log-probability form takes log 2 in single precision, hence the tolerance of Jensen-Shannon.
    want = theirs(log_p.exp(), log_q.exp(), reduction="none")
    weights = torch.linspace(0.5, 2, 40, dtype=torch.float64)
    slopes = torch.autograd.grad((want * weights).sum(), (u, v), retain_graph=True)
    for got in (D.from_logits(u, v), D.from_probs(log_p.exp(), log_q.exp())):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
        mine = torch.autograd.grad((got * weights).sum(), (u, v), retain_graph=True)
        for a, b in zip(mine, slopes, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-12)
    in_logs = theirs(log_p, log_q, log_prob=True, reduction="none")
    torch.testing.assert_close(D.from_logits(u, v), in_logs, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(D.from_logits(u, v).mean(), theirs(log_p.exp(), log_q.exp()), rtol=1e-9, atol=0)


def test_metric_objects():
    from torchmetrics import KLDivergence
    from torchmetrics.regression import JensenShannonDivergence

    u, v = (t.detach() for t in rows(1))
    p, q = u.softmax(-1), v.softmax(-1)
    for D, metric in ((KL(), KLDivergence()), (JensenShannon(), JensenShannonDivergence())):
        for start in (0, 20):
            metric.update(p[start : start + 20], q[start : start + 20])
        torch.testing.assert_close(D.from_logits(u, v).mean(), metric.compute().double(), rtol=1e-6, atol=0)
