"""Compiled loops on machines that are not the developer's: no writable folder, damaged files, changed sources, two at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import discrepancy

_PACKAGE = Path(discrepancy.__file__).parent

_CALLED = """
from discrepancy._loops.compiled import compiled
FACTOR = {factor}

@compiled
def scaled(v):
    return FACTOR * v
"""
_CALLING = """
from discrepancy._loops.compiled import compiled
from discrepancy._loops.called import scaled

@compiled
def total(v):
    s = 0.0
    for x in v:
        s += scaled(x)
    return s
"""
_RUN = """
import numpy as np
from discrepancy._loops.calling import total
print(total(np.ones(3)), sum(total.stats.cache_hits.values()))
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package's loops, with two loops of ours of which one calls the other."""
    root = tmp_path / "discrepancy"
    skip = shutil.ignore_patterns("__pycache__", "[!_]*.py")
    shutil.copytree(_PACKAGE / "_loops", root / "_loops", ignore=skip)
    for name in ("compiled", "code_cache"):
        shutil.copy(_PACKAGE / "_loops" / f"{name}.py", root / "_loops")
    (root / "__init__.py").write_text("")
    (root / "_loops" / "called.py").write_text(_CALLED.format(factor=2.0))
    (root / "_loops" / "calling.py").write_text(_CALLING)
    yield root
    for path in [root, *root.rglob("*")]:  # so that the folder can be removed
        if path.is_dir():
            path.chmod(0o755)


def _run(package: Path, script: str = _RUN, **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=kept | {"PYTHONPATH": str(package.parent), "HOME": str(package.parent / "home")} | environment,
        cwd=package.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def _code(package: Path) -> list[Path]:
    return sorted(package.rglob("calling.total*.nbc"))


def test_the_second_process_loads_what_the_first_compiled(package):
    assert _run(package) == "6.0 0"
    assert len(_code(package)) == 1
    assert _run(package) == "6.0 1"


def test_a_change_in_a_called_loop_of_another_file_is_seen(package):
    _run(package)
    (package / "_loops" / "called.py").write_text(_CALLED.format(factor=5.0))
    assert _run(package) == "15.0 0"
    assert _run(package) == "15.0 1"


@pytest.mark.parametrize("damage", [b"", b"no pickle at all"], ids=["half", "other"])
def test_a_damaged_file_costs_a_compilation_only(package, damage):
    _run(package)
    (file,) = _code(package)
    file.write_bytes(damage or file.read_bytes()[: file.stat().st_size // 2])
    assert _run(package) == "6.0 0"
    assert _run(package) == "6.0 1"  # and was replaced by a good one


def test_a_file_that_holds_another_signature_is_not_believed(package):
    _run(package)
    (floats,) = _code(package)
    integers = _RUN.replace("np.ones(3)", "np.ones(3, dtype=np.int64)")
    _run(package, integers)
    (other,) = set(_code(package)) - {floats}
    shutil.copy(other, floats)
    assert _run(package) == "6.0 0"


def test_no_folder_is_writable_and_nobody_is_home(package, tmp_path):
    """Write-protected for us, or, where the tests run as root and nothing is, on folders that are files."""
    (package / "_loops" / "__pycache__").write_text("a file in the folder's place")
    for path in [package / "_loops", package]:
        path.chmod(0o555)
    (tmp_path / "blocked").write_text("")
    home = str(tmp_path / "blocked" / "home")
    before = set(tmp_path.iterdir())
    for _ in range(2):
        assert _run(package, HOME=home, NUMBA_CACHE_DIR=home, PYTHONDONTWRITEBYTECODE="1") == "6.0 0"
    assert set(tmp_path.iterdir()) == before  # nothing strewn about


def test_without_a_home_no_folder_called_tilde_appears(package, tmp_path):
    (package / "_loops" / "__pycache__").write_text("a file in the folder's place")
    nobody = "import os; os.path.expanduser = lambda path: path\n" + _RUN
    assert _run(package, nobody, HOME="", PYTHONDONTWRITEBYTECODE="1") == "6.0 0"
    assert not (tmp_path / "~").exists()


def test_a_user_who_cannot_write_reads_what_the_administrator_compiled(package, tmp_path):
    """As root nothing is write-protected: there the trial of writing is made to fail."""
    _run(package)
    refused = (
        "import tempfile\ndef refuse(*args, **options): raise PermissionError('read-only')\ntempfile.TemporaryFile = refuse\n"
    )
    for folder in (package / "_loops" / "__pycache__", package / "_loops", package):
        folder.chmod(0o555)
    assert _run(package, refused + _RUN, HOME=str(tmp_path / "none"), PYTHONDONTWRITEBYTECODE="1") == "6.0 1"


def test_a_full_disk_costs_the_next_process_a_compilation(package):
    full = "import os\ndef refuse(*args): raise OSError(28, 'No space left on device')\nos.replace = refuse\n"
    assert _run(package, full + _RUN) == "6.0 0"
    assert not list(package.rglob("*.nbc*"))


def test_every_loop_of_the_package_is_compiled_by_the_decorator():
    """One way in: no loop has Numba's own cache, and none its own pool of threads."""
    for file in (_PACKAGE / "_loops").rglob("*.py"):
        source = file.read_text()
        if file.name != "compiled.py":
            assert "njit" not in source, file.name
        assert "parallel=True" not in source, file.name
        assert "prange" not in source, file.name


_SOLVES = """
import torch
from discrepancy import OptimalTransport, Sinkhorn
x = torch.arange(12.0, dtype=torch.float64).reshape(6, 2)
print(round(float(OptimalTransport()(x, x + 1)), 9))
"""


@pytest.mark.slow
def test_the_whole_package_solves_from_a_read_only_copy_without_a_home(tmp_path):
    root = tmp_path / "discrepancy"
    shutil.copytree(_PACKAGE, root, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    # As root nothing is write-protected: there the trial of writing is made to fail.
    refused = "import tempfile\ndef refuse(*a, **k): raise PermissionError('read-only')\ntempfile.TemporaryFile = refuse\n"
    try:
        assert _run(root, refused + _SOLVES, HOME="", PYTHONDONTWRITEBYTECODE="1") == "2.0"
        assert os.geteuid() == 0 or not list(root.rglob("*.nbc"))
    finally:
        for path in [root, *root.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
