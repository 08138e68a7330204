"""What a known symmetry gains: transport, a Lipschitz divergence and the MMD with and without the group.

cube      W_1 between two uniform samples in dimension 3 and 5, under cyclic shifts of the coordinates: theory d^(-1/d)
plane     W_1 in the square under quarter turns, over three sample sizes: how many points the symmetry is worth
disc      MMD in the uniform disc under 4 and 16 rotations, with a narrow and a wide kernel: the gain is the kernel's
digits    even against odd handwritten digits, turned at random by quarter turns: power and size of the two-sample test
lipschitz the Lipschitz-regularised alpha-divergence in the cube

Errors are values between two samples of one law, where the truth is zero; for the MMD roots of the squared V-statistic, whose
means the card compares and whose root mean squares the theory's constant predicts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy.datasets import digits
from discrepancy.divergences import Alpha, FDivergence
from discrepancy.estimation.lipschitz_divergence import ADMITS, LipschitzDivergence
from discrepancy.groups import Cyclic, CyclicShift, FiniteGroup, Rot90
from discrepancy.inference import Invariant, kernel_gain, permutation_test
from discrepancy.kernel_methods import MMD
from discrepancy.kernels import Gaussian
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, SwapTask, check
from discrepancy.transport import InvariantCost, Wasserstein

_PLANE = {50: (0.269, 0.123), 200: (0.151, 0.068), 800: (0.079, 0.037)}  # the card's errors without and with quarter turns
_BANDWIDTHS = (0.1, 1.0)
_ROTATIONS = (4, 16)

Draw = Callable[[int], Tensor]


def _mean_errors(forms: list[Discrepancy], draw: Draw, n: int, repeats: int) -> list[float]:
    """The mean value of each discrepancy between two samples of n points, the same samples for all."""
    values: list[list[float]] = [[] for _ in forms]
    for _ in range(repeats):
        x, y = draw(n), draw(n)
        for kept, form in zip(values, forms, strict=True):
            kept.append(float(form(x, y)))
    return [statistics.fmean(kept) for kept in values]


def _cubes(setting: Setting, D: Discrepancy) -> Row:
    """Ratios of errors under cyclic shifts, with the choice and with the Lipschitz divergence."""
    row: Row = {}
    generator = torch.Generator().manual_seed(setting.seed)
    n, repeats = (150, 5) if setting.quick else (400, 10)
    for d in (3, 5):

        def draw(size: int, d: int = d) -> Tensor:
            return torch.rand(size, d, generator=generator, dtype=torch.float64)

        plain, symmetric = _mean_errors([D, Invariant(D, CyclicShift(d))], draw, n, repeats)
        row[f"cube ratio {d}"] = symmetric / plain
    row["lipschitz ratio"] = _lipschitz_ratio(Alpha(2), generator, *((60, 2) if setting.quick else (150, 5)))
    return row


def _lipschitz_ratio(f: FDivergence, generator: torch.Generator, n: int, repeats: int) -> float:
    """Error under cyclic shifts over the error without, in the cube, by divergences with 1-Lipschitz critics."""
    forms = [
        LipschitzDivergence(f, cost=cost, tolerance=0.01)
        for cost in (Wasserstein(1).transport.cost, InvariantCost(CyclicShift(3)))
    ]
    plain, symmetric = _mean_errors(list(forms), lambda k: torch.rand(k, 3, generator=generator, dtype=torch.float64), n, repeats)
    return symmetric / plain


def _plane(setting: Setting, D: Discrepancy) -> Row:
    """Error curves in the square, and the largest difference between orbits and augmented samples."""
    row: Row = {}
    generator = torch.Generator().manual_seed(100 + setting.seed)
    group = Cyclic(4)

    def draw(n: int) -> Tensor:
        return 2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1

    for n in (50, 200) if setting.quick else _PLANE:
        repeats = {50: 40, 200: 20, 800: 6}[n] // (2 if setting.quick else 1)
        row[f"plane plain {n}"], row[f"plane C4 {n}"] = _mean_errors([D, Invariant(D, group)], draw, n, repeats)
    x, y = draw(30), draw(30)
    exact = Wasserstein(1)
    row["equality"] = abs(float(Invariant(exact, group)(x, y)) - float(exact(group.augmented(x), group.augmented(y))))
    return row


def _sample_factor(row: Row) -> float:
    """How many times more points the plain error curve needs for the error that quarter turns give at the smallest size."""
    sizes = sorted(int(k.split()[-1]) for k in row if k.startswith("plane plain"))
    u, v = [math.log(n) for n in sizes], [math.log(row[f"plane plain {n}"]) for n in sizes]
    line = statistics.linear_regression(v, u)
    return math.exp(line.slope * math.log(row[f"plane C4 {sizes[0]}"]) + line.intercept) / sizes[0]


def _disc(setting: Setting) -> Row:
    """Root mean V-statistics without a group, under 4 and under 16 rotations."""
    row: Row = {}
    generator = torch.Generator().manual_seed(200 + setting.seed)

    def draw(n: int) -> Tensor:
        radius, angle = torch.rand(2, n, generator=generator, dtype=torch.float64)
        return radius.sqrt()[:, None] * torch.stack([torch.cos(2 * math.pi * angle), torch.sin(2 * math.pi * angle)], -1)

    card, repeats = 20, 40 if setting.quick else 120  # the card's means of roots are over 20 repeats, root means over all
    for bandwidth in _BANDWIDTHS:
        plain = MMD(Gaussian(bandwidth), biased=True)
        forms = [plain, *(Invariant(plain, Cyclic(m)) for m in _ROTATIONS)]
        squares = []
        for _ in range(repeats):
            x, y = draw(200), draw(200)
            squares.append([max(float(form(x, y)), 0.0) for form in forms])
        roots = [statistics.fmean(math.sqrt(one[k]) for one in squares[:card]) for k in range(3)]
        means = [statistics.fmean(one[k] for one in squares) for k in range(3)]
        cloud = draw(600 if setting.quick else 1000)
        for k, m in enumerate(_ROTATIONS, 1):
            row[f"disc {bandwidth:g} C{m}"] = roots[k] / roots[0]
            row[f"disc {bandwidth:g} C{m} root mean square"] = math.sqrt(means[k] / means[0])
            row[f"disc {bandwidth:g} C{m} predicted"] = kernel_gain(cloud, Cyclic(m), Gaussian(bandwidth))
    return row


def _digits(setting: Setting) -> Row:
    """Rejections at 5 % by the MMD test, plain and invariant, of even against odd digits, and of even against even."""
    images, classes = digits()
    pixels, even = torch.from_numpy(images).double(), torch.from_numpy(classes % 2 == 0)
    pools = {"even": pixels[even], "odd": pixels[~even]}
    group: FiniteGroup = Rot90(8)
    generator = torch.Generator().manual_seed(300 + setting.seed)
    forms = {"plain": MMD(), "invariant": Invariant(MMD(), group)}
    powered, null, permutations = (50, 100, 99) if setting.quick else (100, 300, 199)
    rejected = {f"{kind} {name}": 0 for kind in ("power", "size") for name in forms}

    def turned(pool: Tensor) -> Tensor:
        return group.random(pool, generator=generator)

    for kind, repeats in (("power", powered), ("size", null)):
        for _ in range(repeats):
            first = pools["even"][torch.randperm(len(pools["even"]), generator=generator)[:80]]
            second = pools["odd"][torch.randperm(len(pools["odd"]), generator=generator)[:40]] if kind == "power" else first[40:]
            x, y = turned(first[:40]), turned(second)
            for name, form in forms.items():
                found = permutation_test(x, y, form, permutations=permutations, generator=generator)
                rejected[f"{kind} {name}"] += found.p_value <= 0.05
    return {f"digits {name}": count / (powered if name.startswith("power") else null) for name, count in rejected.items()}


def measure(setting: Setting) -> Row:
    """All problems for one seed."""
    D = Wasserstein(1) if setting.choice is None else setting.choice
    if not D.claims.non_negative:
        raise ValueError(f"errors are values between samples of one law, which {D!r} may make negative: mmd:biased=True is not")
    return _cubes(setting, D) | _plane(setting, D) | _disc(setting) | _digits(setting)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds, on means over seeds; sizes of tests in every seed."""

    def of(name: str) -> list[float]:
        return [row[name] for row in rows]

    def within(name: str, key: str, low: float, high: float) -> Check:
        values = of(key)
        return check(name, values, f"mean in [{low:g}, {high:g}]", low <= statistics.fmean(values) <= high)

    sizes = [n for n in _PLANE if f"plane plain {n}" in rows[0]]
    off = [
        max(abs(r[f"plane {kind} {n}"] / _PLANE[n][k] - 1) for n in sizes for k, kind in enumerate(("plain", "C4"))) for r in rows
    ]
    factor = [_sample_factor(r) for r in rows]
    steps = [r["disc 1 C16"] / r["disc 1 C4"] for r in rows]
    wide = [statistics.fmean(r[f"disc 1 C{m}"] for r in rows) for m in _ROTATIONS]
    names = [f"disc {b:g} C{m}" for b in _BANDWIDTHS for m in _ROTATIONS]
    predicted = [statistics.fmean(r[f"{k} root mean square"] / r[f"{k} predicted"] for r in rows) - 1 for k in names]
    gain = [r["digits power invariant"] - r["digits power plain"] for r in rows]
    tests = [r[f"digits size {name}"] for r in rows for name in ("plain", "invariant")]
    equal = of("equality")
    return [
        within("W1 in the cube d = 3: with shifts over without (theory 0.693)", "cube ratio 3", 0.60, 0.78),
        within("W1 in the cube d = 5: with shifts over without (theory 0.725)", "cube ratio 5", 0.63, 0.80),
        within("Lipschitz alpha-divergence, d = 3: with shifts over without (theory 0.693)", "lipschitz ratio", 0.60, 0.80),
        check("plane: largest deviation from the card's errors", off, "<= 0.15 in the mean", statistics.fmean(off) <= 0.15),
        check("plane: factor in sample size that C4 is worth", factor, ">= 3.5", statistics.fmean(factor) >= 3.5),
        within("MMD in the disc, bandwidth 0.1: C4 over none", "disc 0.1 C4", 0.40, 0.58),
        check("MMD in the disc, bandwidth 1: C16 over C4", steps, "mean in [0.7, 1.5]", 0.7 <= statistics.fmean(steps) <= 1.5),
        check(
            "MMD in the disc, bandwidth 1: C4, C16 over none", wide, "both in [0.15, 0.30]", 0.15 <= min(wide) <= max(wide) <= 0.3
        ),
        check(
            "MMD in the disc: root mean square over the constant of the kernel, minus 1",
            predicted,
            "within 0.25 in all four cases",
            max(abs(v) for v in predicted) <= 0.25,
        ),
        check("digits: power of the invariant test minus the plain one's", gain, ">= 0.05 in every seed", min(gain) >= 0.05),
        check("digits: rejections of equal laws at 5 %", tests, "in [0.02, 0.09]", min(tests) >= 0.02 and max(tests) <= 0.09),
        check("W1 of orbits minus W1 of augmented samples", equal, "<= 1e-8", max(equal) <= 1e-8),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """The error curves in the plane, the gains of the MMD beside what the kernel predicts, and the tests on digits."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    sizes = [n for n in _PLANE if f"plane plain {n}" in rows[0]]
    for kind, label, colour in (("plain", "without the group", "#6b7280"), ("C4", "with quarter turns", "#2563eb")):
        left.loglog(
            sizes, [statistics.fmean(r[f"plane {kind} {n}"] for r in rows) for n in sizes], "o-", color=colour, label=label
        )
    left.set_xticks(sizes, [str(n) for n in sizes])
    left.minorticks_off()
    left.set(xlabel="points a sample", ylabel="W1 between samples of one law", title="uniform square")
    names = [f"disc {b:g} C{m}" for b in _BANDWIDTHS for m in _ROTATIONS]
    places = range(len(names))
    middle.bar(
        places, [statistics.fmean(r[f"{k} root mean square"] for r in rows) for k in names], color="#2563eb", label="measured"
    )
    middle.plot(
        places, [statistics.fmean(r[f"{k} predicted"] for r in rows) for k in names], "k_", ms=30, label="constant of the kernel"
    )
    middle.set_xticks(list(places), [f"C{k.split('C')[1]}\nwidth {k.split()[1]}" for k in names])
    middle.set(ylabel="root MMD with the group over without", title="uniform disc, n = 200")
    kinds = ["power plain", "power invariant", "size plain", "size invariant"]
    right.bar(range(4), [statistics.fmean(r[f"digits {k}"] for r in rows) for k in kinds], color=["#6b7280", "#2563eb"] * 2)
    right.axhline(0.05, color="#dc2626", lw=1)
    right.set_xticks(range(4), [k.replace(" ", "\n") for k in kinds])
    right.set(ylabel="rejections at 5 %", title="even and odd digits, n = 40")
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    middle.legend(frameon=False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def _task(f: FDivergence, seed: int) -> float:
    return _lipschitz_ratio(f, torch.Generator().manual_seed(400 + seed), 50, 2)


RECIPE = Recipe(
    slug="group-symmetry-divergences",
    measure=measure,
    judge=judge,
    draw=draw,
    swaps=True,
    needs=("digits",),
    task=SwapTask(
        measures="sampling error under cyclic shifts over the error without, 1-Lipschitz critics in the cube",
        better="lower",
        admits=ADMITS,
        run=_task,
        default=Alpha(2),
    ),
)
