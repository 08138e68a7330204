"""Over two processes: the single process's value and gradient, whatever the shards; the scale that DDP needs; errors on all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import distributed, nn

from discrepancy import EnergyDistance, Sinkhorn, SinkhornDivergence, SlicedWasserstein
from discrepancy.directions import Uniform
from discrepancy.transport import Distributed, LogSinkhorn, SemiDualNewton, SinkhornNewtonSparse

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="needs gloo")

_TIGHT = SemiDualNewton(1e-11)
_CASES = {
    "divergence": SinkhornDivergence(0.3, solver=_TIGHT),
    "divergence, relative epsilon": SinkhornDivergence(solver=_TIGHT),
    "entropic": Sinkhorn(0.2, solver=_TIGHT),
    "entropic, plain sweeps": Sinkhorn(0.5, solver=LogSinkhorn(1e-11)),
    "streamed": SinkhornDivergence(0.3, solver=SemiDualNewton(1e-11, memory=1e-6)),
    "energy": EnergyDistance(),
}
_CUTS = {"unequal": (31, 3), "one row": (1, 36)}


def _samples(dtype=torch.float64, d=3):
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(40, d, generator=generator, dtype=dtype), 0.7 * torch.randn(37, d, generator=generator, dtype=dtype) + 0.4
    a, b = torch.rand(40, generator=generator, dtype=dtype), torch.rand(37, generator=generator, dtype=dtype)
    return x, y, a / a.sum(), b / b.sum()


def _single(discrepancy, tensors):
    leaves = [t.clone().requires_grad_() for t in tensors]
    value = discrepancy(*leaves)
    return value.detach(), torch.autograd.grad(value, leaves)


def _cut(t, at, rank):
    return t[:at] if rank == 0 else t[at:]


def _compare(rank):
    """Every case with weights and without, at several cuts; returns what is wrong."""
    wrong = []
    for name, discrepancy in _CASES.items():
        for cut, (at_x, at_y) in _CUTS.items():
            for weighted in (True, False):
                given = _samples()[: 4 if weighted else 2]
                value, slopes = _single(discrepancy, given)
                ats = (at_x, at_y, at_x, at_y)
                mine = [_cut(t, at, rank).clone().requires_grad_() for t, at in zip(given, ats)]
                found = Distributed(discrepancy)(*mine)
                own = torch.autograd.grad(found, mine)
                if abs(found - value) > 1e-9:
                    wrong.append(f"{name}, {cut}, weighted {weighted}: value {float(found)} instead of {float(value)}")
                for which, slope, whole, at in zip("xyab", own, slopes, ats):
                    off = float((slope - _cut(whole, at, rank)).abs().max())
                    if off > 1e-8:
                        wrong.append(f"{name}, {cut}, weighted {weighted}: gradient in {which} off by {off:.1e}")
    return wrong


def _single_precision(rank):
    x, y, a, b = _samples(torch.float32)
    whole = SinkhornDivergence(0.3)(x, y, a, b)
    found = Distributed(SinkhornDivergence(0.3))(*(_cut(t, at, rank) for t, at in ((x, 9), (y, 9), (a, 9), (b, 9))))
    fine = found.dtype == torch.float32 and abs(float(found - whole)) < 1e-5
    return [] if fine else [f"float32: {float(found)} instead of {float(whole)}"]


def _trained(rank):
    """One step's gradient of a shared network, by hand and by DDP with the loss times the number of ranks."""
    x, y, _, _ = _samples()
    torch.manual_seed(0)
    net = nn.Linear(3, 3).double()
    loss = SinkhornDivergence(0.3, solver=_TIGHT)
    want = torch.autograd.grad(loss(net(x), y), list(net.parameters()))
    parallel = nn.parallel.DistributedDataParallel(net)
    (2 * Distributed(loss)(parallel(_cut(x, 29, rank)), _cut(y, 10, rank))).backward()
    wrong = []
    for parameter, slope in zip(net.parameters(), want):
        assert parameter.grad is not None
        if float((parameter.grad - slope).abs().max()) > 1e-8:
            wrong.append(f"DDP: {parameter.grad} instead of {slope}")
    return wrong


def _random(rank):
    """Both ranks take rank 0's directions, whatever their own generators are at."""
    x, y, _, _ = _samples()
    whole = SlicedWasserstein(2, directions=Uniform(20))(x, y, generator=_drawn(3))
    torch.manual_seed(rank)
    found = Distributed(SlicedWasserstein(2, directions=Uniform(20)))(
        _cut(x, 5, rank), _cut(y, 30, rank), generator=torch.Generator().manual_seed(3)
    )
    both = [torch.zeros_like(found) for _ in range(2)]
    distributed.all_gather(both, found)
    fine = torch.equal(both[0], both[1]) and abs(float(found - whole)) < 1e-12
    return [] if fine else [f"sliced: {both} instead of {float(whole)}"]


def _drawn(seed):
    """What the ranks are seeded with, given rank 0's generator."""
    first = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed)))
    return torch.Generator().manual_seed(first)


def _only_one_rank_wants_gradients(rank):
    x, y, _, _ = _samples()
    mine = _cut(x, 12, rank).clone().requires_grad_(rank == 1)
    value = Distributed(Sinkhorn(0.3))(mine, _cut(y, 12, rank))
    if rank == 1:
        value.backward()  # rank 0 takes no part: nobody waits
        want = _single(Sinkhorn(0.3), (x, y))[1][0]
        if float((mine.grad - want[12:]).abs().max()) > 1e-4:
            return ["gradient of one rank only"]
    return []


def _refused(rank):
    """Each wrong input raises on both ranks, with the rank that is to blame."""
    x, y, a, _ = _samples()
    mine = (_cut(x, 12, rank), _cut(y, 12, rank))
    bad = mine[0].clone()
    bad[0, 0] = torch.nan
    tries = [
        ((bad if rank == 1 else mine[0], mine[1]), "on rank 1: x has 1 non-finite"),
        ((mine[0][:, : 3 - rank], mine[1]), "features of x"),
        ((*mine, _cut(a, 12, rank) if rank == 0 else None), "weights given"),
        ((*mine, _cut(a, 12, rank) / 2), "must sum to 1"),
        ((mine[0].float() if rank == 0 else mine[0], mine[1]), "dtypes"),
    ]
    wrong = []
    for given, message in tries:
        try:
            Distributed(Sinkhorn(0.3))(*given)
            wrong.append(f"not refused: {message}")
        except ValueError as error:
            if message not in str(error):
                wrong.append(f"{error} does not say {message}")
    return wrong


_CHECKS = (_compare, _single_precision, _trained, _random, _only_one_rank_wants_gradients, _refused)


def _process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        for check in _CHECKS:
            (Path(folder) / f"{check.__name__}-{rank}").write_text("\n".join(check(rank)))
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("ranks")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(_process, args=(str(where),), nprocs=2)
    return where


@pytest.mark.slow
@pytest.mark.parametrize("check", [check.__name__ for check in _CHECKS])
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_are_as_good_as_one(folder, check, rank):
    assert (folder / f"{check}-{rank}").read_text() == ""


@pytest.fixture
def alone(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_one_process_is_a_group_too(alone):
    given = _samples()
    value, slopes = _single(SinkhornDivergence(0.3), given)
    found, own = _single(Distributed(SinkhornDivergence(0.3)), given)
    assert float(abs(found - value)) < 1e-6
    for slope, want in zip(own, slopes, strict=True):
        torch.testing.assert_close(slope, want, atol=1e-5, rtol=0)


def test_equal_samples_are_at_distance_zero(alone):
    x = _samples()[0]
    assert float(Distributed(SinkhornDivergence())(x, x)) == 0


def test_batches_are_kept_apart(alone):
    x, y, _, _ = _samples()
    x, y = torch.stack([x, 2 * x]), torch.stack([y, y + 1])
    loss = SinkhornDivergence(0.5, solver=_TIGHT)
    torch.testing.assert_close(Distributed(loss)(x, y), loss(x, y), atol=1e-9, rtol=0)


def test_second_derivatives_and_resampling_are_refused(alone):
    x, y, _, _ = _samples()
    x = x.requires_grad_()
    value = Distributed(Sinkhorn(0.3))(x, y)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(value, x, create_graph=True)
    with pytest.raises(TypeError, match="gather the samples"):
        Distributed(Sinkhorn(0.3)).pooled(x)


@pytest.mark.parametrize("given", ["sinkhorn", Sinkhorn(0.1, solver=SinkhornNewtonSparse())], ids=["a string", "a matrix solver"])
def test_what_cannot_work_over_ranks_is_refused_at_once(given):
    with pytest.raises(TypeError):
        Distributed(given)


def test_without_a_process_group_the_remedy_is_named():
    with pytest.raises(RuntimeError, match="init_process_group"):
        Distributed(Sinkhorn(0.3))(*_samples())
