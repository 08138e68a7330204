"""A language model of characters by counting: trained in a second, sampled and read like any other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class CharacterNGram(nn.Module):
    """Absolute-discounting n-gram model of tokens: p(v | c) = (max(n(c v) - d, 0) + d T(c) p(v | shorter c)) / n(c).

    T(c) is the number of different tokens seen behind c; the shortest context is none, behind which the uniform law stands, so
    that every token has a positive probability everywhere. Contexts reach back `order` - 1 tokens. Fitted to texts one by one, so
    that with a beginning and an end token the first characters of a text are learnt as such.
    """

    def __init__(self, texts: Iterable[Tensor], vocabulary: int, *, order: int = 8, discount: float = 0.1) -> None:
        """Count the texts (n,). Time O(characters x order)."""
        super().__init__()
        self.vocabulary, self.order, self.discount = vocabulary, order, discount
        self.counts: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        self._laws: dict[tuple[int, ...], Tensor] = {}
        for text in texts:
            tokens = tuple(text.tolist())
            for t in range(1, len(tokens)):
                for back in range(min(order - 1, t) + 1):
                    behind = self.counts[tokens[t - back : t]]
                    behind[tokens[t]] = behind.get(tokens[t], 0) + 1

    def law(self, context: tuple[int, ...]) -> Tensor:
        """The law (V,) of the next token, float64."""
        context = context[-(self.order - 1) :]
        while context and context not in self.counts:
            context = context[1:]
        found = self._laws.get(context)
        if found is None:
            uniform = torch.full((self.vocabulary,), 1 / self.vocabulary, dtype=torch.float64)
            lower = self.law(context[1:]) if context else uniform
            behind = self.counts[context]
            total = sum(behind.values())
            found = lower * (self.discount * len(behind) / total)
            seen = torch.tensor(list(behind))
            found[seen] += (torch.tensor(list(behind.values()), dtype=torch.float64) - self.discount) / total
            self._laws[context] = found
        return found

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """log p (B, T, V) of the token behind each position."""
        reach = self.order - 1
        rows = []
        for row in input_ids.tolist():
            contexts = (tuple(row[max(0, t + 1 - reach) : t + 1]) for t in range(len(row)))
            rows.append(torch.stack([self.law(context) for context in contexts]))
        return torch.stack(rows).log()

    def sample(self, start: Tensor, *, longest: int, end: int, generator: torch.Generator) -> Tensor:
        """One text that begins with `start` (n,), up to the end token (kept) or `longest` tokens; without `start`."""
        tokens = start.tolist()
        for _ in range(longest):
            law = self.law(tuple(tokens))
            tokens.append(int(torch.multinomial(law, 1, generator=generator)))
            if tokens[-1] == end:
                break
        return torch.tensor(tokens[len(start) :])


__all__ = ["CharacterNGram"]
