"""One contender at one task, in a process of its own: prints its numbers as one line of JSON."""

from __future__ import annotations

import ctypes
import functools
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from logits.contenders import contender, of_logs
from logits.tasks import TASKS, Task

_CHECKED = 4  # rows whose value and gradient are compared with float64


def _resident(field: str) -> float:
    """VmRSS or VmHWM of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024.0 * int(line.split()[1])


@functools.cache
def _inputs(task: Task, quick: bool) -> tuple[torch.Tensor, torch.Tensor]:
    rows = max(2, task.rows // 16) if quick and task.rows * task.width > 1e6 else task.rows
    draw = torch.Generator().manual_seed(0)
    dtype = getattr(torch, task.dtype)
    u, v = torch.empty(rows, task.width, dtype=dtype), torch.empty(rows, task.width, dtype=dtype)
    for k in range(rows):  # a teacher's logits, and a student's that are near them
        row = 2 * torch.randn(task.width, generator=draw)
        other = row + 0.5 * torch.randn(task.width, generator=draw)
        u[k], v[k] = (row.softmax(-1), other.softmax(-1)) if task.probabilities else (row, other)
    return u, v


def _error(task: Task, name: str, u: torch.Tensor, v: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> float:
    a, b = u[:_CHECKED].detach().double(), v[:_CHECKED].detach().double().requires_grad_()
    logs = (a.log(), b.log()) if task.probabilities else (a.log_softmax(-1), b.log_softmax(-1))
    want = of_logs(name, *logs)
    (slope,) = torch.autograd.grad(want.sum(), b)
    got = gradient[:_CHECKED].double()
    if task.probabilities:  # a gradient on the simplex is known up to a constant
        got, slope = got - got.mean(-1, keepdim=True), slope - slope.mean(-1, keepdim=True)
    wrong = ((got - slope).abs().amax(-1) / slope.abs().amax(-1)).max()
    if value.ndim:
        wrong = torch.maximum(wrong, ((value[:_CHECKED].double() - want.detach()).abs() / want.detach()).max())
    return float(wrong)


def _run(task: Task, who: str, name: str, quick: bool) -> dict[str, Any]:
    f = contender(who, name, task.probabilities)
    u, v = _inputs(task, quick)
    v.requires_grad_()
    few = [t[:2, :16].detach().float() for t in (u, v)]
    few = [(t / t.sum(-1, keepdim=True) if task.probabilities else t).to(u.dtype) for t in few]
    small = (few[0], few[1].requires_grad_())
    for _ in range(3):  # compilation and first-call work
        f(*small).sum().backward()
    clock = time.process_time if task.threads == 1 else time.perf_counter
    best, memory, value = float("inf"), None, torch.zeros(())
    for repeat in range(task.repeats):
        v.grad, value = None, torch.zeros(())
        if task.memory and repeat == 0:
            ctypes.CDLL(None).malloc_trim(0)  # what earlier calls left to the allocator would hide this one's
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            before = _resident("VmRSS")
        start = clock()
        value = f(u, v)
        value.sum().backward()
        best = min(best, clock() - start)
        if task.memory and repeat == 0:
            size = 2 * u.numel() * u.element_size()
            memory = (_resident("VmHWM") - before + size) / size
    assert v.grad is not None
    return {"seconds": best, "memory": memory, "error": _error(task, name, u, v, value.detach(), v.grad)}


def main() -> None:
    asked = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    task = next(t for t in TASKS if t.name == asked["task"])
    torch.set_num_threads(task.threads)
    print(json.dumps({name: _run(task, asked["contender"], name, asked["quick"]) for name in asked["divergences"]}))


if __name__ == "__main__":
    main()
