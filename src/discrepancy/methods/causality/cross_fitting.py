"""One fold of the cross-fitted causal bounds: propensities from elsewhere, multipliers and regressions from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from discrepancy.divergences import FDivergence
from discrepancy.divergences.robust import dro_bounds
from discrepancy.methods.causality.bounding import divergence_radius
from discrepancy.methods.causality.dual_networks import DualLoss, DualNetworks, conjugate_at

if TYPE_CHECKING:
    from discrepancy.methods.causality.causal_bounds import CausalBounds

_HELD_OUT = 0.2
# The upper bound of phi in [0, 1], and the lower bound as minus the upper bound of -phi.
_SIDES, _TOPS = (1.0, -1.0), (1.0, 0.0)


@dataclass(frozen=True)
class FoldModel:
    """What one fold learned; `predict` gives bounds in units of the range of phi."""

    divergences: tuple[FDivergence, ...]
    propensity: Any
    networks: DualNetworks
    pseudo: list[Any]
    outcome: Any
    centre: Tensor
    scale: Tensor
    arms: int
    clip: float
    clipped: int

    def propensities(self, x: Tensor) -> Tensor:
        """Clipped propensities of all arms, (m, arms)."""
        return _propensities(self.propensity, x).clamp(self.clip, 1 - self.clip)

    def predict(self, x: Tensor, arm: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lower and upper bounds (K, m), the mean of phi within the arm and the propensity (m,)."""
        e = self.propensities(x)[:, arm]
        with torch.no_grad():
            log_price = self.networks((x - self.centre) / self.scale)[0][..., arm]
        features = _features(x, torch.full((len(x),), arm), self.arms)
        ends: list[Tensor] = []
        for copy, regression in enumerate(self.pseudo):
            f, side = self.divergences[copy // 2], copy % 2
            inner = torch.from_numpy(np.asarray(regression.predict(features), dtype=np.float64))
            ends.append(_SIDES[side] * (inner + torch.exp(log_price[copy]) * divergence_radius(e, f)))
        mean = torch.from_numpy(np.asarray(self.outcome.predict(features), dtype=np.float64))
        return torch.stack(ends[1::2]), torch.stack(ends[::2]), mean, e


def fit_fold(options: CausalBounds, x: Tensor, arm: Tensor, phi: Tensor, own: Tensor, *, bounded: bool, seed: int) -> FoldModel:
    """Fit on the rows of the fold `own`, with propensities from the others; phi in units of its range."""
    from sklearn.base import clone
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    classifier = options.propensity
    if classifier is None:
        classifier = HistGradientBoostingClassifier(
            max_iter=150, learning_rate=0.05, max_leaf_nodes=4, min_samples_leaf=30, random_state=seed
        )
    regressor = options.regressor
    if regressor is None:
        regressor = HistGradientBoostingRegressor(
            max_iter=150, learning_rate=0.05, max_leaf_nodes=4, min_samples_leaf=30, random_state=seed
        )
    divergences, arms = tuple(options.divergences), int(arm.max()) + 1

    def fresh(estimator: Any) -> Any:
        return clone(estimator)

    classifier = fresh(classifier).fit(x[~own].numpy(), arm[~own].numpy())
    raw = _propensities(classifier, x)[own]
    e = raw.clamp(options.clip, 1 - options.clip)
    here, taken, values = x[own], arm[own], phi[own]
    clipped = int((raw != e).any(-1).sum())
    centre, scale = x.mean(0), x.std(0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    networks = DualNetworks(
        x.shape[1],
        *_starts(divergences, values, taken, e, arms, bounded=bounded),
        width=options.width,
        generator=torch.Generator().manual_seed(seed),
    )
    inputs = (here - centre) / scale
    _train(options, divergences, networks, inputs, taken, values, e, seed)
    with torch.no_grad():
        log_price, fraction = (t.gather(-1, taken.expand(t.shape[0], -1).unsqueeze(-1)).squeeze(-1) for t in networks(inputs))
    features = _features(here, taken, arms)
    pseudo = []
    for copy in range(2 * len(divergences)):
        f, side = divergences[copy // 2], copy % 2
        lam, depth = torch.exp(log_price[copy]), f.at_zero * (1 - fraction[copy])
        # lambda g* + u, whose mean given x is smooth and of the size of phi where those of its parts are not.
        target = _TOPS[side] + lam * (conjugate_at(f, _TOPS[side] - _SIDES[side] * values, lam, depth) - depth)
        pseudo.append(fresh(regressor).fit(features, target.numpy()))
    outcome = fresh(regressor).fit(features, values.numpy())
    return FoldModel(divergences, classifier, networks, pseudo, outcome, centre, scale, arms, options.clip, clipped)


def _starts(
    divergences: tuple[FDivergence, ...], phi: Tensor, arm: Tensor, e: Tensor, arms: int, *, bounded: bool
) -> tuple[Tensor, Tensor]:
    """log lambda and fraction (2 K, arms) of the problem without covariates, at the mean radius of each arm."""
    log_price, fraction = [], []
    for f in divergences:
        rows = []
        for k in range(arms):
            inside = arm == k
            radius = divergence_radius(e[inside, k], f).mean()
            rows.append(dro_bounds(phi[inside], radius, f, support=(0.0, 1.0) if bounded else None))
        for price, depth in (
            ([b.upper_price for b in rows], [1 - b.upper_level for b in rows]),
            ([b.lower_price for b in rows], [b.lower_level for b in rows]),
        ):
            # An outcome that is constant in an arm has no price; any start serves.
            lam = torch.stack(price).clamp_min(1e-3)
            log_price.append(lam.log())
            fraction.append(1 - torch.stack(depth) / (lam * f.at_zero) if f.at_zero > 0 else torch.full_like(lam, 0.5))
    return torch.stack(log_price), torch.stack(fraction)


def _train(
    options: CausalBounds,
    divergences: tuple[FDivergence, ...],
    networks: DualNetworks,
    x: Tensor,
    arm: Tensor,
    phi: Tensor,
    e: Tensor,
    seed: int,
) -> None:
    """Minimise the sum over divergences and sides, each of which has a network of its own; keep the best held-out weights."""
    source = torch.Generator().manual_seed(seed + 1_000_003)
    order = torch.randperm(len(x), generator=source)
    count = max(1, round(_HELD_OUT * len(x)))
    held, kept = order[:count], order[count:]
    tops = torch.tensor(_TOPS, dtype=torch.float64)[:, None]
    signs = torch.tensor(_SIDES, dtype=torch.float64)[:, None]
    losses = [DualLoss(f, tops, orthogonal=options.orthogonal) for f in divergences]
    prices = [loss.prices(arm, e) for loss in losses]

    def total(rows: Tensor) -> Tensor:
        log_price, fraction = networks(x[rows])
        both = arm[rows].expand(2, -1)
        value = torch.zeros((), dtype=torch.float64)
        for k, (loss, (radius, correction)) in enumerate(zip(losses, prices, strict=True)):
            part = slice(2 * k, 2 * k + 2)
            value = (
                value
                + loss.priced(signs * phi[rows], both, radius[rows], correction[rows], log_price[part], fraction[part])
                .mean(-1)
                .sum()
            )
        return value

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        rows = kept[torch.randint(len(kept), (min(options.batch_size, len(kept)),), generator=source)]
        return total(rows), {}

    watch = options.stopping.watch(networks, lambda: -float(total(held)))
    options.training.run(networks.parameters(), step, after=watch)
    watch.keep()


def _propensities(classifier: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(classifier.predict_proba(x.numpy()), dtype=np.float64))


def _features(x: Tensor, arm: Tensor, arms: int) -> np.ndarray:
    """Covariates and the arm as indicators, one column less than there are arms."""
    return torch.cat([x, torch.nn.functional.one_hot(arm, arms)[:, 1:].to(x.dtype)], -1).numpy()


__all__ = ["FoldModel", "fit_fold"]
