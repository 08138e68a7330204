"""The decorator of every loop: Numba's compiler, machine code kept on disk where the machine allows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from numba import njit

from discrepancy._loops.code_cache import keep_code

Loop = TypeVar("Loop", bound=Callable[..., Any])


@overload
def compiled(loop: Loop, /) -> Loop: ...
@overload
def compiled(*, fastmath: bool | set[str] = ..., inline: str = ..., **options: Any) -> Callable[[Any], Any]: ...
def compiled(loop: Any = None, /, **options: Any) -> Any:
    """Compile a loop for CPU tensors at its first call, without Python's lock; later processes load the code from disk.

    Takes Numba's options, `@compiled` or `@compiled(fastmath=True)`. Where no folder takes the code the loop works all the
    same and is compiled once a process. Compiling costs seconds, loading milliseconds.
    """
    if loop is None:
        return lambda function: compiled(function, **options)
    chosen: dict[str, Any] = {"nogil": True} | options
    dispatcher = njit(**chosen)(loop)
    keep_code(dispatcher)
    return dispatcher


__all__ = ["compiled"]
