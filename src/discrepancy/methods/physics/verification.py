"""How good forecasts of fields are: scores of ensembles, of events, and of their extremes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import as_tensor, require_finite
from discrepancy.transport import Wasserstein


def _pair(forecast: Any, truth: Any) -> tuple[Tensor, Tensor]:
    """Forecasts (..., B, H, W) and truth whose shape is a trailing part of theirs, finite."""
    x, y = as_tensor(forecast, "forecast"), as_tensor(truth, "truth")
    if x.ndim < y.ndim or x.shape[x.ndim - y.ndim :] != y.shape:
        raise ValueError(f"forecast of shape {tuple(x.shape)} must end in the truth's shape {tuple(y.shape)}")
    require_finite(x, "forecast")
    require_finite(y, "truth")
    return x, y.to(x.dtype)


def crps(ensemble: Any, truth: Any, *, fair: bool = True) -> Tensor:
    """The continuous ranked probability score of every cell: E|X - y| - E|X - X'| / 2 over the members X of the ensemble.

    ensemble (M, ...), truth (...), result (...), in the units of the field; smaller is better, one member scores its absolute
    error. fair: pairs of different members only, so that the mean does not depend on M (and M = 1 has no spread to reward);
    otherwise the integral of (F_M - 1{y <= .})^2 itself. Strictly proper for the marginal law of a cell. M log M a cell.
    Source: Gneiting and Raftery (2007); Ferro (2014).
    """
    x, y = _pair(ensemble, truth)
    if x.ndim != y.ndim + 1:
        raise ValueError(f"ensemble must have one axis more than truth, the first: {tuple(x.shape)} against {tuple(y.shape)}")
    m = x.shape[0]
    error = (x - y).abs().mean(0)
    if m == 1:
        return error
    ordered = x.sort(0).values
    rank = torch.arange(1 - m, m, 2, dtype=x.dtype, device=x.device).reshape(-1, *[1] * y.ndim)
    # sum over ordered pairs |x_i - x_j| = 2 sum_k (2k - m + 1) x_(k), k from 0.
    pairs = 2 * (rank * ordered).sum(0)
    return error - pairs / (2 * m * (m - 1 if fair else m))


def critical_success_index(forecast: Any, truth: Any, threshold: float) -> Tensor:
    """hits / (hits + misses + false alarms) of the event "at least `threshold`", over all cells; 1 if there is none at all."""
    x, y = _pair(forecast, truth)
    seen, real = x >= threshold, (y >= threshold).expand(x.shape)
    union = (seen | real).sum()
    return torch.where(union > 0, (seen & real).sum() / union.clamp_min(1), torch.ones((), device=x.device)).to(x.dtype)


def fractions_skill_score(forecast: Any, truth: Any, threshold: float, window: int = 5) -> Tensor:
    """1 - mean (p - q)^2 / (mean p^2 + mean q^2), p and q the shares of cells at or above `threshold` in window x window cells.

    Forgives displacements smaller than the window; 1 is perfect, 0 no skill; 1 where the event is nowhere. Windows lie wholly
    inside the fields. Raises ValueError for a window that does not fit. Source: Roberts and Lean (2008).
    """
    x, y = _pair(forecast, truth)
    if not isinstance(window, int) or not 1 <= window <= min(y.shape[-2:]):
        raise ValueError(f"window must be a whole number from 1 to {min(y.shape[-2:])}, got {window!r}")

    def share(t: Tensor) -> Tensor:
        event = (t >= threshold).to(x.dtype).reshape(-1, 1, *t.shape[-2:])
        return F.avg_pool2d(event, window, stride=1)

    p, q = share(x), share(y.expand(x.shape))
    scale = (p.square() + q.square()).mean()
    return torch.where(scale > 0, 1 - (p - q).square().mean() / torch.where(scale > 0, scale, torch.ones_like(scale)), 1.0)


def radial_spectrum(fields: Any) -> Tensor:
    """Mean power of (..., H, W) fields in rings of equal wave number (cycles a domain), (min(H, W) // 2,), rings 1, 2, ...

    Each field's mean is taken off first; |FFT|^2 / (H W).
    """
    x = as_tensor(fields, "fields")
    require_finite(x, "fields")
    h, w = x.shape[-2:]
    power = torch.fft.fft2(x - x.mean((-2, -1), keepdim=True)).abs().square().reshape(-1, h, w).mean(0) / (h * w)
    ky, kx = (torch.fft.fftfreq(n, 1 / n, device=x.device) for n in (h, w))
    ring = torch.hypot(*torch.meshgrid(ky, kx, indexing="ij")).round().long()
    count = min(h, w) // 2
    return torch.stack([power[ring == k].mean() for k in range(1, count + 1)])


def _quantiles(x: Tensor, levels: Sequence[float]) -> Tensor:
    """Order statistics at levels, linearly interpolated; torch.quantile refuses more than 2^24 values."""
    ordered = x.flatten().sort().values
    place = torch.tensor(levels, dtype=torch.float64, device=x.device) * (ordered.numel() - 1)
    low = place.floor().long()
    share = (place - low).to(x.dtype)
    return ordered[low] + share * (ordered[(low + 1).clamp_max(ordered.numel() - 1)] - ordered[low])


@dataclass(frozen=True, repr=False)
class ExtremesReport(Result):
    """How a forecast's intensities compare with the truth's, in the units of the field.

    `bias` and `mae` (of the ensemble mean where there is one), `crps`, `intensity_w1`: W_1 between the pooled intensities;
    `quantiles`: {level: (forecast's, truth's, relative error)}; `peak_error`: mean over fields of |max - true max|; by threshold,
    `csi` and `region_error`: the mean over fields of |count of cells above it - true count|.
    """

    bias: float
    mae: float
    crps: float
    intensity_w1: float
    peak_error: float
    quantiles: dict[float, tuple[float, float, float]]
    csi: dict[float, float]
    region_error: dict[float, float]


def extremes_report(
    samples: Any, truth: Any, thresholds: Sequence[float] = (10.0,), quantiles: Sequence[float] = (0.99, 0.999)
) -> ExtremesReport:
    """Compare forecasts (M, B, ..., H, W), or (B, ..., H, W) for a single one, with the truth (B, ..., H, W).

    Pooled quantities pool cells, fields and members. Give physical units: in a log scale peaks count less. Sorts all values
    once. Raises ValueError for shapes that do not fit, non-finite values, or quantile levels outside (0, 1).
    """
    x, y = _pair(samples, truth)
    if any(not 0 < q < 1 for q in quantiles):
        raise ValueError(f"quantiles must lie strictly between 0 and 1, got {tuple(quantiles)}")
    if y.ndim < 3 or x.ndim > y.ndim + 1:
        raise ValueError(
            f"truth must be (B, ..., H, W) and samples that or (M, B, ..., H, W), got {tuple(y.shape)}, {tuple(x.shape)}"
        )
    ensemble = x if x.ndim == y.ndim + 1 else x[None]
    mean = ensemble.mean(0)
    found, real = _quantiles(ensemble, quantiles), _quantiles(y, quantiles)

    def per_field(t: Tensor) -> Tensor:
        return t.reshape(t.shape[0], -1) if t.ndim == y.ndim else t.reshape(*t.shape[:2], -1)

    def count(t: Tensor, level: float) -> Tensor:
        return (per_field(t) >= level).to(x.dtype).sum(-1)

    return ExtremesReport(
        bias=float((mean - y).mean()),
        mae=float((mean - y).abs().mean()),
        crps=float(crps(ensemble, y).mean()),
        intensity_w1=float(Wasserstein(1)(ensemble.reshape(-1, 1), y.reshape(-1, 1))),
        peak_error=float((per_field(ensemble).amax(-1) - per_field(y).amax(-1)).abs().mean()),
        quantiles={
            q: (float(f), float(t), float((f - t).abs() / t.abs()) if float(t) else float("nan"))
            for q, f, t in zip(quantiles, found, real, strict=True)
        },
        csi={c: float(critical_success_index(ensemble, y, c)) for c in thresholds},
        region_error={c: float((count(ensemble, c) - count(y, c)).abs().mean()) for c in thresholds},
    )


__all__ = [
    "ExtremesReport",
    "critical_success_index",
    "crps",
    "extremes_report",
    "fractions_skill_score",
    "radial_spectrum",
]
