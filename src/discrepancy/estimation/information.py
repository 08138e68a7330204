"""`mutual_information`, `conditional_mutual_information`, `entropy`: from samples, in nats, with their uncertainty."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import fraction, paired_rows, sample
from discrepancy.estimation.rank_extrapolation import ExtrapolatedEstimate

_COPIES = 5  # a row that stands more often is an atom of the law, not an accident
_TRUSTED = 0.1  # nats, or share of a value above one, up to which an extrapolated drift leaves less than the standard error
_ERRORS = 3.0  # and standard errors of the extrapolated value
_SAMPLES_PER_STATE = 10.0  # a value of I nats tells exp(I) states apart; each must have been seen some times


class SampleSizeWarning(UserWarning):
    """The sample is too small to support the value that was estimated from it."""


@runtime_checkable
class InformationMethod(Protocol):
    """An estimator of mutual information from paired rows."""

    def mutual_information(
        self, x: Tensor, y: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y) in nats from validated paired rows x (n, d1), y (n, d2) of one dtype and device."""
        ...


@runtime_checkable
class ConditionalInformationMethod(Protocol):
    """An estimator of conditional mutual information from paired rows."""

    def conditional_mutual_information(
        self, x: Tensor, y: Tensor, z: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y | Z) in nats from validated paired rows x (n, d1), y (n, d2), z (n, d3) of one dtype and device."""
        ...


@runtime_checkable
class EntropyMethod(Protocol):
    """An estimator of differential entropy from a sample."""

    def entropy(self, x: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None) -> Estimate:
        """h(X) = -E log p(X) in nats from a validated sample x (n, d)."""
        ...


def mutual_information(
    x: Any, y: Any, method: InformationMethod | None = None, *, level: float = 0.95, generator: torch.Generator | None = None
) -> Estimate:
    """The mutual information I(X; Y) = KL(P_XY || P_X P_Y) of paired rows x (n,) or (n, d1) and y (n,) or (n, d2), in nats.

    `method` None is `NeighborInformation()`: nearest neighbours (Kraskov, Stoegbauer and Grassberger) on per-coordinate normal
    scores where the data are continuous, which makes the value invariant to monotone maps of a coordinate, and the estimator for
    mixtures of discrete and continuous values where they repeat. The result's `method` says which. The interval is at `level`,
    or None with a `note` that says why. Where fewer than some exp(I) samples stand behind the value I, a `SampleSizeWarning` says
    that it cannot be believed.
    Raises ValueError for rows that are not paired, batches, and values that are not finite; TypeError for a method that does not
    estimate mutual information. Time: see the method; the default takes O(n log n) in low dimension.
    """
    _offers(method, InformationMethod, "mutual_information", "NeighborInformation(k=5)")
    a, b, _ = paired_rows(x, y)
    _single(x=a, y=b)
    (a, b), copies = _once(a, b)
    chosen = _default() if method is None else method
    found = chosen.mutual_information(a, b, level=fraction(level, "level"), generator=generator)
    return _supported(_remarked(found, copies), len(a), "mutual information")


def conditional_mutual_information(
    x: Any,
    y: Any,
    z: Any,
    method: ConditionalInformationMethod | None = None,
    *,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """The conditional mutual information I(X; Y | Z) of paired rows x (n,) or (n, d1), y and z alike, in nats.

    `method` None is `NeighborInformation()`: the estimator of Frenzel and Pompe on per-coordinate normal scores where the data
    are continuous, that for mixtures of discrete and continuous values where they repeat. Interval, warning and errors as in
    `mutual_information`.
    """
    _offers(method, ConditionalInformationMethod, "conditional_mutual_information", "NeighborInformation(k=5)")
    a, b, _ = paired_rows(x, y)
    c = sample(z, "z", like=a)
    _single(x=a, y=b, z=c)
    if len(c) != len(a):
        raise ValueError(f"x, y and z must be paired row by row, got {len(a)} rows of x and y and {len(c)} of z")
    if c.device != a.device:
        raise ValueError(f"x is on {a.device} and z on {c.device}: move one of them")
    dtype = torch.promote_types(a.dtype, c.dtype)
    (a, b, c), copies = _once(a.to(dtype), b.to(dtype), c.to(dtype))
    chosen = _default() if method is None else method
    found = chosen.conditional_mutual_information(a, b, c, level=fraction(level, "level"), generator=generator)
    return _supported(_remarked(found, copies), len(a), "conditional mutual information")


def entropy(
    x: Any, method: EntropyMethod | None = None, *, level: float = 0.95, generator: torch.Generator | None = None
) -> Estimate:
    """The differential entropy h(X) = -E log p(X) of the law of x (n,) or (n, d), in nats relative to the units of x.

    `method` None is `KozachenkoLeonenko()`. The interval is at `level`, or None with a `note` that says why.
    Raises ValueError for batches, values that are not finite, and laws without a density (repeats, subspaces); TypeError for a
    method that does not estimate entropy. Time: see the method.
    """
    _offers(method, EntropyMethod, "entropy", "KozachenkoLeonenko(k=5)")
    a = sample(x, "x")
    _single(x=a)
    (a,), copies = _once(a)
    if method is None:
        from discrepancy.estimation.kozachenko_leonenko import KozachenkoLeonenko

        method = KozachenkoLeonenko()
    return _remarked(method.entropy(a, level=fraction(level, "level"), generator=generator), copies)


def _default() -> Any:
    from discrepancy.estimation.neighbor_information import NeighborInformation

    return NeighborInformation()


def _offers(method: Any, protocol: type, name: str, example: str) -> None:
    if method is not None and (isinstance(method, type) or not isinstance(method, protocol)):
        raise TypeError(f"method must be an estimator object that offers {name}, such as {example}, got {method!r}")


def _single(**samples: Tensor) -> None:
    for name, s in samples.items():
        if s.ndim != 2:
            raise ValueError(
                f"{name} must be one sample (n,) or (n, d), got a batch of shape {tuple(s.shape[:-2])}: estimate each in turn"
            )


def _once(*samples: Tensor) -> tuple[list[Tensor], str | None]:
    """The samples with copied rows counted once, and a remark on them; as they are where rows repeat because values do.

    A density repeats no row. Rows that stand a few times each while no value of a column occurs in two different rows are copies
    (a join gone wrong, a bootstrap sample): each of them tells a neighbour estimator of a spike, and a held-out fold of itself.
    """
    joint = torch.cat(samples, 1)
    rows, inverse, counts = torch.unique(joint, dim=0, return_inverse=True, return_counts=True)
    if len(rows) == len(joint) or int(counts.max()) > _COPIES:
        return list(samples), None
    columns = [c for c in rows.unbind(1) if bool((c != c[0]).any())]
    if not columns or any(len(torch.unique(c)) < len(rows) for c in columns):
        return list(samples), None
    first = torch.full((len(rows),), len(joint), dtype=torch.long, device=joint.device)
    first = first.scatter_reduce(0, inverse, torch.arange(len(joint), device=joint.device), "amin").sort().values
    remark = f"{len(joint) - len(rows)} of {len(joint)} rows are copies of others, which a density has none of: each counts once"
    return [s[first] for s in samples], remark


def _remarked(found: Estimate, remark: str | None) -> Estimate:
    return replace(found, note="; ".join(filter(None, (found.note, remark))) or None)


def _supported(found: Estimate, n: int, what: str) -> Estimate:
    """The estimate, without its interval where that cannot be believed; a warning where n samples cannot support the value."""
    value = float(found)
    if (
        isinstance(found, ExtrapolatedEstimate)
        and found.standard_error is not None
        and abs(found.drift) > max(_TRUSTED * max(1.0, abs(value)), _ERRORS * float(found.standard_error))
    ):
        why = "no interval: the drift with the rank is so large that what the extrapolation leaves of it may exceed the error"
        found = _bare(found, why)
    if not math.isfinite(value) or n >= _SAMPLES_PER_STATE * math.exp(min(value, 700.0)):
        return found
    note = (
        f"{n} samples cannot support {value:.3g} nats of {what}: exp(value) is {math.exp(min(value, 700.0)):.3g}, and "
        f"{_SAMPLES_PER_STATE:.0f} times as many samples would be needed; take the value as a rough lower bound"
    )
    warnings.warn(note, SampleSizeWarning, stacklevel=3)
    return _bare(found, f"no interval: {note}")


def _bare(found: Estimate, why: str) -> Estimate:
    note = "; ".join(filter(None, (why, found.note)))
    return replace(found, standard_error=None, low=None, high=None, level=None, note=note)


__all__ = [
    "ConditionalInformationMethod",
    "EntropyMethod",
    "InformationMethod",
    "SampleSizeWarning",
    "conditional_mutual_information",
    "entropy",
    "mutual_information",
]
