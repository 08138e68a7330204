"""What a structured problem is made of: arrays by name, made again from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Instance:
    """Arrays by name, with the numbers that go with them."""

    arrays: dict[str, np.ndarray]
    numbers: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        """The array of this name."""
        return self.arrays[name]

    def tensor(self, name: str) -> torch.Tensor:
        """The same as a tensor on the same memory."""
        return torch.from_numpy(self.arrays[name])


Maker = Callable[[int, bool], Instance]
Judgement = dict[str, Any]


def relative(found: float, wanted: float) -> Judgement:
    """The relative error of a number."""
    return {"error": abs(found - wanted) / abs(wanted)}


def of_array(found: np.ndarray, wanted: np.ndarray) -> Judgement:
    """The relative error of an array, in norm."""
    return {"error": float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))}


__all__ = ["Instance", "Judgement", "Maker", "of_array", "relative"]
