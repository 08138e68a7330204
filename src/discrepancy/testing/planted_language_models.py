"""Causal language models that are tables: what each knows is planted, so that a decoding method's answer has a right one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class _TabularLanguageModel(nn.Module):
    """A module with the interface of a causal model whose laws are looked up: `logits` (B, T, V) from `_laws`, -inf for zero."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The log-probabilities (B, T, V) of the token behind each position."""
        return torch.stack([self._laws(input_ids[:, : t + 1]) for t in range(input_ids.shape[1])], 1).log()

    def _laws(self, ids: Tensor) -> Tensor:
        raise NotImplementedError


def _dirichlet(concentration: float, rows: int, columns: int, seed: int) -> Tensor:
    drawn = np.random.default_rng(seed).gamma(concentration, size=(rows, columns))
    return torch.from_numpy(drawn / drawn.sum(-1, keepdims=True))


class PlantedNoise(_TabularLanguageModel):
    """Programs of six tokens under a prompt that knows them, mixed with a bias that the prompt without examples shows pure.

    Behind `standard_prompt(tasks)` (B, 2) the law of token j is p = (1 - rho) e + rho q: e has 0.8 on the right token and spreads
    the rest, q = Dirichlet(0.1) given the token before, rho = 0.05 on easy steps (60 %) and 0.65 on hard ones. Behind
    `lame_prompt(B)` it is q itself, behind `wrong_prompt(B)` the q of another context. `programs` (N, 6) are the right answers,
    `hard` (N, 6) the hard steps.
    """

    def __init__(self, seed: int, *, tasks: int = 200, vocabulary: int = 50, length: int = 6) -> None:
        """Everything follows from the seed."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.vocabulary, self.length = vocabulary, length
        self.programs = torch.randint(vocabulary, (tasks, length), generator=generator)
        self.hard = torch.rand(tasks, length, generator=generator) >= 0.6
        self.rates = 0.05 + 0.6 * self.hard.double()
        self.bias = _dirichlet(0.1, vocabulary + 1, vocabulary, seed)
        self.other = (torch.arange(vocabulary + 1) + 1 + torch.randint(vocabulary - 1, (1,), generator=generator)) % (
            vocabulary + 1
        )

    def standard_prompt(self, tasks: Tensor) -> Tensor:
        """The prompts (B, 2) of tasks (B,)."""
        return torch.stack([torch.full_like(tasks, self.vocabulary), self.vocabulary + 3 + tasks], 1)

    def lame_prompt(self, count: int) -> Tensor:
        """The prompts (B, 1) that know no task."""
        return torch.full((count, 1), self.vocabulary + 1)

    def wrong_prompt(self, count: int) -> Tensor:
        """Prompts (B, 1) whose bias is that of another context."""
        return torch.full((count, 1), self.vocabulary + 2)

    def _laws(self, ids: Tensor) -> Tensor:
        prompt = 2 if int(ids[0, 0]) == self.vocabulary else 1
        step = ids.shape[1] - prompt
        if not 0 <= step < self.length:
            return torch.full((len(ids), self.vocabulary), 1 / self.vocabulary, dtype=torch.float64)
        context = ids[:, -1] if step else torch.full_like(ids[:, 0], self.vocabulary)
        if prompt == 1:
            wrong = int(ids[0, 0]) == self.vocabulary + 2
            return self.bias[self.other[context] if wrong else context]
        tasks = ids[:, 1] - self.vocabulary - 3
        clean = torch.full((len(ids), self.vocabulary), 0.2 / (self.vocabulary - 1), dtype=torch.float64)
        clean[torch.arange(len(ids)), self.programs[tasks, step]] = 0.8
        rate = self.rates[tasks, step].unsqueeze(-1)
        return (1 - rate) * clean + rate * self.bias[context]


class NoisyChannel(_TabularLanguageModel):
    """Sentences x of six tokens with translation y_i = f(x_i), f a permutation, read in both directions.

    Behind [forward] x the law of y_i is (1 - rho_i) (0.85 on f(x_i), rest uniform) + rho_i prior, rho_i = 0.1 at half of the
    places and 0.75 at the others, prior = 0.9 Dirichlet(0.05) + 0.1 uniform given the token before (one prior for all would make
    some seeds trivial: whether it misleads would hang on its one largest probability). Behind [backward] y [then] the law of x_i
    is `sharpness` on the x with f(x) = y_i, rest uniform; uniform where y has no i-th token. A sharpness of 1/30 knows nothing.
    """

    def __init__(self, seed: int, *, sharpness: float = 0.6, vocabulary: int = 30, length: int = 6) -> None:
        """Everything but the sharpness follows from the seed."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.vocabulary, self.length, self.sharpness = vocabulary, length, sharpness
        self.forward_token, self.backward_token, self.then_token = vocabulary, vocabulary + 1, vocabulary + 2
        self.translation = torch.randperm(vocabulary, generator=generator)
        self.inverse = torch.argsort(self.translation)
        order = torch.randperm(length, generator=generator)
        self.rates = torch.tensor([0.1, 0.75], dtype=torch.float64)[(order >= length // 2).long()]
        self.prior = 0.9 * _dirichlet(0.05, vocabulary + 1, vocabulary, seed) + 0.1 / vocabulary
        self.generator = generator

    def sentences(self, count: int) -> tuple[Tensor, Tensor]:
        """Inputs (count, 6), drawn anew at every call, and their translations."""
        x = torch.randint(self.vocabulary, (count, self.length), generator=self.generator)
        return x, self.translation[x]

    def prompt(self, x: Tensor) -> Tensor:
        """The forward prompts (..., 7) of inputs (..., 6)."""
        return torch.cat([torch.full_like(x[..., :1], self.forward_token), x], -1)

    def _peaked(self, at: Tensor, mass: float) -> Tensor:
        law = torch.full((len(at), self.vocabulary), (1 - mass) / (self.vocabulary - 1), dtype=torch.float64)
        return law.scatter(1, at.unsqueeze(-1), mass)

    def _laws(self, ids: Tensor) -> Tensor:
        uniform = torch.full((len(ids), self.vocabulary), 1 / self.vocabulary, dtype=torch.float64)
        if int(ids[0, 0]) == self.forward_token:
            step = ids.shape[1] - 1 - self.length
            if not 0 <= step < self.length:
                return uniform
            clean = self._peaked(self.translation[ids[:, 1 + step]], 0.85)
            before = ids[:, -1] if step else torch.full_like(ids[:, 0], self.vocabulary)
            return (1 - self.rates[step]) * clean + self.rates[step] * self.prior[before]
        laws = uniform
        for row, tokens in enumerate(ids):
            place = (tokens == self.then_token).nonzero()
            if not len(place):
                continue
            written, step = tokens[1 : int(place[0])], len(tokens) - 1 - int(place[0])
            if step < len(written):
                laws[row] = self._peaked(self.inverse[written[step : step + 1]], self.sharpness)[0]
        return laws


__all__ = ["NoisyChannel", "PlantedNoise"]
