"""The one boundary: whatever a user hands over becomes tensors here, and what cannot is refused with a sentence.

Nothing below this file sees a NumPy array, a list or a DataFrame, an unnormalised weight or a NaN.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Mass = Literal["probability", "positive"]


@dataclass(frozen=True)
class SamplePair:
    """Two validated weighted samples of one space.

    x (..., n, d), y (..., m, d), a (..., n) and b (..., m) share batch shape, dtype and device; `uniform_a`, `uniform_b`
    say that the user gave no weights, so that a shortcut for equal weights is exact.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    uniform_a: bool
    uniform_b: bool

    @property
    def batch(self) -> torch.Size:
        """The batch shape (...)."""
        return self.x.shape[:-2]


def _numpy_from_frame(x: Any) -> Any:
    """A DataFrame-like as a NumPy array; anything else as it came."""
    if hasattr(x, "__dataframe__") or hasattr(x, "__arrow_c_stream__"):
        import narwhals.stable.v1 as nw

        frame = nw.from_native(x, eager_only=True, allow_series=True)
        return frame.to_numpy()
    return x


def as_tensor(x: Any, name: str = "x", *, like: Tensor | None = None) -> Tensor:
    """A real floating tensor from a tensor, array, list, scalar or DataFrame.

    float32 and float64 are kept, half precision becomes float32, integers and booleans become torch's default float
    dtype (or `like`'s). A tensor keeps its device and its gradient; a memory-mapped array is not copied.
    Raises TypeError if it is not numeric, ValueError if it is complex.
    """
    if not isinstance(x, Tensor):
        x = _numpy_from_frame(x)
        if _is_ragged(x):
            sizes = ", ".join(str(tuple(v.shape)) for v in x[:3])
            raise ValueError(
                f"{name} is a list of samples of different sizes ({sizes}{', ...' if len(x) > 3 else ''}): "
                "only the value, D(xs, ys), takes such lists; call this once for each pair"
            )
        if isinstance(x, list | tuple) and any(isinstance(v, Tensor) for v in x):
            x = torch.stack([torch.as_tensor(v) for v in x])
        else:
            array = np.asarray(x)
            if array.dtype == object or array.dtype.kind in "USOMmV":
                raise TypeError(f"{name} must be numeric, got an array of dtype {array.dtype}")
            # A memory-mapped array opened for reading stays on disk: nothing here or below writes to what a user hands over.
            mapped = isinstance(x, np.memmap) and array.dtype.isnative and array.flags.c_contiguous and array.ndim > 0
            if (not array.flags.writeable and not mapped) or any(s < 0 for s in array.strides):
                array = array.copy()
            if not array.dtype.isnative:
                array = array.astype(array.dtype.newbyteorder("="))
            # A list of Python floats carries no dtype of its own: it follows its partner or torch's default.
            listed = not hasattr(x, "dtype")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                x = torch.from_numpy(np.ascontiguousarray(array)) if array.ndim else torch.tensor(array.item())
            if listed and x.dtype == torch.float64:
                x = x.to(like.dtype if like is not None else torch.get_default_dtype())
    if x.device.type == "meta":
        raise ValueError(f"{name} is on the meta device, which holds shapes and no values")
    if x.is_complex():
        raise ValueError(f"{name} must be real, got {x.dtype}")
    if x.dtype in (torch.float16, torch.bfloat16):
        return x.float()
    if not x.is_floating_point():
        return x.to(like.dtype if like is not None else torch.get_default_dtype())
    return x


def _is_ragged(x: Any) -> bool:
    """Whether x is a list of tensors or arrays of two dimensions whose sizes differ, so that they make no one tensor."""
    if not isinstance(x, list | tuple) or not x or not all(isinstance(v, Tensor | np.ndarray) and v.ndim == 2 for v in x):
        return False
    return any(v.shape != x[0].shape for v in x)


def sample_lists(x: Any, y: Any, a: Any, b: Any) -> list[tuple[Any, Any, Any, Any]] | None:
    """The pairs of two lists of samples of different sizes, with their weights; None where both sides make one tensor each.

    A side that is a single sample (n, d), or one weight vector, serves all pairs. Raises ValueError for lists of different
    lengths.
    """
    if not (_is_ragged(x) or _is_ragged(y)):
        return None
    count = len(x) if _is_ragged(x) else len(y)

    def spread(value: Any, name: str, single: int) -> list[Any]:
        """One entry a pair: of a list or a batch its entries, of anything with `single` dimensions (or None) copies."""
        if value is None or getattr(value, "ndim", None) == single:
            return [value] * count
        if not isinstance(value, list | tuple | Tensor | np.ndarray) or len(value) != count:
            got = f"a list of {len(value)}" if isinstance(value, list | tuple) else type(value).__name__
            raise ValueError(f"{name} must be a list of {count}, one for each pair of samples, got {got}")
        return list(value)

    return list(zip(spread(x, "x", 2), spread(y, "y", 2), spread(a, "a", 1), spread(b, "b", 1), strict=True))


def cost_matrix(C: Any, name: str = "C") -> Tensor:
    """A cost matrix (..., n, m) as a tensor; ValueError unless it has rows and columns. Its entries are not looked at."""
    matrix = as_tensor(C, name)
    if matrix.ndim < 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must be a cost matrix of shape (..., n, m), got {tuple(matrix.shape)}")
    return matrix


def require_finite(x: Tensor, name: str) -> None:
    """Raise ValueError with the count and the first place of the values that are NaN or infinite."""
    # A sum is one pass over memory and is non-finite whenever an entry is; only then look for the places.
    if torch.isfinite(x.detach().sum()):
        return
    bad = ~torch.isfinite(x.detach())
    count = int(bad.sum())
    if count == 0:  # the sum overflowed, the entries did not
        return
    where = tuple(int(i) for i in bad.nonzero()[0])
    raise ValueError(f"{name} has {count} non-finite value(s) of {x.numel()}, the first at index {where}: remove or impute them")


def sample(x: Any, name: str = "x", *, like: Tensor | None = None) -> Tensor:
    """A sample as a finite tensor (..., n, d); one dimension is read as n points on the line."""
    x = as_tensor(x, name, like=like)
    if x.ndim == 0:
        raise ValueError(f"{name} must be a sample of shape (n, d), got a single number")
    if x.ndim == 1:
        x = x.unsqueeze(-1)
    if x.shape[-2] == 0:
        raise ValueError(f"{name} is empty: a sample needs at least one point, got shape {tuple(x.shape)}")
    if x.shape[-1] == 0:
        raise ValueError(f"{name} has no features, got shape {tuple(x.shape)}")
    require_finite(x, name)
    return x


def sum_tolerance(a: Any) -> float | None:
    """How far from one probabilities may sum in half precision, by what rounding each entry does to them; None otherwise."""
    dtype = str(getattr(a, "dtype", ""))
    return 2.0**-8 if dtype.endswith("bfloat16") else 2.0**-10 if dtype.endswith("float16") else None


def weights(
    a: Any,
    shape: torch.Size | tuple[int, ...],
    name: str = "a",
    *,
    like: Tensor,
    mass: Mass = "probability",
    tolerance: float | None = None,
) -> Tensor:
    """Weights of `shape` (..., n) as a tensor in `like`'s dtype and device; None gives equal weights 1/n.

    With mass="probability" they must be non-negative and sum to one within `tolerance`, by default 1e-4 (float32) or 1e-8
    (float64; what was given in half precision: `sum_tolerance`), and are then renormalised exactly; mass="positive" takes any
    non-negative mass with a positive sum.
    """
    n = shape[-1]
    if a is None:
        return torch.full((), 1.0 / n, dtype=like.dtype, device=like.device).expand(shape)
    given = as_tensor(a, name, like=like)
    if tolerance is None:
        exact = given.dtype == torch.float64 and like.dtype == torch.float64
        tolerance = sum_tolerance(a) or (1e-8 if exact else 1e-4)
    if given.device != like.device:
        raise ValueError(f"{name} is on {given.device} and the sample on {like.device}: move one of them")
    given = given.to(like.dtype)
    if given.ndim == 0 or given.shape[-1] != n:
        raise ValueError(f"{name} must have one weight for each of the {n} points, got shape {tuple(given.shape)}")
    try:
        given = given.expand(shape)
    except RuntimeError:
        raise ValueError(f"{name} has shape {tuple(given.shape)}, which does not fit the batch {tuple(shape)}") from None
    require_finite(given, name)
    detached = given.detach()
    if bool((detached < 0).any()):
        raise ValueError(f"{name} must be non-negative, got a smallest weight of {float(detached.min()):.6g}")
    total = given.sum(-1, keepdim=True)
    if mass == "positive":
        if bool((total.detach() <= 0).any()):
            raise ValueError(f"{name} must have a positive sum")
        return given
    worst = float((total.detach() - 1).abs().max())
    if not worst <= tolerance:
        got = float(total.detach().flatten()[(total.detach() - 1).abs().flatten().argmax()])
        raise ValueError(f"{name} must sum to 1 (within {tolerance:g}), got {got:.8g}: divide by its sum, {name} / {name}.sum()")
    return given / total


def sample_pair(x: Any, y: Any, a: Any = None, b: Any = None, *, mass: Mass = "probability") -> SamplePair:
    """Two weighted samples of one space, validated together.

    Raises TypeError for what is not numeric and ValueError, naming the argument and the remedy, for different feature
    counts, devices or batches, non-finite values, and weights that are negative, of another length or do not sum to one.
    """
    like = next((t for t in (x, y) if isinstance(t, Tensor) and t.is_floating_point()), None)
    x, y = sample(x, "x", like=like), sample(y, "y", like=like)
    if x.device != y.device:
        raise ValueError(f"x is on {x.device} and y on {y.device}: move one of them")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"x has {x.shape[-1]} features and y has {y.shape[-1]}: both samples must live in the same space")
    dtype = torch.promote_types(x.dtype, y.dtype)
    x, y = x.to(dtype), y.to(dtype)
    try:
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"x has batch shape {tuple(x.shape[:-2])} and y {tuple(y.shape[:-2])}: they must be equal or broadcast"
        ) from None
    x, y = x.expand(*batch, *x.shape[-2:]), y.expand(*batch, *y.shape[-2:])
    return SamplePair(
        x,
        y,
        weights(a, x.shape[:-1], "a", like=x, mass=mass),
        weights(b, y.shape[:-1], "b", like=y, mass=mass),
        uniform_a=a is None,
        uniform_b=b is None,
    )


def paired_rows(x: Any, y: Any, w: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    """x (..., n, d1), y (..., n, d2) of the same rows and weights (..., n), validated together."""
    like = next((t for t in (x, y) if isinstance(t, Tensor) and t.is_floating_point()), None)
    x, y = sample(x, "x", like=like), sample(y, "y", like=like)
    if x.device != y.device:
        raise ValueError(f"x is on {x.device} and y on {y.device}: move one of them")
    if x.shape[:-1] != y.shape[:-1]:
        raise ValueError(f"x and y must be paired row by row, got shapes {tuple(x.shape)} and {tuple(y.shape)}")
    dtype = torch.promote_types(x.dtype, y.dtype)
    x, y = x.to(dtype), y.to(dtype)
    return x, y, weights(w, x.shape[:-1], "weights", like=x)


def positive(value: float, name: str) -> float:
    """A positive finite number, or ValueError."""
    number = float(value)
    if not (number > 0 and np.isfinite(number)):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def at_least(value: float, bound: float, name: str) -> float:
    """A finite number not below `bound`, or ValueError."""
    if not (float(value) >= bound and np.isfinite(float(value))):
        raise ValueError(f"{name} must be at least {bound:g}, got {value!r}")
    return value


def whole_number(value: Any, least: int, name: str) -> int:
    """An integer not below `least`, or ValueError; True and 3.0 are none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def fraction(value: float, name: str) -> float:
    """A number strictly between 0 and 1, or ValueError."""
    if not 0 < float(value) < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value!r}")
    return float(value)


def generator_or_default(generator: torch.Generator | None, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator to draw from: the one given, or torch's default one for the device."""
    if generator is not None:
        if not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator or None, got {type(generator).__name__}: torch.Generator().manual_seed(0)"
            )
        return generator
    if torch.device(device).type == "cuda":
        return torch.cuda.default_generators[torch.device(device).index or 0]
    return torch.default_generator
