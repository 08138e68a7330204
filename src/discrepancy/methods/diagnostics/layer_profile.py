"""The layer profile of a trained network: how far representations of training data are from those of held-out data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from discrepancy._kinds import Discrepancy
from discrepancy._results import Result
from discrepancy._validate import as_tensor, generator_or_default, positive, whole_number
from discrepancy.divergences import Divergence
from discrepancy.estimation import Method, NearestNeighbors
from discrepancy.learning.features import features_of
from discrepancy.networks.lipschitz import log_lipschitz
from discrepancy.transport import SlicedWasserstein

_NEIGHBOURS = 50  # rows a class below which nearest neighbours in a representation say next to nothing


@dataclass(frozen=True)
class ClassConditional:
    """Compare class by class, and average with the shares of the held-out classes."""


@dataclass(frozen=True)
class LabelBlock:
    """Compare (representation, label) jointly, the label as zeros and one entry `scale`, in units of the representation."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the option."""
        positive(self.scale, "scale")


@dataclass(frozen=True, repr=False)
class LayerRow(Result):
    """One layer: the discrepancy `value` of training against held-out data, `null` of held-out against held-out data.

    Both of the same sizes; `standard_error`: the bootstrap's, of their difference; `log_lipschitz`: of what follows the layer,
    the loss included (None where unknown).
    """

    layer: str
    value: float
    null: float
    standard_error: float
    log_lipschitz: float | None

    @property
    def excess(self) -> float:
        """value - null: what remains beyond the noise of finite samples."""
        return self.value - self.null

    @property
    def log_bound(self) -> float | None:
        """log(value rho): a proxy of the Wasserstein bound's term at this layer; None without a Lipschitz constant."""
        if self.log_lipschitz is None or self.value <= 0:
            return None
        return math.log(self.value) + self.log_lipschitz


@dataclass(frozen=True, repr=False)
class LayerProfile(Result):
    """The rows by depth, and what `discrepancy` they are in.

    A diagnostic and no certified bound: the law of a training point given the weights cannot be sampled from one training.
    """

    rows: tuple[LayerRow, ...]
    discrepancy: str
    note: str = field(
        default="a diagnostic, no certified bound: one training run does not show the law of a training point given the weights"
    )

    references = ("generalization-bounds",)

    @property
    def funnel(self) -> str | None:
        """The layer with the smallest log_bound; None where no Lipschitz constants are known."""
        known = [(row.log_bound, row.layer) for row in self.rows if row.log_bound is not None]
        return min(known)[1] if known else None


def layer_profile(
    model: nn.Module,
    train: Any,
    test: Any,
    *,
    layers: Sequence[str] | None = None,
    discrepancy: Discrepancy | Divergence | None = None,
    method: Method | None = None,
    labels: ClassConditional | LabelBlock | None = None,
    lipschitz: Mapping[str, float] | None = None,
    loss_lipschitz: float = math.sqrt(2),
    splits: int = 5,
    resamples: int = 50,
    generator: torch.Generator | None = None,
) -> LayerProfile:
    """Layer by layer D(P || Q), P the law of the representations of training rows given the label, Q of held-out rows.

    train, test: (X, y), or an iterable of such batches (a DataLoader); y are class numbers, noisy ones if the network was trained
    on noise, in both. layers: names of submodules; default: those of a Sequential. discrepancy: any `Discrepancy` (default
    `SlicedWasserstein(1)`), or a `Divergence` estimated by `method` (default `NearestNeighbors()`, 50 rows a class at least).

    The held-out rows are halved `splits` times at random: `null` is one half against the other, `value` as many training rows
    against the latter, so that both have the same bias of finite samples; only their difference means something. The standard
    error is the bootstrap's (two to three times too large near the null), each of `resamples` halving anew and drawing rows with
    replacement. lipschitz: constants of the parts after each layer (without the loss); default: by `log_lipschitz` for a
    Sequential, else none. loss_lipschitz: of the loss in the network's outputs, sqrt(2) for cross-entropy in logits.

    Warns where train and test are one object, and where the model is in training mode (it is evaluated in evaluation mode,
    dropout off). Raises KeyError for a layer that is not there, ValueError for a class of test that train lacks or of too few
    rows. Time: layers x classes x (2 splits + 2 resamples) discrepancies.
    """
    D = SlicedWasserstein(p=1) if discrepancy is None else discrepancy
    if not isinstance(D, Discrepancy | Divergence):
        raise TypeError(
            f"discrepancy must be a Discrepancy or a Divergence object, got {discrepancy!r}: try SlicedWasserstein(1)"
        )
    labels = ClassConditional() if labels is None else labels
    if train is test:
        warnings.warn("train and test are the same object: the profile will show nothing", UserWarning, stacklevel=2)
    if model.training:
        warnings.warn("the model is in training mode: it is evaluated in evaluation mode", UserWarning, stacklevel=2)
    whole_number(splits, 1, "splits")
    whole_number(resamples, 2, "resamples")
    names = _layers(model, layers)
    sources = [_features(model, data, names, what) for data, what in ((train, "train"), (test, "test"))]
    constants = _constants(model, names, lipschitz, sources[1])
    source = generator_or_default(generator)
    seed = int(torch.randint(2**62, (), generator=source))
    compare = _comparison(D, method, seed)
    deal = _Deal.of(sources[0].y, sources[1].y, labels, isinstance(D, Divergence) and method is None)
    rows = []
    for name in names:
        pair = [s.features[name] for s in sources]
        local = torch.Generator().manual_seed(seed)
        points = [deal.values(pair, compare, local, False) for _ in range(splits)]
        again = [deal.values(pair, compare, local, True) for _ in range(resamples)]
        value, null = (sum(p[k] for p in points) / splits for k in (0, 1))
        error = _error(points, again)
        constant = constants.get(name)
        rows.append(LayerRow(name, value, null, error, None if constant is None else constant + math.log(loss_lipschitz)))
    return LayerProfile(tuple(rows), repr(D))


def _error(points: list[tuple[float, float]], again: list[tuple[float, float]]) -> float:
    """The standard error of the mean excess over halvings, from bootstrap replicates of one halving each.

    A replicate's variance holds that of its halving, of which the mean over halvings keeps only a share: the rest is taken off.
    """
    total, halving = (torch.tensor([v - u for v, u in p], dtype=torch.float64) for p in (again, points))
    within = float(halving.var()) if len(halving) > 1 else 0.0
    kept = within / len(halving)
    return math.sqrt(max(float(total.var()) - within + kept, kept))


@dataclass(frozen=True)
class _Source:
    features: dict[str, Tensor]
    y: Tensor
    inputs: Tensor


def _layers(model: nn.Module, layers: Sequence[str] | None) -> list[str]:
    if layers is not None:
        if not layers:
            raise ValueError("layers is empty: name at least one submodule")
        return list(layers)
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"layers must be named for a {type(model).__name__}: only a Sequential has an order of its own")
    return [name for name, _ in model.named_children()]


def _features(model: nn.Module, data: Any, names: list[str], what: str) -> _Source:
    batches: Iterable[Any] = [data] if isinstance(data, tuple | list) and len(data) == 2 and _is_rows(data[0]) else data
    parts: list[tuple[dict[str, Tensor], Tensor]] = []
    first = None
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(f"{what} must be (X, y) or batches (x, y), got {type(batch).__name__}")
        x, y = as_tensor(batch[0], what), torch.as_tensor(batch[1])
        if len(x) != len(y):
            raise ValueError(f"{what} has {len(x)} rows and {len(y)} labels")
        if y.is_floating_point() or y.ndim != 1:
            raise ValueError(f"the labels of {what} must be class numbers (n,), got {y.dtype} of shape {tuple(y.shape)}")
        first = x if first is None else first
        # The network's own precision: rows from NumPy come in double.
        weight = next(model.parameters(), x)
        found = features_of(model, x.to(weight), names)[1]
        parts.append(({k: v.flatten(1).double().cpu() for k, v in found.items()}, y.cpu()))
    if first is None:
        raise ValueError(f"{what} has no batch")
    joined = {name: torch.cat([p[0][name] for p in parts]) for name in names}
    return _Source(joined, torch.cat([p[1] for p in parts]), first)


def _is_rows(x: Any) -> bool:
    return hasattr(x, "shape") and len(x.shape) >= 2


def _constants(model: nn.Module, names: list[str], given: Mapping[str, float] | None, source: _Source) -> dict[str, float]:
    """log of the Lipschitz constant of everything after each layer."""
    if given is not None:
        return {name: math.log(positive(given[name], f"lipschitz[{name!r}]")) for name in names if name in given}
    if not isinstance(model, nn.Sequential):
        return {}
    found, after, parts, points = {}, 0.0, list(model.named_children()), {}
    weight = next(model.parameters(), source.inputs)
    x = source.inputs[:1].to(weight)
    mode = model.training
    model.eval()
    try:
        with torch.no_grad():
            for name, part in parts:
                points[name], x = x, part(x)
        for name, part in reversed(parts):
            found[name] = after
            after += log_lipschitz(part, points[name])
    except TypeError:
        pass  # a layer without a known constant: the layers after it keep theirs
    finally:
        model.train(mode)
    return {name: found[name] for name in names if name in found}


Comparison = Callable[[Tensor, Tensor], float]


def _comparison(D: Discrepancy | Divergence, method: Method | None, seed: int) -> Comparison:
    # One draw of whatever D draws (directions) for all comparisons, so that they differ by the data alone.
    if isinstance(D, Discrepancy):
        return lambda x, y: float(D(x, y, generator=torch.Generator().manual_seed(seed)))
    estimator = NearestNeighbors() if method is None else method
    return lambda x, y: float(estimator(D, x, y, generator=torch.Generator().manual_seed(seed)))


@dataclass(frozen=True)
class _Deal:
    """How rows are dealt: the rows of each stratum on either side, its weight, and the label block of each row."""

    strata: tuple[tuple[Tensor, Tensor, float], ...]
    blocks: tuple[Tensor, Tensor] | None

    @staticmethod
    def of(y: Tensor, z: Tensor, labels: ClassConditional | LabelBlock, dense: bool) -> _Deal:
        classes = torch.unique(z)
        missing = [int(c) for c in classes if not bool((y == c).any())]
        if missing:
            raise ValueError(f"train has no row of the class(es) {missing} of test: there is nothing to compare")
        least = _NEIGHBOURS if dense else 4
        if isinstance(labels, LabelBlock):
            strata = ((torch.arange(len(y)), torch.arange(len(z)), 1.0),)
            blocks = tuple(labels.scale * (t[:, None] == classes).double() for t in (y, z))
            found = _Deal(strata, (blocks[0], blocks[1]))
        else:
            shares = [(torch.nonzero(y == c)[:, 0], torch.nonzero(z == c)[:, 0]) for c in classes]
            found = _Deal(tuple((a, b, len(b) / len(z)) for a, b in shares), None)
        for k, (a, b, _) in enumerate(found.strata):
            if min(len(a), len(b)) < least:
                where = "train and test have" if found.blocks is not None else f"class {int(classes[k])} has"
                raise ValueError(
                    f"{where} {len(a)} training and {len(b)} held-out rows, of which {least} each are needed: pool the classes "
                    "with LabelBlock(), or take a discrepancy of samples"
                )
        return found

    def values(self, pair: list[Tensor], compare: Comparison, source: torch.Generator, again: bool) -> tuple[float, float]:
        """The discrepancy of training rows and of held-out rows to the same half of the held-out rows."""
        total = [0.0, 0.0]
        for rows, held, weight in self.strata:
            order = held[torch.randperm(len(held), generator=source)]
            size = min(len(held) // 2, len(rows))
            some = rows[torch.randperm(len(rows), generator=source)[:size]]
            sets = [(0, some), (1, order[:size]), (1, order[size : 2 * size])]
            if again:
                sets = [(side, r[torch.randint(len(r), (len(r),), generator=source)]) for side, r in sets]
            x, null, y = (self._points(pair, side, r) for side, r in sets)
            total[0] += weight * compare(x, y)
            total[1] += weight * compare(null, y)
        return total[0], total[1]

    def _points(self, pair: list[Tensor], side: int, rows: Tensor) -> Tensor:
        return pair[side][rows] if self.blocks is None else torch.cat([pair[side][rows], self.blocks[side][rows]], 1)


__all__ = ["ClassConditional", "LabelBlock", "LayerProfile", "LayerRow", "layer_profile"]
