"""Deforming a template surface onto a target without self-intersection: the flow of a velocity field, trained by a discrepancy
between surfaces as measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from discrepancy._kinds import Discrepancy
from discrepancy._results import Result
from discrepancy._validate import as_tensor, generator_or_default, require_finite
from discrepancy.dynamics.ode import Euler, Integrator
from discrepancy.learning import Training
from discrepancy.methods.geometry.meshes.discrepancy import check_discrepancy
from discrepancy.methods.geometry.meshes.measures import Encoding, MeshMeasure, check_encoding, warn_of_mismatch
from discrepancy.methods.geometry.meshes.mesh import Mesh, as_mesh
from discrepancy.methods.geometry.meshes.penalties import MeshPenalty
from discrepancy.methods.geometry.velocity_fields import VelocityMLP


class NeuralODEDeformer(nn.Module):
    """Moves points in space along dx/dt = v(x, t) from t = 0 to 1; `inverse` moves them back.

    The exact flow of a Lipschitz field is one-to-one, smooth both ways, and keeps orientation, whatever the field; the discrete
    one is where each step times the field's Lipschitz constant is below 1 (`step_lipschitz`). `velocity` is a module or function
    (points (n, 3), time ()) -> velocities (n, 3) that acts on each point alone. Source: Le et al. (2024); Chen et al. (2018).
    """

    references: ClassVar[tuple[str, ...]] = ("diffeomorphic-mesh",)

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor], integrator: Integrator | None = None) -> None:
        super().__init__()
        if not callable(velocity):
            raise TypeError(f"velocity must be a module or function of (points, time), got {velocity!r}")
        self.integrator = Euler() if integrator is None else integrator
        if not isinstance(self.integrator, Integrator):
            raise TypeError(f"integrator must be Euler(), Midpoint() or RungeKutta4(), got {integrator!r}")
        self.velocity = velocity

    def forward(self, vertices: Float[Tensor, "n 3"], start: float = 0.0, end: float = 1.0) -> Float[Tensor, "n 3"]:
        """Where the points are at time `end` that are at `vertices` at time `start`. NumericalError if the flow blows up."""
        return self.integrator.solve(self.velocity, vertices, start, end)

    @torch.no_grad()
    def inverse(self, vertices: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Where points that end at `vertices` came from, up to the integrator's error; no gradient."""
        return self.integrator.solve(self.velocity, vertices, 1.0, 0.0)

    def deform(self, mesh: Any) -> Mesh:
        """A mesh with its vertices moved."""
        surface = as_mesh(mesh)
        return surface.moved(self(surface.vertices))

    def jacobians(self, vertices: Any) -> Float[Tensor, "n 3 3"]:
        """The derivative of the flow at each point; its determinant is positive where the flow keeps orientation."""
        return _jacobians(self.forward, vertices)

    def step_lipschitz(self, vertices: Any) -> float:
        """The largest of (step length) x (spectral norm of dv/dx) over the points' paths: below 1 no Euler step folds there."""
        start = _points(vertices)
        with torch.no_grad():
            path = self.integrator.path(self.velocity, start)
        h = 1 / self.integrator.steps
        worst = 0.0
        for k, x in enumerate(path[:-1]):
            t = torch.tensor(k * h, dtype=x.dtype, device=x.device)
            slopes = _jacobians(lambda p: self.velocity(p, t), x)  # noqa: B023 - used within the loop only
            worst = max(worst, h * float(torch.linalg.matrix_norm(slopes, ord=2).max()))
        return worst


def _points(vertices: Any) -> Tensor:
    points = as_tensor(vertices, "vertices").detach()
    if points.ndim != 2 or points.shape[-1] != 3:
        raise ValueError(f"vertices must be of shape (n, 3), got {tuple(points.shape)}")
    require_finite(points, "vertices")
    return points


def _jacobians(function: Callable[[Tensor], Tensor], vertices: Any) -> Tensor:
    """The derivative (n, 3, 3) of a map of points that acts on each alone: one backward pass a row, all points together."""
    with torch.enable_grad():
        x = _points(vertices).requires_grad_()
        y = function(x)
        rows = [torch.autograd.grad(y[:, k].sum(), x, retain_graph=True, materialize_grads=True)[0] for k in range(3)]
    return torch.stack(rows, -2).detach()


@dataclass(frozen=True, repr=False)
class MeshFit(Result):
    """A template on its target: the deformed `mesh`, the `before` and `after` values of the discrepancy (one draw, the same for
    both), the number of training `steps`, the `deformer` (None for free vertices), and the training's `history`."""

    references: ClassVar[tuple[str, ...]] = ("diffeomorphic-mesh",)
    mesh: Mesh
    before: float
    after: float
    steps: int
    deformer: NeuralODEDeformer | None = field(default=None, repr=False)
    history: dict[str, list[float]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class FreeVertices:
    """A deformation without a field, for comparison: every vertex has an offset of its own, and nothing keeps faces apart."""


def fit_mesh(
    template: Any,
    target: Any,
    discrepancy: Discrepancy | None = None,
    *,
    encoding: Encoding | None = None,
    deformation: VelocityMLP | NeuralODEDeformer | FreeVertices | None = None,
    integrator: Integrator | None = None,
    penalties: Sequence[MeshPenalty] = (),
    training: Training | None = None,
    generator: torch.Generator | None = None,
) -> MeshFit:
    """Deform `template` onto `target` (given: P) so that `discrepancy` between the two encoded surfaces is least.

    discrepancy: any `Discrepancy`, by default SlicedWasserstein(), with fresh directions at every step. encoding: how a surface
    is read, by default Varifold(). deformation: by default VelocityMLP(), a new network, integrated by `integrator` (default
    Euler(10)); a `NeuralODEDeformer` of your own is trained on, in place; FreeVertices() is the baseline without a flow. Both
    surfaces are brought to the unit of the template's box (half its longest side) for the loss, so that `normal_weight` and the
    learning rate mean the same at every scale; results are in the template's own units. What the discrepancy chooses from
    the data (a bandwidth) is fixed at the start. Topology stays: a template of genus 0 reaches surfaces of genus 0 only.

    Warns (`MeshWarning`) of boxes more than ten times apart and of normals inward on one side. Raises TypeError for options
    that are none, NumericalError naming the step if the flow or the loss stops being finite. Time per step: the discrepancy
    plus integrator.steps evaluations of the field; memory of their activations (`recompute=True` of the integrator: less).
    Source: Le, Nguyen, Sun, Han, Ho and Xie (2024).
    """
    start, goal = as_mesh(template, "template").detached(), as_mesh(target, "target").detached()
    compare, read = check_discrepancy(discrepancy), check_encoding(encoding)
    for penalty in penalties:
        if not isinstance(penalty, MeshPenalty):
            raise TypeError(f"penalties must be objects such as NormalBending(0.01), got {penalty!r}")
        penalty(start, goal)  # what faces alone determine is kept with the template and handed on to its deformations
    plan = Training(steps=500, learning_rate=5e-3) if training is None else training
    warn_of_mismatch(start, goal)
    goal = goal.moved(goal.vertices.to(start.vertices))
    source = generator_or_default(generator)
    low, high = start.box()
    centre, scale = (low + high) / 2, float((high - low).max()) / 2

    def scaled(mesh: Mesh) -> Mesh:
        return mesh.moved((mesh.vertices - centre) / scale)

    deform, parameters, deformer = _deformation(deformation, integrator, start, centre, scale, source)
    aim, begin = scaled(goal), scaled(start)
    fixed_aim = None if read.random else read(aim)
    draw = {"generator": source} if compare.claims.random else {}

    def value(D: Discrepancy, mesh: Mesh, **options: Any) -> Tensor:
        p = fixed_aim if fixed_aim is not None else read(aim, generator=source)
        q = read(mesh, generator=source)
        return D(p.points, q.points, p.weights, q.weights, **options)

    chosen = _resolved(compare, fixed_aim or read(aim, generator=source), read(begin, generator=source))

    def step(_: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        mesh = scaled(deform())
        distance = value(chosen, mesh, **draw)
        loss, terms = distance, {"discrepancy": distance.detach()}
        for penalty in penalties:
            term = penalty(mesh, aim)
            loss, terms[type(penalty).__name__] = loss + term, term.detach()
        return loss, terms

    history = plan.run(parameters, step)
    with torch.no_grad():
        final = deform()
        state = source.get_state()
        before = float(value(chosen, begin, **draw))
        source.set_state(state)
        after = float(value(chosen, scaled(final), **draw))
    return MeshFit(final, before, after, plan.steps, deformer, history)


def _deformation(
    deformation: Any, integrator: Integrator | None, start: Mesh, centre: Tensor, scale: float, source: torch.Generator
) -> tuple[Callable[[], Mesh], list[nn.Parameter], NeuralODEDeformer | None]:
    """The deformed template as a function of nothing, what to train, and the deformer if there is one."""
    if isinstance(deformation, FreeVertices):
        offset = nn.Parameter(torch.zeros_like(start.vertices))
        return lambda: start.moved(start.vertices + scale * offset), [offset], None
    if isinstance(deformation, NeuralODEDeformer):
        if integrator is not None:
            raise TypeError("the deformer has an integrator of its own: leave integrator out")
        deformer = deformation
    elif deformation is None or isinstance(deformation, VelocityMLP):
        velocity = (deformation or VelocityMLP()).build(centre, scale, generator=source)
        deformer = NeuralODEDeformer(velocity, integrator)
    else:
        raise TypeError(f"deformation must be VelocityMLP(), a NeuralODEDeformer or FreeVertices(), got {deformation!r}")
    parameters = list(deformer.parameters())
    if not parameters:
        raise TypeError("the deformer's velocity has no parameters to train: make it an nn.Module")
    return lambda: deformer.deform(start), parameters, deformer


def _resolved(discrepancy: Discrepancy, p: MeshMeasure, q: MeshMeasure) -> Discrepancy:
    return discrepancy.resolved(p.points.detach(), q.points.detach(), p.weights, q.weights)


__all__ = ["FreeVertices", "MeshFit", "NeuralODEDeformer", "fit_mesh"]
