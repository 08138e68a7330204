"""One network for several modalities that works with any of them missing: all subsets are trained, the full set teaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy._results import Result
from discrepancy._validate import at_least, generator_or_default, whole_number
from discrepancy.divergences import Divergence, Hoelder
from discrepancy.divergences.admission import Admission
from discrepancy.learning import Training
from discrepancy.methods.representation.variational_transfer import VariationalTransfer

ADMITS = Admission("training with missing modalities", examples=("Hoelder()", "KL()", "JensenShannon()"))

Modalities = Tensor | Sequence[Tensor | None]


def nonempty_subsets(modalities: int) -> Tensor:
    """All 2^M - 1 non-empty subsets of M modalities as boolean rows (2^M - 1, M), the full set last."""
    codes = torch.arange(1, 2 ** whole_number(modalities, 1, "modalities"))
    return ((codes[:, None] >> torch.arange(modalities)) & 1).bool()


class MissingModalityModel(nn.Module):
    """The average of the logits that a backbone gives to each modality that is there.

    backbone(x_m, m) -> (logits (B, C, ...), features (B, F, ...)), a module such as `SharedBackbone` or `UNetBackbone`; the
    shapes of logits and features must be the same for all modalities. Raises ValueError for fewer than one modality.
    """

    references: ClassVar[tuple[str, ...]] = ("holder-divergence",)

    def __init__(self, backbone: nn.Module, modalities: int) -> None:
        super().__init__()
        self.backbone, self.modalities = backbone, whole_number(modalities, 1, "modalities")

    def outputs(self, x: Modalities, available: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Logits (A, B, C, ...) and features (A, B, F, ...) of the A available modalities, in the order given.

        x: a tensor (B, M, ...), or a sequence of M tensors (B, ...) whose shapes may differ, None where one is missing. What is
        not available is not looked at. Raises ValueError for no modality, an unknown or repeated one, one that is not there,
        and other numbers of modalities.
        """
        parts = self._parts(x)
        chosen = range(self.modalities) if available is None else [self._index(m) for m in available]
        if len(chosen) == 0:
            raise ValueError("available is empty: at least one modality is needed")
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"available names a modality twice: {list(chosen)}")
        found = []
        for m in chosen:
            part = parts[m]
            if part is None:
                raise ValueError(f"modality {m} is None: name those that are there, available={_present(parts)}")
            found.append(self.backbone(part, m))
        return torch.stack([logits for logits, _ in found]), torch.stack([features for _, features in found])

    def forward(self, x: Modalities, available: Sequence[int] | None = None) -> Tensor:
        """The mean logits (B, C, ...) over the available modalities; all of them where `available` is omitted."""
        return self.outputs(x, available)[0].mean(0)

    @torch.no_grad()
    def predict(self, x: Modalities, available: Sequence[int] | None = None) -> Tensor:
        """`forward` in evaluation mode and without gradients; the mode is restored."""
        training = self.training
        self.eval()
        try:
            return self(x, available)
        finally:
            self.train(training)

    def _parts(self, x: Modalities) -> Sequence[Tensor | None]:
        if isinstance(x, Tensor):
            if x.ndim < 2 or x.shape[1] != self.modalities:
                raise ValueError(f"x must have shape (B, {self.modalities}, ...), got {tuple(x.shape)}")
            return x.unbind(1)
        if len(x) != self.modalities:
            raise ValueError(f"x must hold {self.modalities} modalities, None for a missing one, got {len(x)}")
        return x

    def _index(self, m: Any) -> int:
        if isinstance(m, bool) or not isinstance(m, int) or not 0 <= m < self.modalities:
            raise ValueError(f"modalities are numbered 0 to {self.modalities - 1}, got {m!r}")
        return m


def _present(parts: Sequence[Tensor | None]) -> list[int]:
    return [m for m, part in enumerate(parts) if part is not None]


@dataclass(frozen=True, repr=False)
class SubsetTerms(Result):
    """The terms of a batch, each averaged over subsets: `loss` in all, `supervised`, `divergence`, `transfer`."""

    loss: Tensor
    supervised: Tensor
    divergence: Tensor
    transfer: Tensor


@dataclass(frozen=True)
class SubsetTraining:
    """Trains a `MissingModalityModel` on every subset S of its modalities, with the full set as the teacher.

    The loss is the mean over subsets of
        loss(l_S, y) + divergence_weight D(P || Q_S) + transfer_weight T(f_S, f_full),
    l_S and f_S the means of logits and features over S, P = softmax(l_full), given and without gradient, Q_S = softmax(l_S)
    along dimension 1, and T a `VariationalTransfer`, trained with the network. divergence: any `Divergence`; None leaves the
    term out, as the paper does, whose divergence is inside the segmentation loss (`SegmentationLoss`). To bring predictions
    together take `Hoelder` and not `HoelderPseudo`, which is smallest at a sharpened P (its docstring). loss(logits, y) ->
    number: cross-entropy by default. subsets: how many to draw a step, the full set always among them; None takes all 2^M - 1.
    Sums of logits are shared by subsets: a step costs M passes of the backbone.

    Deviations from the paper: the mean over subsets instead of the sum, which would scale the learning rate with 2^M; no
    gradient into f_full; the transfer's parameters are in the optimiser.
    Raises TypeError for what is no divergence, ValueError for options out of range.
    """

    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    divergence: Divergence | None = field(default_factory=Hoelder)
    divergence_weight: float = 1.0
    transfer_weight: float = 1.0
    subsets: int | None = None
    batch_size: int = 64
    training: Training = field(default_factory=Training)

    references = ("holder-divergence", "nielsen-sun-marchand-maillet-2017", "ahn-2019")

    def __post_init__(self) -> None:
        """Check the options."""
        if self.divergence is not None:
            ADMITS.check(self.divergence)
        if not callable(self.loss):
            raise TypeError(f"loss must be callable as loss(logits, y), got {self.loss!r}")
        at_least(self.divergence_weight, 0, "divergence_weight")
        at_least(self.transfer_weight, 0, "transfer_weight")
        whole_number(self.batch_size, 1, "batch_size")
        if self.subsets is not None:
            whole_number(self.subsets, 1, "subsets")

    def terms(
        self,
        model: MissingModalityModel,
        x: Modalities,
        y: Tensor,
        transfer: VariationalTransfer | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> SubsetTerms:
        """The terms of one batch, differentiable. Raises as `MissingModalityModel.outputs`, which needs all modalities here."""
        logits, features = model.outputs(x)
        share = self._shares(model.modalities, generator).to(logits)
        averaged, deep = torch.tensordot(share, logits, 1), torch.tensordot(share, features, 1)
        zero = averaged.new_zeros(())
        supervised = torch.stack([self.loss(one, y) for one in averaged]).mean()
        divergence = moved = zero
        if self.divergence is not None and self.divergence_weight > 0:
            divergence = self.divergence.from_logits(averaged[-1].detach().expand_as(averaged), averaged, dim=2).mean()
        if transfer is not None and self.transfer_weight > 0:
            # All subsets in one batch: they are of one size, so that the mean is the mean of their means.
            moved = transfer(deep.flatten(0, 1), deep[-1].expand_as(deep).flatten(0, 1))
        loss = supervised + self.divergence_weight * divergence + self.transfer_weight * moved
        return SubsetTerms(loss, supervised, divergence, moved)

    def fit(
        self,
        model: MissingModalityModel,
        x: Modalities,
        y: Tensor,
        transfer: VariationalTransfer | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, list[float]]:
        """Train on x (n, M, ...) (or M tensors (n, ...)) and y (n, ...); returns the record of the terms.

        Batches are drawn without replacement within each pass. Raises ValueError for sizes that do not match, NumericalError
        for a loss that is not finite.
        """
        parts = x.unbind(1) if isinstance(x, Tensor) and x.ndim > 1 else x
        sizes = {len(part) for part in parts if part is not None} | {len(y)}
        if len(sizes) != 1:
            raise ValueError(f"x and y must have the same number of rows, got {sorted(sizes)}")
        n, source = sizes.pop(), generator_or_default(generator)
        batches = _batches(n, min(self.batch_size, n), source)

        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            rows = next(batches)
            chosen = [None if part is None else part[rows] for part in parts]
            found = self.terms(model, chosen, y[rows], transfer, generator=source)
            return found.loss, {
                "supervised": found.supervised.detach(),
                "divergence": found.divergence.detach(),
                "transfer": found.transfer.detach(),
            }

        model.train()
        weights = [*model.parameters(), *(transfer.parameters() if transfer is not None else ())]
        return self.training.run(weights, step)

    def _shares(self, modalities: int, generator: torch.Generator | None) -> Tensor:
        """Rows (S, M) that average over a subset, the full set last."""
        every = nonempty_subsets(modalities)
        if self.subsets is not None and self.subsets < len(every):
            drawn = torch.randperm(len(every) - 1, generator=generator_or_default(generator))[: self.subsets - 1]
            every = torch.cat([every[drawn], every[-1:]])
        member = every.double()
        return member / member.sum(1, keepdim=True)


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(n, generator=generator)
        yield from order[: n - n % size].split(size)


__all__ = ["ADMITS", "MissingModalityModel", "SubsetTerms", "SubsetTraining", "nonempty_subsets"]
