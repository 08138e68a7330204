"""What a command may raise, as one sentence on standard error and an exit code; never a traceback.

0 fine; 1 the condition that was asked for (drift, a claim that did not hold); 2 usage; 3 data that cannot be read or
compared, or a file that cannot be written; 4 numerical failure, or a defect of this program; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable

FINE, CONDITION, USAGE, DATA, NUMERICAL, INTERRUPTED = 0, 1, 2, 3, 4, 130


class UsageError(Exception):
    """The command line asks for something that does not exist or contradicts itself (exit 2)."""


def sentence(text: object) -> str:
    """One line without the parser's markup, ending in a full stop."""
    line = " ".join(str(text).split())
    return line if line.endswith((".", "!", "?")) else line + "."


def say(text: object) -> None:
    """One sentence on standard error; silent when even that is closed."""
    with contextlib.suppress(OSError, ValueError):
        print(f"discrepancy: {sentence(text)}", file=sys.stderr, flush=True)


def _operating_system(error: OSError) -> str:
    what = (error.strerror or str(error) or type(error).__name__).lower()
    return f"{error.filename}: {what}" if error.filename is not None else what


def _explain(error: Exception) -> tuple[int, str]:
    """The exit code and the sentence for an exception."""
    # Matched by name where the class lives in a module that is heavy or belongs to another floor: `--help` and a
    # mistyped option must not import torch to learn that it was not a NumericalError.
    names = {cls.__name__ for cls in type(error).__mro__}
    if "CycloptsError" in names:
        return USAGE, f"{sentence(error)} See: discrepancy --help"
    if isinstance(error, UsageError):
        return USAGE, str(error)
    if names & {"DataError", "MissingCarrier"}:
        return DATA, str(error.args[0]) if error.args else str(error)
    if isinstance(error, ArithmeticError):
        return NUMERICAL, f"the computation failed: {error}"
    if isinstance(error, OSError):
        return DATA, _operating_system(error)
    if isinstance(error, MemoryError):
        return DATA, "not enough memory: compare fewer columns with --columns, or a sample with --sample"
    if isinstance(error, ModuleNotFoundError):
        return DATA, str(error.args[0]) if error.args else str(error)
    if isinstance(error, ValueError | TypeError):
        return USAGE, str(error)
    return NUMERICAL, f"this is a defect of discrepancy ({type(error).__name__}: {error}); DISCREPANCY_TRACEBACK=1 shows where"


def _warn(message: Warning | str, *_: object) -> None:
    say(f"warning: {message}")


def guarded(work: Callable[[], int]) -> int:
    """Run `work` and return its exit code; an exception becomes a sentence and its code.

    A reader that closes the pipe early (`| head`) is not an error. Set DISCREPANCY_TRACEBACK=1 to see tracebacks.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = work()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        say("interrupted; nothing was left half-written")
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FINE if stop.code is None else USAGE
    except Exception as error:
        if os.environ.get("DISCREPANCY_TRACEBACK"):
            raise
        code, text = _explain(error)
        say(text)
        return code
