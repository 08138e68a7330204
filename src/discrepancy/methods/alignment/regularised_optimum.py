"""The best law on a finite set under an f-divergence leash: max_pi <pi, r> - beta D(ref || pi), solved by one root."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import as_tensor, positive, require_finite
from discrepancy._validate import weights as checked_weights
from discrepancy.divergences import FDivergence, ReverseKL
from discrepancy.divergences.admission import SMOOTH, Admission
from discrepancy.optimize import increasing_root

ADMITS = Admission(method="regularised_optimum", kinds=(FDivergence,), conditions=(SMOOTH,))


def regularised_optimum(reference: Any, rewards: Any, divergence: FDivergence | None = None, *, beta: float = 1.0) -> Tensor:
    """argmax over laws pi on K answers of sum_i pi_i r_i - beta D(reference || pi), (..., K).

    pi_i = ref_i (g')^{-1}((r_i - lambda) / beta), g the generator in Q/P, `divergence.reversed()`, lambda such that pi sums to
    one. Where g'(0+) is finite (`LeCam()`, `NeymanChiSquared()`) an answer of low reward gets probability exactly zero.
    reference (..., K) positive probabilities, rewards (..., K); `divergence` defaults to ReverseKL(), whose optimum is
    softmax(log ref + r / beta). Differentiable in both, by the implicit function theorem. Any smooth f-divergence: TypeError
    for others; ValueError for a reference with a zero. Time O(60 K), memory O(K), in float64.
    """
    choice = ADMITS.check(ReverseKL() if divergence is None else divergence)
    beta = positive(beta, "beta")
    like = next((t for t in (reference, rewards) if isinstance(t, Tensor) and t.is_floating_point()), None)
    ref, r = as_tensor(reference, "reference", like=like), as_tensor(rewards, "rewards", like=like)
    if ref.ndim == 0 or r.ndim == 0 or ref.shape[-1] != r.shape[-1]:
        raise ValueError(f"reference and rewards must have one entry an answer, got shapes {tuple(ref.shape)}, {tuple(r.shape)}")
    require_finite(r, "rewards")
    shape = torch.broadcast_shapes(ref.shape, r.shape)
    dtype = torch.promote_types(ref.dtype, r.dtype)
    ref, r = checked_weights(ref, ref.shape, "reference", like=ref).double().expand(shape), r.double().expand(shape)
    if bool((ref.detach() <= 0).any()):
        raise ValueError("reference must be positive: leave out the answers that it never gives")
    g = choice.reversed()

    def log_law(level: Tensor, reward: Tensor) -> Tensor:
        return torch.log(ref) + g.inverse_derivative((reward - level.unsqueeze(-1)) / beta, log=True)

    with torch.no_grad():
        # At the top level no ratio exceeds one; at the bottom level the best answer alone has probability one.
        top, best = r.max(-1)
        needed = g.derivative(log_t=-torch.log(ref.gather(-1, best.unsqueeze(-1)).squeeze(-1)))
        span = beta * needed
        place = increasing_root(lambda x: torch.logsumexp(log_law(top - x * span, r), -1), torch.zeros_like(top), 0.0, 1.0)
        level = top - place * span
        law = torch.exp(log_law(level, r))
        total = law.sum(-1)
        if not bool(((total - 1).abs() < 1e-6).all()):
            raise NumericalError(
                f"regularised_optimum: the law sums to {float(total.flatten()[0]):.6g}: beta {beta:g} is too small"
            )
        # d pi_i / d s_i = ref_i / g''(ratio), at answers whose probability is positive.
        inside = law > 0
        ratio = torch.where(inside, torch.log(torch.where(inside, law / ref, torch.ones_like(law))), torch.zeros_like(law))
        stiffness = torch.where(inside, ref / g.curvature(log_t=ratio), torch.zeros_like(law)) / beta
    if ref.requires_grad or r.requires_grad:
        law = torch.exp(log_law(level, r))
        # The level moves so that the sum stays one.
        shift = (law.sum(-1) - law.sum(-1).detach()) / stiffness.sum(-1)
        law = law - stiffness * shift.unsqueeze(-1)
    return (law / law.detach().sum(-1, keepdim=True)).to(dtype)


__all__ = ["ADMITS", "regularised_optimum"]
