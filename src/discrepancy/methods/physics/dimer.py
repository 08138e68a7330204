"""The dimer: two close points that turn to the direction of lowest curvature and climb along it to a saddle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import at_least, positive
from discrepancy.methods.physics.configurations import Types, atoms

# x (D,) -> the energy and its gradient (D,).
Surface = Callable[[Tensor], tuple[float, Tensor]]


@dataclass(frozen=True)
class Dimer:
    """How a dimer turns and moves. `saddle_search` with it alone evaluates the surface itself at every turn and move.

    separation: of the two points. rotations: turns before each move, each costing one gradient; a turn predicted to be smaller
    than `rotation_tolerance` (radians) is not made. step_limit: the longest move of an atom (of the point, for plain surfaces);
    uphill_step: the move along the dimer while its curvature is positive; memory: pairs that L-BFGS keeps.
    """

    separation: float = 0.01
    rotations: int = 1
    rotation_tolerance: float = math.radians(5)
    step_limit: float = 0.05
    uphill_step: float = 0.1
    memory: int = 25
    references: ClassVar[tuple[str, ...]] = ("henkelman-jonsson-1999", "kastner-sherwood-2008")

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ("separation", "rotation_tolerance", "step_limit", "uphill_step"):
            positive(getattr(self, name), name)
        at_least(self.rotations, 1, "rotations")
        at_least(self.memory, 1, "memory")


@dataclass(frozen=True)
class Rotation:
    """A dimer's unit `direction`, the `curvature` along it, and whether further turns would have been small."""

    direction: Tensor
    curvature: float
    settled: bool


def rotate(surface: Surface, x: Tensor, g0: Tensor, direction: Tensor, dimer: Dimer, rigid: Tensor) -> Rotation:
    """Turn the dimer at x, with gradient g0 there, towards the lowest curvature, staying off the `rigid` modes (D, k).

    Each turn is in the plane of the direction o and the rotational force; a trial turn by half of atan(slope / (2 |c|)) fits
    c(t) = a_0 / 2 + a_1 cos 2t + b_1 sin 2t, whose minimum is taken. The gradient at the new end follows from the two known
    ones to second order, so that a turn costs one evaluation, and the last curvature is that of the final direction.
    Source: Heyden, Bell and Keil (2005); Kastner and Sherwood (2008).
    """
    step = dimer.separation
    o = unit(off(direction, rigid))
    g1 = surface(x + step * o)[1]
    for _ in range(dimer.rotations):
        c0 = float((g1 - g0) @ o) / step
        force = off((g1 - g0) / step, rigid)
        force = force - (force @ o) * o
        size = float(force.norm())
        trial = math.atan2(size, abs(c0)) / 2
        if trial < dimer.rotation_tolerance:
            return Rotation(o, c0, True)
        turn = -force / size
        oriented = math.cos(trial) * o + math.sin(trial) * turn
        trial_end = surface(x + step * oriented)[1]
        c1 = float((trial_end - g0) @ oriented) / step
        b1 = -size
        a1 = (c0 - c1 + b1 * math.sin(2 * trial)) / (1 - math.cos(2 * trial))
        angle = (math.atan2(b1, a1) + math.pi) / 2  # where a_1 cos 2t + b_1 sin 2t is smallest: within (0, pi / 2), as b_1 < 0
        g1 = (
            math.sin(trial - angle) / math.sin(trial) * g1
            + math.sin(angle) / math.sin(trial) * trial_end
            + (1 - math.cos(angle) - math.sin(angle) * math.tan(trial / 2)) * g0
        )
        o = unit(off(math.cos(angle) * o + math.sin(angle) * turn, rigid))
    return Rotation(o, float((g1 - g0) @ o) / step, False)


@dataclass
class Climber:
    """Moves of a dimer: uphill along it while the curvature is positive, else by L-BFGS on the force, reversed along it.

    With a `heading` the moves of the first kind go that way, uphill or not, and keep to it as the dimer turns.
    """

    dimer: Dimer
    heading: Tensor | None = None
    _pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _last: tuple[Tensor, Tensor] | None = None

    def move(self, x: Tensor, g0: Tensor, turned: Rotation, rigid: Tensor) -> Float[Tensor, " D"]:
        """The next step from x, not longer than the limits."""
        o, along = turned.direction, float(g0 @ turned.direction)
        if turned.curvature >= 0:
            self._pairs.clear()
            self._last = None
            step = math.copysign(self.dimer.uphill_step, along if self.heading is None else float(o @ self.heading)) * o
            self.heading = None if self.heading is None else step
            return step
        force = off(2 * along * o - g0, rigid)
        if self._last is not None:
            step, change = x - self._last[0], self._last[1] - force
            if float(step @ change) > 0:  # otherwise the pair would make the step go the wrong way
                self._pairs = [*self._pairs, (step, change)][-self.dimer.memory :]
        self._last = (x, force)
        moved = self._two_loops(force)
        return moved if float(moved @ force) > 0 else force

    def _two_loops(self, force: Tensor) -> Tensor:
        q, kept = force.clone(), []
        for step, change in reversed(self._pairs):
            scale = float(step @ q) / float(step @ change)
            kept.append(scale)
            q = q - scale * change
        if self._pairs:
            step, change = self._pairs[-1]
            q = q * (float(step @ change) / float(change @ change))
        for (step, change), scale in zip(self._pairs, reversed(kept), strict=True):
            q = q + (scale - float(change @ q) / float(step @ change)) * step
        return q


def limited(step: Tensor, largest: float | Tensor, types: Types | None) -> Tensor:
    """The step, scaled down so that no atom (on plain surfaces, the point) moves farther than `largest`: one or one each."""
    sizes = step.norm()[None] if types is None else torch.linalg.vector_norm(atoms(step, types, "step"), dim=-1)
    excess = float((sizes / largest).max())
    return step / excess if excess > 1 else step


def rigid_modes(x: Tensor, types: Types | None, *, periodic: bool = False) -> Float[Tensor, "D k"]:
    """An orthonormal basis of the translations and rotations of atoms at x (3 N,); without columns for plain surfaces.

    Rotations are left out in a periodic box. A linear molecule has two of them.
    """
    if types is None:
        return torch.zeros(len(x), 0, dtype=x.dtype)
    places = atoms(x, types, "x")
    eye = torch.eye(3, dtype=x.dtype)
    modes = [eye[k].expand_as(places) for k in range(3)]
    if not periodic:
        centred = places - places.mean(0)
        modes += [torch.linalg.cross(eye[k].expand_as(centred), centred) for k in range(3)]
    basis, sizes, _ = torch.linalg.svd(torch.stack([m.flatten() for m in modes], 1), full_matrices=False)
    return basis[:, sizes > 1e-8 * sizes[0]]


def off(v: Tensor, rigid: Tensor) -> Tensor:
    """v without its part in the span of the orthonormal columns."""
    return v - rigid @ (rigid.mT @ v)


def unit(v: Tensor) -> Tensor:
    """v divided by its length."""
    return v / v.norm()


__all__ = ["Climber", "Dimer", "Rotation", "Surface", "limited", "off", "rigid_modes", "rotate", "unit"]
