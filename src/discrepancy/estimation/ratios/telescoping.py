"""Telescoping: a ratio between laws far apart as the product of ratios between neighbours on a path of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.estimation.ratios.evaluation import Evaluation, PlugIn
from discrepancy.estimation.ratios.features import Quadratic
from discrepancy.estimation.ratios.logistic import Logistic
from discrepancy.estimation.ratios.method import RatioMethod, RatioModel
from discrepancy.estimation.ratios.scaling import Scaling


@dataclass(frozen=True)
class TelescopingModel(RatioModel):
    """log r = sum of the log-ratios of neighbours."""

    scaling: Scaling
    bridges: tuple[RatioModel, ...]

    @torch.no_grad()
    def log_ratio(self, points: Tensor) -> Tensor:
        """The sum."""
        inside = self.scaling(points)
        return torch.stack([bridge.log_ratio(inside) for bridge in self.bridges]).sum(0).to(points.dtype)

    def bridge_log_ratios(self, points: Tensor) -> Tensor:
        """The terms of the sum at points (k, d), (bridges, k), from Q's end to P's."""
        inside = self.scaling(points)
        return torch.stack([bridge.log_ratio(inside) for bridge in self.bridges])

    def describe(self) -> str:
        """How many bridges, and the first of them."""
        return f"{len(self.bridges)} bridges, the first by {self.bridges[0].describe()}"


@dataclass(frozen=True)
class Telescoping(RatioMethod):
    """log p/q = sum_k log p_(k+1) / p_k along `bridges` + 1 laws from Q to P, each ratio by the method `bridge`.

    The laws between are those of cos(a_k) y + sin(a_k) x, a_k = pi k / (2 bridges), rows of the two samples paired at random,
    in coordinates of pooled mean zero: neighbours overlap where P and Q do not, and a classifier between them does not saturate.
    Bridges are fitted apart; in the paper their networks share a body. Evaluated by the plug-in, as `TimeScore` and for the same
    reason. bridge: any other density-ratio method, `Logistic(Quadratic())` by default: every bridge is asked at points that its
    own laws never reach, where flexible features go astray (between N(0, 1) and N(6, 1), KL 18, from 400 points each, kernel
    features gave 45 and 84, quadratic ones 13 to 25, linear ones 16 to 18). Costs `bridges` fits.
    Raises ValueError for fewer than 2 bridges, TypeError for a bridge that is no such method.
    Source: Rhodes, Xu and Gutmann (2020).
    """

    bridge: RatioMethod = field(default_factory=lambda: Logistic(Quadratic()))
    bridges: int = 8
    evaluation: Evaluation = field(default_factory=PlugIn, kw_only=True)

    references: ClassVar[tuple[str, ...]] = ("rhodes-2020",)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        whole_number(self.bridges, 2, "bridges")
        if not isinstance(self.bridge, RatioMethod):
            raise TypeError(f"bridge must be a density-ratio method such as Logistic(), got {self.bridge!r}")

    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> TelescopingModel:
        """All bridges between samples x (n, d) of P and y (m, d) of Q."""
        scaling = Scaling.of(x, y)
        top, bottom = scaling(x), scaling(y)
        rows = max(len(x), len(y))
        # The smaller sample serves again: each of its rows as often as any other, up to one.
        left, right = (_repeated(s, rows, generator) for s in (bottom, top))
        laws = [bottom]
        for k in range(1, self.bridges):
            angle = math.pi * k / (2 * self.bridges)
            laws.append(math.cos(angle) * left + math.sin(angle) * right)
        laws.append(top)
        fitted = tuple(self.bridge.fit(laws[k + 1], laws[k], generator) for k in range(self.bridges))
        return TelescopingModel(scaling, fitted)


def _repeated(s: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    orders = [torch.randperm(len(s), generator=generator) for _ in range(math.ceil(rows / len(s)))]
    return s[torch.cat(orders)[:rows]]


__all__ = ["Telescoping", "TelescopingModel"]
