"""Cross-modal alignment by divergences between whole similarity distributions, for two modalities or many."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrepancy._kinds import Discrepancy
from discrepancy._results import Result
from discrepancy._validate import positive, require_finite
from discrepancy.divergences import Divergence, FDivergence, GeneralizedCauchySchwarz
from discrepancy.divergences.admission import Admission, Condition
from discrepancy.divergences.stacked import StackedDivergence
from discrepancy.learning import Training

ADMITS = Admission(
    "cross-modal alignment",
    kinds=(Divergence, StackedDivergence, Discrepancy),
    conditions=(
        Condition(
            "a value that is finite where the target has no mass (a generator with f(0) < inf)",
            lambda f: not isinstance(f, FDivergence) or f.at_zero < float("inf"),
        ),
    ),
    examples=("GeneralizedCauchySchwarz()", "KL()", "MMD()"),
)
_DEFAULT = GeneralizedCauchySchwarz()


class Scheme(enum.Enum):
    """Which similarity distributions are compared at once, P_ab being that of the items of b as seen from those of a.

    A stacked divergence takes each set together with the target; a divergence of two laws goes through a set one by one.
    """

    BIDIRECTIONAL = "all P_ab with a before b, and their transposes: two sets of m (m - 1) / 2"
    RING = "P_12, P_23, ..., P_m1, and their transposes: two sets of m (of one for m = 2), cheaper for m > 3"
    PAIRWISE = "each ordered pair by itself: m (m - 1) sets of one"

    def sets(self, m: int) -> list[list[tuple[int, int]]]:
        """The sets of ordered pairs among m modalities."""
        if self is Scheme.PAIRWISE:
            return [[pair] for pair in permutations(range(m), 2)]
        if self is Scheme.RING and m > 2:
            forward = [(k, (k + 1) % m) for k in range(m)]
        else:
            forward = list(combinations(range(m), 2))
        return [forward, [(b, a) for a, b in forward]]


@dataclass(frozen=True, repr=False)
class CrossModalTerms(Result):
    """One batch: the `loss`, and its part of each set, in the order of the scheme (of each pair for a `Discrepancy`)."""

    loss: Tensor
    parts: tuple[Tensor, ...]


class CrossModalLoss(nn.Module):
    """sum over sets of mean over rows i of D(T_i, P_ab,i, P_cd,i, ...) with P_ab,i = softmax_j(<z_a,i, z_b,j> / temperature).

    Embeddings z (B, d) of one batch of B items in m >= 2 modalities, scaled to unit length here. The target T_i (P, given)
    is uniform over the items of i's label, the item itself where no labels are given; the P_ab are trained.

    divergence: a stacked one (`GeneralizedCauchySchwarz()`, the paper's) sees the target and all laws of a set at once; a
    `Divergence` D(T || P_ab) is summed over the pairs of each set (`KL()` without labels is InfoNCE); a `Discrepancy` (MMD, a
    transport distance) compares the two clouds of each unordered pair and knows nothing of which item belongs to which. For two
    laws `GeneralizedCauchySchwarz()` is -log cos(T_i, P_ab,i), half of `CauchySchwarz()`.
    With a single match, set by set, it is -log of prod p at the match over prod |p|_N: with `KL()` only the match enters, here
    the other items too, through the norms.

    temperature: of the softmax; scheme: which laws are compared together. Everything is log-softmax and logsumexp: no temperature
    overflows. Duplicates in a batch need labels, else they count as negatives. Time and memory O(m^2 B^2).
    Raises TypeError for a divergence of another kind or, like `ReverseKL()`, infinite where T is 0 and P is not; ValueError for
    a temperature that is not positive, a single modality, different batch sizes or widths, a batch of one (whose loss is zero
    whatever the embeddings), a zero vector, labels of another length, and unknown names.
    Source: Zhang, Yin and Yu (2025, 2509.21339).
    """

    references: ClassVar[tuple[str, ...]] = ("cs-cross-modal",)

    def __init__(
        self,
        divergence: Divergence | StackedDivergence | Discrepancy = _DEFAULT,
        *,
        temperature: float = 0.05,
        scheme: Scheme = Scheme.BIDIRECTIONAL,
    ) -> None:
        """Check the options."""
        super().__init__()
        self.divergence = ADMITS.check(divergence)
        self.temperature = positive(temperature, "temperature")
        if not isinstance(scheme, Scheme):
            raise TypeError(f"scheme must be one of {list(Scheme)}, got {scheme!r}")
        self.scheme = scheme

    def forward(
        self, embeddings: Mapping[str, Tensor], labels: Any = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss of a batch, embeddings by the name of their modality; labels (B,) or None."""
        return self.terms(embeddings, labels, generator=generator).loss

    def terms(
        self, embeddings: Mapping[str, Tensor], labels: Any = None, *, generator: torch.Generator | None = None
    ) -> CrossModalTerms:
        """The loss with its parts."""
        units = _units(embeddings)
        target = _log_target(labels, units[0])
        if isinstance(self.divergence, Discrepancy):
            parts = [self.divergence(a, b, generator=generator) for a, b in combinations(units, 2)]
        else:
            logits = {
                (a, b): units[a] @ units[b].T / self.temperature for pairs in self.scheme.sets(len(units)) for a, b in pairs
            }
            parts = [self._set([logits[pair] for pair in pairs], target) for pairs in self.scheme.sets(len(units))]
        return CrossModalTerms(torch.stack(parts).sum(), tuple(parts))

    def _set(self, logits: list[Tensor], target: Tensor) -> Tensor:
        if isinstance(self.divergence, StackedDivergence):
            return self.divergence.from_logits(torch.stack([*logits, target], -2)).mean()
        assert isinstance(self.divergence, Divergence)
        return torch.stack([self.divergence.from_logits(target, u).mean() for u in logits]).sum()

    def extra_repr(self) -> str:
        """The options."""
        return f"divergence={self.divergence!r}, temperature={self.temperature:g}, scheme={self.scheme.name}"


def cross_modal_loss(
    embeddings: Mapping[str, Tensor],
    labels: Any = None,
    *,
    divergence: Divergence | StackedDivergence | Discrepancy = _DEFAULT,
    temperature: float = 0.05,
    scheme: Scheme = Scheme.BIDIRECTIONAL,
) -> Tensor:
    """The loss of `CrossModalLoss` as a function."""
    return CrossModalLoss(divergence, temperature=temperature, scheme=scheme)(embeddings, labels)


def _units(embeddings: Mapping[str, Tensor]) -> list[Tensor]:
    """The embeddings scaled to unit length, checked to be of one batch."""
    if not isinstance(embeddings, Mapping):
        raise TypeError(f"embeddings must be a mapping from names to tensors (B, d), got {type(embeddings).__name__}")
    if len(embeddings) < 2:
        raise ValueError(f"at least two modalities are needed to align, got {list(embeddings)}")
    first, shape = next((name, tuple(z.shape)) for name, z in embeddings.items())
    units = []
    for name, z in embeddings.items():
        if z.ndim != 2 or tuple(z.shape) != shape:
            raise ValueError(
                f"{first} has shape {shape} and {name} {tuple(z.shape)}: embeddings must all be (B, d) of one batch and width"
            )
        require_finite(z, name)
        size = z.norm(dim=-1, keepdim=True)
        if bool((size == 0).any()):
            row = int((size == 0).nonzero()[0, 0])
            raise ValueError(
                f"{name} has a zero vector in row {row}, which has no direction: end the encoder on a bias or a norm"
            )
        units.append(z / size)
    if shape[0] < 2:
        raise ValueError("a batch of one has nothing to be told from, its loss is zero: take at least two items")
    return units


def _log_target(labels: Any, like: Tensor) -> Tensor:
    """log T (B, B), -inf for items of other labels."""
    size = like.shape[0]
    if labels is None:
        same = torch.eye(size, dtype=torch.bool, device=like.device)
    else:
        given = torch.as_tensor(labels, device=like.device)
        if given.shape != (size,):
            raise ValueError(f"labels must have shape ({size},), one an item, got {tuple(given.shape)}")
        same = given[:, None] == given[None, :]
    return torch.where(same, 0.0, -torch.inf).to(like.dtype).log_softmax(-1)


class CrossModalAligner(nn.Module):
    """Encoders by name, trained together with a `CrossModalLoss` so that matching items point the same way.

    encoders: modules from a modality's batch to (B, d), the same d for all. `fit` trains them, `embed` gives unit vectors to be
    compared by cosine (`recall_at_k` and its like). Raises ValueError for fewer than two encoders and unknown names.
    """

    references: ClassVar[tuple[str, ...]] = ("cs-cross-modal",)

    def __init__(self, encoders: Mapping[str, nn.Module], loss: CrossModalLoss | None = None) -> None:
        """Wrap the encoders."""
        super().__init__()
        if len(encoders) < 2:
            raise ValueError(f"at least two modalities are needed to align, got {list(encoders)}")
        self.encoders = nn.ModuleDict(dict(encoders))
        self.loss = loss if loss is not None else CrossModalLoss()

    def fit(
        self,
        batches: Callable[[int], tuple[Mapping[str, Tensor], Any]] | Iterable[tuple[Mapping[str, Tensor], Any]],
        training: Training | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, list[float]]:
        """Train by `training` (default `Training()`); returns its record.

        batches: a function from the step to (inputs by name, labels or None), or an iterable of such pairs, begun again where it
        ends.
        """
        draw = batches if callable(batches) else _cycled(batches)

        def step(k: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            inputs, labels = draw(k)
            return self.loss({name: self._encoded(name, x) for name, x in inputs.items()}, labels, generator=generator), {}

        return (training or Training()).run(self.encoders.parameters(), step)

    def embed(self, name: str, x: Tensor) -> Tensor:
        """Unit vectors (n, d) of one modality, without gradients."""
        with torch.no_grad():
            return F.normalize(self._encoded(name, x), dim=-1)

    def _encoded(self, name: str, x: Tensor) -> Tensor:
        if name not in self.encoders:
            raise ValueError(f"there is no encoder for {name!r}; there are {', '.join(self.encoders)}")
        return self.encoders[name](x)


def _cycled(
    batches: Iterable[tuple[Mapping[str, Tensor], Any]],
) -> Callable[[int], tuple[Mapping[str, Tensor], Any]]:
    source = iter(batches)

    def draw(_: int) -> tuple[Mapping[str, Tensor], Any]:
        nonlocal source
        try:
            return next(source)
        except StopIteration:
            source = iter(batches)
        try:
            return next(source)
        except StopIteration:
            raise ValueError("batches is exhausted: give a loader that can be begun again, or a function of the step") from None

    return draw


__all__ = ["ADMITS", "CrossModalAligner", "CrossModalLoss", "CrossModalTerms", "Scheme", "cross_modal_loss"]
