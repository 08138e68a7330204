"""Text in and out of a tokenizer, Hugging Face's or one of characters, and prompts without their examples."""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch
from torch import Tensor


def encode(tokenizer: Any, text: str, *, special: bool = False) -> Tensor:
    """The tokens (T,) of a text, with the tokenizer's own special tokens only where `special`."""
    if "add_special_tokens" in inspect.signature(tokenizer.encode).parameters:
        ids = tokenizer.encode(text, add_special_tokens=special)
    else:
        ids = tokenizer.encode(text)
    return torch.as_tensor(ids, dtype=torch.long)


def decode(tokenizer: Any, ids: Tensor) -> str:
    """The text of tokens (T,), without special tokens."""
    if "skip_special_tokens" in inspect.signature(tokenizer.decode).parameters:
        return tokenizer.decode(ids.tolist(), skip_special_tokens=True)
    return tokenizer.decode(ids)


_DOCTEST = re.compile(r"^\s*>>>")
_ASSERT = re.compile(r"^\s*assert\b")
_HEADER = re.compile(r"^(\s*)(for )?examples?( \d+)?\s*:?\s*(#.*)?$", re.I)
_SECTION = re.compile(r"^\s*[A-Z][\w ]{0,30}:\s*$")
_QUOTES = re.compile(r"^\s*('''|\"\"\")")
_CALL = re.compile(r"^\s*(?!def\b|class\b|return\b|if\b|while\b)\w+\(.*\)\s*(==|=>|-->|➞|→)\s*\S")


def strip_examples(prompt: str) -> str:
    """A prompt without its input-output examples: what remains tells the task and shows nothing.

    Dropped are doctest lines (>>> and ...) with the output below them up to a blank line, `assert` lines, lines such as
    f(2) == 4, and sections headed "Example:", "Examples:" or "For example:" up to a line less indented, another section or the
    closing quotes. A prompt without examples comes back as it is.
    """
    kept: list[str] = []
    in_doctest, section = False, None
    for line in prompt.split("\n"):
        blank, indent = not line.strip(), len(line) - len(line.lstrip())
        if section is not None:
            ends = not blank and (indent < section or (indent == section and _SECTION.match(line) and not _HEADER.match(line)))
            if ends or _QUOTES.match(line):
                section = None
            else:
                continue
        header = _HEADER.match(line)
        if header and not blank:
            section, in_doctest = len(header.group(1)), False
        elif _DOCTEST.match(line):
            in_doctest = True
        elif in_doctest and not blank and not _QUOTES.match(line):
            continue
        else:
            in_doctest = False
            if not (_ASSERT.match(line) or _CALL.match(line)):
                kept.append(line)
    return "\n".join(kept)


__all__ = ["decode", "encode", "strip_examples"]
