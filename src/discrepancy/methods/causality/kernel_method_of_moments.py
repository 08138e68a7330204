"""Parameters from moment restrictions by laws close to the data in MMD, which need not live on the data points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from discrepancy._validate import at_least, positive, sample, whole_number
from discrepancy.divergences import FDivergence, ReverseKL
from discrepancy.divergences.admission import SMOOTH, Admission, Condition
from discrepancy.kernels import Gaussian, Kernel, MedianHeuristic
from discrepancy.kernels.landmarks import features_at
from discrepancy.kernels.separations import SQUARED_EUCLIDEAN
from discrepancy.methods.causality.baselines import EarlyFit, gmm, least_squares, maximum_moment_restriction
from discrepancy.methods.causality.kmm_dual import InnerProblem
from discrepancy.methods.causality.kmm_options import (
    KernelInstruments,
    NeuralInstruments,
    ProfileSolver,
    SaddleSolver,
    SmoothedReference,
)
from discrepancy.methods.causality.kmm_saddle import search_saddle
from discrepancy.methods.causality.moments import MomentData, MomentFunction, minimise, moment_data, own_copy, residuals
from discrepancy.methods.causality.parameters import Parameters

ADMITS = Admission("kernel_method_of_moments", (FDivergence,), (SMOOTH,), ("ReverseKL()", "KL()", "NeymanChiSquared()"))
# The reversed generator's slope at infinity is at_zero: below it, the dual has a domain that batches of fresh draws leave.
SADDLE_ADMITS = Admission(
    "the saddle solver of kernel_method_of_moments",
    (FDivergence,),
    (SMOOTH, Condition("f(0) = inf, which makes the dual finite everywhere", lambda f: f.at_zero == float("inf"))),
    ("ReverseKL()", "0.5 * NeymanChiSquared()"),
)
_LARGE = 2000  # rows up to which the profile solver is the default


@dataclass(eq=False)
class KernelMethodOfMoments(Parameters):
    """theta with the smallest R(theta) = inf over P of MMD^2(P, P_n) / 2 + epsilon D(omega || P), subject to E_P[psi(X; theta)
    | Z] = 0.

    The candidate P is the searched law and omega the given one, so that the paper's KL(P || omega) is `ReverseKL()` here,
    empirical likelihood's is `KL()`, and its chi-squared, half of Pearson's of P, is `NeymanChiSquared() / 2` (with P >= 0
    enforced). The dual is maximised: over f in the kernel's space, a constant c and the multiplier h, a number (no instruments)
    or a function of z with penalty lambda |h|^2 / 2.

    model: an `nn.Module`, copied; moments: (model, blocks) -> psi (n, m), the blocks being tensors (n, d) by name.
    divergence: any smooth f-divergence. instruments: `KernelInstruments()`, `NeuralInstruments()`, or None for unconditional
    restrictions. kernel: on all blocks and z side by side, each divided by its median distance over sqrt 2 (default
    `Gaussian(1.0)`: a product of Gaussians with median widths). psi is divided by its standard deviation at the start
    (`scale_`), which fixes the meaning of epsilon and penalty; start: the model to begin with (None: maximum moment restriction,
    or GMM's first step). solver: None takes `ProfileSolver()` for up to 2000 rows and instruments that are no network,
    `SaddleSolver()` else. Small epsilon is ill-conditioned, large epsilon nears reweighting of omega.

    Sets `model_`, `params_`, `history_`, and `value_` = R (profile solver). Numbered deviations from the paper: (1) kernel
    features at
    landmarks instead of random Fourier features, so that any kernel serves; (2) the profile solver, by the envelope theorem.
    Raises NumericalError where no law near the reference meets the restrictions and penalty is 0. Consistent and, with
    instruments, first-order efficient (paper, theorem). Source: Kremer, Nemmour, Schoelkopf and Zhu (2023).
    """

    model: nn.Module
    moments: MomentFunction
    divergence: FDivergence = field(default_factory=ReverseKL)
    epsilon: float = 10.0
    penalty: float = 1e-2
    instruments: KernelInstruments | NeuralInstruments | None = None
    kernel: Kernel = field(default_factory=lambda: Gaussian(1.0))
    reference: SmoothedReference = field(default_factory=SmoothedReference)
    solver: ProfileSolver | SaddleSolver | None = None
    most_features: int = 300
    start: nn.Module | None = None
    random_state: int | None = None

    references: ClassVar[tuple[str, ...]] = ("kernel-method-of-moments", "daskalakis-2018", "williams-seeger-2001")

    def _check(self) -> None:
        ADMITS.check(self.divergence)
        positive(self.epsilon, "epsilon")
        at_least(self.penalty, 0.0, "penalty")
        whole_number(self.most_features, 1, "most_features")
        if not callable(self.moments):
            raise TypeError(f"moments must be a function (model, blocks) -> psi, got {type(self.moments).__name__}")
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel must be a kernel such as Gaussian(1.0), got {self.kernel!r}")
        if self.instruments is not None and not isinstance(self.instruments, KernelInstruments | NeuralInstruments):
            raise TypeError(f"instruments must be KernelInstruments(), NeuralInstruments() or None, got {self.instruments!r}")
        if isinstance(self.solver, ProfileSolver) and isinstance(self.instruments, NeuralInstruments):
            raise TypeError("ProfileSolver() needs a concave dual: take KernelInstruments(), or SaddleSolver() for a network")
        if isinstance(self.solver, SaddleSolver):
            SADDLE_ADMITS.check(self.divergence)

    def fit(self, X: Mapping[str, Any], Z: Any = None) -> KernelMethodOfMoments:
        """Estimate from blocks X and instruments Z (n, d); see the class for what it raises."""
        self._check()
        data = moment_data(X, Z)
        if self.instruments is not None and data.z is None:
            raise ValueError("conditional restrictions need instruments: call fit(X, Z), or set instruments=None")
        if self.instruments is None and data.z is not None:
            raise ValueError("Z is given but instruments is None: set instruments=KernelInstruments() or leave Z out")
        seed = self.random_state if self.random_state is not None else int(torch.randint(2**31, ()))
        generator = torch.Generator().manual_seed(whole_number(seed, 0, "random_state"))
        self.model_ = own_copy(self.model) if self.start is None else own_copy(self.start)
        solver = self.solver
        if solver is None:
            small = data.count <= _LARGE and not isinstance(self.instruments, NeuralInstruments)
            solver = ProfileSolver() if small else SaddleSolver()
        if self.start is None and data.z is None:
            self.model_ = gmm(self.model_, self.moments, data.blocks, steps=1)
        elif self.start is None:
            # Models for the saddle solver are flexible: a minimum on all rows would fit noise.
            early = EarlyFit(seed=seed) if isinstance(solver, SaddleSolver) else None
            self.model_ = maximum_moment_restriction(self.model_, self.moments, data.blocks, data.z, early=early)
        with torch.no_grad():
            spread = residuals(self.moments, self.model_, data).std(0, correction=0)
        if not bool((spread > 0).all()):
            raise ValueError(f"moment {int((spread <= 0).nonzero()[0])} is constant over the data: it restricts nothing")
        self.scale_ = spread
        if isinstance(solver, SaddleSolver):
            SADDLE_ADMITS.check(self.divergence)
            self.history_ = search_saddle(self, solver, data, self._units(data), generator)
        else:
            self._profile(solver, data, generator)
        return self

    @property
    def params_(self) -> Tensor:
        """The parameters of the fitted model, flat."""
        return torch.cat([p.detach().reshape(-1) for p in self.model_.parameters() if p.requires_grad])

    def _units(self, data: MomentData) -> Tensor:
        """The median widths of the blocks, by column of `data.joined()`: median distance over sqrt 2."""
        rule, widths = MedianHeuristic(0.5**0.5), []
        for block in [*data.blocks.values(), *([] if data.z is None else [data.z])]:
            equal = torch.full((len(block),), 1 / len(block), dtype=block.dtype)
            widths.append(rule.choose(block, equal, SQUARED_EUCLIDEAN).expand(block.shape[1]))
        return torch.cat(widths)

    def _profile(self, solver: ProfileSolver, data: MomentData, generator: torch.Generator) -> None:
        own = data.joined()
        points = torch.cat([own, self.reference.draw(own, generator)])
        reference, units = data.split(points), self._units(data)
        features = features_at(points / units, self.kernel, most=self.most_features, generator=generator)
        at_points = features(points / units)
        weights = torch.full((len(points),), 1 / len(points), dtype=points.dtype)
        problem = InnerProblem(at_points[: len(own)], at_points, weights, self.divergence.reversed(), self.epsilon, self.penalty)
        basis = torch.ones(len(points), 1, dtype=points.dtype)
        if isinstance(self.instruments, KernelInstruments) and data.z is not None and reference.z is not None:
            spread = data.z.std(0)
            spread = torch.where(spread > 0, spread, torch.ones_like(spread))
            chosen = features_at(data.z / spread, self.instruments.kernel, most=self.instruments.most, generator=generator)
            basis = chosen(reference.z / spread)
        warm: list[Tensor | None] = [None]
        self.history_: list[dict[str, float]] = []

        def objective() -> Tensor:
            psi = residuals(self.moments, self.model_, reference) / self.scale_
            moments = (psi.unsqueeze(-1) * basis.unsqueeze(1)).flatten(1)
            warm[0] = problem.solve(moments, warm[0])
            # The maximiser is held fixed: the derivative of the value is that of the objective.
            value = problem.value(warm[0], moments)
            self.history_.append({"value": float(value.detach())})
            return value

        self.value_ = minimise(self.model_, objective, iterations=solver.iterations, tolerance=1e-7)


class _Residual:
    """psi = y - model(t)."""

    def __call__(self, model: nn.Module, blocks: dict[str, Tensor]) -> Tensor:
        """The residual (n, m)."""
        return blocks["y"] - model(blocks["t"])


@dataclass(eq=False)
class KernelIVRegressor(Parameters):
    """Instrumental-variable regression, E[y - f(t) | z] = 0, by the kernel method of moments: fit(T, Y, Z), predict(T).

    model: f as an `nn.Module` from (n, d) to (n, 1) (None: a linear function); options: those of `KernelMethodOfMoments`, whose
    estimator is kept as `estimator_`. Fitted by least squares first, then by maximum moment restriction, then by the method.
    """

    model: nn.Module | None = None
    divergence: FDivergence = field(default_factory=ReverseKL)
    epsilon: float = 10.0
    penalty: float = 1e-2
    instruments: KernelInstruments | NeuralInstruments = field(default_factory=KernelInstruments)
    solver: ProfileSolver | SaddleSolver | None = None
    random_state: int | None = None

    references: ClassVar[tuple[str, ...]] = ("kernel-method-of-moments",)

    def fit(self, T: Any, Y: Any, Z: Any) -> KernelIVRegressor:
        """Treatments T (n, d), outcomes Y (n,) or (n, 1), instruments Z (n, q)."""
        t, y = sample(T, "T"), sample(Y, "Y")
        model = nn.Linear(t.shape[-1], y.shape[-1]) if self.model is None else self.model
        start = least_squares(model, t, y)
        self.estimator_ = KernelMethodOfMoments(
            start,
            _Residual(),
            divergence=self.divergence,
            epsilon=self.epsilon,
            penalty=self.penalty,
            instruments=self.instruments,
            solver=self.solver,
            random_state=self.random_state,
        ).fit({"t": t, "y": y}, Z)
        return self

    def predict(self, T: Any) -> Any:
        """f at T: a tensor for a tensor, else an array."""
        if not hasattr(self, "estimator_"):
            raise AttributeError("this KernelIVRegressor is not fitted: call fit(T, Y, Z) first")
        points = sample(T, "T")
        with torch.no_grad():
            found = self.estimator_.model_(points.double()).to(points.dtype)
        return found if isinstance(T, Tensor) else np.asarray(found)


__all__ = ["ADMITS", "SADDLE_ADMITS", "KernelIVRegressor", "KernelMethodOfMoments"]
