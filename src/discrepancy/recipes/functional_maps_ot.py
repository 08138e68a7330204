"""Functional maps with a transport loss: bent animals matched without labels, and two triangulations of the human cortex.

An animal is an icosphere of 642 points with four radial bumps, another one for every seed. A pose bends it, x -> rotation about z
by alpha x, and moves points by 2 % of the mean edge; the second shape of a pair has its points in another order, so that the
truth is known and nothing but geometry gives it away. No animal is symmetric: its symmetric error is its error.

classical  |alpha| <= 0.1 (nearly isometric): functional maps of the true correspondence, 50 eigenfunctions
learned    |alpha| <= 0.2: features learned from 8 pairs with and without the transport loss, 10 other pairs matched
timing     sliced transport against ten dense Sinkhorn iterations
cortex     fsaverage5 and conte69, their wave kernel signatures and nothing else, refined from 20 to 60 eigenfunctions; the
           reference is the nearest point in the coordinates that both atlases share (its own accuracy is a few millimetres)
"""

from __future__ import annotations

import statistics
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy.directions import Uniform
from discrepancy.methods.geometry.functional_maps import (
    LossWeights,
    fmap_to_point_map,
    functional_map,
    geodesic_distances,
    geodesic_error,
    point_map_to_fmap,
    zoom_out,
)
from discrepancy.methods.geometry.functional_maps_ot import ShapeMatcher
from discrepancy.methods.geometry.laplacians import HeatKernelSignature, LaplacianBasis, WaveKernelSignature
from discrepancy.methods.geometry.meshes import Mesh, radial
from discrepancy.neighbors import nearest_neighbors
from discrepancy.networks.diffusion_net import DiffusionNet
from discrepancy.recipes.runner import Check, Recipe, Row, Setting, check
from discrepancy.transport import SlicedWasserstein

_NOISE, _BENT, _POSED = 0.02, 0.1, 0.2
_K, _K_LEARNED, _REFINE = 50, 30, 15


class Pair(NamedTuple):
    """Two poses of one animal; `truth` is the point of x that each point of y is."""

    x: Mesh
    y: Mesh
    truth: Tensor


def _animal(generator: torch.Generator, subdivisions: int) -> Mesh:
    centres = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    centres = centres / torch.linalg.vector_norm(centres, dim=1, keepdim=True)
    heights = 0.3 + 0.5 * torch.rand(4, generator=generator, dtype=torch.float64)
    widths = 0.1 + 0.1 * torch.rand(4, generator=generator, dtype=torch.float64)
    return radial(lambda u: 1 + ((-(1 - u @ centres.T) / widths).exp() * heights).sum(1), subdivisions, dtype=torch.float64)


def _pose(animal: Mesh, bend: float, generator: torch.Generator) -> Tensor:
    alpha = bend * (2 * float(torch.rand(1, generator=generator)) - 1)
    x, y, z = animal.vertices.unbind(1)
    c, s = torch.cos(alpha * x), torch.sin(alpha * x)
    a, b = animal.vertices[animal.faces[:, 0]], animal.vertices[animal.faces[:, 1]]
    noise = _NOISE * torch.linalg.vector_norm(a - b, dim=1).mean()
    bent = torch.stack([c * x - s * y, s * x + c * y, z], 1)
    return bent + noise * torch.randn(bent.shape, generator=generator, dtype=bent.dtype)


def _pair(animal: Mesh, bend: float, generator: torch.Generator) -> Pair:
    x, y = _pose(animal, bend, generator), _pose(animal, bend, generator)
    order = torch.randperm(len(y), generator=generator)
    return Pair(animal.moved(x), Mesh(y[order], order.argsort()[animal.faces]), order)


def _classical(animal: Mesh, pairs: int, generator: torch.Generator) -> Row:
    """Maps of the truth: their departure from orthogonality, and the points that they give back."""
    departures, shares = [], []
    for pair in (_pair(animal, _BENT, generator) for _ in range(pairs)):
        x, y = (LaplacianBasis.from_mesh(m, k=_K) for m in pair[:2])
        C = point_map_to_fmap(pair.truth, x, y)
        departures.append(float((C.mT @ C - torch.eye(_K, dtype=C.dtype)).square().sum()))
        error = geodesic_error(fmap_to_point_map(C, x, y), pair.truth, geodesic_distances(pair.x))
        shares.append(error.within(0.05))
    return {"orthogonality": statistics.fmean(departures), "within 0.05": min(shares)}


def _describe(basis: LaplacianBasis) -> Tensor:
    """Heat and wave kernel signatures, and the distance from the shape's centre."""
    assert basis.points is not None
    centred = basis.points - (basis.points * basis.mass[:, None]).sum(0) / basis.mass.sum()
    signatures = [WaveKernelSignature(32)(basis), HeatKernelSignature(16)(basis)]
    return torch.cat([*signatures, torch.linalg.vector_norm(centred, dim=1, keepdim=True)], 1)


def _learned(animal: Mesh, setting: Setting, generator: torch.Generator) -> Row:
    """Mean geodesic errors over the test pairs, in diameters: raw signatures, learned without and with transport, refined."""
    epochs, tests = (12, 3) if setting.quick else (60, 10)
    k = 20 if setting.quick else _K_LEARNED
    D: Discrepancy = setting.choice or SlicedWasserstein(directions=Uniform(200))

    def basis(mesh: Mesh) -> LaplacianBasis:
        return LaplacianBasis.from_mesh(mesh.moved(mesh.vertices.float()), k=k)

    training = [_pair(animal, _POSED, generator) for _ in range(8)]
    testing = [_pair(animal, _POSED, generator) for _ in range(tests)]
    shapes = [(basis(p.x), basis(p.y)) for p in training]
    cases = [(basis(p.x), basis(p.y), p.truth, geodesic_distances(p.x).float()) for p in testing]
    raw = [_nearest_signatures(x, y) for x, y, *_ in cases]
    maps = {"raw": raw}
    for name, weight in (("without", 0.0), ("with", 100.0)):
        matcher = ShapeMatcher(
            k=k,
            descriptors=_describe,
            network=DiffusionNet(64, 3),
            features=64,
            discrepancy=D,
            weights=LossWeights(transport=weight),
            epochs=epochs,
            random_state=setting.seed,
        ).fit(shapes)
        maps[name] = [matcher.match(x, y, refine=0).y_to_x for x, y, *_ in cases]
        if weight:
            maps["refined"] = [matcher.match(x, y, refine=_REFINE).y_to_x for x, y, *_ in cases]
    errors = {
        name: [geodesic_error(m, truth, d) for m, (_, _, truth, d) in zip(found, cases, strict=True)]
        for name, found in maps.items()
    }
    row: Row = {f"error {name}": statistics.fmean(e.mean for e in found) for name, found in errors.items()}
    before, after = ([e.mean for e in errors[name]] for name in ("with", "refined"))
    row["kept by refinement"] = statistics.fmean(b <= a for a, b in zip(before, after, strict=True))
    row["_curves"] = {name: torch.cat([e.per_point for e in found]) for name, found in errors.items()}
    row["_example"] = (testing[0], maps["refined"][0])
    return row


def _nearest_signatures(x: LaplacianBasis, y: LaplacianBasis) -> Tensor:
    signature = HeatKernelSignature(64)
    return nearest_neighbors(signature(y), signature(x), 1).indices[:, 0]


def _timing(n: int, generator: torch.Generator) -> float:
    """Time of ten dense Sinkhorn iterations over that of the sliced loss with its gradient, the better of two each."""
    x, y = (torch.randn(n, 64, generator=generator) for _ in range(2))

    def sliced() -> None:
        u = x.clone().requires_grad_()
        SlicedWasserstein(directions=Uniform(200))(u, y, generator=generator).backward()

    def dense() -> None:
        costs = torch.cdist(x, y).square()
        costs = -costs / (0.05 * costs.mean())
        g = torch.zeros(1, n)
        for _ in range(10):
            f = -torch.logsumexp(costs + g, 1, keepdim=True)
            g = -torch.logsumexp(costs + f, 0, keepdim=True)

    def clock(work) -> float:  # type: ignore[no-untyped-def]
        spent = []
        for _ in range(2):
            start = time.process_time()
            work()
            spent.append(time.process_time() - start)
        return min(spent)

    sliced()  # the loops compile on their first call
    return clock(dense) / clock(sliced)


@cache
def _cortex() -> Row:
    """Distances in millimetres between where points of conte69 are sent and where they lie; nothing is random here."""
    from discrepancy.datasets.surfaces import cortex

    pial, faces = cortex("fsaverage5-pial")
    white, _ = cortex("fsaverage5-white")
    other, other_faces = cortex("conte69")
    middle, target = torch.from_numpy((pial + white) / 2), torch.from_numpy(other)
    x, y = LaplacianBasis.from_mesh(middle, faces, k=60), LaplacianBasis.from_mesh(target, other_faces, k=60)
    wave = WaveKernelSignature(64)
    f, g = wave(x), wave(y)
    coarse = functional_map(f, g, x.truncated(20), y.truncated(20), weight=1.0)
    y_to_x = {
        "signatures": nearest_neighbors(g, f, 1).indices[:, 0],
        "map": fmap_to_point_map(coarse, x.truncated(20), y.truncated(20)),
        "refined": fmap_to_point_map(zoom_out(coarse, x, y, step=20), x, y),
        "reference": nearest_neighbors(target, middle, 1).indices[:, 0],
    }
    return {
        f"cortex {name}": float(torch.linalg.vector_norm(middle[found] - target, dim=1).mean()) for name, found in y_to_x.items()
    }


def measure(setting: Setting) -> Row:
    """All four parts for one seed; a quick run takes 162 points, 20 eigenfunctions, a fifth of the epochs and no cortex."""
    generator = torch.Generator().manual_seed(setting.seed)
    animal = _animal(generator, 2 if setting.quick else 3)
    row = _classical(animal, 3 if setting.quick else 6, generator)
    row |= _learned(animal, setting, generator)
    row["timing"] = _timing(1500 if setting.quick else 5000, generator)
    return row if setting.quick else row | _cortex()


def judge(rows: list[Row], quick: bool) -> list[Check]:
    """The card's bounds, and those of the cortex."""

    def values(name: str) -> list[float]:
        return [row[name] for row in rows]

    def mean(name: str) -> float:
        return statistics.fmean(values(name))

    ratio = [row["error with"] / row["error without"] for row in rows]
    better = mean("error with") <= 0.95 * mean("error without")
    small = max(mean("error with"), mean("error without")) < 0.03
    gain = [row["error refined"] / row["error with"] for row in rows]
    raw = [row["error raw"] / row["error with"] for row in rows]
    departure, shares = values("orthogonality"), values("within 0.05")
    kept, speed = values("kept by refinement"), values("timing")
    checks = [
        check("true map: |C^T C - I|^2, 50 eigenfunctions", departure, "mean < 0.5", statistics.fmean(departure) < 0.5),
        check("true map: least share of points given back within 0.05", shares, ">= 0.95", min(shares) >= 0.95),
        check("learned: error with transport, in diameters", values("error with"), "reported", True),
        check("learned: error with over without transport", ratio, "<= 0.95, or both errors < 0.03", better or small),
        check("refinement: share of pairs not worse", kept, "mean >= 0.8", statistics.fmean(kept) >= 0.8),
        check("refinement: error after over before", gain, "mean < 1", statistics.fmean(gain) < 1),
        check("raw heat kernel signatures: error over the learned one", raw, "mean >= 2", statistics.fmean(raw) >= 2),
        check("ten Sinkhorn iterations: time over sliced with gradient", speed, ">= 5", min(speed) >= 5, timing=True),
    ]
    if not quick:
        cortex = {name: values(f"cortex {name}") for name in ("signatures", "map", "refined", "reference")}
        third = cortex["signatures"][0] / 3
        checks += [
            check("cortex: mm from the reference frame, nearest signatures", cortex["signatures"], "reported", True),
            check("cortex: mm, functional map of the same signatures", cortex["map"], "<= a third", cortex["map"][0] <= third),
            check("cortex: mm, refined", cortex["refined"], "<= the map's", cortex["refined"][0] <= cortex["map"][0]),
        ]
    return checks


def draw(rows: list[Row], file: Path) -> None:
    """A matched pair, coloured by where points come from, and the share of points within an error."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgb
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    pair, y_to_x = rows[0]["_example"]
    low, high = pair.x.box()
    colour = ((pair.x.vertices - low) / (high - low)).clamp(0, 1).numpy()
    fig = plt.figure(figsize=(12, 4.2), layout="constrained")
    for k, (mesh, shade, title) in enumerate(
        [(pair.x, colour, "X, coloured by place"), (pair.y, colour[y_to_x.numpy()], "Y, coloured by the points of X it matches")]
    ):
        axis = fig.add_subplot(1, 3, k + 1, projection="3d")
        triangles = mesh.corners().numpy()
        faces = shade[mesh.faces.numpy()].mean(1)
        axis.add_collection3d(Poly3DCollection(triangles, facecolors=faces, edgecolors=(0, 0, 0, 0.15), linewidths=0.2))  # type: ignore[attr-defined]
        box = torch.stack([mesh.vertices.amin(0), mesh.vertices.amax(0)]).numpy()
        axis.set(xlim=box[:, 0], ylim=box[:, 1], zlim=box[:, 2], title=title)  # type: ignore[call-arg]
        axis.set_box_aspect(box[1] - box[0])  # type: ignore[arg-type]
        axis.set_axis_off()
    axis = fig.add_subplot(1, 3, 3)
    radii = torch.linspace(0, 0.25, 101)
    colours = {"raw": "#9ca3af", "without": "#f59e0b", "with": "#2563eb", "refined": "#dc2626"}
    labels = {"raw": "raw heat kernel signatures", "without": "learned, no transport", "with": "learned", "refined": "refined"}
    for name, label in labels.items():
        errors = torch.cat([row["_curves"][name] for row in rows])
        share = [(errors <= r).float().mean() for r in radii]
        # The curves without and with transport may cover each other: the one below is wider.
        axis.plot(radii, share, color=to_rgb(colours[name]), label=label, linewidth=4.5 if name == "without" else 1.5)
    axis.set(xlabel="geodesic error (diameters)", ylabel="share of points", ylim=(0, 1.02))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right")
    fig.savefig(file, dpi=130)
    plt.close(fig)


RECIPE = Recipe(
    slug="functional-maps-ot",
    measure=measure,
    judge=judge,
    draw=draw,
    swaps=True,
    needs=("fsaverage5-pial-left", "fsaverage5-white-left", "conte69-left"),
)
