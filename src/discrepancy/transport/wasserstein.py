"""The Wasserstein distance between samples on the line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import Estimate
from discrepancy._validate import SamplePair, sample
from discrepancy.linalg import root
from discrepancy.transport.line import line_cost
from discrepancy.transport.pooled_line import PooledLines


def check_order(p: float) -> float:
    """The order of a Wasserstein distance: a number p >= 1, infinity included, or ValueError."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not p >= 1:
        raise ValueError(f"p must be a number of at least 1 (math.inf is allowed), got {p!r}")
    return p


@dataclass(frozen=True)
class Wasserstein(Discrepancy):
    """The metric W_p between weighted samples on the line: W_p^p = int_0^1 |F^-1(t) - G^-1(t)|^p dt; W_inf is the largest gap.

    x (..., n) or (..., n, 1), y likewise; sizes and weights may differ. In units of x. W_1 is the area between the
    distribution functions. As a plug-in estimate of the distance between the laws it is biased upward by O(n^-1/2) near
    equality (p = 1). Gradients in points and weights come from the same sort; at a tie the midpoint of the subdifferential
    is taken, at W_p = 0 zero. Raises ValueError for samples of more than one feature. n log n time, linear memory. Source:
    Vallender (1974); Peyre and Cuturi (2019), section 2.6.
    """

    p: float = 1
    claims: ClassVar[Claims] = Claims(metric=True, degree=1.0, norm_power=1, dimension=1)
    references: ClassVar[tuple[str, ...]] = ("vallender-1974", "peyre-cuturi-2019")

    def __post_init__(self) -> None:
        """Raise ValueError unless p >= 1; W_p is a norm of F - G for p = 1 only."""
        check_order(self.p)
        claims = Claims(metric=True, degree=1.0, norm_power=1 if self.p == 1 else None, dimension=1)
        object.__setattr__(self, "claims", claims)

    def _checked(self, x: Any, y: Any, a: Any, b: Any) -> SamplePair:
        try:
            return super()._checked(x, y, a, b)
        except ValueError as error:
            if "dimension(s)" not in str(error):
                raise
            raise ValueError(
                f"{error}: W_p of samples with several features needs a solver; take SlicedWasserstein or SinkhornDivergence"
            ) from None

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """W_p over the batch."""
        u, v = (t.squeeze(-1).reshape(-1, t.shape[-2]) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        cost = line_cost(u, v, a, b, self.p, equal_a=pair.uniform_a, equal_b=pair.uniform_b)
        return root(cost, self.p).to(pair.x.dtype).reshape(pair.batch)

    def solve(self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None) -> Estimate:
        """The value as an `Estimate`, exact for these samples (standard error 0); `bootstrap` gives the sampling error."""
        value = self(x, y, a, b, generator=generator)
        return Estimate(value, standard_error=0.0, method=f"{self!r}: quantile coupling", note="exact for the given samples")

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """One sort of z; each pair of weight rows then costs one pass over it. For p = 1 rows may be signed."""
        cloud = sample(z, "z")
        if cloud.ndim != 2 or cloud.shape[-1] != 1:
            raise ValueError(f"Wasserstein takes samples in 1 dimension(s), got z of shape {tuple(cloud.shape)}")
        lines = PooledLines(cloud.mT, self.p)

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            return root(lines(A, B)[:, 0], self.p).to(cloud.dtype)

        return torch.no_grad()(statistic)


__all__ = ["Wasserstein", "check_order"]
