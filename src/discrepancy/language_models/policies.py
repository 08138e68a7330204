"""Policies small enough to enumerate: a table over a finite set, and a homogeneous Markov chain over strings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from discrepancy._validate import generator_or_default, whole_number

_MOST_STRINGS = 2**22  # 4 million strings: 100 MB of log-probabilities and indices


class TabularPolicy(nn.Module):
    """softmax(logits) over the last dimension of a table (..., K): one law for each context, or a single one."""

    def __init__(self, logits: Tensor) -> None:
        """Start at the given logits, floating point, -inf excluding a choice for good."""
        super().__init__()
        if logits.ndim == 0 or logits.shape[-1] == 0 or not logits.is_floating_point():
            raise ValueError(f"logits must be floating point (..., K), got {logits.dtype} of shape {tuple(logits.shape)}")
        self.logits = nn.Parameter(logits.detach().clone())

    @classmethod
    def from_probs(cls, probs: Tensor) -> TabularPolicy:
        """The policy with these probabilities."""
        return cls(torch.log(probs))

    @property
    def log_probs(self) -> Tensor:
        """log pi, (..., K)."""
        return torch.log_softmax(self.logits, -1)

    @property
    def probs(self) -> Tensor:
        """pi, (..., K)."""
        return torch.softmax(self.logits, -1)

    def forward(self) -> Tensor:
        """The logits."""
        return self.logits

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n indices, (n,) or (..., n) with contexts."""
        whole_number(n, 1, "n")
        rows = self.probs.detach().reshape(-1, self.logits.shape[-1])
        draws = torch.multinomial(rows, n, replacement=True, generator=generator_or_default(generator, rows.device))
        return draws.reshape(*self.logits.shape[:-1], n)

    def log_prob(self, indices: Tensor) -> Tensor:
        """log pi of indices (..., n), differentiable in the logits."""
        return self.log_probs.gather(-1, indices)


class MarkovPolicy(nn.Module):
    """p(x) = softmax(start)_{x_1} prod_t softmax(transition_{x_{t-1}})_{x_t} over strings of `length` symbols."""

    def __init__(self, start: Tensor, transition: Tensor, length: int) -> None:
        """Start at logits `start` (V,) and `transition` (V, V), row = previous symbol."""
        super().__init__()
        size = start.shape[0] if start.ndim == 1 else 0
        if size == 0 or transition.shape != (size, size):
            raise ValueError(
                f"start must be (V,) and transition (V, V), got shapes {tuple(start.shape)} and {tuple(transition.shape)}"
            )
        whole_number(length, 1, "length")
        self.start, self.transition = nn.Parameter(start.detach().clone()), nn.Parameter(transition.detach().clone())
        self.length = length

    @property
    def size(self) -> int:
        """The number of symbols V."""
        return len(self.start)

    def log_prob(self, strings: Tensor) -> Tensor:
        """log p (n,) of strings (n, length), differentiable in the logits."""
        if strings.ndim != 2 or strings.shape[1] != self.length:
            raise ValueError(f"strings must be (n, {self.length}), got shape {tuple(strings.shape)}")
        start, transition = torch.log_softmax(self.start, -1), torch.log_softmax(self.transition, -1)
        return start[strings[:, 0]] + transition[strings[:, :-1], strings[:, 1:]].sum(-1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n strings (n, length)."""
        whole_number(n, 1, "n")
        generator = generator_or_default(generator, self.start.device)
        rows = torch.softmax(self.transition.detach(), -1)
        symbol = torch.multinomial(torch.softmax(self.start.detach(), -1), n, replacement=True, generator=generator)
        symbols = [symbol]
        for _ in range(self.length - 1):
            symbol = torch.multinomial(rows[symbol], 1, generator=generator).squeeze(-1)
            symbols.append(symbol)
        return torch.stack(symbols, -1)

    def strings(self) -> Tensor:
        """All V^length strings in lexicographic order. Raises ValueError beyond four million."""
        count = self.size**self.length
        if count > _MOST_STRINGS:
            raise ValueError(
                f"{self.size}^{self.length} strings are too many to enumerate (at most {_MOST_STRINGS}): sample instead"
            )
        symbols = torch.arange(self.size, device=self.start.device)
        return torch.cartesian_prod(*[symbols] * self.length).reshape(count, self.length)

    def enumerate(self) -> tuple[Tensor, Tensor]:
        """All strings (V^length, length) and their log-probabilities, differentiable."""
        strings = self.strings()
        return strings, self.log_prob(strings)


__all__ = ["MarkovPolicy", "TabularPolicy"]
