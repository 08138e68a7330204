"""Any discrepancy between the symmetrised samples, by the cheapest form that is exactly that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._results import Estimate, Result, TransportResult
from discrepancy._validate import SamplePair, sample
from discrepancy.groups import Group
from discrepancy.groups.group import FiniteGroup, require_group
from discrepancy.kernel_methods import MMD
from discrepancy.kernel_methods.invariant_kernel import InvariantKernel
from discrepancy.linalg import root
from discrepancy.transport import OptimalTransport, Wasserstein
from discrepancy.transport.invariant_cost import InvariantCost


@dataclass(frozen=True)
class Invariant(Discrepancy):
    """D(S^G P, S^G Q): a discrepancy between the symmetrised samples, each point with all its images under the group G.

    For laws invariant under G it estimates the same D(P, Q) from m times as many points, as it were; for laws that are not, the
    distance of their symmetrised versions. `OptimalTransport` and `Wasserstein` become transport with `InvariantCost`, `MMD` gets
    an `InvariantKernel` (both equal to the augmented samples, without forming them: `Rotation` and `Permutation` work for
    transport); everything else is evaluated on both augmented samples, m times as large, which needs a finite group. A bandwidth
    or epsilon is chosen on the samples as they are (MMD) or augmented (the others).
    Source: Chen, Katsoulakis, Rey-Bellet and Zhu (2023), theorem 1.
    """

    D: Discrepancy
    group: Group
    claims: ClassVar[Claims] = Claims()
    references: ClassVar[tuple[str, ...]] = ("group-symmetry-divergences",)

    def __post_init__(self) -> None:
        """Raise TypeError for what is no discrepancy, no group, or a group too large for this discrepancy."""
        if not isinstance(self.D, Discrepancy):
            raise TypeError(f"D must be a Discrepancy such as Wasserstein(1), got {self.D!r}")
        D, group = self.D, self.group
        require_group(group)
        inner, order = D, 1.0
        if type(D) is OptimalTransport:
            inner = replace(D, cost=InvariantCost(group, D.cost))
        elif type(D) is Wasserstein and D.p != float("inf"):
            inner, order = replace(D.transport, cost=InvariantCost(group, D.transport.cost)), D.p
        elif type(D) is MMD:
            require_group(group, finite=True)
            inner = replace(D, kernel=InvariantKernel(group, D.kernel))  # type: ignore[arg-type]
        else:
            require_group(group, finite=True)
            if not group.closed:  # type: ignore[union-attr]
                raise TypeError(f"symmetrising needs a whole group, and {group!r} holds some of its elements only")
        claims = inner.claims if order == 1.0 and inner is not D else replace(D.claims, translation_invariant=False)
        object.__setattr__(self, "claims", claims)
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "_order", order)

    @property
    def inner(self) -> Discrepancy:
        """What is evaluated: transport with an invariant cost, MMD with an invariant kernel, or D itself on augmented samples."""
        return self.__dict__["_inner"]

    @property
    def _augments(self) -> bool:
        return self.inner is self.D

    def _augmented(self, pair: SamplePair) -> SamplePair:
        group = self.group
        assert isinstance(group, FiniteGroup)
        group.check(pair.x.shape[-1])
        m = group.order
        a, b = (torch.cat([w / m] * m, -1) for w in (pair.a, pair.b))
        return replace(pair, x=group.augmented(pair.x), y=group.augmented(pair.y), a=a, b=b)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        if self._augments:
            return self.D._value(self._augmented(pair), generator)
        self.group.check(pair.x.shape[-1])
        return root(self.inner._value(pair, generator), self.__dict__["_order"])

    def solve(
        self, x: Any, y: Any, a: Any = None, b: Any = None, *, generator: torch.Generator | None = None
    ) -> Estimate | TransportResult | Result:
        """What `inner` tells (a plan between orbits, a bandwidth, a standard error), of the augmented samples where it is D."""
        if self._augments:
            pair = self._augmented(self._checked(x, y, a, b))
            return self.D.solve(pair.x, pair.y, pair.a, pair.b, generator=generator)
        found = self.inner.solve(x, y, a, b, generator=generator)
        if self.__dict__["_order"] == 1.0 or not isinstance(found, TransportResult):
            return found
        return replace(found, value=root(found.value, self.__dict__["_order"]))  # type: ignore[arg-type]

    def resolved(self, x: Any, y: Any, a: Any = None, b: Any = None) -> Discrepancy:
        """With what D chooses from the data fixed."""
        if self._augments:
            pair = self._augmented(self._checked(x, y, a, b))
            return Invariant(self.D.resolved(pair.x, pair.y, pair.a, pair.b), self.group)
        if type(self.D) is MMD:
            kernel = self.inner.resolved(x, y, a, b).kernel  # type: ignore[attr-defined]
            return Invariant(replace(self.D, kernel=kernel.base), self.group)
        return self

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """The statistic of two weightings of one cloud, every point's weight shared by its images."""
        cloud = sample(z, "z").detach()
        self.group.check(cloud.shape[-1], "z")
        if not self._augments:
            inner, order = self.inner.pooled(cloud, generator=generator), self.__dict__["_order"]
            return torch.no_grad()(lambda A, B: root(inner(A, B), order).to(cloud.dtype))
        group = self.group
        assert isinstance(group, FiniteGroup)
        statistic, m = self.D.pooled(group.augmented(cloud), generator=generator), group.order
        return torch.no_grad()(lambda A, B: statistic(torch.cat([A / m] * m, -1), torch.cat([B / m] * m, -1)))


__all__ = ["Invariant"]
