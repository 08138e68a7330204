"""How much mass a partial plan carries: a number, or a share of the lighter measure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import positive

_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-8}  # relative, by which a mass may exceed what there is


@dataclass(frozen=True)
class MassShare:
    """The share 0 < share <= 1 of the smaller of the two total masses."""

    share: float = 0.9

    def __post_init__(self) -> None:
        """Raise ValueError for a share out of range."""
        if not 0 < float(self.share) <= 1:
            raise ValueError(f"share must lie above 0 and be at most 1, got {self.share!r}")


Mass = float | MassShare


def check_mass(mass: object) -> None:
    """Raise unless the mass is a positive finite number or a MassShare."""
    if isinstance(mass, MassShare):
        return
    if isinstance(mass, bool) or not isinstance(mass, int | float):
        raise TypeError(f"mass must be a positive number or MassShare(0.9), got {mass!r}")
    positive(mass, "mass")


def carried_mass(mass: Mass, a: Tensor, b: Tensor) -> Tensor:
    """The mass s (B,) in float64 that is carried between weights a (B, n) and b (B, m), differentiable in them for a share.

    Raises ValueError where a number exceeds the smaller total mass.
    """
    least = torch.minimum(a.double().sum(-1), b.double().sum(-1))
    if isinstance(mass, MassShare):
        return mass.share * least
    there = least.detach()
    if bool((mass > there * (1 + _ROUNDING[a.dtype])).any()):
        raise ValueError(
            f"mass must be at most the smaller total mass, {float(there.min()):.8g}, got {float(mass):.8g}: "
            "MassShare(1.0) carries all of it"
        )
    return torch.minimum(torch.full_like(there, float(mass)), there)


__all__ = ["Mass", "MassShare", "carried_mass", "check_mass"]
