"""What of two batches of fields is compared as distributions: pixels, patches, whole fields; and at which noise levels."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy._validate import positive, whole_number
from discrepancy.directions import Uniform
from discrepancy.transport import SlicedWasserstein, Wasserstein

_FEW_FIELDS = 8


class FieldAxis(ABC):
    """Reads two batches of fields (B, C, ...) as samples and compares them.

    `compare(estimate, truth, D, valid, relevance)` is a scalar, differentiable in `estimate`: the mean over fields of relevance
    (B,), >= 0, times the discrepancy. `valid` (True where an entry counts, of the shape of the fields) or None for all.
    """

    @abstractmethod
    def default(self) -> Discrepancy:
        """The discrepancy that the paper takes along this axis."""

    @abstractmethod
    def compare(
        self,
        estimate: Tensor,
        truth: Tensor,
        discrepancy: Discrepancy,
        valid: Tensor | None,
        relevance: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The scalar."""


def _check_tail(tail: float) -> None:
    if not 0 <= tail < 1:
        raise ValueError(f"tail must lie in [0, 1): the level above which quantiles are compared, got {tail!r}")


def _upper(values: Tensor, weights: Tensor | None, tail: float) -> tuple[Tensor, Tensor | None]:
    """The upper 1 - tail of the mass of samples (..., n): their points, largest first, and the weights of those (None: equal)."""
    share, n = 1 - tail, values.shape[-1]
    order = values.detach().argsort(-1, descending=True)
    if weights is None:
        weights = torch.full((n,), 1 / n, dtype=values.dtype, device=values.device).expand(values.shape)
    mass = weights.gather(-1, order)
    before = mass.cumsum(-1) - mass
    kept = torch.minimum(mass, (share - before).clamp_min(0))
    count = max(1, int((kept > 0).sum(-1).max()))
    kept = kept[..., :count]
    return values.gather(-1, order[..., :count]), kept / kept.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Pixels(FieldAxis):
    """The intensities of each field (and channel) are one sample on the line; the mean over fields is taken.

    `tail` = q > 0 compares the laws above their q-quantiles only. With `pooled` the whole batch's intensities are one sample.
    This is what "matching the intensity distribution" means, and is defined for a single field. B sorts of all pixels.
    """

    tail: float = 0.0
    pooled: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless 0 <= tail < 1."""
        _check_tail(self.tail)

    def default(self) -> Discrepancy:
        """W_1: the area between the distribution functions."""
        return Wasserstein(1)

    def compare(
        self,
        estimate: Tensor,
        truth: Tensor,
        discrepancy: Discrepancy,
        valid: Tensor | None,
        relevance: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mean over fields of relevance times D of their intensities."""
        keep = relevance > 0
        if not bool(keep.any()):
            return 0 * estimate.sum()
        share = relevance[keep] / relevance.shape[0]
        x, y = (t[keep].flatten(2) for t in (estimate, truth))
        mass = None if valid is None else valid[keep].flatten(2).to(x.dtype)
        if self.pooled:
            pooled = torch.ones_like(x) if mass is None else mass
            weighted = bool((relevance[keep] != relevance[keep][0]).any()) or mass is not None
            mass = (pooled * share[:, None, None]).transpose(0, 1).flatten(1)[None] if weighted else None
            x, y = (t.transpose(0, 1).flatten(1)[None] for t in (x, y))
            share = share.sum()[None]
        if mass is not None:
            total = mass.sum(-1, keepdim=True)
            if bool((total == 0).any()):
                raise ValueError("a field has a channel without a single valid entry: leave the field out, or drop the channel")
            mass = mass / total
        a = b = mass
        if self.tail > 0:
            (x, a), (y, b) = _upper(x, mass, self.tail), _upper(y, mass, self.tail)
        values = discrepancy(x[..., None], y[..., None], a, b, generator=generator)
        return (share * values.mean(-1)).sum()


@dataclass(frozen=True)
class Patches(FieldAxis):
    """The size x size patches of each field (all channels together) are one sample in size^2 C dimensions: intensities with their
    neighbourhoods. A patch with a masked cell is left out. Fields (B, C, H, W)."""

    size: int = 4
    stride: int = 4

    def __post_init__(self) -> None:
        """Raise ValueError for sizes below 1."""
        for name in ("size", "stride"):
            value = getattr(self, name)
            whole_number(value, 1, name)

    def default(self) -> Discrepancy:
        """Sliced W_1 with 50 directions."""
        return SlicedWasserstein(1, Uniform(50))

    def compare(
        self,
        estimate: Tensor,
        truth: Tensor,
        discrepancy: Discrepancy,
        valid: Tensor | None,
        relevance: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mean over fields of relevance times D of their patches."""
        keep = relevance > 0
        if not bool(keep.any()):
            return 0 * estimate.sum()

        def cut(t: Tensor) -> Tensor:
            return F.unfold(t[keep], self.size, stride=self.stride).mT

        mass = None
        if valid is not None:
            whole = cut(valid.to(estimate.dtype)).amin(-1)
            total = whole.sum(-1, keepdim=True)
            if bool((total == 0).any()):
                raise ValueError(
                    f"a field has no patch of {self.size} x {self.size} cells without masked ones: take smaller patches"
                )
            mass = whole / total
        values = discrepancy(cut(estimate), cut(truth), mass, mass, generator=generator)
        return (relevance[keep] * values).sum() / relevance.shape[0]


@dataclass(frozen=True)
class BatchOfFields(FieldAxis):
    """Every field is one point in as many dimensions as it has cells, the batch a sample: the paper's published program.

    Fields enter with weights proportional to their relevance; masked cells count as zero on both sides. Raises ValueError for a
    single field and warns below eight: so few points in so many dimensions say little about the law of the intensities.
    """

    def default(self) -> Discrepancy:
        """Sliced W_1 with 100 directions."""
        return SlicedWasserstein(1, Uniform(100))

    def compare(
        self,
        estimate: Tensor,
        truth: Tensor,
        discrepancy: Discrepancy,
        valid: Tensor | None,
        relevance: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mean relevance times D of the two clouds of fields."""
        n = estimate.shape[0]
        if n < 2:
            raise ValueError(
                "BatchOfFields() compares a batch as a sample and got a single field: use Pixels(), or larger batches"
            )
        if n < _FEW_FIELDS:
            warnings.warn(
                f"BatchOfFields() got {n} fields; below {_FEW_FIELDS} the term is close to an L1 penalty on projections",
                UserWarning,
                stacklevel=4,
            )
        keep = relevance > 0
        if not bool(keep.any()):
            return 0 * estimate.sum()
        if valid is not None:
            estimate, truth = (torch.where(valid, t, torch.zeros_like(t)) for t in (estimate, truth))
        kept = relevance[keep]
        mass = None if bool((kept == kept[0]).all()) else kept / kept.sum()
        value = discrepancy(estimate[keep].flatten(1), truth[keep].flatten(1), mass, mass, generator=generator)
        return kept.sum() / n * value


class NoiseRelevance(ABC):
    """How much the distribution of denoised fields counts at a noise level: at large noise they are rightly smoother."""

    @abstractmethod
    def at(self, sigma: Tensor) -> Tensor:
        """The relevance (B,), in [0, 1], at levels sigma (B,)."""


@dataclass(frozen=True)
class AllLevels(NoiseRelevance):
    """1 at every level, as in the paper; biases the score at large noise, where the mean of the posterior must be narrower than
    the data."""

    def at(self, sigma: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(sigma)


@dataclass(frozen=True)
class BelowLevel(NoiseRelevance):
    """1 below `sigma`, else 0."""

    sigma: float = 0.5

    def __post_init__(self) -> None:
        """Raise ValueError unless the level is positive."""
        positive(self.sigma, "sigma")

    def at(self, sigma: Tensor) -> Tensor:
        """1{sigma < limit}."""
        return (sigma < self.sigma).to(sigma.dtype)


@dataclass(frozen=True)
class InverseNoise(NoiseRelevance):
    """1 / (1 + (sigma / unit)^2), `unit` a level in units of the data."""

    unit: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError unless the unit is positive."""
        positive(self.unit, "unit")

    def at(self, sigma: Tensor) -> Tensor:
        """1 / (1 + (sigma / unit)^2)."""
        return 1 / (1 + (sigma / self.unit).square())


__all__ = ["AllLevels", "BatchOfFields", "BelowLevel", "FieldAxis", "InverseNoise", "NoiseRelevance", "Patches", "Pixels"]
