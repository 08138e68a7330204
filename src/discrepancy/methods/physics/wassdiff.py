"""Diffusion models whose one-step denoised fields must have the right distribution of values: for heavy tails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._kinds import Discrepancy
from discrepancy._results import Result
from discrepancy._validate import as_tensor, generator_or_default, whole_number
from discrepancy.dynamics import NoiseLevels, NoiseSchedule, PredictorCorrector, Sampler, VarianceExploding, Weighting
from discrepancy.dynamics.denoising import Score, clean_fields, denoising_score_matching
from discrepancy.learning import ExponentialAverage, Training
from discrepancy.methods.physics.field_axes import AllLevels, FieldAxis, NoiseRelevance, Pixels


@dataclass(frozen=True, repr=False)
class RegularizedLoss(Result):
    """`loss` = (1 - weight) `score` + weight `distribution`, all scalars; the last is None where the weight is zero."""

    loss: Tensor
    score: Tensor
    distribution: Tensor | None


class DistributionRegularizedScoreMatching(nn.Module):
    """Denoising score matching with a distance between the laws of denoised and true values added.

    loss = (1 - weight) E mean_pixels (a sigma s + e)^2 + weight E[relevance(sigma) D(law(yhat), law(y0))], where yhat = (y + (a
    sigma)^2 s) / a is the one-step denoised field, through which gradients flow. The score term alone makes fields whose extremes
    are too weak; the second one asks for the right values, wherever they lie.

    P is the law of the data, Q that of the denoised fields, and D is called as D(yhat, y0).
      score         s(y (B, C, ...), sigma (B,), condition) -> shape of y; a module's weights become this module's
      schedule      where omitted that of the score if it has one, else `VarianceExploding()`
      discrepancy   any `Discrepancy`; None takes the axis's own (W_1 for pixels, sliced W_1 for whole fields)
      axis          what is a sample: `Pixels()`, `Patches()`, `BatchOfFields()` (the paper's program)
      relevance     at which noise levels it counts: `AllLevels()` (the paper), `BelowLevel(0.5)`, `InverseNoise()`
      condition_dropout   the share of fields whose condition is set to zero in training, for `GuidedScore`
      lower         values of valid data below it are refused (rain: 0); None for fields that may be negative

    Under Adam the factor 1 - weight of the score term changes nothing but the ratio weight / (1 - weight) of the two terms.
    Deviations from the paper: the default axis is the pixel, which is what its text describes; its program compares batches.
    Raises ValueError for a weight outside [0, 1] and other options out of range, TypeError for what is no Discrepancy.
    A call costs one evaluation of the score and one of D. Source: Liu et al. (2025).
    """

    references: ClassVar[tuple[str, ...]] = ("wassdiff",)

    def __init__(
        self,
        score: Score,
        schedule: NoiseSchedule | None = None,
        *,
        weight: float = 0.2,
        discrepancy: Discrepancy | None = None,
        axis: FieldAxis | None = None,
        relevance: NoiseRelevance | None = None,
        weighting: Weighting | None = None,
        levels: NoiseLevels | None = None,
        condition_dropout: float = 0.0,
        lower: float | None = 0.0,
    ) -> None:
        """Check the options and keep the score."""
        super().__init__()
        for name, value in (("weight", weight), ("condition_dropout", condition_dropout)):
            if not 0 <= float(value) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value!r}")
        self.axis = axis if axis is not None else Pixels()
        if not isinstance(self.axis, FieldAxis):
            raise TypeError(f"axis must be an object such as Pixels() or BatchOfFields(), got {axis!r}")
        self.discrepancy = self.axis.default() if discrepancy is None else discrepancy
        if not isinstance(self.discrepancy, Discrepancy):
            raise TypeError(f"discrepancy must be an object such as Wasserstein(1) or EnergyDistance(), got {discrepancy!r}")
        self.score = score
        own = getattr(score, "schedule", None)
        self.schedule = schedule if schedule is not None else own if isinstance(own, NoiseSchedule) else VarianceExploding()
        if isinstance(own, NoiseSchedule) and own != self.schedule:
            raise ValueError(f"the score was built for {own!r} and schedule is {self.schedule!r}: give both the same")
        self.relevance = relevance if relevance is not None else AllLevels()
        if not isinstance(self.relevance, NoiseRelevance):
            raise TypeError(f"relevance must be an object such as BelowLevel(0.5), got {relevance!r}")
        self.weighting, self.levels = weighting, levels
        self.weight, self.condition_dropout, self.lower = float(weight), float(condition_dropout), lower

    def _condition(self, condition: Any, shape: torch.Size, like: Tensor) -> Tensor | None:
        if condition is None:
            return None
        given = as_tensor(condition, "condition").to(like.dtype)
        if given.shape[0] != shape[0] or given.shape[2:] != shape[2:]:
            raise ValueError(
                f"condition of shape {tuple(given.shape)} must have the batch and the spatial size of the fields {tuple(shape)}: "
                "interpolate it to their grid"
            )
        return given

    def forward(
        self, y0: Any, condition: Any = None, *, mask: Any = None, generator: torch.Generator | None = None
    ) -> RegularizedLoss:
        """The loss at fields y0 (B, C, ...) under a condition (B, K, ...) on the same grid.

        mask (broadcast to y0), True where a value is valid; masked values enter neither term and may be anything. Raises
        ValueError for non-finite values or values below `lower` that are not masked, and shapes that do not fit.
        """
        fields, valid = clean_fields(y0, mask)
        if fields.ndim < 3:
            raise ValueError(f"y0 must have shape (B, C, ...), got {tuple(fields.shape)}")
        if self.lower is not None:
            bad = fields.detach() < self.lower
            if valid is not None:
                bad &= valid
            if bool(bad.any()):
                where = tuple(int(i) for i in bad.nonzero()[0])
                raise ValueError(
                    f"y0 has {int(bad.sum())} value(s) below {self.lower:g}, the first {float(fields[where]):.6g} at {where}: "
                    "if they mark missing cells, pass mask=; if fields may be negative, build with lower=None"
                )
        given = self._condition(condition, fields.shape, fields)
        if given is not None and self.condition_dropout > 0:
            source = generator_or_default(generator, fields.device)
            kept = torch.rand(fields.shape[0], generator=source, device=source.device).to(fields.device) >= self.condition_dropout
            given = given * kept.to(given.dtype).reshape(-1, *[1] * (given.ndim - 1))
        matched = denoising_score_matching(
            self.score,
            fields,
            self.schedule,
            given,
            weighting=self.weighting,
            levels=self.levels,
            mask=valid,
            generator=generator,
        )
        if self.weight == 0:
            return RegularizedLoss(matched.loss, matched.loss.detach(), None)
        term = self.axis.compare(
            matched.denoised,
            fields,
            self.discrepancy,
            valid,
            self.relevance.at(matched.sigma),
            generator if self.discrepancy.claims.random else None,
        )
        loss = (1 - self.weight) * matched.loss + self.weight * term
        return RegularizedLoss(loss, matched.loss.detach(), term.detach())

    def fit(
        self,
        y0: Any,
        condition: Any = None,
        *,
        mask: Any = None,
        training: Training | None = None,
        batch_size: int = 32,
        average: float | None = 0.999,
        generator: torch.Generator | None = None,
    ) -> dict[str, list[float]]:
        """Train on fields y0 (n, C, ...) with their conditions, on random batches; returns the record of both terms.

        training: the loop's options (default 1000 steps, rate 2e-4, 100 of warm-up, gradients clipped at 1, as in the paper apart
        from the number of steps); average: the decay of the moving average that the weights are set to at the end (None: the
        last weights). Raises TypeError where the score is no module, NumericalError naming the step where the loss ends to be
        finite.
        """
        if not isinstance(self.score, nn.Module):
            raise TypeError("fit trains the score's weights: the score must be a torch module")
        fields, valid = clean_fields(y0, mask)
        given = self._condition(condition, fields.shape, fields)
        source = generator_or_default(generator, fields.device)
        loop = training or Training(learning_rate=2e-4, warm_up=100, gradient_clip=1.0)
        weights = ExponentialAverage(self.score, average) if average is not None else None

        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            pick = torch.randperm(fields.shape[0], generator=source, device=source.device)[:batch_size].to(fields.device)
            found = self(
                fields[pick],
                None if given is None else given[pick],
                mask=None if valid is None else valid[pick],
                generator=generator,
            )
            terms: dict[str, Tensor | float] = {"score": found.score}
            if found.distribution is not None:
                terms["distribution"] = found.distribution
            return found.loss, terms

        history = loop.run(self.score.parameters(), step, after=None if weights is None else lambda _: weights.update())
        if weights is not None:
            weights.keep()
        return history

    def sample(
        self,
        condition: Tensor,
        members: int = 16,
        *,
        channels: int = 1,
        sampler: Sampler | None = None,
        batch_size: int = 256,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """An ensemble (members, B, channels, H, W) for conditions (B, K, H, W), `batch_size` fields at a time.

        sampler: default `PredictorCorrector()`, a thousand levels as in the paper. Values may fall slightly below `lower`. Work:
        members times B times the sampler's evaluations of the score.
        """
        whole_number(members, 1, "members")
        given = as_tensor(condition, "condition")
        draw = sampler or PredictorCorrector()
        repeated = given.repeat(members, *[1] * (given.ndim - 1))
        fields = [
            draw.draw(self.score, (part.shape[0], channels, *part.shape[2:]), self.schedule, part, generator=generator)
            for part in repeated.split(batch_size)
        ]
        return torch.cat(fields).reshape(members, given.shape[0], channels, *given.shape[2:])


__all__ = ["DistributionRegularizedScoreMatching", "RegularizedLoss"]
