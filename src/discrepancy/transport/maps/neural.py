"""Transport maps as neural networks, fitted with the Monge gap as regulariser."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._kinds import Discrepancy
from discrepancy._validate import at_least, generator_or_default, sample, whole_number
from discrepancy.costs import Cost, Sphere, SquaredEuclidean, as_cost
from discrepancy.learning import Training
from discrepancy.networks import MLP
from discrepancy.transport.entropic.divergence import SinkhornDivergence
from discrepancy.transport.entropic.epsilon import Epsilon, RelativeEpsilon
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.maps.estimator import MapEstimator
from discrepancy.transport.monge_gap import MongeGap, mapped

# In training the gradient's error, of the order of the marginal error, is far below the noise of a mini-batch.
_TRAINING_TOLERANCE = 1e-3
# Points of each sample that set the scale of epsilon.
_SUBSAMPLE = 1000


class MapNetwork(nn.Module):
    """T(x) from a network on standardised points: centre + scale net(z), or x + scale net(z) (`residual`), on the sphere
    normalised.

    z = (x - mean of the source) / its spread; centre and scale are those of the target, so that a fresh network starts at
    the right size. With `residual` the last layer starts at zero, hence T at the identity.
    """

    def __init__(self, net: nn.Module, source: Tensor, target: Tensor, *, residual: bool, sphere: bool) -> None:
        """Wrap `net`, with the moments of source (n, d) and target (m, d)."""
        super().__init__()
        self.net, self.residual, self.sphere = net, residual, sphere
        for name, points in (("source", source), ("target", target)):
            spread = points.var(0, correction=0).mean().sqrt()
            self.register_buffer(f"{name}_centre", points.mean(0))
            self.register_buffer(f"{name}_scale", torch.where(spread > 0, spread, torch.ones_like(spread)))
        last = [m for m in net.modules() if isinstance(m, nn.Linear)]
        if residual and last:
            nn.init.zeros_(last[-1].weight)
            nn.init.zeros_(last[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """The map at points x (..., d)."""
        move = self.target_scale * self.net((x - self.source_centre) / self.source_scale)  # type: ignore[operator]
        y = (x if self.residual else self.target_centre) + move
        return y / torch.linalg.vector_norm(y, dim=-1, keepdim=True) if self.sphere else y


@dataclass
class NeuralMap(MapEstimator):
    """A transport map T for a chosen cost, learned from samples of source and target: min_T  Delta(T # source, target) +
    gap_weight M(T).

    Delta is `fitting`, any `Discrepancy`; M is the Monge gap under `cost` on the source points (or on the `reference`
    handed to fit). Without the gap (gap_weight=0) nearly every fitting map will do; with it the one of least cost is found.
    A weight that is too large early freezes T where it starts: `warm_up` steps raise it from zero, and `history_` shows
    both terms.

    epsilon: that of the gap. `RelativeEpsilon` takes its share of the mean cost *within* the samples, (E c(X, X') + E c(Y,
    Y')) / 2, once a fit: a share of the cost between x and T(x) would grow with the map and reward it for spreading (with a
    bounded fitting term it then runs away).

    network: an `MLP`, a function (inputs, outputs) -> module, both wrapped in a `MapNetwork`; or a module, taken as the map
    itself and copied. With the cost `Sphere` the wrapped network's output is normalised. residual: T(x) = x + net(x), which
    starts at the identity.

    Two doors: `fit(X, Y)`, `transform(X)` take arrays, frames or tensors and return the same kind (arrays for frames);
    `module_` is the fitted
    `torch.nn.Module`. `random_state` seeds a fit without a generator. Fitted attributes: `module_`, `history_` (lists
    "step", "loss", "fit", "gap", "gap_weight").

    Raises ValueError for options and samples that do not fit together, NumericalError naming the training step where the
    map stops being finite. Source: Uscidda and Cuturi (2023). Not built: the parameterisation through the gradient of the
    dual cost.
    """

    cost: Cost = field(default_factory=SquaredEuclidean)
    fitting: Discrepancy = field(default_factory=lambda: SinkhornDivergence(solver=SemiDualNewton(tolerance=_TRAINING_TOLERANCE)))
    gap_weight: float = 1.0
    epsilon: Epsilon = field(default_factory=RelativeEpsilon)
    debias: bool = False
    network: MLP | nn.Module | Callable[[int, int], nn.Module] = field(default_factory=MLP)
    residual: bool = False
    steps: int = 2000
    batch_size: int = 256
    learning_rate: float = 3e-3
    warm_up: int = 0
    random_state: int | None = None
    references: ClassVar[tuple[str, ...]] = ("uscidda-cuturi-2023",)

    def _check(self) -> None:
        at_least(self.gap_weight, 0, "gap_weight")
        as_cost(self.cost)
        if not isinstance(self.fitting, Discrepancy):
            raise TypeError(f"fitting must be a Discrepancy such as SinkhornDivergence(), got {self.fitting!r}")
        for name, least in (("steps", 1), ("batch_size", 2), ("warm_up", 0)):
            value = getattr(self, name)
            whole_number(value, least, name)
        if not isinstance(self.network, MLP) and not callable(self.network):
            raise TypeError(f"network must be an MLP, a module or a function (inputs, outputs) -> module, got {self.network!r}")
        MongeGap(self.cost, self.epsilon)

    def fit(self, X: Any, Y: Any, *, reference: Any = None, generator: torch.Generator | None = None) -> NeuralMap:
        """Learn the map from source X (n, d) to target Y (m, d); `reference` (k, d): where the gap is taken, X if omitted."""
        pair = self._one_pair(X, Y)
        x, y, cost = pair.x, pair.y, as_cost(self.cost)
        z = x if reference is None else sample(reference, "reference", like=x).to(x.dtype).detach()
        if z.ndim != 2 or z.shape[-1] != x.shape[-1]:
            raise ValueError(f"reference must be points with {x.shape[-1]} features, got shape {tuple(z.shape)}")
        for points, name in ((x, "X"), (y, "Y"), (z, "reference")):
            cost.check(points, name)
        if generator is None and self.random_state is not None:
            generator = torch.Generator().manual_seed(self.random_state)
        source = generator_or_default(generator)
        module = self._module(x, y, source)
        gap = MongeGap(cost, self._epsilon(cost, x, y), self.debias, SemiDualNewton(tolerance=_TRAINING_TOLERANCE))
        training = Training(steps=self.steps, learning_rate=self.learning_rate)

        def batch(points: Tensor) -> Tensor:
            if points.shape[0] <= self.batch_size:
                return points
            chosen = torch.randperm(points.shape[0], generator=source, device=source.device)[: self.batch_size]
            return points[chosen.to(points.device)]

        def step(k: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            where = f"training step {k}: "
            here = batch(x)
            image = mapped(module, here, where)
            if image.shape != here.shape:
                raise ValueError(f"the map takes points of shape {tuple(here.shape)} and returns {tuple(image.shape)}")
            fit = self.fitting(image, batch(y), generator=source if self.fitting.claims.random else None)
            weight = self.gap_weight * min(1.0, (k + 1) / self.warm_up if self.warm_up else 1.0)
            terms: dict[str, Tensor | float] = {"fit": fit.detach(), "gap_weight": weight}
            loss = fit
            if weight > 0 or training.records(k):
                at, there = (here, image) if reference is None else (pick := batch(z), mapped(module, pick, where))
                value = gap(at, there if weight > 0 else there.detach())
                terms["gap"] = value.detach()
                loss = fit + weight * value if weight > 0 else fit
            return loss, terms

        self.history_ = training.run(module.parameters(), step)
        self.module_ = module.eval()
        return self

    def _epsilon(self, cost: Cost, x: Tensor, y: Tensor) -> float:
        """The gap's epsilon, fixed for the whole fit."""
        if not isinstance(self.epsilon, RelativeEpsilon):
            return float(self.epsilon)
        within = [cost.matrix(t[:_SUBSAMPLE], t[:_SUBSAMPLE]).mean() for t in (x, y)]
        return float(self.epsilon.fraction * (within[0] + within[1]) / 2) or 1.0

    def _module(self, x: Tensor, y: Tensor, generator: torch.Generator) -> nn.Module:
        if isinstance(self.network, nn.Module):
            return copy.deepcopy(self.network).train()
        d = x.shape[-1]
        if isinstance(self.network, MLP):
            net: nn.Module = self.network.build(d, d, generator=generator, dtype=x.dtype)
        else:
            net = self.network(d, d)
        return MapNetwork(net, x, y, residual=self.residual, sphere=isinstance(as_cost(self.cost), Sphere)).to(x.device)


__all__ = ["MapNetwork", "NeuralMap"]
