"""Nothing of size n x m is formed, forward or backward: peak memory of a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from discrepancy import HSIC, MMD, EnergyDistance
from discrepancy.kernels import Gaussian

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # MiB on Linux

def used(n):
    x, y = torch.randn(n, 5).requires_grad_(), torch.randn(n, 5) + 0.1
    a = torch.full((n,), 1 / n, requires_grad=True)
    {statement}

used(100)
before = peak()
used(8000)
print(peak() - before)
"""

STATEMENTS = {
    "MMD": "MMD(Gaussian(1.0))(x, y, a).backward()",
    "EnergyDistance": "EnergyDistance()(x, y, a).backward()",
    "HSIC": "HSIC(Gaussian(1.0), Gaussian(1.0))(x, y, a).backward()",
    "solve": "MMD().solve(x, y)",
    "witness": "MMD(Gaussian(1.0)).witness(x, y, a)(x).sum().backward()",
    "pooled": "MMD(Gaussian(1.0), memory=0.1).pooled(x.detach())(a.detach()[None], torch.full((1, n), 1 / n))",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_peak_memory(statement: str) -> None:
    # One matrix of 8,000 x 8,000 would be 244 MiB in float32 and 488 MiB in float64.
    code = SCRIPT.format(statement=statement)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(answer.stdout) < 100, answer.stdout
