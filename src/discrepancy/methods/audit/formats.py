"""How a question is put, and how the answer is taken out of what came back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass


class Format(ABC):
    """A way to ask: `wrap` a question into a prompt, `unwrap` the reply into what is judged, None where it is not in form."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What records call it."""

    @abstractmethod
    def wrap(self, question: str) -> str:
        """The prompt that asks the question in this format."""

    @abstractmethod
    def unwrap(self, reply: str) -> str | None:
        """The answer inside a reply; None where the reply does not keep to the format."""


@dataclass(frozen=True)
class Natural(Format):
    """The question as it is, and the reply as it is."""

    @property
    def name(self) -> str:
        return "natural"

    def wrap(self, question: str) -> str:
        return question

    def unwrap(self, reply: str) -> str | None:
        return reply


@dataclass(frozen=True)
class JSONAnswer(Format):
    """The reply must be a JSON object with the answer as the string in `field`; only that string is judged.

    Text around the object (a fence of backquotes, a remark) is passed over. Anything else is a failure of the format.
    """

    field: str = "response"
    instruction: str = 'Answer with a JSON object of the form {{"{field}": "..."}} and nothing else.'

    @property
    def name(self) -> str:
        return "json"

    def wrap(self, question: str) -> str:
        return f"{question}\n{self.instruction.format(field=self.field)}"

    def unwrap(self, reply: str) -> str | None:
        decoder, start = json.JSONDecoder(), reply.find("{")
        while start >= 0:
            try:
                found, _ = decoder.raw_decode(reply, start)
            except (json.JSONDecodeError, RecursionError):
                found = None
            if isinstance(found, dict) and isinstance(found.get(self.field), str):
                return found[self.field]
            start = reply.find("{", start + 1)
        return None


@dataclass(frozen=True)
class CustomFormat(Format):
    """One's own template: two functions under a name."""

    label: str
    wrapping: Callable[[str], str]
    unwrapping: Callable[[str], str | None]

    @property
    def name(self) -> str:
        return self.label

    def wrap(self, question: str) -> str:
        return self.wrapping(question)

    def unwrap(self, reply: str) -> str | None:
        return self.unwrapping(reply)


__all__ = ["CustomFormat", "Format", "JSONAnswer", "Natural"]
