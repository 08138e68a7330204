"""Dice and a divergence between where a mask is and where it is predicted to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy._validate import at_least
from discrepancy.divergences import Divergence, HoelderPseudo
from discrepancy.divergences.admission import Admission, Condition

ADMITS = Admission(
    "the segmentation loss",
    conditions=(
        Condition(
            "a finite cost where the mask has no mass (a generator with f(0+) finite)",
            lambda d: getattr(d, "at_zero", 0.0) < float("inf"),
        ),
    ),
    examples=("HoelderPseudo(1.1).reversed()", "Hoelder()", "KL()", "JensenShannon()"),
)


class SpatialLaw(ABC):
    """How a mask and its prediction become laws over places."""

    @abstractmethod
    def logits(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (..., K) of P from the mask, of Q from the prediction, and which rows (...) have a law at all."""


@dataclass(frozen=True)
class Normalised(SpatialLaw):
    """P = y / sum y and Q = sigmoid(l) / sum sigmoid(l) over all places of a map. Empty masks have no law and are left out."""

    def logits(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows are maps (B, C), categories the places."""
        y = target.flatten(2)
        inside = y > 0
        log_y = torch.where(inside, torch.where(inside, y, torch.ones_like(y)).log(), torch.full_like(y, -torch.inf))
        some = inside.any(-1)
        # A row that is left out still needs a category.
        log_y = torch.where(some[..., None], log_y, torch.zeros_like(log_y))
        return log_y, F.logsigmoid(prediction.flatten(2)), some


@dataclass(frozen=True)
class ReleasedSoftmax(SpatialLaw):
    """The paper's released code: P = softmax(y), Q = softmax(sigmoid(l)) along one spatial axis.

    A softmax of numbers between 0 and 1 is nearly uniform, whatever they are: this term has next to no gradient beside Dice. For
    comparison only. axis: among the spatial ones, the last by default.
    """

    axis: int = -1

    def logits(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows are lines along the axis."""
        places = prediction.ndim - 2
        if not -places <= self.axis < places:
            raise ValueError(f"axis must lie in [{-places}, {places - 1}] for maps of {places} dimension(s), got {self.axis}")
        place = 2 + self.axis % places
        y, s = target.movedim(place, -1), torch.sigmoid(prediction).movedim(place, -1)
        return y, s, torch.ones(y.shape[:-1], dtype=torch.bool, device=y.device)


def soft_dice(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - (2 sum s y + 1) / (sum s + sum y + 1) over the places of each map (B, C), s = sigmoid(prediction); 0 if perfect.

    prediction: logits (B, C, ...), target the same shape in [0, 1]. The ones make an empty mask that is predicted empty perfect.
    Source: Milletari, Navab and Ahmadi (2016).
    """
    s, y = torch.sigmoid(prediction).flatten(2), target.flatten(2)
    return 1 - (2 * (s * y).sum(-1) + 1) / (s.sum(-1) + y.sum(-1) + 1)


def segmentation_loss(
    prediction: Tensor,
    target: Tensor,
    divergence: Divergence | None = None,
    *,
    weight: float = 1.0,
    law: SpatialLaw | None = None,
) -> Tensor:
    """The mean over maps of soft Dice + weight |D(P || Q)|, P the mask's law over places, given, and Q the prediction's.

    prediction: logits (B, C, ...), one map a class, which may overlap; target: the same shape, values in [0, 1]. divergence:
    `HoelderPseudo(1.1).reversed()` where omitted, which is the paper's HPD_1.1(prediction : target) read in this library's
    order; it is smallest at Q proportional to P^10, which for masks of zeros and ones is P itself; for soft ones use
    `Hoelder()`. law: `Normalised()` where omitted. Maps without a mask count in Dice only. Half precision is computed in
    float32. Raises TypeError for divergences that are infinite where a mask is empty, ValueError for shapes that differ and
    targets outside [0, 1]. Time and memory O(size).
    """
    chosen = ADMITS.check(HoelderPseudo(1.1).reversed() if divergence is None else divergence)
    at_least(weight, 0, "weight")
    for name, value in (("prediction", prediction), ("target", target)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor (B, C, ...), got {type(value).__name__}")
    if prediction.shape != target.shape or prediction.ndim < 3:
        raise ValueError(
            f"prediction and target must both have shape (B, C, ...), got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    wide = torch.promote_types(prediction.dtype, torch.float32)
    prediction, target = prediction.to(wide), target.to(wide)
    if not bool(((target >= 0) & (target <= 1)).all()):
        raise ValueError(f"target must lie in [0, 1], got values from {float(target.min()):g} to {float(target.max()):g}")
    loss = soft_dice(prediction, target).mean()
    if weight == 0:
        return loss
    u, v, rows = (Normalised() if law is None else law).logits(prediction, target)
    if not bool(rows.any()):
        return loss
    value = chosen.from_logits(u, v, where=rows).abs()
    return loss + weight * value.sum() / rows.numel()


class SegmentationLoss(nn.Module):
    """`segmentation_loss` with its options fixed, as a module."""

    references: ClassVar[tuple[str, ...]] = ("holder-divergence", "milletari-2016")

    def __init__(self, divergence: Divergence | None = None, *, weight: float = 1.0, law: SpatialLaw | None = None) -> None:
        """Check the options; see `segmentation_loss`."""
        super().__init__()
        self.divergence = ADMITS.check(HoelderPseudo(1.1).reversed() if divergence is None else divergence)
        self.weight, self.law = float(at_least(weight, 0, "weight")), law

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (B, C, ...) against masks of the same shape."""
        return segmentation_loss(prediction, target, self.divergence, weight=self.weight, law=self.law)


__all__ = ["ADMITS", "Normalised", "ReleasedSoftmax", "SegmentationLoss", "SpatialLaw", "segmentation_loss", "soft_dice"]
