"""The generalised Cauchy-Schwarz divergence of several samples at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._validate import positive, sample, weights
from discrepancy.kernels import Gaussian, Kernel, LogKernel


@dataclass(frozen=True)
class GeneralizedKernelCauchySchwarz:
    """-log int prod_i p_i + (1/m) sum_i log int p_i^m for m >= 2 samples, each p_i a kernel density estimate.

    Hoelder's inequality with m equal exponents: never negative, zero where all densities are proportional, symmetric in the
    samples. Integrals are means over the pooled sample (each sample with mass 1/m): int g = mean of g / p with p = (1/m) sum p_i,
    the density of the pooled points themselves; the value keeps its sign whatever these weights are. For two samples it
    estimates what half of `KernelCauchySchwarz(Gaussian(sqrt(2) h))` does, whose integrals are exact: the points of this
    quadrature are those of the sample, not of its smoothed law, which costs O(h^2) besides the O(n^-1/2) of the sample.

    kernel: the positive kernel of the density estimates; a bandwidth rule looks at the pooled sample (each sample 1/m), detached.
    pooled_measure: integrate against the pooled law instead of volume, int g p: another number with the same zero, in which
    sparse regions count less.

    Its own call, D([z_1, ..., z_m], weights=None). Time O(N^2 d) and memory O(N^2), N points in all, `memory` GiB at most;
    logsumexp throughout, so that clouds many widths apart have a finite value and a gradient that pulls; differentiable once.
    Raises TypeError for what is no kernel or no list, ValueError for fewer than two samples, other feature counts, and above the
    memory limit. Source: our reading, for embeddings, of the divergence of Zhang, Yin and Yu (2025).
    """

    kernel: Kernel = field(default_factory=Gaussian)
    pooled_measure: bool = False
    memory: float = field(default=1.0, kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("cs-cross-modal",)

    def __post_init__(self) -> None:
        """Check the options."""
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel must be a kernel such as discrepancy.kernels.Gaussian(1.0), got {self.kernel!r}")
        if not isinstance(self.pooled_measure, bool):
            raise TypeError(f"pooled_measure must be True or False, got {self.pooled_measure!r}")
        positive(self.memory, "memory")

    def resolved(self, samples: Sequence[Any], weights: Sequence[Any] | None = None) -> GeneralizedKernelCauchySchwarz:
        """The same with the bandwidth chosen on these samples as a number."""
        return replace(self, kernel=self._kernel(*_samples(samples, weights)))

    def __call__(self, samples: Sequence[Any], weights: Sequence[Any] | None = None) -> Tensor:
        """The divergence of the samples z_i (n_i, d), with weights (n_i,) or None each; a scalar tensor."""
        clouds, masses = _samples(samples, weights)
        kept = clouds[0].dtype
        m, total = len(clouds), sum(len(z) for z in clouds)
        if 3 * 8 * total**2 > self.memory * 2**30:
            raise ValueError(
                f"{total} points need {3 * 8 * total**2 / 2**30:.1f} GiB of matrices and memory is {self.memory:g}: "
                "take minibatches, or raise memory"
            )
        kernel = LogKernel(self._kernel(clouds, masses))
        clouds, masses = [z.double() for z in clouds], [w.double() for w in masses]
        points, share = torch.cat(clouds), torch.cat(masses) / m
        log_p = torch.stack([_log_density(kernel, points, z, w) for z, w in zip(clouds, masses, strict=True)])
        log_v = share.log()
        if not self.pooled_measure:
            log_v = log_v - (torch.logsumexp(log_p, 0) - math.log(m))
        across = torch.logsumexp(log_v + log_p.sum(0), -1)
        own = torch.logsumexp(log_v + m * log_p, -1)
        return (own.mean() - across).clamp_min(0.0).to(kept)

    @torch.no_grad()
    def _kernel(self, clouds: list[Tensor], masses: list[Tensor]) -> Kernel:
        return self.kernel.resolve(torch.cat(clouds), torch.cat(masses) / len(clouds))


def _samples(given: Sequence[Any], masses: Sequence[Any] | None) -> tuple[list[Tensor], list[Tensor]]:
    """The samples of one dtype with their weights, those of weight zero left out."""
    if not isinstance(given, list | tuple):
        raise TypeError(f"samples must be a list [z_1, ..., z_m] of arrays (n_i, d), got {type(given).__name__}")
    if len(given) < 2:
        raise ValueError(f"at least two samples are needed to compare, got {len(given)}")
    if masses is not None and len(masses) != len(given):
        raise ValueError(f"weights must be a list of {len(given)}, one entry (or None) for each sample, got {len(masses)}")
    like = next((t for t in given if isinstance(t, Tensor) and t.is_floating_point()), None)
    clouds = [sample(z, f"samples[{k}]", like=like) for k, z in enumerate(given)]
    dtype = clouds[0].dtype
    for k, z in enumerate(clouds):
        if z.ndim != 2:
            raise ValueError(f"samples[{k}] must have shape (n, d), got {tuple(z.shape)}")
        if z.shape[1] != clouds[0].shape[1]:
            raise ValueError(f"samples[0] has {clouds[0].shape[1]} features and samples[{k}] has {z.shape[1]}")
        if z.device != clouds[0].device:
            raise ValueError(f"samples[0] is on {clouds[0].device} and samples[{k}] on {z.device}: move one of them")
        dtype = torch.promote_types(dtype, z.dtype)
    clouds = [z.to(dtype) for z in clouds]
    each = [None] * len(given) if masses is None else list(masses)
    checked = [weights(w, z.shape[:1], f"weights[{k}]", like=z) for k, (w, z) in enumerate(zip(each, clouds, strict=True))]
    keep = [w > 0 for w in checked]
    return [z[k] for z, k in zip(clouds, keep, strict=True)], [w[k] for w, k in zip(checked, keep, strict=True)]


def _log_density(kernel: LogKernel, points: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """log sum_k w_k k(points, z_k): the density up to the kernel's constant, which cancels."""
    return torch.logsumexp(kernel.matrix(points, z) + w.log(), -1)


__all__ = ["GeneralizedKernelCauchySchwarz"]
