"""A teacher that remembers two symbols and a student that remembers one: all expectations are finite sums."""

from __future__ import annotations

import torch
from torch import Tensor

from discrepancy.divergences import KL, Divergence, ReverseKL
from discrepancy.learning import Training
from discrepancy.methods.distillation.context_tables import ContextTable, contexts, prefix_law

SIZE, LENGTH = 6, 12
_ORDER = 2


def chain_teacher(seed: int) -> ContextTable:
    """An order-2 chain: rows of Dirichlet(0.3), mixed with 2 % of the uniform law."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.full(((SIZE + 1) ** _ORDER, SIZE), 0.3, dtype=torch.float64)
    # What torch.distributions draws gammas with, here from a generator.
    rows = torch._standard_gamma(shape, generator=generator)  # pyright: ignore[reportPrivateImportUsage]
    rows = 0.98 * rows / rows.sum(-1, keepdim=True) + 0.02 / SIZE
    return ContextTable(torch.log(rows), _ORDER).eval()


def chain_student() -> ContextTable:
    """An order-1 chain, uniform."""
    return ContextTable(torch.zeros(SIZE + 1, SIZE, dtype=torch.float64), 1)


def _logits(teacher: ContextTable, student: ContextTable) -> tuple[Tensor, Tensor]:
    ids = contexts(SIZE, _ORDER)
    return teacher(ids)[:, -1].detach(), student(ids)[:, -1]


def trained_exactly(teacher: ContextTable, divergence: Divergence, on_policy: bool, steps: int, rate: float) -> ContextTable:
    """The student after exact gradient steps behind the teacher's prefixes, or its own (held fixed in each step)."""
    student, ids = chain_student(), contexts(SIZE, _ORDER)
    theirs = teacher(ids)[:, -1].detach()
    fixed = prefix_law(torch.softmax(theirs, -1), _ORDER, LENGTH).mean(0)

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        mine = student(ids)[:, -1]
        law = prefix_law(torch.softmax(mine.detach(), -1), _ORDER, LENGTH).mean(0) if on_policy else fixed
        return law @ divergence.from_logits(theirs, mine), {}

    Training(steps=steps, learning_rate=rate, final_share=0.1, record_every=steps).run(student.parameters(), step)
    return student


@torch.no_grad()
def judged(teacher: ContextTable, student: ContextTable) -> dict[str, float]:
    """Exact values a token: -log T of student samples, the student's entropy, KL behind teacher, reverse KL behind student."""
    theirs, mine = _logits(teacher, student)
    log_t, log_s = torch.log_softmax(theirs, -1), torch.log_softmax(mine, -1)
    behind_t, behind_s = (prefix_law(x.exp(), _ORDER, LENGTH).mean(0) for x in (log_t, log_s))
    return {
        "teacher NLL": float(behind_s @ -(log_s.exp() * log_t).sum(-1)),
        "entropy": float(behind_s @ -(log_s.exp() * log_s).sum(-1)),
        "coverage": float(behind_t @ KL().from_logits(theirs, mine)),
        "own reverse KL": float(behind_s @ ReverseKL().from_logits(theirs, mine)),
    }


__all__ = ["LENGTH", "SIZE", "chain_student", "chain_teacher", "judged", "trained_exactly"]
