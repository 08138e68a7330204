"""Passes of unbalanced transport over points whose cost is formed again in every pass, by the fused loops."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from discrepancy.transport.entropic.streamed.problem import LOG2, FusedProblem
from discrepancy.transport.unbalanced.passes import Passes, Rows
from discrepancy.transport.unbalanced.penalties import MarginalPenalty


class StreamedPasses(Passes):
    """Two soft-minima a pass, rows then columns, and fused products: memory linear in the points."""

    problem: FusedProblem

    def __init__(self, problem: FusedProblem, rows: MarginalPenalty) -> None:
        """Nothing is kept between passes but potentials."""
        super().__init__(problem, rows)

    def evaluate(self, g: Tensor, epsilon: Tensor) -> Rows:
        """s, f and, from the columns' soft-minima t, their masses b exp((g - t) / epsilon)."""
        self.count += 2
        self._at = (g, epsilon)
        e, b = epsilon[:, None], self.problem.b
        self._minima = s = self.problem.rows(g, epsilon)
        f = self.penalty.step(s, e)
        share = ((g - self.problem.columns(f, epsilon)) / e).exp()
        return Rows(s, f, ((f - s) / e).exp(), torch.where(b > 0, b * share, torch.zeros_like(b)))

    def squares(self, rows: Rows, w: Tensor) -> Tensor:
        """Zero: the preconditioner is then the diagonal without the squares, which costs a few products and saves a pass."""
        return torch.zeros_like(self.problem.b)

    def product(self, rows: Rows, w: Tensor, v: Tensor) -> Tensor:
        """Q^T (w * (Q v)) by one fused pass a problem."""
        g, epsilon = self._at
        # The plan of this pass may have been scaled by a translation, its row-normalised form not: that of g as it was evaluated.
        scaled = self.problem.scaled(g, self.problem.log_b, epsilon)
        base = (self._minima / (epsilon[:, None] * LOG2)).numpy()
        out = [
            stream.normal_product(u, column, scale, weight, p, cut=self.problem.product_cut)
            for (stream, column, scale), u, weight, p in zip(scaled, base, w.numpy(), v.numpy(), strict=True)
        ]
        return torch.from_numpy(np.stack(out))


__all__ = ["StreamedPasses"]
