"""A normalising flow on a box: monotone splines in coupling layers, uniform at first, with bounded densities."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._validate import as_tensor, generator_or_default, whole_number
from discrepancy.networks.mlp import MLP

# Least share of a bin in width and height, and least slope: below, the map could not be turned round in float32.
_LEAST = 1e-3
# softplus of this is one: a slope parameter of zero means slope one.
_UNIT = math.log(math.e - 1)


def check_bounds(bounds: Any) -> Tensor:
    """Bounds (d, 2) of a box as a float tensor; ValueError unless each lower end lies below its upper one."""
    box = as_tensor(bounds, "bounds").detach()
    if box.ndim != 2 or box.shape[-1] != 2 or box.shape[0] == 0:
        raise ValueError(f"bounds must have shape (d, 2), lower and upper ends, got {tuple(box.shape)}")
    if not bool(torch.isfinite(box).all()) or not bool((box[:, 0] < box[:, 1]).all()):
        raise ValueError(f"bounds must be finite, each lower end below the upper one, got {box.tolist()}")
    return box


def rational_spline(x: Tensor, raw: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """A monotone map of [0, 1] onto itself, and the logarithm of its slope; both have x's shape (...).

    raw (..., 3 K + 1): K bin widths and K heights before a softmax, K + 1 knot slopes before a softplus; zeros give the identity.
    Between knots the quotient of two quadratics with the knots' slopes: slope continuous, closed form both ways. With `inverse`
    the map is the other way round, and the logarithm that of its own slope. O(K) a value. Source: Gregory and Delbourgo (1982);
    Durkan, Bekasov, Murray and Papamakarios (2019).
    """
    bins = (raw.shape[-1] - 1) // 3
    width, height, slope = raw[..., :bins], raw[..., bins : 2 * bins], raw[..., 2 * bins :]
    width, height = (_LEAST + (1 - _LEAST * bins) * t.softmax(-1) for t in (width, height))
    slope = _LEAST + (1 - _LEAST) * nn.functional.softplus(slope + _UNIT)

    def knots(steps: Tensor) -> Tensor:
        return nn.functional.pad(steps.cumsum(-1)[..., :-1], (1, 1), value=0.0).index_fill(-1, _last(steps, bins), 1.0)

    across, up = knots(width), knots(height)
    at = (up if inverse else across)[..., 1:-1]
    place = (x[..., None] >= at).sum(-1, keepdim=True)

    def of_bin(values: Tensor) -> Tensor:
        return values.gather(-1, place)[..., 0]

    x0, y0, d0 = of_bin(across[..., :-1]), of_bin(up[..., :-1]), of_bin(slope[..., :-1])
    x1, y1, d1 = of_bin(across[..., 1:]), of_bin(up[..., 1:]), of_bin(slope[..., 1:])
    w, h = x1 - x0, y1 - y0
    s = h / w
    bend = d1 + d0 - 2 * s
    if inverse:
        rise = x - y0
        a, b, c = h * (s - d0) + rise * bend, h * d0 - rise * bend, -s * rise
        # The root in [0, 1], in the form that does not cancel where a is small.
        share = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
        share = share.clamp(0, 1)
        out = x0 + share * w
    else:
        share = ((x - x0) / w).clamp(0, 1)
        out = y0 + h * (s * share.square() + d0 * share * (1 - share)) / (s + bend * share * (1 - share))
    below = s + bend * share * (1 - share)
    above = d1 * share.square() + 2 * s * share * (1 - share) + d0 * (1 - share).square()
    log_slope = 2 * s.log() + above.log() - 2 * below.log()
    return out, -log_slope if inverse else log_slope


def _last(like: Tensor, bins: int) -> Tensor:
    return torch.tensor([bins], device=like.device)


@dataclass(frozen=True)
class CouplingFlow:
    """A flow on a box: a spline of `bins` pieces for each coordinate, then `layers` couplings.

    In a coupling half of the coordinates move, each by a spline whose shape a small network reads off the other half; which ones
    are neighbours changes every two layers. In one dimension there are none. Splines on the unit interval need no end map (logit,
    tanh), whose log-density has infinite slope at the faces. Raises ValueError for sizes out of range. Source: Dinh,
    Sohl-Dickstein and Bengio (2017); Durkan et al. (2019).
    """

    layers: int = 4
    bins: int = 8
    network: MLP = field(default_factory=lambda: MLP(width=32, depth=2))

    def __post_init__(self) -> None:
        """Raise ValueError unless layers >= 1 and 2 <= bins <= 500."""
        for name, least, most in (("layers", 1, 1000), ("bins", 2, 500)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r}")

    def build(self, bounds: Any, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> BoxFlow:
        """The uniform law on the box `bounds` (d, 2), ready to be bent; in the bounds' dtype unless given."""
        return BoxFlow(self, check_bounds(bounds), generator=generator, dtype=dtype)


class BoxFlow(nn.Module):
    """A density on a box, as `CouplingFlow.build` gives it, with `log_prob` and draws that are differentiable in its parameters.

    p(x) = |det dT(x)/dx| / volume for a map T of the box onto itself; at first T is the identity. Log-densities are continuous
    and bounded, with bounded slopes up to the box's faces; second derivatives jump at knots. A density costs one pass through
    the layers, a draw one pass through their inverses, in closed form.
    """

    def __init__(
        self,
        design: CouplingFlow,
        bounds: Tensor,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """A flow as designed on the box `bounds` (d, 2)."""
        super().__init__()
        box = bounds.to(dtype or bounds.dtype)
        self.design = design
        self.lower: Tensor
        self.width: Tensor
        self.register_buffer("lower", box[:, 0].clone())
        self.register_buffer("width", box[:, 1] - box[:, 0])
        d, parameters = box.shape[0], 3 * design.bins + 1
        self.shape = nn.Parameter(torch.zeros(d, parameters, dtype=box.dtype))
        self.nets = nn.ModuleList()
        source = generator_or_default(generator)
        for k in range(design.layers if d > 1 else 0):
            moved = d // 2 if k % 2 else d - d // 2
            net = design.network.build(d - moved, moved * parameters, generator=source, dtype=box.dtype)
            last = net[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.nets.append(net)

    @property
    def dimension(self) -> int:
        """The dimension d of the box."""
        return self.shape.shape[0]

    def _split(self, k: int) -> tuple[slice, slice]:
        """Which coordinates layer k moves, and which it reads."""
        half = self.dimension // 2
        first, second = slice(0, self.dimension - half), slice(self.dimension - half, self.dimension)
        return (second, first) if k % 2 else (first, second)

    def _layer(self, k: int, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        if k < 0:
            out, log_slope = rational_spline(x, self.shape.expand(*x.shape, -1), inverse=inverse)
            return out, log_slope.sum(-1)
        moved, read = self._split(k)
        turn = k // 2 % self.dimension
        x = x.roll(-turn, -1)
        raw = self.nets[k](2 * x[..., read] - 1).unflatten(-1, (x[..., moved].shape[-1], -1))
        part, log_slope = rational_spline(x[..., moved], raw, inverse=inverse)
        pieces = [part, x[..., read]] if moved.start == 0 else [x[..., read], part]
        return torch.cat(pieces, -1).roll(turn, -1), log_slope.sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density (...) at points x (..., d) of the box, differentiable in x and in the parameters; -inf outside.

        Raises ValueError for points of another dimension.
        """
        if x.ndim == 0 or x.shape[-1] != self.dimension:
            raise ValueError(f"x must be points of shape (..., {self.dimension}), got {tuple(x.shape)}")
        unit = (x - self.lower) / self.width
        inside = ((unit >= 0) & (unit <= 1)).all(-1)
        at = unit.clamp(0, 1)
        total = torch.zeros_like(at[..., 0])
        for k in range(-1, len(self.nets)):
            at, log_slope = self._layer(k, at, inverse=False)
            total = total + log_slope
        total = total - self.width.log().sum()
        return torch.where(inside, total, torch.full_like(total, -math.inf))

    def rsample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Points (count, d), differentiable in the parameters; one uniform draw a coordinate."""
        whole_number(count, 1, "count")
        source = generator_or_default(generator, self.shape.device)
        at = torch.rand(count, self.dimension, generator=source, dtype=self.shape.dtype, device=self.shape.device)
        for k in reversed(range(-1, len(self.nets))):
            at, _ = self._layer(k, at, inverse=True)
        return self.lower + self.width * at

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Points (count, d) without gradients."""
        with torch.no_grad():
            return self.rsample(count, generator=generator)


__all__ = ["BoxFlow", "CouplingFlow", "check_bounds", "rational_spline"]
