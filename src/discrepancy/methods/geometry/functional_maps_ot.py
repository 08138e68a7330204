"""Unsupervised shape correspondence by functional maps whose features a transport loss aligns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from discrepancy._kinds import Discrepancy
from discrepancy._results import Result
from discrepancy._validate import at_least, generator_or_default, positive, whole_number
from discrepancy.directions import Uniform
from discrepancy.learning import Training
from discrepancy.methods.geometry.functional_maps import (
    Correspondence,
    EntropicCorrespondence,
    FunctionalMapLosses,
    LossWeights,
    SoftCorrespondence,
    SoftmaxCorrespondence,
    fmap_losses,
    fmap_to_point_map,
    functional_map,
)
from discrepancy.methods.geometry.laplacians import LaplacianBasis, WaveKernelSignature
from discrepancy.neighbors import nearest_neighbors
from discrepancy.networks.diffusion_net import DiffusionNet
from discrepancy.networks.mlp import MLP
from discrepancy.transport import SlicedWasserstein


class FeatureNetwork(nn.Module):
    """Descriptors of a shape, standardised, through a network: (descriptors (n, q), basis) -> features (n, c)."""

    def __init__(self, net: nn.Module, centre: Tensor, scale: Tensor, *, takes_basis: bool) -> None:
        """Wrap `net` with the descriptors' mean and spread over the training shapes, each (q,)."""
        super().__init__()
        self.net, self.takes_basis = net, takes_basis
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)

    def forward(self, descriptors: Float[Tensor, "n q"], basis: LaplacianBasis) -> Float[Tensor, "n c"]:
        """The features of every point."""
        z = (descriptors - self.centre) / self.scale  # type: ignore[operator]
        return self.net(z, basis) if self.takes_basis else self.net(z)


@dataclass(frozen=True, repr=False)
class ShapeMatch(Result):
    """A correspondence: `y_to_x` (n_y,), the point of X that each point of Y comes from, the functional maps `C_xy` and `C_yx`
    that the features give, the `losses` that they have, and the record of the refinement (`history`, None without).

    What is known on X, labels of parts say, is carried over to Y by labels[y_to_x].
    """

    y_to_x: Int[Tensor, " m"]
    C_xy: Float[Tensor, "k k"]
    C_yx: Float[Tensor, "k k"]
    losses: FunctionalMapLosses
    history: dict[str, list[float]] | None = field(default=None, repr=False)


def feature_transport(
    features_x: Float[Tensor, "n c"],
    features_y: Float[Tensor, "m c"],
    soft: Correspondence,
    discrepancy: Discrepancy,
    *,
    masses: tuple[Tensor, Tensor] | None = None,
    bidirectional: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """D(f_X, Pi_xy f_Y): how far the features of X are from those of Y that the soft correspondence pulls over to X.

    Both sides have n_x points: the loss regularises a barycentric pull-back, and says more than D(f_X, f_Y), which knows no
    correspondence. `bidirectional` adds D(f_Y, Pi_yx f_X); `masses` weights points by their area instead of equally.
    """
    a, b = (None, None) if masses is None else (m / m.sum() for m in masses)
    loss = discrepancy(features_x, soft.xy @ features_y, a, a, generator=generator)
    if bidirectional:
        loss = loss + discrepancy(features_y, soft.yx @ features_x, b, b, generator=generator)
    return loss


@dataclass
class ShapeMatcher:
    """Correspondences between non-rigid shapes, learned without labels: features from a network give a functional map and a soft
    point map, and training asks that both agree, keep area, invert each other, and carry features onto features.

    The loss of a pair is sum of `weights` times: bijectivity, orthogonality, alignment of the functional map with the soft one,
    and `discrepancy` (any `Discrepancy`; P is the features of X, Q those pulled over from Y; `EnergySlicedWasserstein` weights
    directions). Functional maps are those of `functional_map` with `mask_weight` and `gamma`; soft maps those of
    `correspondence`.

    descriptors: a function of the basis to (n, q), wave kernel signatures unless said otherwise; network: a `DiffusionNet` or
    `MLP` built for `features` outputs, or a module called as net(descriptors, basis), copied. `isometric` says how point maps are
    read off: through the soft map's projection to the basis (True), or as nearest features (False, for shapes that stretch).
    `mass_weights` weights points by area in the transport loss, `bidirectional` adds its other direction.

    `fit(pairs)` takes pairs of meshes (any object with vertices and faces) or of `LaplacianBasis` (graphs, point clouds), one
    pair a step, `epochs` times, Adam with a cosine to a tenth. `match(X, Y, refine=15)` refines a copy of the network on
    the pair at hand by as many steps with `refinement`, whose soft map enters the transport term as data. Fitted attributes:
    `module_`, `history_`. `random_state` seeds a fit or match without a generator.

    Raises ValueError for options out of range, no pairs, shapes with k points or fewer, bases with fewer than k eigenfunctions;
    TypeError for what is no shape and for mixed dtypes; NumericalError naming the step where training diverges. Soft maps
    take n_x n_y numbers: shapes of ten thousand points need gigabytes.
    Source: Le et al. (2024).
    """

    k: int = 200
    descriptors: Callable[[LaplacianBasis], Tensor] = field(default_factory=WaveKernelSignature)
    network: DiffusionNet | MLP | nn.Module = field(default_factory=DiffusionNet)
    features: int = 256
    discrepancy: Discrepancy = field(default_factory=lambda: SlicedWasserstein(directions=Uniform(200)))
    weights: LossWeights = field(default_factory=LossWeights)
    correspondence: SoftCorrespondence = field(default_factory=SoftmaxCorrespondence)
    refinement: SoftCorrespondence = field(default_factory=EntropicCorrespondence)
    mask_weight: float = 100.0
    gamma: float = 0.5
    isometric: bool = True
    bidirectional: bool = False
    mass_weights: bool = False
    epochs: int = 30
    learning_rate: float = 1e-3
    random_state: int | None = None
    references: ClassVar[tuple[str, ...]] = ("functional-maps-ot", "ovsjanikov-2012", "ren-2019", "sharp-2022", "aubry-2011")

    def __post_init__(self) -> None:
        """Check the options."""
        for name, least in (("k", 2), ("features", 1), ("epochs", 1)):
            value = getattr(self, name)
            whole_number(value, least, name)
        at_least(self.mask_weight, 0, "mask_weight")
        for name in ("gamma", "learning_rate"):
            positive(getattr(self, name), name)
        if not isinstance(self.discrepancy, Discrepancy):
            raise TypeError(f"discrepancy must be a Discrepancy such as SlicedWasserstein(), got {self.discrepancy!r}")
        if not isinstance(self.weights, LossWeights):
            raise TypeError(f"weights must be LossWeights(...), got {self.weights!r}")
        if not isinstance(self.network, DiffusionNet | MLP | nn.Module):
            raise TypeError(f"network must be a DiffusionNet, an MLP or a module, got {self.network!r}")
        for name in ("descriptors", "correspondence", "refinement"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name} must be callable, got {getattr(self, name)!r}")

    def basis(self, shape: Any) -> LaplacianBasis:
        """The first k eigenfunctions of a mesh, or of a basis that is there already."""
        if not isinstance(shape, LaplacianBasis):
            return LaplacianBasis.from_mesh(shape, k=self.k)
        if shape.k < self.k:
            raise ValueError(f"a basis has {shape.k} eigenfunctions and k is {self.k}: build it with more, or lower k")
        return shape if shape.k == self.k else shape.truncated(self.k)

    def fit(self, pairs: Sequence[tuple[Any, Any]], *, generator: torch.Generator | None = None) -> ShapeMatcher:
        """Learn the features from pairs of shapes that correspond; a shape that occurs twice is decomposed once."""
        pairs = list(pairs)
        if not pairs or any(not isinstance(pair, tuple | list) or len(pair) != 2 for pair in pairs):
            raise ValueError("fit takes a list of pairs (X, Y) of shapes, at least one")
        source = self._generator(generator)
        known: dict[int, tuple[LaplacianBasis, Tensor]] = {}
        for shape in (shape for pair in pairs for shape in pair):
            if id(shape) not in known:
                known[id(shape)] = self._described(shape)
        self.module_ = self._network([d for _, d in known.values()], source)
        order: list[int] = []

        def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            if not order:
                order.extend(torch.randperm(len(pairs), generator=source).tolist())
            x, y = pairs[order.pop()]
            losses = self._losses(self.module_, known[id(x)], known[id(y)], self.correspondence, False, source)[0]
            return losses.total, _terms(losses)

        training = Training(self.epochs * len(pairs), self.learning_rate)
        self.history_ = training.run(self.module_.parameters(), step)
        return self

    def match(self, X: Any, Y: Any, *, refine: int = 15, generator: torch.Generator | None = None) -> ShapeMatch:
        """The correspondence of two shapes, after `refine` steps on a copy of the network (0: none). The fit stays as it is.

        Raises TypeError before `fit`, ValueError for a negative number of steps.
        """
        if not hasattr(self, "module_"):
            raise TypeError("this ShapeMatcher is not fitted: call fit(pairs) first")
        whole_number(refine, 0, "refine")
        source = self._generator(generator)
        x, y = self._described(X), self._described(Y)
        module, soft, history = self.module_, self.correspondence, None
        if refine:
            module, soft = copy.deepcopy(module), self.refinement

            def step(_: int) -> tuple[Tensor, dict[str, Tensor | float]]:
                losses = self._losses(module, x, y, soft, True, source)[0]
                return losses.total, _terms(losses)

            training = Training(refine, self.learning_rate, final_share=1.0, record_every=1)
            history = training.run(module.parameters(), step)
        with torch.no_grad():
            losses, C_xy, C_yx, maps = self._losses(module, x, y, soft, False, source)
            if self.isometric:
                projected = y[0].coefficients(maps.yx @ x[0].vectors)
                y_to_x = fmap_to_point_map(projected, x[0], y[0])
            else:
                y_to_x = nearest_neighbors(module(y[1], y[0]), module(x[1], x[0]), 1).indices[:, 0]
        return ShapeMatch(y_to_x, C_xy, C_yx, losses, history)

    def describe(self, shape: Any) -> Float[Tensor, "n c"]:
        """The learned features of a shape's points. Raises TypeError before `fit`."""
        if not hasattr(self, "module_"):
            raise TypeError("this ShapeMatcher is not fitted: call fit(pairs) first")
        basis, descriptors = self._described(shape)
        with torch.no_grad():
            return self.module_(descriptors, basis)

    def _generator(self, generator: torch.Generator | None) -> torch.Generator:
        if generator is None and self.random_state is not None:
            return torch.Generator().manual_seed(self.random_state)
        return generator_or_default(generator)

    def _described(self, shape: Any) -> tuple[LaplacianBasis, Tensor]:
        basis = self.basis(shape)
        descriptors = self.descriptors(basis)
        if descriptors.ndim != 2 or len(descriptors) != basis.n:
            raise ValueError(f"descriptors must be ({basis.n}, q), a row for each point, got {tuple(descriptors.shape)}")
        return basis, descriptors

    def _network(self, descriptors: list[Tensor], source: torch.Generator) -> FeatureNetwork:
        every = torch.cat(descriptors)
        spread = every.std(0)
        # A descriptor that never changes tells nothing; divided by one it stays zero.
        scale = torch.where(spread > 1e-6 * every.abs().amax(0), spread, torch.ones_like(spread))
        if isinstance(self.network, nn.Module):
            return FeatureNetwork(copy.deepcopy(self.network), every.mean(0), scale, takes_basis=True)
        net = self.network.build(every.shape[1], self.features, generator=source, dtype=every.dtype).to(every.device)
        return FeatureNetwork(net, every.mean(0), scale, takes_basis=isinstance(self.network, DiffusionNet))

    def _losses(
        self,
        module: nn.Module,
        x: tuple[LaplacianBasis, Tensor],
        y: tuple[LaplacianBasis, Tensor],
        soft: SoftCorrespondence,
        detach: bool,
        source: torch.Generator,
    ) -> tuple[FunctionalMapLosses, Tensor, Tensor, Correspondence]:
        """The losses of a pair, both functional maps, and the soft correspondence."""
        (basis_x, descriptors_x), (basis_y, descriptors_y) = x, y
        f_x, f_y = module(descriptors_x, basis_x), module(descriptors_y, basis_y)
        options = {"weight": self.mask_weight, "gamma": self.gamma}
        C_xy = functional_map(f_x, f_y, basis_x, basis_y, **options)
        C_yx = functional_map(f_y, f_x, basis_y, basis_x, **options)
        maps = soft(f_x, f_y)
        transport = None
        if self.weights.transport:
            transport = feature_transport(
                f_x,
                f_y,
                maps.detach() if detach else maps,
                self.discrepancy,
                masses=(basis_x.mass, basis_y.mass) if self.mass_weights else None,
                bidirectional=self.bidirectional,
                generator=source if self.discrepancy.claims.random else None,
            )
        losses = fmap_losses(C_xy, C_yx, maps, basis_x, basis_y, weights=self.weights, transport=transport)
        return losses, C_xy, C_yx, maps


def _terms(losses: FunctionalMapLosses) -> dict[str, Tensor | float]:
    names = ("bijectivity", "orthogonality", "alignment", "transport")
    return {name: getattr(losses, name).detach() for name in names}


__all__ = ["FeatureNetwork", "ShapeMatch", "ShapeMatcher", "feature_transport"]
