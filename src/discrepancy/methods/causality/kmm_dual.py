"""The inner problem of the kernel method of moments: its concave dual at fixed parameters, solved by Newton's method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy.divergences import FDivergence
from discrepancy.optimize.brackets import increasing_bracket

_STEPS = 100
_GAIN = 1e-4  # share of the promised gain that a step must bring


@dataclass(frozen=True, eq=False)
class InnerProblem:
    """sup over (alpha, c, b) of mean(F alpha) + c - |alpha|^2 / 2 - epsilon E_omega[phi*(t)] - penalty |b|^2 / 2,

    t = (G alpha + c - M b) / epsilon: F (n, r) the features of f at the data, G (N, r) those at the reference points with weights
    omega (N,), M (N, q) the moments there times the instrument features. phi generates D_phi(candidate || omega).
    """

    data_features: Tensor
    features: Tensor
    weights: Tensor
    generator: FDivergence
    epsilon: float
    penalty: float

    def value(self, v: Tensor, moments: Tensor) -> Tensor:
        """The dual objective at v = (alpha, c, b), differentiable in the moments; -inf outside the conjugate's domain."""
        alpha, c, b = self._parts(v)
        conjugate = self.generator.conjugate(self._slopes(v, moments))
        linear = (self.data_features @ alpha).mean() + c - alpha.square().sum() / 2 - self.penalty * b.square().sum() / 2
        return linear - self.epsilon * (self.weights * conjugate).sum()

    def ratio(self, v: Tensor, moments: Tensor) -> Tensor:
        """The candidate law's density with respect to omega, (N,)."""
        return self.generator.inverse_derivative(self._slopes(v, moments))

    def solve(self, moments: Tensor, start: Tensor | None, *, tolerance: float = 1e-9) -> Tensor:
        """The maximiser, by Newton's method on (alpha, b) with c at its best, and halved steps where the objective does not gain.

        Raises NumericalError where it is unbounded: no law near omega meets the moment restrictions.
        """
        moments = moments.detach()
        size = self.features.shape[1] + 1 + moments.shape[1]
        v = torch.zeros(size, dtype=moments.dtype)
        value = self.value(v, moments)
        if start is not None:
            warm = self._centred(start, moments)
            reached = self.value(warm, moments)
            if bool(reached > value):
                v, value = warm, reached
        design = torch.cat([self.features, torch.ones(len(moments), 1, dtype=moments.dtype), -moments], 1)
        linear = torch.zeros(size, dtype=moments.dtype)
        linear[: self.features.shape[1]] = self.data_features.mean(0)
        linear[self.features.shape[1]] = 1.0
        flat, gradient = self._flatness(size, moments.dtype), linear
        for _ in range(_STEPS):
            log_ratio = self.generator.inverse_derivative(self._slopes(v, moments), log=True)
            ratio = torch.exp(log_ratio)
            gradient = linear - flat * v - design.T @ (self.weights * ratio)
            curvature = self._curvature(log_ratio)
            hessian = (design * (self.weights * curvature / self.epsilon).unsqueeze(1)).T @ design
            hessian.diagonal().add_(flat)
            step = _direction(hessian, gradient)
            promise = float(gradient @ step)
            if promise < tolerance**2 * max(1.0, abs(float(value))) or promise != promise:
                return v
            length = 1.0
            while True:
                trial = self._centred(v + length * step, moments)
                reached = self.value(trial, moments)
                if bool(torch.isfinite(reached)) and float(reached - value) >= _GAIN * length * promise:
                    break
                length /= 2
                if length < 1e-10:  # rounding: the gain that is left cannot be resolved
                    return v
            v, value = trial, reached
            if float(v.abs().max()) > 1e8:
                break
        if float(gradient.abs().max()) < 1e-4:
            return v
        raise NumericalError(
            f"the inner problem did not settle in {_STEPS} Newton steps (slope "
            f"{float(gradient.abs().max()):.2g}): no law near the "
            "reference meets the moment restrictions; give more or wider reference samples, a larger epsilon, or a penalty > 0"
        )

    def _centred(self, v: Tensor, moments: Tensor) -> Tensor:
        """v with the best c, at which the candidate has mass one: without it a long step overflows an exponential conjugate."""
        rank = self.features.shape[1]
        level = self.epsilon * self._slopes(v, moments) - v[rank]
        found = increasing_bracket(
            lambda c: (self.weights * self.generator.inverse_derivative((level + c.unsqueeze(1)) / self.epsilon)).sum(-1) - 1,
            -level.max().reshape(1),
            -level.min().reshape(1),
            tolerance=1e-12,
        )
        out = v.clone()
        out[rank] = found.low[0]
        return out

    def _curvature(self, log_ratio: Tensor) -> Tensor:
        """The second derivative of the conjugate: one over that of the generator, and zero where the ratio is."""
        inside = log_ratio > -torch.inf
        second = self.generator.curvature(log_t=torch.where(inside, log_ratio, torch.zeros_like(log_ratio)))
        return torch.where(inside, 1 / second, torch.zeros_like(second))

    def _flatness(self, size: int, dtype: torch.dtype) -> Tensor:
        rank = self.features.shape[1]
        flat = torch.full((size,), self.penalty, dtype=dtype)
        flat[:rank], flat[rank] = 1.0, 0.0
        return flat

    def _parts(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rank = self.features.shape[1]
        return v[:rank], v[rank], v[rank + 1 :]

    def _slopes(self, v: Tensor, moments: Tensor) -> Tensor:
        alpha, c, b = self._parts(v)
        return (self.features @ alpha + c - moments @ b) / self.epsilon


def _direction(hessian: Tensor, gradient: Tensor) -> Tensor:
    """The Newton direction; a ridge of rounding's size where the Hessian is singular to it (all weight on few points)."""
    scale = float(hessian.diagonal().max())
    for ridge in (0.0, 1e-12, 1e-8, 1e-4):
        factor, failed = torch.linalg.cholesky_ex(hessian + ridge * scale * torch.eye(len(hessian), dtype=hessian.dtype))
        if int(failed) == 0:
            return torch.cholesky_solve(gradient.unsqueeze(1), factor).squeeze(1)
    return gradient / max(scale, 1e-300)


__all__ = ["InnerProblem"]
