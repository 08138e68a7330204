"""MINDE: mutual information, KL divergence and entropy from diffusion scores that a network learns."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Estimate
from discrepancy._validate import at_least, fraction, generator_or_default, paired_rows, sample_pair, whole_number
from discrepancy.divergences import KL, Divergence, ReverseKL
from discrepancy.dynamics import LogUniformLevels, NoiseSchedule, VariancePreserving, perturb
from discrepancy.dynamics.score_divergence import reference_entropy
from discrepancy.estimation.canonical import CanonicalGaussian, moments
from discrepancy.estimation.margins import FittedMargins, Margins, NormalScores, Standardised
from discrepancy.estimation.noise_network import GaussianNoise, NoiseNetwork, ScoreTraining, View, train_noise_network
from discrepancy.estimation.score_differences import Conditional, DenoisingLoss, ScoreDifference, Variant
from discrepancy.networks import ResidualMLP

_SMALL = 500  # rows below which scores are hardly learned
_NO_INTERVAL = (
    "no interval: what the learned scores err by is not known; the standard error is that of held-out rows and noise levels"
)


@dataclass(frozen=True)
class GaussianScores:
    """The network starts from the scores of a Gaussian fitted to the training rows, with shrunken canonical correlations."""


@dataclass(frozen=True)
class MINDE:
    """Mutual information, KL and entropy by learned diffusion scores.

    Data are diffused, Y_t = a (Y_0 + sigma e); a network guesses the noise e, hence the score -e/(a sigma), of X alone, of X
    given Y and so on. Differences of scores, squared and added up over noise levels, are Kullback-Leibler divergences:
    KL(P || Q) = 1/2 integral g^2 E_P|grad log p_t - grad log q_t|^2 dt, with levels uniform in log sigma a plain mean.

    variant     `Conditional()` or `Joint()`: the paper's "c" and "j"
    difference  `DenoisingLoss()`, or the paper's `Inside()` and `Outside(deviation)` (its "sigma")
    start       `GaussianScores()`, or None for a network that starts from N(0, I) and independence
    folds       the rows are split, each part measured with a network trained on the others; whose early end it chose
    margins     a map of each coordinate: `NormalScores()` for information where None, `Standardised()` for entropy and KL
    passes      noisy copies of each held-out row, in pairs of opposite noise at stratified levels

    The standard error is that of held-out rows and noise levels. There is no interval: on forty public laws at n = 1,000 two
    standard errors either way held the truth on 17, since scores of heavy tails and in many dimensions are learned short.
    Time: `folds` trainings of `training.loop.steps` steps. Warns for fewer than 500 rows and for values that repeat (scores need
    densities). Raises ValueError for a constant column. Source: Franzese, Bounoua and Michiardi (2024).
    """

    variant: Variant = field(default_factory=Conditional)
    difference: ScoreDifference = field(default_factory=DenoisingLoss)
    network: ResidualMLP = field(default_factory=ResidualMLP)
    training: ScoreTraining = field(default_factory=ScoreTraining)
    schedule: NoiseSchedule = field(default_factory=VariancePreserving)
    levels: LogUniformLevels = field(default_factory=LogUniformLevels)
    start: GaussianScores | None = field(default_factory=GaussianScores)
    folds: int = 2
    margins: Margins | None = None
    passes: int = 40

    references = ("minde",)

    def __post_init__(self) -> None:
        """Check the options."""
        for name, kind in (("variant", Variant), ("difference", ScoreDifference), ("schedule", NoiseSchedule)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be a {kind.__name__} such as {_EXAMPLES[name]}, got {getattr(self, name)!r}")
        whole_number(self.folds, 2, "folds")
        whole_number(self.passes, 1, "passes")

    def fit(self, x: Any, y: Any, *, generator: torch.Generator | None = None) -> FittedMINDE:
        """Networks for paired rows x (n, d1), y (n, d2): `.mutual_information(x, y)` then measures on rows of your choice.

        A fifth of the rows ends the training.
        """
        left, right, _ = paired_rows(x, y)
        if left.ndim != 2:
            raise ValueError(f"x and y must be single samples (n, d), got a batch of shape {tuple(left.shape[:-2])}")
        source = generator_or_default(generator)
        margins = self._margins(left, right)
        order = torch.randperm(len(left), generator=source).to(left.device)
        rows = torch.cat([m(z.detach()).float() for m, z in zip(margins, (left, right), strict=True)], 1)
        cut = max(1, len(rows) // 5)
        blocks = (left.shape[1], right.shape[1])
        network, history = self._train(blocks, [rows[order[cut:]]], [rows[order[:cut]]], self.variant.views, source)
        return FittedMINDE(self, network, margins, blocks, history)

    def mutual_information(
        self, x: Tensor, y: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """I(X; Y) in nats from paired rows x (n, d1) and y (n, d2), each measured by a network not trained on it."""
        fraction(level, "level")
        source = generator_or_default(generator)
        margins = self._margins(x, y)
        rows = torch.cat([m(z.detach()).float() for m, z in zip(margins, (x, y), strict=True)], 1)
        blocks = (x.shape[1], y.shape[1])
        values = rows.new_zeros(len(rows), dtype=torch.float64)
        parts = torch.randperm(len(rows), generator=source).to(rows.device).tensor_split(self.folds)
        for test in parts:
            others = _rest(len(rows), test)
            network, _ = self._train(blocks, [rows[others]], [rows[test]], self.variant.views, source)
            values[test] = self._information(network, rows[test], blocks, source)
        return self._answer(values, f"MINDE, {self.variant!r}, {self.difference!r}, {self.folds} folds")

    def entropy(self, x: Tensor, *, level: float = 0.95, generator: torch.Generator | None = None) -> Estimate:
        """h(X) in nats relative to the units of x (n, d); `Outside().deviation` is that of the reference, one for the others.

        The data are standardised first, whatever `margins` says: only a linear map has a volume that one can add back.
        """
        fraction(level, "level")
        source = generator_or_default(generator)
        _require([x], ["x"], self.folds)
        fitted = Standardised().fit(x.detach())
        rows = fitted(x.detach()).float()
        view = View((True,), (False,))
        values = rows.new_zeros(len(rows), dtype=torch.float64)
        for test in torch.randperm(len(rows), generator=source).to(rows.device).tensor_split(self.folds):
            others = _rest(len(rows), test)
            network, _ = self._train((rows.shape[1],), [rows[others]], [rows[test]], (view,), source)
            apart = self._entropy_gap(network, rows[test], source)
            values[test] = reference_entropy(rows[test], self.difference.deviation, self.schedule).double() - apart
        volume = float(fitted.deviation.double().log().sum())
        return self._answer(values + volume, f"MINDE entropy, deviation {self.difference.deviation:g}, {self.folds} folds")

    def __call__(
        self, divergence: Divergence, x: Any, y: Any, *, level: float = 0.95, generator: torch.Generator | None = None
    ) -> Estimate:
        """KL(P || Q), or KL(Q || P), from x (n, d) of P and y (m, d) of Q, by one network with the law as its label."""
        fraction(level, "level")
        pair = sample_pair(x, y)
        if pair.batch:
            raise ValueError(
                f"x and y must be single samples (n, d), got a batch of shape {tuple(pair.batch)}: take each in turn"
            )
        if not isinstance(divergence, KL | ReverseKL):
            raise TypeError(f"differences of scores estimate KL() and ReverseKL(), got {divergence!r}")
        one, two = (pair.x, pair.y) if isinstance(divergence, KL) else (pair.y, pair.x)
        pooled = torch.cat([one, two]).detach()
        _require([one, two], ["x", "y"], self.folds)
        source = generator_or_default(generator)
        margins = (Standardised() if self.margins is None else self.margins).fit(pooled)
        samples = [margins(z.detach()).float() for z in (one, two)]
        views = (View((True,), (False,), 0), View((True,), (False,), 1))
        folds = [torch.randperm(len(z), generator=source).to(z.device).tensor_split(self.folds) for z in samples]
        values = samples[0].new_zeros(len(one), dtype=torch.float64)
        for k in range(self.folds):
            rows, held = [], []
            for z, parts in zip(samples, folds, strict=True):
                rows.append(z[_rest(len(z), parts[k])])
                held.append(z[parts[k]])
            network, _ = self._train((one.shape[1],), rows, held, views, source)

            def apart(noisy: Tensor, e: Tensor, clean: Tensor, sigma: Tensor, net: NoiseNetwork = network) -> Tensor:
                own, other = net.several([0, 1], [noisy, noisy], [clean, clean], [sigma, sigma])
                if isinstance(self.difference, DenoisingLoss):
                    return (other - e).square().sum(1) - (own - e).square().sum(1)
                return (own - other).square().sum(1)

            values[folds[0][k]] = self._integral(apart, held[0], source)
        return self._answer(values, f"MINDE of {divergence!r}, {self.folds} folds")

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _margins(self, x: Tensor, y: Tensor) -> tuple[FittedMargins, FittedMargins]:
        _require([x, y], ["x", "y"], self.folds)
        chosen = NormalScores() if self.margins is None else self.margins
        return chosen.fit(x.detach()), chosen.fit(y.detach())

    def _train(
        self,
        blocks: tuple[int, ...],
        rows: Sequence[Tensor],
        held: Sequence[Tensor],
        views: Sequence[View],
        source: torch.Generator,
    ) -> tuple[NoiseNetwork, dict[str, list[float]]]:
        guesses = None
        if self.start is not None:
            guesses = []
            index = torch.repeat_interleave(torch.arange(len(blocks)), torch.tensor(blocks)).to(rows[0].device)
            for view in views:
                own = rows[view.law]
                if len(blocks) == 2:
                    fitted = CanonicalGaussian.fit(own[:, : blocks[0]], own[:, blocks[0] :])
                    mean, covariance = torch.cat([fitted.mean_x, fitted.mean_y]), fitted.covariance
                else:
                    mean, covariance = moments(own, shrunken=len(own) < 2 * own.shape[1])
                diffused, given = (torch.tensor(m, device=index.device)[index] for m in (view.diffused, view.given))
                guesses.append(GaussianNoise.conditional(mean, covariance, diffused, given))
        network = NoiseNetwork(blocks, views, self.network, self.schedule, guesses, source).to(rows[0].device)
        return network, train_noise_network(network, rows, held, self.training, self.levels, source)

    def _integral(self, integrand: Any, rows: Tensor, source: torch.Generator) -> Tensor:
        """Half the integral over log sigma^2 for each row, by `passes` levels each; integrand(noisy, e, clean, sigma) -> (n,).

        Levels are stratified, a stratum a pair of passes; the second of a pair has the first's noise with its sign turned.
        """
        total = rows.new_zeros(len(rows), dtype=torch.float64)
        pairs = (self.passes + 1) // 2
        with torch.no_grad():
            for k in range(pairs):
                u = torch.rand(len(rows), generator=source, dtype=torch.float64, device=source.device).to(rows.device)
                sigma = self.levels.quantile((k + u) / pairs, self.schedule)
                noisy, e = perturb(rows, sigma, self.schedule, generator=source)
                level = sigma.to(rows.dtype)
                turned = noisy - 2 * (self.schedule.scale(level) * level)[:, None] * e
                total += integrand(noisy, e, rows, level).double() + integrand(turned, -e, rows, level).double()
        return total * self.levels.mass(self.schedule) / (4 * pairs)

    def _reference(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """The noise that N(0, deviation^2 I) would guess."""
        a, s = self.schedule.scale(sigma)[:, None], sigma[:, None]
        return (s / a) * noisy / (self.difference.deviation**2 + s.square())

    def _information(self, network: NoiseNetwork, rows: Tensor, blocks: tuple[int, ...], source: torch.Generator) -> Tensor:
        views = range(len(network.views))

        def integrand(noisy: Tensor, e: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
            guesses = network.several(views, [noisy] * len(views), [clean] * len(views), [sigma] * len(views))
            masks = [network.masks(k)[0] for k in views]
            reference = self._reference(noisy, sigma)
            return self.difference.integrand(self.variant, guesses, [e[:, m] for m in masks], [reference[:, m] for m in masks])

        return self._integral(integrand, rows, source)

    def _entropy_gap(self, network: NoiseNetwork, rows: Tensor, source: torch.Generator) -> Tensor:
        def integrand(noisy: Tensor, e: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
            guess, reference = network(0, noisy, clean, sigma), self._reference(noisy, sigma)
            if isinstance(self.difference, DenoisingLoss):
                return (reference - e).square().sum(1) - (guess - e).square().sum(1)
            return (guess - reference).square().sum(1)

        return self._integral(integrand, rows, source)

    def _answer(self, values: Tensor, method: str) -> Estimate:
        value, error = float(values.mean()), float(values.std()) / math.sqrt(len(values))
        name = f"{method}, {'Gaussian start' if self.start is not None else 'no start'}, {self.passes} passes"
        return Estimate(value, error, method=name, note=_NO_INTERVAL)


@dataclass(frozen=True)
class FittedMINDE:
    """Trained networks of `MINDE.fit`, with the record of their training in `history`."""

    options: MINDE
    network: NoiseNetwork
    margins: tuple[FittedMargins, FittedMargins]
    blocks: tuple[int, ...]
    history: dict[str, list[float]]

    def mutual_information(self, x: Any, y: Any, *, generator: torch.Generator | None = None) -> Estimate:
        """I(X; Y) measured on paired rows x (m, d1), y (m, d2), which should not be those of the training."""
        left, right, _ = paired_rows(x, y)
        got = (left.shape[-1], right.shape[-1])
        if left.ndim != 2 or got != self.blocks:
            raise ValueError(
                f"x and y must have {self.blocks[0]} and {self.blocks[1]} features as in fit, got {got[0]} and {got[1]}"
            )
        at_least(len(left), 2, "the number of rows")
        rows = torch.cat([m(z.detach()).float() for m, z in zip(self.margins, (left, right), strict=True)], 1)
        values = self.options._information(self.network, rows, self.blocks, generator_or_default(generator))
        return self.options._answer(values, f"MINDE, {self.options.variant!r}, {self.options.difference!r}")


def _rest(n: int, test: Tensor) -> Tensor:
    kept = torch.ones(n, dtype=torch.bool, device=test.device)
    kept[test] = False
    return kept.nonzero()[:, 0]


def _require(samples: Sequence[Tensor], names: Sequence[str], folds: int) -> None:
    """ValueError for constant columns and too few rows; warnings for few rows and for values that repeat."""
    for z, name in zip(samples, names, strict=True):
        n = len(z)
        if n < 10 * folds:
            raise ValueError(f"{name} has {n} rows: {folds} folds need {10 * folds} to train on some and measure on others")
        constant = (z.detach().amax(0) == z.detach().amin(0)).nonzero()[:, 0]
        if len(constant):
            raise ValueError(f"column {int(constant[0])} of {name} is constant and has no density: leave it out")
        if n < _SMALL:
            warnings.warn(f"{name} has {n} rows: scores learned from fewer than {_SMALL} are rough", UserWarning, stacklevel=4)
        fewest = min(len(torch.unique(column)) for column in z.detach().unbind(1))
        if fewest < n / 2:
            warnings.warn(
                f"a column of {name} has {fewest} different values in {n} rows: scores need densities; dequantise, or take the "
                "nearest-neighbour estimator of mixed data",
                UserWarning,
                stacklevel=4,
            )


_EXAMPLES = {"variant": "Conditional()", "difference": "DenoisingLoss()", "schedule": "VariancePreserving()"}

__all__ = ["MINDE", "FittedMINDE", "GaussianScores"]
