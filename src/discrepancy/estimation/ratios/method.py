"""`RatioMethod`: what every estimator of density ratios offers, once it can fit one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import fraction, generator_or_default, paired_rows, sample_pair, whole_number
from discrepancy.divergences import KL, Divergence
from discrepancy.estimation.ratios.evaluation import ADMITS, Evaluation, HeldOut, OneStep


class RatioModel(ABC):
    """A fitted log-ratio."""

    @abstractmethod
    def log_ratio(self, points: Tensor) -> Tensor:
        """log p/q at points (k, d), as (k,)."""

    @abstractmethod
    def describe(self) -> str:
        """What was fitted, with the parameters that were chosen from the data."""


@dataclass(frozen=True, kw_only=True)
class RatioMethod(ABC):
    """An estimator of r = p/q from a sample of P and one of Q; a subclass is a frozen dataclass that fits a `RatioModel`.

    Its call estimates an f-divergence by cross-fitting: both samples are cut into `folds` parts at random, and the ratio is
    evaluated on each part as fitted on the others, so that an overfitted ratio cannot report a high value; `evaluation` makes the
    number of these log-ratios. Costs `folds` fits. Raises ValueError for fewer than 2 folds.
    """

    folds: int = 5
    evaluation: Evaluation = field(default_factory=OneStep)

    references: ClassVar[tuple[str, ...]] = ()
    least: ClassVar[int] = 2  # rows of each sample that a fit needs

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.folds, 2, "folds")
        if not isinstance(self.evaluation, Evaluation):
            raise TypeError(f"evaluation must be OneStep() or PlugIn(), got {self.evaluation!r}")

    @abstractmethod
    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> RatioModel:
        """The ratio fitted on validated samples x (n, d) of P and y (m, d) of Q."""

    def __call__(
        self, divergence: Divergence, x: Any, y: Any, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """D_f(P || Q) from samples x (n, d) of P and y (m, d) of Q, in nats.

        Raises TypeError for what is no f-divergence, ValueError for samples that do not fit or are too small.
        """
        f, level = ADMITS.check(divergence), fraction(level, "level")
        x, y = self.samples(x, y)
        return self.evaluation(f, self.held_out(x, y, seed_from(generator)), level, self._named())

    def mutual_information(self, x: Any, y: Any, *, level: float = 0.95, generator: torch.Generator | None = None) -> Estimate:
        """I(X; Y) = KL(joint || product) from paired rows x (n, d1), y (n, d2), in nats.

        The product is drawn by shifting the rows of y against those of x, four times, within each fold and within its complement,
        so that no row is both trained on and judged.
        """
        level = fraction(level, "level")
        x, y, _ = paired_rows(x, y)
        if x.ndim != 2 or y.ndim != 2:
            raise ValueError(f"x and y must be single samples (n, d), got shapes {tuple(x.shape)} and {tuple(y.shape)}")
        self._require_rows(len(x), "x and y")
        seed = seed_from(generator)
        x, y = x.detach(), y.detach()
        joint, product, folds = torch.cat([x, y], 1), [], []
        at_p = torch.empty(len(x), dtype=torch.float64, device=x.device)
        for k, (rest, own) in enumerate(_parts(len(x), self.folds, child(seed, 0))):
            model = self.fit(joint[rest], _product(x[rest], y[rest]), child(seed, k + 1))
            folds.append(model.log_ratio(joint).double())
            at_p[own] = folds[-1][own]
            product.append(model.log_ratio(_product(x[own], y[own])).double())
        held = HeldOut(at_p, torch.cat(product), _spread(folds))
        return self.evaluation(KL(), held, level, self._named() + ", joint against product")

    def held_out(self, x: Tensor, y: Tensor, seed: int) -> HeldOut:
        """log p/q at each row of x (n, d) and y (m, d), fitted without the row's fold."""
        at_p, at_q = (torch.empty(len(s), dtype=torch.float64, device=s.device) for s in (x, y))
        folds = []
        parts = zip(_parts(len(x), self.folds, child(seed, 0)), _parts(len(y), self.folds, child(seed, -1)), strict=True)
        for k, ((rest_x, own_x), (rest_y, own_y)) in enumerate(parts):
            model = self.fit(x[rest_x], y[rest_y], child(seed, k + 1))
            folds.append(model.log_ratio(x).double())
            at_p[own_x], at_q[own_y] = folds[-1][own_x], model.log_ratio(y[own_y]).double()
        return HeldOut(at_p, at_q, _spread(folds))

    def samples(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Two validated samples (n, d), (m, d), detached; ValueError where they do not fit or are too small."""
        pair = sample_pair(x, y)
        if pair.batch:
            raise ValueError(f"x and y must be single samples (n, d), got a batch of shape {tuple(pair.batch)}: fit each in turn")
        for name, s in (("x", pair.x), ("y", pair.y)):
            self._require_rows(len(s), name)
        return pair.x.detach(), pair.y.detach()

    def _require_rows(self, rows: int, name: str) -> None:
        need = max(2 * self.least, 2 * self.folds)
        if rows < need:
            raise ValueError(f"{name} has {rows} rows: {type(self).__name__} with {self.folds} folds needs at least {need}")

    def _named(self) -> str:
        return f"{type(self).__name__}, {self.folds}-fold cross-fitted"


def seed_from(generator: torch.Generator | None) -> int:
    """A seed drawn from the caller's generator: everything that follows depends on it alone."""
    source = generator_or_default(generator)
    return int(torch.randint(2**62, (), generator=source, device=source.device))


def child(seed: int, k: int) -> torch.Generator:
    """The k-th generator that belongs to a seed, on the CPU."""
    return torch.Generator().manual_seed((seed + 0x9E3779B97F4A7C15 * (k + 2)) % 2**63)


def _parts(n: int, folds: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """For each fold the rows outside and inside it."""
    order = torch.randperm(n, generator=generator)
    pieces = order.tensor_split(folds)
    for k, own in enumerate(pieces):
        yield torch.cat([*pieces[:k], *pieces[k + 1 :]]), own


def _spread(folds: list[Tensor]) -> Tensor:
    """The delete-a-group jackknife variance of log-ratios (n,), one of each fold's fit."""
    values = torch.stack(folds)
    return (len(folds) - 1) * values.var(0, correction=0)


def _product(x: Tensor, y: Tensor, copies: int = 4) -> Tensor:
    """Rows of the product of the margins: y shifted against x by 1, ..., copies; the rows come in random order already."""
    shifts = range(1, min(copies, len(x) - 1) + 1)
    return torch.cat([torch.cat([x, y.roll(k, 0)], 1) for k in shifts])


__all__ = ["RatioMethod", "RatioModel", "child", "seed_from"]
