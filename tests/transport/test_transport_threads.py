"""With torch.set_num_threads(1) one thread works, whoever is asked; with two, two at a time, and the same answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# One process solves everything under both settings and says what each of its threads spent.
_SCRIPT = """
import json, psutil, torch
from discrepancy import OptimalTransport, Sinkhorn, SinkhornDivergence, UnbalancedSinkhorn
from discrepancy.transport import SemiDualNewton
def pair(n, d):
    draw = torch.Generator().manual_seed(n)
    return [torch.randn(n, d, generator=draw, dtype=torch.float64) + shift for shift in (0, 1)]
streamed = SinkhornDivergence(2.0, solver=SemiDualNewton(1e-4, memory=1e-3))
works = {
    "exact, plane": lambda: OptimalTransport()(*pair(5000, 2)),
    "exact, high dimension": lambda: OptimalTransport()(*pair(1200, 24)),
    "entropic, kept": lambda: Sinkhorn(0.5)(*pair(1200, 3)),
    "entropic, streamed": lambda: streamed(*pair(1500, 3)),
    "unbalanced": lambda: UnbalancedSinkhorn(0.5)(*pair(1000, 3)),
}
me = psutil.Process()
def spent():
    return {t.id: t.user_time + t.system_time for t in me.threads()}
found = {}
for name, work in works.items():
    for threads in (1, 2):
        torch.set_num_threads(threads)
        work()  # loads or compiles
        before = spent()
        answer = float(work())
        used = [s - before.get(t, 0.0) for t, s in spent().items()]
        found[f"{name}, {threads}"] = answer, sum(s > max(0.02, 0.05 * sum(used)) for s in used)
print(json.dumps(found))
"""
_NAMES = ("exact, plane", "exact, high dimension", "entropic, kept", "entropic, streamed", "unbalanced")


@pytest.fixture(scope="module")
def found():
    # Nothing in the environment holds the pools down: torch's setting alone must.
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: nothing to hold down")
@pytest.mark.parametrize("name", _NAMES)
def test_no_more_threads_work_than_torch_was_given(found, name):
    (one, alone), (two, both) = found[f"{name}, 1"], found[f"{name}, 2"]
    assert alone <= 1
    assert both <= 3  # the caller's, and beside it in turn the loops' or torch's own
    assert two == pytest.approx(one, rel=1e-9)
