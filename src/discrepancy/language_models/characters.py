"""A tokenizer of characters, for models small enough to train while one waits."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class CharacterTokenizer:
    """One token a character: 0 pads, 1 begins, 2 ends, 3 stands for characters unknown, then the characters in order."""

    pad_token_id = 0
    bos_token_id = 1
    eos_token_id = 2
    unknown_token_id = 3

    def __init__(self, text: Iterable[str]) -> None:
        """The vocabulary is the set of characters of a text."""
        self.characters = sorted(set(text))
        if not self.characters or any(len(c) != 1 for c in self.characters):
            raise ValueError("a character tokenizer needs a text of at least one character")
        self._index = {c: i for i, c in enumerate(self.characters, 4)}

    @property
    def size(self) -> int:
        """The number of tokens, the four special ones included."""
        return len(self.characters) + 4

    def encode(self, text: str, *, begin: bool = False, end: bool = False) -> Tensor:
        """The tokens (T,) of a text; `begin` and `end` add the special tokens."""
        ids = [self._index.get(c, self.unknown_token_id) for c in text]
        return torch.tensor([self.bos_token_id] * begin + ids + [self.eos_token_id] * end)

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """The text of tokens up to the first end token; padding and beginnings are dropped, unknown characters read as U+FFFD."""
        characters = []
        for token in ids.tolist() if isinstance(ids, Tensor) else ids:
            if token == self.eos_token_id:
                break
            if token >= self.size or token < 0:
                raise ValueError(f"token {token} is outside the vocabulary of {self.size}")
            if token == self.unknown_token_id:
                characters.append("\ufffd")
            elif token > self.unknown_token_id:
                characters.append(self.characters[token - 4])
        return "".join(characters)


__all__ = ["CharacterTokenizer"]
