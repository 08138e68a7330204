"""Moment restrictions E[psi(X; theta) | Z] = 0: their data, their residuals at a model, and the search over its parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError
from discrepancy._validate import sample

Blocks = dict[str, Tensor]
MomentFunction = Callable[[nn.Module, Blocks], Tensor]


@dataclass(frozen=True, eq=False)
class MomentData:
    """Validated blocks of data (n, d) by name, what psi sees, and instruments z (n, d) or None; float64."""

    blocks: Blocks
    z: Tensor | None

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(next(iter(self.blocks.values())))

    def joined(self) -> Tensor:
        """All blocks and the instruments side by side, (n, D)."""
        parts = [*self.blocks.values(), *([] if self.z is None else [self.z])]
        return torch.cat(parts, -1)

    def split(self, rows: Tensor) -> MomentData:
        """The inverse of `joined` for other rows."""
        widths = [b.shape[-1] for b in self.blocks.values()]
        pieces = rows.split([*widths, rows.shape[-1] - sum(widths)], -1)
        blocks = dict(zip(self.blocks, pieces[:-1], strict=True))
        return MomentData(blocks, None if self.z is None else pieces[-1])

    def rows(self, index: Tensor) -> MomentData:
        """Some rows."""
        return MomentData({k: v[index] for k, v in self.blocks.items()}, None if self.z is None else self.z[index])


def moment_data(X: Mapping[str, Any], z: Any) -> MomentData:
    """Check the blocks and instruments: ValueError for none, for different numbers of rows and for NaN."""
    if not isinstance(X, Mapping) or not X:
        raise ValueError(f"X must be a mapping of names to arrays, such as {{'t': t, 'y': y}}, got {type(X).__name__}")
    blocks = {str(k): sample(v, str(k)).detach().double() for k, v in X.items()}
    instruments = None if z is None else sample(z, "z").detach().double()
    sizes = {k: len(v) for k, v in blocks.items()} | ({} if instruments is None else {"z": len(instruments)})
    if len(set(sizes.values())) > 1:
        raise ValueError(f"all blocks must have the same rows, got {', '.join(f'{k}: {n}' for k, n in sizes.items())}")
    if instruments is not None:
        for column in range(instruments.shape[1]):
            levels = instruments[:, column].unique()
            if 2 < len(levels) <= 5 and len(instruments) > 20 and bool((levels == levels.round()).all()):
                warnings.warn(
                    f"column {column} of z has only {len(levels)} distinct values {levels.tolist()}: if they are "
                    f"categories, encode them "
                    "one-hot, as a kernel takes them for numbers",
                    UserWarning,
                    stacklevel=3,
                )
    return MomentData(blocks, instruments)


def residuals(moments: MomentFunction, model: nn.Module, data: MomentData) -> Tensor:
    """psi (n, m); a result (n,) is read as one moment, with a warning. ValueError for another shape."""
    psi = moments(model, data.blocks)
    if not isinstance(psi, Tensor):
        raise TypeError(f"moments must return a tensor, got {type(psi).__name__}")
    if psi.ndim == 1 and len(psi) == data.count:
        warnings.warn(f"moments returned shape ({len(psi)},), read as ({len(psi)}, 1): one moment", UserWarning, stacklevel=2)
        psi = psi.unsqueeze(-1)
    if psi.ndim != 2 or len(psi) != data.count:
        raise ValueError(f"moments must return one row of moments for each of {data.count} rows, got shape {tuple(psi.shape)}")
    return psi


def own_copy(model: nn.Module) -> nn.Module:
    """The model, copied and in float64. Raises TypeError for what is no module, ValueError if it has no parameters."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    found = copy.deepcopy(model).double()
    if not any(p.requires_grad for p in found.parameters()):
        raise ValueError("model has no parameters to estimate")
    return found


def minimise(model: nn.Module, objective: Callable[[], Tensor], *, iterations: int = 500, tolerance: float = 1e-9) -> float:
    """Move the model's parameters to a local minimum of `objective()`, differentiable in them, by L-BFGS; the value there.

    Values of +inf are stepped back from. Raises NumericalError where the objective is not finite at the start.
    """
    from scipy.optimize import minimize

    weights = [p for p in model.parameters() if p.requires_grad]

    def place(flat: np.ndarray) -> None:
        start = 0
        with torch.no_grad():
            for p in weights:
                p.copy_(torch.from_numpy(flat[start : start + p.numel()]).reshape(p.shape))
                start += p.numel()

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        place(flat)
        value = objective()
        if not bool(torch.isfinite(value.detach())):
            return np.inf, np.zeros_like(flat)
        slopes = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
        return float(value.detach()), torch.cat([s.reshape(-1) for s in slopes]).numpy()

    start = torch.cat([p.detach().reshape(-1) for p in weights]).double().numpy().copy()
    first, _ = evaluate(start)
    if not np.isfinite(first):
        raise NumericalError(f"the objective is {first} at the starting parameters")
    found = minimize(
        evaluate, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "ftol": 1e-14, "gtol": tolerance}
    )
    place(found.x)
    return float(found.fun)


__all__ = ["Blocks", "MomentData", "MomentFunction", "minimise", "moment_data", "own_copy", "residuals"]
