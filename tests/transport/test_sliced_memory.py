"""Streaming: value and gradient of a sliced distance need memory of the samples' size, whatever the number of directions."""

from __future__ import annotations

import subprocess
import sys

import pytest

_RUN = """
import resource, sys
import torch
from discrepancy import SlicedWasserstein
from discrepancy.directions import Uniform
torch.set_num_threads(1)
warm = torch.randn(200, 64, requires_grad=True)
SlicedWasserstein(2, Uniform(4))(warm, warm.detach() + 1).backward()
x, y = (torch.randn(100_000, 64) for _ in range(2))
x.requires_grad_()
y.requires_grad_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
SlicedWasserstein(2, Uniform(int(sys.argv[1])))(x, y).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="counts resident memory as Unix does")
def test_memory_does_not_grow_with_the_directions() -> None:
    """100,000 points in 64 dimensions are 24 MiB a side in float32; 60 directions kept at once would be 46 MiB a side more, and
    their orders twice that."""
    few, many = (
        float(subprocess.run([sys.executable, "-c", _RUN, str(count)], check=True, capture_output=True, text=True).stdout)
        for count in (20, 60)
    )
    assert many < few + 30
    assert many < 8 * 24 + 120  # copies of both sides, both gradients, and one group of projections
