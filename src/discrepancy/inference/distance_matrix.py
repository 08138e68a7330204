"""All distances among several samples."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy._results import Result
from discrepancy._validate import as_tensor, generator_or_default, sample, weights


@dataclass(frozen=True, repr=False)
class PairwiseResult(Result):
    """The matrix D(sample_i, sample_j), (K, K), with the samples' labels; row is the first argument of D."""

    matrix: Tensor
    labels: tuple[str, ...]
    method: str = field(default="")

    def between(self, first: str, second: str) -> float:
        """The value for two labels; ValueError lists the labels there are."""
        for label in (first, second):
            if label not in self.labels:
                raise ValueError(f"unknown label {label!r}; known are {', '.join(self.labels)}")
        return float(self.matrix[self.labels.index(first), self.labels.index(second)])


def pairwise(
    samples: Sequence[Any] | Mapping[str, Any],
    D: Discrepancy,
    *,
    sample_weights: Sequence[Any] | None = None,
    labels: Sequence[str] | None = None,
    generator: torch.Generator | None = None,
) -> PairwiseResult:
    """The matrix of D over K samples of one space, on one scale.

    Whatever D chooses from the data (a bandwidth) is chosen once, on all samples together, and whatever it draws is drawn
    once, so that the entries can be compared. A symmetric D is evaluated once a pair. The diagonal is 0 where D is zero at
    equality or an unbiased estimate of something that is, else D(sample, sample).

    samples: K arrays (n_k, d), or a mapping from label to array; sample_weights: K weight vectors (n_k,) or None for equal
    ones; labels default to "0", "1", ... Returns the values without gradients. K (K - 1) / 2 evaluations of D (twice as
    many if it is not symmetric). Raises TypeError if D is no Discrepancy, ValueError for samples that do not fit together.
    """
    if not isinstance(D, Discrepancy):
        raise TypeError(f"D must be a Discrepancy such as MMD() or EnergyDistance(), got {type(D).__name__}")
    if isinstance(samples, Mapping):
        if labels is not None:
            raise ValueError("labels come with the mapping: leave labels out")
        labels, samples = [str(k) for k in samples], list(samples.values())
    if len(samples) == 0:
        raise ValueError("samples is empty: give at least one sample")
    count = len(samples)
    names = tuple(str(i) for i in range(count)) if labels is None else tuple(map(str, labels))
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"labels must be {count} different names, one for each sample, got {list(names)}")
    given = [None] * count if sample_weights is None else list(sample_weights)
    if len(given) != count:
        raise ValueError(f"sample_weights must have one entry for each of the {count} samples, got {len(given)}")
    clouds = [sample(as_tensor(s, f"samples[{i}]"), f"samples[{i}]").detach() for i, s in enumerate(samples)]
    for i, cloud in enumerate(clouds):
        if cloud.ndim != 2 or cloud.shape[-1] != clouds[0].shape[-1]:
            raise ValueError(
                f"samples[{i}] has shape {tuple(cloud.shape)} and samples[0] {tuple(clouds[0].shape)}: "
                "all must be (n, d) with the same d"
            )
    dtype = _common(clouds)
    clouds = [c.to(dtype) for c in clouds]
    w = [weights(g, c.shape[:-1], f"sample_weights[{i}]", like=c).detach() for i, (g, c) in enumerate(zip(given, clouds))]
    gen = generator_or_default(generator, clouds[0].device)
    seed = int(torch.randint(0, 2**63 - 1, (1,), generator=gen, device=gen.device)) if D.claims.random else 0

    fixed = D
    if count > 1:
        rows = torch.tensor([float(len(c)) for c in clouds[1:]], dtype=dtype, device=clouds[0].device)
        rest = torch.cat([share * v for share, v in zip(rows / rows.sum(), w[1:], strict=True)])
        fixed = D.resolved(clouds[0], torch.cat(clouds[1:]), w[0], rest / rest.sum())

    def value(i: int, j: int) -> Tensor:
        drawn = torch.Generator(device=clouds[i].device).manual_seed(seed) if D.claims.random else None
        equal = given[i] is None and given[j] is None  # keeps the shortcuts for equal weights open
        return fixed(clouds[i], clouds[j], None if equal else w[i], None if equal else w[j], generator=drawn)

    matrix = torch.zeros(count, count, dtype=dtype, device=clouds[0].device)
    with torch.no_grad():
        if D.claims.non_negative and not D.claims.zero_at_equality:
            for i in range(count):
                matrix[i, i] = value(i, i)
        pairs = itertools.combinations(range(count), 2) if D.claims.symmetric else itertools.permutations(range(count), 2)
        for i, j in pairs:
            matrix[i, j] = value(i, j)
            if D.claims.symmetric:
                matrix[j, i] = matrix[i, j]
    return PairwiseResult(matrix, names, method=repr(fixed))


def _common(clouds: Sequence[Tensor]) -> torch.dtype:
    dtype = clouds[0].dtype
    for cloud in clouds[1:]:
        dtype = torch.promote_types(dtype, cloud.dtype)
    return dtype
