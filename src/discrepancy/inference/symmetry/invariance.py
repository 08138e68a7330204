"""Is a law symmetric? The randomisation test of invariance under a group."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy._results import NumericalError, TestResult
from discrepancy._validate import generator_or_default, sample, whole_number
from discrepancy.groups import Group
from discrepancy.groups.group import FiniteGroup, require_group
from discrepancy.inference.montecarlo import clopper_pearson, monte_carlo_p
from discrepancy.inference.permutation import rows_within
from discrepancy.kernel_methods import MMD

_TIE = {torch.float32: 1e-5, torch.float64: 1e-9}  # relative, as in the permutation test
_DEFAULT = MMD(biased=True)


def invariance_test(
    x: object,
    group: Group,
    D: Discrepancy = _DEFAULT,
    *,
    permutations: int = 999,
    images: int = 8,
    generator: torch.Generator | None = None,
    memory: float = 1.0,
) -> TestResult:
    """Test whether the law of x is invariant under the group, by moving every row at random within its orbit; large D rejects.

    The statistic is D between the sample and the sample of all images. Under invariance each row is a uniform draw from its own
    orbit, whatever the orbit, so that replacing it by another image, independently a row, changes no law: the p-value (1 + #{D*
    >= D}) / (R + 1) is exact at every sample size. A group of up to `images` elements is used whole; of a larger or infinite one
    `images` - 1 random images a row stand for the orbit, which keeps the test exact.

    x (n, d); D any discrepancy, by default the MMD, which sees every departure as n grows; a small p-value means that invariant
    costs and kernels would compare symmetrised laws instead of the laws. `p_low`, `p_high`: 99.9 % interval of p over the draws.
    Memory and time: those of `D.pooled` on min(order, images) n points and R evaluations.
    Raises TypeError if D or group is none, ValueError for a sample of other dimension or arguments out of range.
    Source: Chen, Katsoulakis, Rey-Bellet and Zhu (2023); the randomisation test: Hoeffding (1952).
    """
    require_group(group)
    if not isinstance(D, Discrepancy):
        raise TypeError(f"D must be a Discrepancy such as MMD(biased=True), got {D!r}")
    whole_number(permutations, 1, "permutations")
    whole_number(images, 2, "images")
    points = sample(x).detach()
    if points.ndim != 2:
        raise ValueError(f"x must be one sample (n, d), got shape {tuple(points.shape)}")
    group.check(points.shape[-1])
    source = generator_or_default(generator, points.device)
    whole = isinstance(group, FiniteGroup) and group.closed and group.order <= images
    orbits = _orbits(points, group, images, whole, source)
    n, m = len(points), len(orbits)
    if m < 2:
        raise ValueError(f"{group!r} holds the identity only: every law is invariant under it")
    statistic = D.pooled(orbits.flatten(0, 1), generator=source)
    rng = np.random.default_rng(int(torch.randint(0, 2**63 - 1, (1,), generator=source, device=source.device)))
    observed, exceed, scale = None, 0, 0.0
    step = rows_within(memory, m * n, points.dtype)
    done = -1  # the first row of the first chunk is the sample as it came, evaluated like its rivals
    while done < permutations:
        count = min(step, permutations - done)
        choice = rng.integers(0, m, (count, n))
        if observed is None:
            choice[0] = 0
        A = torch.zeros(count, m, n, dtype=points.dtype, device=points.device)
        A.scatter_(1, torch.from_numpy(choice).to(points.device)[:, None], 1.0 / n)
        values = statistic(A.flatten(1), torch.full_like(A, 1.0 / (m * n)).flatten(1)).double().cpu().numpy()
        if np.isnan(values).any():
            raise NumericalError(f"the statistic is NaN for {int(np.isnan(values).sum())} of {count} arrangements")
        scale = max(scale, float(np.abs(values).max()))
        if observed is None:
            observed, values = float(values[0]), values[1:]
        exceed += int((values >= observed - _TIE[points.dtype] * scale).sum())
        done += count
    assert observed is not None
    low, high = (float(v) for v in clopper_pearson(exceed, permutations))
    of = "all images" if whole else f"{m - 1} random images a point"
    method = f"invariance under {group!r} by {permutations} draws within orbits, {of}; {D!r}"
    return TestResult(observed, float(monte_carlo_p(exceed, permutations)), low, high, method=method)


def _orbits(points: Tensor, group: Group, images: int, whole: bool, source: torch.Generator) -> Tensor:
    """The points and images that stand for their orbits (m, n, d), the points first."""
    if whole:
        assert isinstance(group, FiniteGroup)
        return group.orbit(points)
    return torch.stack([points, *(group.random(points, generator=source) for _ in range(images - 1))])


__all__ = ["invariance_test"]
