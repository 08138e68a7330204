"""The kernel method of moments on batches: optimistic descent in the parameters against ascent in the dual."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy.kernels.landmarks import features_at
from discrepancy.learning.optimistic_adam import OptimisticAdam
from discrepancy.methods.causality.baselines import mmr_statistic
from discrepancy.methods.causality.kmm_options import KernelInstruments, NeuralInstruments, SaddleSolver
from discrepancy.methods.causality.moments import MomentData, residuals

if TYPE_CHECKING:
    from discrepancy.methods.causality.kernel_method_of_moments import KernelMethodOfMoments


class _Multiplier(nn.Module):
    """h(z) (n, m) and its penalty: a vector, a function in a kernel's space, or a network."""

    def __init__(self, method: KernelMethodOfMoments, data: MomentData, moments: int, generator: torch.Generator) -> None:
        super().__init__()
        self.centre: Tensor | float = 0.0
        self.spread: Tensor | float = 1.0
        self.net: nn.Module | None = None
        self.features = None
        if data.z is not None:
            spread = data.z.std(0)
            self.centre, self.spread = data.z.mean(0), torch.where(spread > 0, spread, torch.ones_like(spread))
        if isinstance(method.instruments, NeuralInstruments) and data.z is not None:
            self.net = method.instruments.build(data.z.shape[1], moments, generator)
            return
        rows = 1
        if isinstance(method.instruments, KernelInstruments) and data.z is not None:
            points = (data.z - self.centre) / self.spread
            self.features = features_at(points, method.instruments.kernel, most=method.instruments.most, generator=generator)
            rows = self.features.count
        self.coefficients = nn.Parameter(torch.zeros(rows, moments, dtype=torch.float64))

    def forward(self, z: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
        """h at the rows, and |h|^2."""
        if z is None:
            return self.coefficients.expand(count, -1), self.coefficients.square().sum()
        points = (z - self.centre) / self.spread
        if self.net is not None:
            values = self.net(points)
            return values, values.square().sum(-1).mean()
        assert self.features is not None
        return self.features(points) @ self.coefficients, self.coefficients.square().sum()


def search_saddle(
    method: KernelMethodOfMoments, solver: SaddleSolver, data: MomentData, units: Tensor, generator: torch.Generator
) -> list[dict[str, float]]:
    """Move `method.model_` to the saddle point; the record of dual value and held-out score. NumericalError where it diverges."""
    model, n = method.model_, data.count
    order = torch.randperm(n, generator=generator)
    aside = round(solver.held_out * n) if data.z is not None else 0
    held, kept = data.rows(order[:aside]), data.rows(order[aside:])
    points = kept.joined()
    around = torch.cat([points, method.reference.draw(points, generator)])
    features = features_at(around / units, method.kernel, most=method.most_features, generator=generator)
    multiplier = _Multiplier(method, kept, len(method.scale_), generator)
    alpha = nn.Parameter(torch.zeros(features.count, dtype=torch.float64))
    constant = nn.Parameter(torch.zeros((), dtype=torch.float64))
    dual = [alpha, constant, *multiplier.parameters()]
    weights = [p for p in model.parameters() if p.requires_grad]
    down, up = OptimisticAdam(weights, solver.rate), OptimisticAdam(dual, solver.dual_rate, maximise=True)
    generating = method.divergence.reversed()

    def objective() -> Tensor:
        rows = torch.randint(len(points), (min(solver.batch_size, len(points)),), generator=generator)
        batch = torch.cat([points[rows], method.reference.draw(points, generator)])
        reference = data.split(batch)
        at = features(batch / units)
        psi = residuals(method.moments, model, reference) / method.scale_
        h, size = multiplier(reference.z, len(batch))
        t = (at @ alpha + constant - (h * psi).sum(-1)) / method.epsilon
        linear = (at[: len(rows)] @ alpha).mean() + constant - alpha.square().sum() / 2 - method.penalty * size / 2
        return linear - method.epsilon * generating.conjugate(t).mean()

    def score() -> float:
        with torch.no_grad():
            if held.z is None or aside == 0:
                return float(residuals(method.moments, model, kept).div(method.scale_).mean(0).square().sum())
            return float(mmr_statistic(residuals(method.moments, model, held) / method.scale_, held.z))

    best, missed, state = score(), 0, copy.deepcopy(model.state_dict())
    history: list[dict[str, float]] = [{"step": 0.0, "value": math.nan, "score": best}]
    for k in range(1, solver.steps + 1):
        for p in (*weights, *dual):
            p.grad = None
        value = objective()
        if not bool(torch.isfinite(value.detach())):
            raise NumericalError(
                f"saddle step {k}: the dual objective is {float(value.detach())}; take a larger epsilon or a smaller dual_rate"
            )
        value.backward()
        nn.utils.clip_grad_norm_(weights, solver.clip)
        nn.utils.clip_grad_norm_(dual, solver.clip)
        down.step()
        up.step()
        if k % solver.every == 0:
            now = score()
            history.append({"step": float(k), "value": float(value.detach()), "score": now})
            if now < best:
                best, missed, state = now, 0, copy.deepcopy(model.state_dict())
            else:
                missed += 1
                if missed >= solver.patience:
                    break
    model.load_state_dict(state)
    return history


__all__ = ["search_saddle"]
