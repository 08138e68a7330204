"""Entropic transport beyond the memory budget: the answers of the kept path, in linear memory, forward and backward."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from discrepancy import Outcome
from discrepancy.costs import Cosine, Euclidean, FunctionCost, Manhattan, PowerCost, SquaredEuclidean
from discrepancy.transport import LogSinkhorn, RelativeEpsilon, SemiDualNewton, Sinkhorn, SinkhornDivergence
from discrepancy.transport.entropic.certificate import certify
from discrepancy.transport.entropic.problem import Problem, StreamedProblem, point_problem
from discrepancy.transport.entropic.streamed import clouds_problem
from discrepancy.transport.entropic.streamed.problem import FusedProblem

SMALL = 1e-4  # GiB: nothing of these sizes is kept


def cloud(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masses(n: int, seed: int, nothing: int = 0) -> torch.Tensor:
    w = 0.1 + torch.rand(n, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
    w[:nothing] = 0
    return w / w.sum()


def both(kind, epsilon, cost, x, y, a, b, tolerance=1e-12):
    """Value, cost, potentials and gradients with the plan kept and streamed."""
    found = []
    for memory in (1.0, SMALL):
        solver = SemiDualNewton(tolerance=tolerance, memory=memory)
        points = [t.clone().requires_grad_() for t in (x, y, a, b)]
        r = kind(epsilon, cost, solver=solver).solve(*points)
        found.append([r.value, r.cost, r.f, r.g, *torch.autograd.grad(r.value.sum(), points), r.apply(y[..., :1]), r])
    return found


@pytest.mark.parametrize("kind", [Sinkhorn, SinkhornDivergence])
@pytest.mark.parametrize(
    ("cost", "d"),
    [
        (SquaredEuclidean(), 1),
        (SquaredEuclidean(), 2),
        (SquaredEuclidean(), 3),
        (SquaredEuclidean(), 9),
        (SquaredEuclidean(), 100),
        (Euclidean(), 2),
        (Manhattan(), 9),
        (PowerCost(1.5), 3),
        (Cosine(), 3),
        (FunctionCost(lambda x, y: (x - y).abs().sum(-1) ** 1.5, symmetric=True), 2),
    ],
    ids=lambda p: str(p) if isinstance(p, int) else type(p).__name__,
)
def test_streamed_is_kept(kind, cost, d) -> None:
    x, y = cloud(160, d, 0), 1.2 * cloud(140, d, 1) + 0.3
    kept, streamed = both(kind, RelativeEpsilon(0.05), cost, x, y, masses(160, 0, 5), masses(140, 1, 8))
    assert "streamed" in streamed[-1].rungs[-1]
    assert "streamed" not in kept[-1].rungs[-1]
    for left, right in zip(kept[:-1], streamed[:-1], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-10)
    assert float(streamed[-1].marginal_error) < 2e-12
    assert 0 <= float(streamed[-1].dual_gap) < 1e-10


def test_value_and_gradient_are_finite_differences() -> None:
    x, y, a, b = cloud(60, 2, 2), cloud(50, 2, 3) + 0.5, masses(60, 2), masses(50, 3)
    D = SinkhornDivergence(0.2, solver=SemiDualNewton(tolerance=1e-13, memory=1e-6))
    direction = cloud(60, 2, 4)
    p = x.clone().requires_grad_()
    slope = torch.autograd.grad(D(p, y, a, b), p)[0]
    h = 1e-4
    difference = (D(x + h * direction, y, a, b) - D(x - h * direction, y, a, b)) / (2 * h)
    assert float((slope * direction).sum()) == pytest.approx(float(difference), rel=1e-6)


def test_the_coarse_start_reaches_the_same_potentials(monkeypatch) -> None:
    """With coarse levels from 64 points on, in few and in many dimensions, at an epsilon that needs several levels."""
    for d, share in ((2, 1e-3), (12, 0.02)):
        x, y = cloud(500, d, 5), cloud(420, d, 6) + 0.4
        a, b = masses(500, 5, 20), masses(420, 6, 30)
        plain = both(Sinkhorn, RelativeEpsilon(share), SquaredEuclidean(), x, y, a, b)[1]
        monkeypatch.setattr(clouds_problem, "_SMALL", 64)
        monkeypatch.setattr(clouds_problem, "_TRUST", 0.5)
        climbed = both(Sinkhorn, RelativeEpsilon(share), SquaredEuclidean(), x, y, a, b)[1]
        monkeypatch.undo()
        assert len(climbed[-1].rungs) > len(plain[-1].rungs) == 1
        for left, right in zip(plain[:-1], climbed[:-1], strict=True):
            torch.testing.assert_close(left, right, rtol=1e-8, atol=1e-9)


def test_kept_entries_do_not_change_the_answer() -> None:
    """At a small epsilon the curvature comes from the entries that matter, with room for them, and is streamed without."""
    x, y = cloud(400, 2, 7), cloud(380, 2, 8)
    w, z = (torch.full((1, n), 1 / n, dtype=torch.float64) for n in (400, 380))
    problem = point_problem(x[None], y[None], w, z, SquaredEuclidean(), SMALL)
    e = 1e-3 * problem.mean_cost()
    found = []
    for memory in (1.0, 1e-7):
        r = SemiDualNewton(tolerance=1e-11, memory=memory).solve(problem, e)
        assert r.outcome is Outcome.CONVERGED
        found.append(r)
    assert "entries a row kept" in found[0].rungs[-1]
    assert "kept" not in found[1].rungs[-1]
    torch.testing.assert_close(found[0].f, found[1].f, rtol=0, atol=1e-8)


def test_batches_and_float32() -> None:
    x, y = torch.stack([cloud(90, 3, s) for s in (0, 1)]), torch.stack([cloud(80, 3, s) + s for s in (2, 3)])
    D = Sinkhorn(RelativeEpsilon(0.05), solver=SemiDualNewton(tolerance=1e-10, memory=SMALL))
    r = D.solve(x, y)
    for k in (0, 1):
        alone = D.solve(x[k], y[k])
        torch.testing.assert_close(r.value[k], alone.value, rtol=1e-10, atol=0)
        torch.testing.assert_close(r.f[k], alone.f, rtol=0, atol=1e-10)
    p = x[0].float().requires_grad_()
    single = Sinkhorn(RelativeEpsilon(0.05), solver=SemiDualNewton(memory=SMALL)).solve(p, y[0].float())
    assert single.value.dtype == torch.float32
    assert float(single.value.detach()) == pytest.approx(float(r.value[0]), rel=1e-5)
    assert torch.autograd.grad(single.value, p)[0].dtype == torch.float32


def test_the_divergence_is_zero_and_symmetric_to_the_bit() -> None:
    D = SinkhornDivergence(RelativeEpsilon(0.05), solver=SemiDualNewton(memory=SMALL))
    x, y = cloud(130, 2, 0), cloud(150, 2, 1)
    assert float(D(x, x)) == 0.0
    assert float(D(x, y)) == float(D(y, x)) > 0


def test_plain_sweeps_stream_too() -> None:
    x, y = cloud(100, 2, 0), cloud(110, 2, 1)
    kept, streamed = (Sinkhorn(1.0, solver=LogSinkhorn(1e-12, memory=m)).solve(x, y) for m in (1.0, SMALL))
    torch.testing.assert_close(kept.f, streamed.f, rtol=0, atol=1e-10)


def test_a_certificate_bounds_what_it_says() -> None:
    """From potentials that are far from optimal: the gap is above the true one, and close to the plain certificate's."""
    x, y = cloud(70, 2, 0)[None], cloud(60, 2, 1)[None] + 0.5
    a, b = masses(70, 0, 3)[None], masses(60, 1, 4)[None]
    kept = point_problem(x, y, a, b, SquaredEuclidean(), 1.0)
    fused = point_problem(x, y, a, b, SquaredEuclidean(), 1e-6)
    assert isinstance(fused, FusedProblem)
    assert isinstance(fused, StreamedProblem)
    e = 0.05 * kept.mean_cost()
    best = SemiDualNewton(tolerance=1e-13).solve(kept, e)
    g = best.g + 0.05 * e * torch.cos(torch.arange(60.0, dtype=torch.float64))
    f = Problem.rows(kept, g, e)
    value = (a * best.f).sum() + (b * best.g).sum()
    proof, plain = certify(fused, f, g, e), certify(kept, f, g, e)
    assert float(proof.marginal_error) == pytest.approx(float(plain.marginal_error), rel=1e-10)
    assert float(proof.cost) == pytest.approx(float(plain.cost), rel=1e-10)
    true_gap = value - ((a * f).sum() + (b * g).sum())
    assert float(true_gap) <= float(proof.dual_gap)
    assert float(plain.dual_gap) <= float(proof.dual_gap) * (1 + 1e-9) <= 1.5 * float(plain.dual_gap)


_LARGE = """
import resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from discrepancy.costs import SquaredEuclidean
from discrepancy.transport import RelativeEpsilon, SemiDualNewton, {kind}
g = torch.Generator().manual_seed(0)
def call(n, memory):
    x, y = torch.randn(n, {d}, generator=g), torch.randn(n, {d}, generator=g) + 0.5
    x.requires_grad_()
    D = {kind}(RelativeEpsilon(0.2), SquaredEuclidean(), SemiDualNewton(tolerance=1e-2, memory=memory))
    r = D.solve(x, y)
    torch.autograd.grad(r.value, x)
    r.apply(y.detach())
    return float(r.dual_gap)
call(200, 1e-6)  # loads the compiled loops
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
soft = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + {room} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
assert call({n}, 0.05) < 1
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "d", "n"), [("Sinkhorn", 2, 8000), ("SinkhornDivergence", 2, 6000), ("Sinkhorn", 16, 6000)])
def test_nothing_quadratic_under_a_limit_set_from_outside(kind, d, n) -> None:
    """8000 x 8000 float64 would be 512 MB; value, gradient, certificate and product of the plan live in 200 MB."""
    run = subprocess.run(
        [sys.executable, "-c", _LARGE.format(kind=kind, d=d, n=n, room=250)], capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert float(run.stdout) < 200


def test_memory_mapped_points_are_read_and_not_copied(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for d in (3, 40):
        x = rng.standard_normal((150, d)).astype(np.float32)
        np.save(tmp_path / "x.npy", x)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        y = rng.standard_normal((140, d)).astype(np.float32)
        D = Sinkhorn(RelativeEpsilon(0.1), solver=SemiDualNewton(memory=SMALL))
        assert float(D(mapped, y)) == float(D(x, y))
        from discrepancy._validate import sample

        assert sample(mapped).data_ptr() == mapped.ctypes.data
