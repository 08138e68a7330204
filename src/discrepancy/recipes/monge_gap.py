"""The Monge gap as a regulariser: four transport problems, each fitted with and without it.

rotation   a network pre-fitted to a rotation by 90 degrees sends N(0, I) to itself already; only the gap tells it is not optimal
affine     N(0, I) to N(1, A^2) in four dimensions, whose optimal map A x + 1 is known
sphere     two von Mises-Fisher laws on the sphere, geodesic cost
digits     handwritten 3s to 8s in eight principal components, judged on held-out images

Held-out gaps are exact: the mean cost of the map minus that of the best assignment of the same points.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from discrepancy.costs import Cost, Sphere, SquaredEuclidean
from discrepancy.datasets import digits
from discrepancy.learning import Training
from discrepancy.networks import MLP
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check
from discrepancy.transport import NeuralMap, SinkhornDivergence

_WEIGHTS = {"without": 0.0, "with": 1.0}
_NET = MLP(width=64, depth=3)


def _exact_gap(cost: Cost, x: Tensor, image: Tensor) -> float:
    """Mean cost of x_i -> image_i minus the cost of the best assignment."""
    from scipy.optimize import linear_sum_assignment

    costs = cost.matrix(x, image).double()
    rows, columns = linear_sum_assignment(costs.numpy())
    return float(costs.diagonal().mean() - costs[rows, columns].mean())


def _unexplained(image: Tensor, truth: Tensor) -> float:
    """L2-UVP in per cent: the mean squared error of the map over the variance of its target."""
    return float(100 * (image - truth).square().sum(-1).mean() / truth.var(0).sum())


def _fit(x: Tensor, y: Tensor, weight: float, setting: Setting, *, seed_offset: int, **options: object) -> NeuralMap:
    """One map; a quick run takes a quarter of the steps and of the batch."""
    steps, batch = int(options.pop("steps", 600)), int(options.pop("batch_size", 128))  # type: ignore[call-overload]
    if setting.choice is not None:
        options["fitting"] = setting.choice
    model = NeuralMap(
        gap_weight=weight,
        steps=steps // 4 if setting.quick else steps,
        batch_size=64 if setting.quick else batch,
        random_state=1000 * setting.seed + seed_offset,
        **options,  # type: ignore[arg-type]
    )
    return model.fit(x, y)


def _rotated_start(setting: Setting, generator: torch.Generator) -> nn.Module:
    """A network fitted by least squares to the rotation by 90 degrees."""
    net = _NET.build(2, 2, generator=generator)
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])

    def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        x = torch.randn(256, 2, generator=generator)
        return (net(x) - x @ quarter.T).square().sum(-1).mean(), {}

    Training(steps=300, learning_rate=5e-3).run(net.parameters(), step)
    return net


def _rotation(setting: Setting) -> Row:
    generator = torch.Generator().manual_seed(setting.seed)
    x, y, held_out, target = (torch.randn(2048, 2, generator=generator) for _ in range(4))
    start = _rotated_start(setting, generator)
    row: Row = {}
    for name, weight in _WEIGHTS.items():
        model = _fit(x, y, weight, setting, seed_offset=1, network=start, steps=300, batch_size=256, learning_rate=5e-3)
        image = model.transform(held_out)
        row[f"rotation UVP {name}"] = _unexplained(image, held_out)
        row[f"rotation fit {name}"] = float(SinkhornDivergence()(image[:1024], target[:1024]))
        row[f"_arrows {name}"] = (held_out[:150], image[:150])
    return row


def _affine(setting: Setting) -> Row:
    generator = torch.Generator().manual_seed(100 + setting.seed)
    orthogonal, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator))
    stretch = orthogonal @ torch.diag(torch.linspace(0.5, 2.0, 4)) @ orthogonal.T
    x, z, held_out = (torch.randn(2048, 4, generator=generator) for _ in range(3))
    y, truth = z @ stretch + 1, held_out @ stretch + 1
    row: Row = {}
    for name, weight in _WEIGHTS.items():
        image = _fit(x, y, weight, setting, seed_offset=2, network=_NET).transform(held_out)
        row[f"affine UVP {name}"] = _unexplained(image, truth)
        row[f"affine gap {name}"] = _exact_gap(SquaredEuclidean(), held_out[:512], image[:512])
    return row


def _von_mises_fisher(n: int, concentration: float, generator: torch.Generator) -> Tensor:
    """Draws on S^2 around the north pole, by inverting the law of the height (Ulrich, 1984)."""
    u = torch.rand(n, generator=generator)
    height = 1 + torch.log(u + (1 - u) * math.exp(-2 * concentration)) / concentration
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    radius = (1 - height.square()).clamp_min(0).sqrt()
    points = torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1)
    return points / torch.linalg.vector_norm(points, dim=-1, keepdim=True)


def _sphere(setting: Setting) -> Row:
    generator = torch.Generator().manual_seed(200 + setting.seed)
    x, y, held_out = (_von_mises_fisher(2048, 10.0, generator) for _ in range(3))
    tilt = math.pi / 3
    turn = torch.tensor([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    y = y @ turn.T
    row: Row = {}
    for name, weight in _WEIGHTS.items():
        image = _fit(x, y, weight, setting, seed_offset=3, network=_NET, cost=Sphere()).transform(held_out)
        row[f"sphere gap {name}"] = _exact_gap(Sphere(), held_out[:512], image[:512])
        row[f"sphere norm error {name}"] = float((torch.linalg.vector_norm(image, dim=-1) - 1).abs().max())
    return row


def _digits(setting: Setting) -> Row:
    images, classes = digits()
    pixels, labels = torch.from_numpy(images).float(), torch.from_numpy(classes)
    centred = pixels - pixels.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:8].T
    generator = torch.Generator().manual_seed(300 + setting.seed)
    halves = []
    for k in (3, 8):
        own = points[labels == k]
        own = own[torch.randperm(len(own), generator=generator)]
        halves += [own[: len(own) // 2], own[len(own) // 2 :]]
    x, x_test, y, y_test = halves
    row: Row = {}
    for name, weight in _WEIGHTS.items():
        image = _fit(x, y, weight, setting, seed_offset=4, network=_NET).transform(x_test)
        row[f"digits fit {name}"] = float(SinkhornDivergence()(image, y_test))
        row[f"digits gap {name}"] = _exact_gap(SquaredEuclidean(), x_test, image)
    return row


def measure(setting: Setting) -> Row:
    """All four problems for one seed, each map fitted with and without the gap."""
    return _rotation(setting) | _affine(setting) | _sphere(setting) | _digits(setting)


def _mean(rows: list[Row], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds; a quick run is judged by the same ones."""

    def ratio(name: str) -> list[float]:
        return [row[f"{name} with"] / row[f"{name} without"] for row in rows]

    wrong, right = ([row[f"rotation UVP {k}"] for row in rows] for k in _WEIGHTS)
    worse = [row["rotation fit with"] - row["rotation fit without"] for row in rows]
    affine_error = _mean(rows, "affine UVP with") / _mean(rows, "affine UVP without")
    affine_gap, sphere_gap = ratio("affine gap"), ratio("sphere gap")
    norm = [max(row[f"sphere norm error {k}"] for k in _WEIGHTS) for row in rows]
    digits_fit, digits_gap = ratio("digits fit"), ratio("digits gap")
    return [
        check("rotation: UVP % without the gap", wrong, "> 100 in every seed", min(wrong) > 100),
        check("rotation: UVP % with the gap", right, "< 10 in every seed", max(right) < 10),
        check("rotation: fit lost", worse, "<= 0.05 in every seed", max(worse) <= 0.05),
        check(
            "affine: UVP with over without",
            ratio("affine UVP"),
            "mean UVP with <= 0.7 of without",
            affine_error <= 0.7,
        ),
        check("affine: held-out gap with over without", affine_gap, "mean <= 1/3", sum(affine_gap) / len(rows) <= 1 / 3),
        check("sphere: held-out gap with over without", sphere_gap, "mean <= 1/3", sum(sphere_gap) / len(rows) <= 1 / 3),
        check("sphere: distance from unit norm", norm, "<= 1e-5", max(norm) <= 1e-5),
        check("digits: held-out fit with over without", digits_fit, "mean <= 1.2", sum(digits_fit) / len(rows) <= 1.2),
        check("digits: held-out gap with over without", digits_gap, "mean <= 0.5", sum(digits_gap) / len(rows) <= 0.5),
    ]


def draw(rows: list[Row], file: Path) -> None:
    """The planted rotation, learned without and with the gap."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained", sharex=True, sharey=True)
    for axis, (name, weight) in zip(axes, _WEIGHTS.items(), strict=True):
        start, end = rows[0][f"_arrows {name}"]
        move = end - start
        axis.quiver(*start.T, *move.T, angles="xy", scale_units="xy", scale=1, width=0.003, color="#9ca3af")
        axis.scatter(*start.T, s=8, color="#2563eb", label="x")
        axis.scatter(*end.T, s=8, color="#f59e0b", label="T(x)")
        axis.set_title(f"gap weight {weight:g}: UVP {_mean(rows, f'rotation UVP {name}'):.3g} %")
        axis.set_aspect("equal")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(slug="monge-gap", measure=measure, judge=judge, draw=draw, swaps=True, needs=("digits",))
