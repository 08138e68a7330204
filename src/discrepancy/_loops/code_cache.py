"""Machine code of loops on disk: found again by later processes, never stale, never a reason to fail.

Numba's own cache (`cache=True`) does four things that an installed package cannot live with. It raises at import where no
folder is writable. It raises where a file cannot be written or read (a full disk, another user's file, half a file). It
keeps code that has a called loop of *another* file compiled in after that file has changed. And two processes that compile
two signatures of a loop at once can both claim one file, so that a third one loads the wrong code. Here a file is named after
what it holds, says itself what it was compiled from, and is put in place in one step; what goes wrong with it costs time only.
"""

# pyright: reportAttributeAccessIssue=false, reportMissingTypeStubs=false

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import pickle
import uuid
from pathlib import Path
from typing import Any

import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps

_PACKAGE = __name__.split(".")[0]


@functools.cache
def _imports(path: str) -> tuple[bytes, tuple[str, ...]]:
    """The hash of a source file, and the files of this package that it imports."""
    source = Path(path).read_bytes()
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    files = []
    for name in sorted(n for n in names if n.split(".")[0] == _PACKAGE and ".." not in n):
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # a function of a module, not a module
            continue
        if found is not None and found.origin is not None and found.origin.endswith(".py"):
            files.append(found.origin)
    return hashlib.sha256(source).digest(), tuple(files)


def source_stamp(path: str) -> str:
    """A hash of a source file and of all files of the package that it imports, directly or not."""
    known: dict[str, bytes] = {}
    waiting = [path]
    while waiting:
        here = waiting.pop()
        if here not in known:
            known[here], further = _imports(here)
            waiting.extend(further)
    parts = [numba.__version__.encode(), str(config.BOUNDSCHECK).encode(), *sorted(known.values())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


class _Packaged:
    """The last resort: the package's own folder as it is. Code that an administrator compiled there is read, none is written."""

    def __init__(self, function: Any, path: str) -> None:
        self._py_file = path
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Any, path: str) -> _Packaged | None:
        return cls(function, path) if os.path.exists(path) else None

    def get_cache_path(self) -> str:
        return os.path.join(os.path.dirname(self._py_file), "__pycache__")

    def ensure_cache_path(self) -> None:
        os.makedirs(self.get_cache_path(), exist_ok=True)

    def get_source_stamp(self) -> str:
        return ""

    def get_disambiguator(self) -> str:
        return str(self._line)


def _user_wide(locator: Any) -> Any:
    """Numba's user-wide folder, unless the user has no home: its name would then be relative, a folder called ~ right here."""

    class UserWide(locator):
        @classmethod
        def from_function(cls, function: Any, path: str) -> Any:
            at_home = os.path.isabs(os.path.expanduser("~")) or os.path.isabs(os.environ.get("XDG_CACHE_HOME", ""))
            return locator.from_function(function, path) if at_home else None

    return UserWide


def _locators() -> list[Any]:
    """In order: what NUMBA_CACHE_DIR says, the package's folder if it is writable, the user's cache, the package's folder."""
    known = CompileResultCacheImpl._locator_classes
    return [_user_wide(c) if "UserWide" in c.__name__ else c for c in known] + [_Packaged]


class _Placement(CompileResultCacheImpl):
    _locator_classes = _locators()


class _Files:
    """One file an entry, named by a hash of its key; the file holds stamp and key beside the code, and they must agree."""

    def __init__(self, folder: str, base: str, stamp: str) -> None:
        self._folder, self._base, self._stamp = folder, base, stamp

    def _path(self, key: Any) -> str:
        # A type's name says all of it, whereas its pickle may differ between processes.
        named = hashlib.sha256(repr(key).encode()).hexdigest()[:20]
        return os.path.join(self._folder, f"{self._base}.{named}.nbc")

    def load(self, key: Any) -> Any:
        with open(self._path(key), "rb") as file:
            stamp, stored, data = pickle.load(file), pickle.load(file), file.read()
        return pickle.loads(data) if (stamp, stored) == (self._stamp, repr(key)) else None

    def save(self, key: Any, data: Any) -> None:
        if " at 0x" in repr(key):  # a function as an argument: its name holds an address, which no later process has
            return
        path = self._path(key)
        beside = f"{path}.{uuid.uuid4().hex[:12]}"
        try:
            with open(beside, "wb") as file:
                file.write(pickle.dumps(self._stamp) + pickle.dumps(repr(key)) + dumps(data))
            os.replace(beside, path)
        finally:
            if os.path.exists(beside):
                os.unlink(beside)

    def flush(self) -> None:
        for path in Path(self._folder).glob(f"{self._base}.*.nbc"):
            path.unlink(missing_ok=True)


class CodeCache(FunctionCache):
    """Numba's cache of one function, with files of our own and with errors that cost a compilation instead of a failure."""

    _impl_class = _Placement

    def __init__(self, function: Any) -> None:
        """Raise RuntimeError or OSError where there is no source file."""
        super().__init__(function)
        stamp = source_stamp(function.__code__.co_filename)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled code of a signature, or None where there is none that can be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # half a file unpickles to any error whatever; the loop is compiled instead
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code of a signature; where the disk refuses, the next process compiles again."""
        try:
            super().save_overload(sig, data)
        except OSError:
            return


def keep_code(dispatcher: Any) -> None:
    """Give a Numba dispatcher its cache; without a source file (a zip archive, a prompt) it does without."""
    try:
        dispatcher._cache = CodeCache(dispatcher.py_func)
    except (OSError, RuntimeError, SyntaxError):
        return


__all__ = ["CodeCache", "keep_code", "source_stamp"]
