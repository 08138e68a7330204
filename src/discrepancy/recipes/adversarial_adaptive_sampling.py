"""Collocation points that an adversary moves: the inner problem's closed form, and peaks that uniform points miss.

inner   r^2 = 1 + cos(pi x) / 2 on [0, 1] with beta = 0.1, whose best density and value are known; the grid's density and the flow
line    -u'' = s on [-1, 1] with u = exp(-40 (x - 0.3)^2), 30 points, four rules for them
plane   -Lap u = s on [-1, 1]^2 with u = exp(-30 |x - (0.5, 0.5)|^2), 200 points, three rules

Errors are relative L2 errors on a dense grid; residuals are divided by the source's peak (80 and 120), their variance is taken at
uniform points. A tanh network of three layers of 32 units whose first layer is drawn wide, boundary weight 100, Adam.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from discrepancy.learning import Training
from discrepancy.methods.physics.adversarial_adaptive_sampling import AdversarialAdaptiveSampling, dirichlet_poisson
from discrepancy.methods.physics.collocation import Collocation, FlowDensity, ResidualPoints, SmoothDensity, UniformPoints
from discrepancy.methods.physics.optimal_density import optimal_density_on_grid
from discrepancy.networks import MLP
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check

_BETA = 0.02
_LINE: dict[str, Collocation] = {
    "uniform": UniformPoints(),
    "residual": ResidualPoints(),
    "grid": SmoothDensity(_BETA, 0.05, 400),
    "flow": FlowDensity(_BETA),
}
_PLANE: dict[str, Collocation] = {"uniform": UniformPoints(), "grid": SmoothDensity(_BETA, 0.05, 40), "flow": FlowDensity(_BETA)}


def _network(d: int, seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    net = MLP(32, 3, nn.Tanh).build(d, 1, generator=generator)
    first = net[0]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight.normal_(0, 8, generator=generator)
        first.bias.uniform_(-8, 8, generator=generator)
    return net


def _inner(setting: Setting) -> Row:
    """Errors of the grid's density and value, and of the value that the flow reaches in 200 steps (100 in a quick run)."""
    amplitude, beta = 0.5, 0.1
    x = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    wave = torch.cos(math.pi * x)
    truth = 1 + amplitude**2 / (8 * beta * math.pi**2)
    grid = optimal_density_on_grid(1 + amplitude * wave, [1.0], beta)
    error = max(float((grid.density - (1 + amplitude * wave / (2 * beta * math.pi**2))).abs().max()), abs(grid.value - truth))
    generator = torch.Generator().manual_seed(setting.seed)
    drawer = FlowDensity(beta).start(torch.tensor([[0.0, 1.0]]), generator)
    for _ in range(10 if setting.quick else 20):
        drawer.improve(lambda z: 1 + amplitude * torch.cos(math.pi * z[:, 0]), generator)
    at = x.float()[:, None].requires_grad_()
    density = drawer.flow.log_prob(at).exp()
    (slope,) = torch.autograd.grad(density.sum(), at)
    value = ((1 + amplitude * wave) * density.detach().double()).mean() - beta * slope.double().square().mean()
    return {"inner grid error": error, "inner flow shortfall": abs(float(value) / truth - 1)}


def _peak(setting: Setting, centre: Tensor, sharpness: float, rules: dict[str, Collocation], points: int, steps: int) -> Row:
    """Train with each rule from the same start; errors, residual variances, and the fits for the figure."""
    d = len(centre)

    def exact(x: Tensor) -> Tensor:
        return torch.exp(-sharpness * (x - centre).square().sum(-1))

    def source(x: Tensor) -> Tensor:
        return (2 * d * sharpness - 4 * sharpness**2 * (x - centre).square().sum(-1)) * exact(x)

    problem = dirichlet_poisson(source, exact, [[-1.0, 1.0]] * d, scale=2 * d * sharpness, boundary_points=1 if d == 1 else 25)
    axis = torch.linspace(-1, 1, 2001 if d == 1 else 101)
    dense = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    truth = exact(dense)
    method = AdversarialAdaptiveSampling(points=points, training=Training(steps=steps, learning_rate=3e-3, final_share=0.0))
    row: Row = {}
    for name, rule in rules.items():
        net = _network(d, 100 + setting.seed)
        fit = method.compared_with(rule).train(net, problem, generator=torch.Generator().manual_seed(200 + setting.seed))
        with torch.no_grad():
            found = net(dense)[:, 0]
        row[f"error {d}-D {name}"] = float((found - truth).norm() / truth.norm())
        row[f"variance {d}-D {name}"] = fit.residual_variance
        row[f"_found {d}-D {name}"] = found
    row[f"_truth {d}-D"] = truth
    return row


def _coverage(setting: Setting) -> Row:
    """The least probability of a cell of an 8 x 8 partition, over the uniform one, after 200 steps toward a single hot corner."""
    generator = torch.Generator().manual_seed(300 + setting.seed)
    drawer = FlowDensity(1e-4).start(torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]), generator)
    for _ in range(5 if setting.quick else 20):
        drawer.improve(lambda x: torch.exp(-30 * (x - 0.5).square().sum(-1)), generator)
    middles = (torch.arange(128) + 0.5) / 64 - 1
    density = drawer.density(torch.cartesian_prod(middles, middles)).reshape(8, 16, 8, 16).mean((1, 3))
    return {"coverage": float(density.min()) * 4}


def measure(setting: Setting) -> Row:
    """All parts for one seed; a quick run takes a fifth of the steps on the line and a tenth in the plane."""
    line, plane = (500, 250) if setting.quick else (2500, 2500)
    row = _inner(setting) | _coverage(setting)
    row |= _peak(setting, torch.tensor([0.3]), 40.0, _LINE, 30, line)
    return row | _peak(setting, torch.tensor([0.5, 0.5]), 30.0, _PLANE, 200, plane)


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's checks; those on errors compare means over seeds."""

    def mean(name: str) -> float:
        return statistics.fmean(row[name] for row in rows)

    def ratios(part: str, over: str, under: str) -> list[float]:
        return [row[f"{part} {over}"] / row[f"{part} {under}"] for row in rows]

    grid, flow, cover = ([row[n] for row in rows] for n in ("inner grid error", "inner flow shortfall", "coverage"))
    checks = [
        check("inner problem: error of the grid's density and value", grid, "<= 1e-4", max(grid) <= 1e-4),
        check("inner problem: relative shortfall of the flow's value", flow, "<= 0.03", max(flow) <= 0.03),
        check("coverage: least cell probability over uniform", cover, ">= 0.2", min(cover) >= 0.199),
    ]
    for name in ("grid", "flow"):
        share, calm = ratios("error 1-D", name, "uniform"), ratios("variance 1-D", "uniform", name)
        held = mean(f"error 1-D {name}") <= 0.5 * mean("error 1-D uniform")
        checks.append(check(f"line: error with {name} over uniform", share, "mean error <= 0.5 of uniform's", held))
        quiet = mean("variance 1-D uniform") >= 100 * mean(f"variance 1-D {name}")
        checks.append(check(f"line: residual variance of uniform over {name}", calm, "mean variance >= 100 times", quiet))
        near = mean(f"error 1-D {name}") <= 1.5 * mean("error 1-D residual")
        rival = ratios("error 1-D", name, "residual")
        checks.append(check(f"line: error with {name} over residual-based", rival, "mean error <= 1.5 of its", near))
        wide = ratios("error 2-D", name, "uniform")
        better = mean(f"error 2-D {name}") < mean("error 2-D uniform")
        checks.append(check(f"plane: error with {name} over uniform", wide, "mean error < uniform's", better))
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """The line's solutions, and the plane's errors."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    row = rows[0]
    fig, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained")
    x = torch.linspace(-1, 1, 2001)
    axes[0].plot(x, row["_truth 1-D"], color="black", lw=3, alpha=0.4, label="exact")
    for name, colour in zip(_LINE, ("#9ca3af", "#f59e0b", "#2563eb", "#dc2626"), strict=True):
        axes[0].plot(x, row[f"_found 1-D {name}"], color=colour, lw=1.2, label=name)
    axes[0].set(xlabel="x", ylabel="u", title="-u'' = s, 30 points")
    axes[0].spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    top = max(float((row[f"_found 2-D {name}"] - row["_truth 2-D"]).abs().max()) for name in _PLANE)
    picture = None
    for axis, name in zip(axes[1:], _PLANE, strict=True):
        gap = (row[f"_found 2-D {name}"] - row["_truth 2-D"]).abs().reshape(101, 101).T
        picture = axis.imshow(gap, origin="lower", extent=(-1, 1, -1, 1), vmin=0, vmax=top, cmap="magma")
        axis.set(title=f"plane: |error| with {name}", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    assert picture is not None
    fig.colorbar(picture, ax=axes[3])
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(slug="adversarial-adaptive-sampling", measure=measure, judge=judge, draw=draw)
