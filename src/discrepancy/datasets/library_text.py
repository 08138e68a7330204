"""Text that every Python carries: the documentation of the language and of its standard library."""

from __future__ import annotations

from functools import cache


@cache
def library_text() -> str:
    """The language's help topics (`pydoc_data.topics`), in alphabetical order: some 460,000 characters of technical English.

    It comes with the interpreter, so its wording differs a little from one Python version to the next. Characters outside ASCII
    are left out.
    """
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    return text.encode("ascii", "ignore").decode("ascii")


__all__ = ["library_text"]
