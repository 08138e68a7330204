"""A discrepancy of samples that are spread over the processes of `torch.distributed`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._validate import SamplePair, as_tensor, sample, weights
from discrepancy.transport.entropic.divergence import SinkhornDivergence
from discrepancy.transport.entropic.envelope import Dual
from discrepancy.transport.entropic.epsilon import RelativeEpsilon, resolve
from discrepancy.transport.entropic.log_sinkhorn import LogSinkhorn
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.entropic.setting import Setting
from discrepancy.transport.entropic.sharded import ShardedSolver, sharded_contraction
from discrepancy.transport.entropic.sinkhorn import Sinkhorn
from discrepancy.transport.entropic.solver import Potentials
from discrepancy.transport.ranks import Ranks

Slopes = tuple[Tensor, Tensor, Tensor, Tensor]
Local = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


class _KnownGradient(torch.autograd.Function):
    """A value computed beforehand, with its gradients in this rank's rows of x, y, a, b."""

    @staticmethod
    def forward(ctx, x, y, a, b, value, slopes):  # type: ignore[override]
        ctx.slopes = slopes
        return value.clone()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        if torch.is_grad_enabled():
            raise RuntimeError("a discrepancy over ranks has first derivatives only: leave out create_graph=True")
        out = [None if s is None else grad.reshape(*grad.shape, *[1] * (s.ndim - grad.ndim)) * s for s in ctx.slopes]
        return (*out, None, None)


@dataclass(frozen=True)
class Distributed(Discrepancy):
    """D(x, y) of the samples of all ranks together, where each rank calls it with its own rows: the single process's value.

    All ranks of the group (None: all processes) call it at the same time, with x (n_r, d) and y (m_r, d) of any sizes, and with
    weights either on all ranks or on none; weights are those of the whole, so that they sum to one over the ranks. Every rank
    gets the value for the whole, and in its x, y, a and b the gradient of that one value, equal to the single process's rows.

    Parameters that all ranks share: their gradient is the *sum* over ranks of what each one back-propagates.
    `DistributedDataParallel` takes the mean: multiply the loss by the number of ranks, (world_size * loss).backward().

    `Sinkhorn` and `SinkhornDivergence` divide their passes over pairs among the ranks, forward and backward: n m / R pairs a
    pass and rank, O(n + m) numbers sent; the points, (n + m) d numbers, are on every rank. Any other discrepancy is computed
    by every rank on all points: right, not faster. A random one uses rank 0's draw. Gradients are computed with the value, so
    that a rank may drop it without the others waiting; second derivatives raise RuntimeError. What is wrong on one rank
    raises the same error on all. Source: the row-sharded iteration of Cuturi (2013) in blocks.
    """

    discrepancy: Discrepancy = field(default_factory=SinkhornDivergence)
    group: Any = field(default=None, repr=False, compare=False)
    claims: ClassVar[Claims] = Claims()

    def __post_init__(self) -> None:
        """Raise TypeError for what is no discrepancy or has a solver that needs the whole cost matrix."""
        given = self.discrepancy
        if not isinstance(given, Discrepancy) or isinstance(given, Distributed):
            raise TypeError(f"discrepancy must be an object such as SinkhornDivergence(), got {given!r}")
        if isinstance(given, Sinkhorn | SinkhornDivergence) and not isinstance(given.solver, SemiDualNewton | LogSinkhorn):
            raise TypeError(f"over ranks the solver must be SemiDualNewton() or LogSinkhorn(), got {given.solver!r}")
        object.__setattr__(self, "claims", given.claims)
        object.__setattr__(self, "references", given.references)

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """Refused with TypeError: resampling moves rows between ranks."""
        raise TypeError("a discrepancy over ranks cannot be resampled: gather the samples on one process")

    def __call__(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The global value, differentiable in this rank's rows."""
        ranks = Ranks(self.group)
        local = _agreed(ranks, x, y, a, b)
        wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in local)
        wanted = any(ranks.objects(wanted))
        with torch.enable_grad():
            whole = [None if t is None else t.requires_grad_(wanted) for t in _whole(ranks, *local)]
            pair = self.discrepancy._checked(*whole)
        if isinstance(self.discrepancy, Sinkhorn | SinkhornDivergence):
            value, slopes = _divided(self.discrepancy, ranks, pair, wanted)
        else:
            value, slopes = _replicated(self.discrepancy, pair, wanted, _common(ranks, self.discrepancy, generator))
        if slopes is None:
            return value
        return _KnownGradient.apply(*local, value, _own_rows(ranks, _pulled_back(pair, slopes, whole), local))  # type: ignore[return-value]

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The same on validated samples."""
        return self(pair.x, pair.y, pair.a, pair.b, generator=generator)


def _agreed(ranks: Ranks, x: Any, y: Any, a: Any, b: Any) -> Local:
    """This rank's samples as tensors, once all ranks have found theirs in order and of one kind; else one error on all."""
    facts: dict[str, Any] = {}
    problem: tuple[type[Exception], str] | None = None
    local: Any = None
    try:
        x, y = sample(x, "x"), sample(y, "y")
        like = x
        a = None if a is None else as_tensor(a, "a", like=like)
        b = None if b is None else as_tensor(b, "b", like=like)
        for w, points, name in ((a, x, "a"), (b, y, "b")):
            if w is not None:
                weights(w, points.shape[:-1], name, like=points, mass="positive")
        local = (x, y, a, b)
        facts = {
            "features of x": x.shape[-1],
            "features of y": y.shape[-1],
            "batch": (*x.shape[:-2], *y.shape[:-2]),
            "dtypes": f"{x.dtype}, {y.dtype}",
            "weights given": (a is not None, b is not None),
        }
    except (TypeError, ValueError) as error:
        problem = (type(error), str(error))
    for rank, (facing, failed) in enumerate(ranks.objects((facts, problem))):
        if failed is not None:
            raise failed[0](f"on rank {rank}: {failed[1]}")
        for what, value in facing.items():
            if facts and facts[what] != value:
                raise ValueError(f"the ranks differ in {what}: {facts[what]} here and {value} on rank {rank}")
    return local


def _lengths(ranks: Ranks, t: Tensor) -> list[int]:
    return ranks.objects(t.shape[-2])


def _whole(ranks: Ranks, x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> Local:
    """The samples of all ranks one after another, without gradients."""
    rows, columns = _lengths(ranks, x), _lengths(ranks, y)
    return (
        ranks.join(x, rows, -2),
        ranks.join(y, columns, -2),
        None if a is None else ranks.join(a.expand(x.shape[:-1]), rows, -1),
        None if b is None else ranks.join(b.expand(y.shape[:-1]), columns, -1),
    )


def _pulled_back(pair: SamplePair, slopes: Slopes, whole: list[Tensor | None]) -> list[Tensor | None]:
    """The gradient in what was given from the gradient in what was validated: weights were divided by their sum."""
    checked = [(t, s) for t, s in zip((pair.x, pair.y, pair.a, pair.b), slopes, strict=True) if t.requires_grad]
    given = [t for t in whole if t is not None]
    found = iter(torch.autograd.grad([t for t, _ in checked], given, [s for _, s in checked]))
    return [None if t is None else next(found) for t in whole]


def _own_rows(ranks: Ranks, slopes: list[Tensor | None], local: Local) -> list[Tensor | None]:
    """The rows of the whole gradient that are this rank's, in its dtypes; None for weights that were not given."""
    begin = [sum(_lengths(ranks, t)[: ranks.rank]) for t in (local[0], local[1])]
    own: list[Tensor | None] = []
    for k, (slope, given) in enumerate(zip(slopes, local, strict=True)):
        if given is None or slope is None:
            own.append(None)
            continue
        length, dim = (local[0], local[1])[k % 2].shape[-2], -2 if k < 2 else -1
        own.append(slope.narrow(dim, begin[k % 2], length).sum_to_size(given.shape).to(given.dtype))
    return own


def _common(ranks: Ranks, discrepancy: Discrepancy, generator: torch.Generator | None) -> torch.Generator | None:
    """For a random discrepancy a generator that draws the same on all ranks, seeded by rank 0's."""
    if not discrepancy.claims.random:
        return generator
    drawn = int(torch.randint(2**62, (), generator=generator)) if ranks.rank == 0 else 0
    return torch.Generator().manual_seed(ranks.objects(drawn)[0])


def _replicated(
    discrepancy: Discrepancy, pair: SamplePair, wanted: bool, generator: torch.Generator | None
) -> tuple[Tensor, Slopes | None]:
    """The value on all points and its gradient, the same computation on every rank."""
    if not wanted:
        with torch.no_grad():
            return discrepancy._value(pair, generator), None
    with torch.enable_grad():
        leaves = [t.detach().clone().requires_grad_() for t in (pair.x, pair.y, pair.a, pair.b)]
        value = discrepancy._value(replace(pair, x=leaves[0], y=leaves[1], a=leaves[2], b=leaves[3]), generator)
        found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    x, y, a, b = (torch.zeros_like(leaf) if s is None else s for s, leaf in zip(found, leaves, strict=True))
    return value.detach(), (x, y, a, b)


@torch.no_grad()
def _divided(
    discrepancy: Sinkhorn | SinkhornDivergence, ranks: Ranks, pair: SamplePair, wanted: bool
) -> tuple[Tensor, Slopes | None]:
    """The value and its gradient, every pass over pairs divided by rows."""
    solver = ShardedSolver(discrepancy.solver, ranks)
    shared = replace(discrepancy, solver=solver)
    if isinstance(discrepancy.epsilon, RelativeEpsilon) and not pair.batch:
        setting = Setting.of(pair, discrepancy.cost, solver)
        shared = replace(shared, epsilon=float(resolve(discrepancy.epsilon, solver.mean_cost(setting.cross()))))

    def contraction(found: Potentials, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        budget = min(int(discrepancy.solver.memory * 2**30), 64 << 20)
        return sharded_contraction(Dual(found.f, found.g, epsilon, discrepancy.cost, budget), ranks, x, y, a, b)

    if isinstance(shared, Sinkhorn):
        value, setting, _, cross, epsilon = shared._solved(pair, None)
        own_x = own_y = None
    else:
        solved = shared._solved(pair)
        value, setting, cross, epsilon = solved.value, solved.setting, solved.cross, solved.epsilon
        own_x, own_y = solved.self_x, solved.self_y
    if not wanted:
        return value, None
    sides = (setting.x, setting.y, setting.a, setting.b)
    slopes = [*contraction(cross, *sides), cross.f, cross.g]
    for k, own in enumerate((own_x, own_y)):
        if own is not None:
            points, w = sides[k], sides[k + 2]
            left, right = contraction(own, points, points, w, w)
            slopes[k] = slopes[k] - (left + right) / 2
            slopes[k + 2] = slopes[k + 2] - (own.f + own.g) / 2
    order = (1, 0, 3, 2) if setting.swapped else (0, 1, 2, 3)
    x, y, a, b = (slopes[k].reshape(t.shape).to(t.dtype) for k, t in zip(order, (pair.x, pair.y, pair.a, pair.b), strict=True))
    return value, (x, y, a, b)


__all__ = ["Distributed"]
