"""Critics of the variational bounds: how a pair is scored, by which network, and against how many others."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from discrepancy._validate import whole_number
from discrepancy.networks import MLP, BilinearCritic, ConcatenatedCritic, SeparableCritic

_PAIRED = (BilinearCritic, ConcatenatedCritic, SeparableCritic)  # forward() scores all pairs, pairs() each row
_SCORED_AT_ONCE = 65536  # pairs in one pass of a critic that scores each pair by itself


class PairScores(nn.Module, ABC):
    """What a bound asks of a critic of pairs."""

    @abstractmethod
    def joint(self, x: Tensor, y: Tensor) -> Tensor:
        """Scores (n,) of the rows x_i with their own y_i."""

    @abstractmethod
    def product(self, x: Tensor, y: Tensor, shifts: Tensor) -> Tensor:
        """Scores (n, K) of x_i with y_{i+s mod n} for each of the K shifts s: draws of the product of the margins."""


def shifted_products(g: Tensor, h: Tensor, shifts: Tensor) -> Tensor:
    """g_i . h_{i+s mod n} for features g, h (n, k) and each of the K shifts s: (n, K)."""
    n = len(g)
    if 4 * len(shifts) >= n:  # most pairs are wanted: one matrix product, then the diagonals
        rows = torch.arange(n, device=g.device)
        return (g @ h.T)[rows[:, None], (rows[:, None] + shifts.to(g.device)) % n]
    return torch.stack([(g * h.roll(-int(s), 0)).sum(-1) for s in shifts], 1)


class Critic(ABC):
    """A family of critics; `negatives` is how many draws of the product a row is compared with in training."""

    negatives: int

    @abstractmethod
    def of_pairs(self, left: int, right: int, generator: torch.Generator) -> PairScores:
        """A critic of pairs of points of these widths."""

    @abstractmethod
    def of_points(self, width: int, generator: torch.Generator) -> nn.Module:
        """A critic of single points: (n, width) -> (n,)."""


class _Rows(nn.Module):
    """A network with one output, as a function (n, d) -> (n,)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).flatten(1)[:, 0]


def _silent(net: nn.Module) -> nn.Module:
    """The network with a last linear layer of zeros: it starts as the function zero."""
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return net


class _EachPair(PairScores):
    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def joint(self, x: Tensor, y: Tensor) -> Tensor:
        value = self.critic.pairs(x, y) if isinstance(self.critic, _PAIRED) else self.critic(x, y)
        if value.shape not in ((len(x),), (len(x), 1)):
            raise ValueError(f"the critic must score {len(x)} pairs with {len(x)} numbers, got shape {tuple(value.shape)}")
        return value.reshape(len(x))

    def product(self, x: Tensor, y: Tensor, shifts: Tensor) -> Tensor:
        n, parts = len(x), []
        for some in shifts.split(max(1, _SCORED_AT_ONCE // n)):
            others = (torch.arange(n, device=x.device) + some[:, None].to(x.device)) % n
            score = self.joint(x.repeat(len(some), 1), y[others.flatten()])
            parts.append(score.reshape(len(some), n).T)
        return torch.cat(parts, 1)


class _Features(PairScores):
    def __init__(self, critic: SeparableCritic) -> None:
        super().__init__()
        self.critic = critic

    def joint(self, x: Tensor, y: Tensor) -> Tensor:
        return self.critic.pairs(x, y)

    def product(self, x: Tensor, y: Tensor, shifts: Tensor) -> Tensor:
        return shifted_products(self.critic.left(x), self.critic.right(y), shifts)


@dataclass(frozen=True)
class Concatenated(Critic):
    """f(x, y) = network([x, y]), which can take any form; in training each row meets `negatives` others.

    Time of a step: (1 + negatives) passes a row.
    """

    network: MLP = field(default_factory=lambda: MLP(64, 2, nn.ReLU))
    negatives: int = 4

    def __post_init__(self) -> None:
        """Raise ValueError for no negatives."""
        whole_number(self.negatives, 1, "negatives")

    def of_pairs(self, left: int, right: int, generator: torch.Generator) -> PairScores:
        """The critic, zero at the start."""
        critic = ConcatenatedCritic(left, right, self.network, generator=generator, dtype=torch.float32)
        return _EachPair(_silent(critic))

    def of_points(self, width: int, generator: torch.Generator) -> nn.Module:
        """The network with one output, zero at the start."""
        return _Rows(_silent(self.network.build(width, 1, generator=generator, dtype=torch.float32)))


@dataclass(frozen=True)
class Separable(Critic):
    """f(x, y) = g(x)^T h(y) with `features` features: cheap against many others, at most `features` ways of depending.

    Time of a step: two passes a row, and batch x negatives x features multiplications.
    """

    network: MLP = field(default_factory=lambda: MLP(64, 2, nn.ReLU))
    features: int = 32
    negatives: int = 255

    def __post_init__(self) -> None:
        """Raise ValueError unless features and negatives are at least 1."""
        whole_number(self.features, 1, "features")
        whole_number(self.negatives, 1, "negatives")

    def of_pairs(self, left: int, right: int, generator: torch.Generator) -> PairScores:
        """The critic, zero at the start because h is."""
        critic = SeparableCritic(left, right, self.network, self.features, generator=generator, dtype=torch.float32)
        _silent(critic.right)
        return _Features(critic)

    def of_points(self, width: int, generator: torch.Generator) -> nn.Module:
        """The network with one output, zero at the start: single points have nothing to separate."""
        return _Rows(_silent(self.network.build(width, 1, generator=generator, dtype=torch.float32)))


@dataclass(frozen=True)
class GivenCritic(Critic):
    """A module of your own: critic(x, y) -> (n,) for pairs, critic(z) -> (n,) for points. It is copied, never changed.

    Every fold starts from a copy of its weights as they are.
    """

    module: nn.Module
    negatives: int = 4

    def __post_init__(self) -> None:
        """Raise TypeError for what is no module, ValueError for no negatives."""
        if not isinstance(self.module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {self.module!r}")
        whole_number(self.negatives, 1, "negatives")

    def of_pairs(self, left: int, right: int, generator: torch.Generator) -> PairScores:
        """A copy of the module."""
        return _EachPair(copy.deepcopy(self.module).float())

    def of_points(self, width: int, generator: torch.Generator) -> nn.Module:
        """A copy of the module."""
        return _Rows(_Column(copy.deepcopy(self.module).float()))


class _Column(nn.Module):
    """A module whose values (n,) or (n, 1) are checked and returned as (n, 1)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> Tensor:
        value = self.module(z)
        if value.shape not in ((len(z),), (len(z), 1)):
            raise ValueError(f"the critic must score {len(z)} points with {len(z)} numbers, got shape {tuple(value.shape)}")
        return value.reshape(len(z), 1)


__all__ = ["Concatenated", "Critic", "GivenCritic", "PairScores", "Separable", "shifted_products"]
