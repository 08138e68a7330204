"""How each contender computes each divergence of rows of logits; imports are inside, so that a process loads its own alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DIVERGENCES = ("KL", "ReverseKL", "JensenShannon", "Alpha(1/2)", "TotalVariation", "ChiSquared")
CONTENDERS: dict[str, tuple[str, ...]] = {
    "discrepancy": DIVERGENCES,
    "plain": DIVERGENCES,
    "F.kl_div": ("KL", "ReverseKL"),
    "TRL": ("KL", "ReverseKL", "JensenShannon"),
    "torchmetrics": ("KL", "JensenShannon"),
}


def of_logs(name: str, log_p: Any, log_q: Any) -> Any:
    """The textbook formula on log-probabilities, row by row."""
    import torch

    if name == "KL":
        return (log_p.exp() * (log_p - log_q)).sum(-1)
    if name == "ReverseKL":
        return (log_q.exp() * (log_q - log_p)).sum(-1)
    if name == "JensenShannon":
        log_m = torch.logaddexp(log_p, log_q) - 0.6931471805599453
        return ((log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1)) / 2
    if name == "Alpha(1/2)":
        return 4 * (1 - ((log_p + log_q) / 2).exp().sum(-1))
    if name == "TotalVariation":
        return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2
    return (2 * log_p - log_q).exp().sum(-1) - 1


def contender(who: str, name: str, probabilities: bool) -> Callable[[Any, Any], Any]:
    """A function of (teacher, student) that returns the divergence of each row, or their sum."""
    import torch

    if who == "discrepancy":
        import discrepancy

        D = discrepancy.Alpha(0.5) if name == "Alpha(1/2)" else getattr(discrepancy, name)()
        return D.from_probs if probabilities else D.from_logits
    if who == "plain":
        if probabilities:
            return lambda p, q: of_logs(name, p.log(), q.log())
        return lambda u, v: of_logs(name, torch.log_softmax(u, -1), torch.log_softmax(v, -1))
    if who == "F.kl_div":

        def kl_div(u: Any, v: Any) -> Any:
            given, asked = torch.log_softmax(u, -1), torch.log_softmax(v, -1)
            given, asked = (given, asked) if name == "KL" else (asked, given)
            return torch.nn.functional.kl_div(asked, given, reduction="none", log_target=True).sum(-1)

        return kl_div
    if who == "TRL":
        from trl.experimental.gkd import GKDTrainer

        beta = {"KL": 0.0, "ReverseKL": 1.0, "JensenShannon": 0.5}[name]
        return lambda u, v: GKDTrainer.generalized_jsd_loss(v.unsqueeze(0), u.unsqueeze(0), beta=beta, reduction="sum")
    from torchmetrics.functional.regression import jensen_shannon_divergence, kl_divergence

    metric = kl_divergence if name == "KL" else jensen_shannon_divergence
    return lambda u, v: metric(u.softmax(-1), v.softmax(-1), reduction="none")


__all__ = ["CONTENDERS", "DIVERGENCES", "contender", "of_logs"]
