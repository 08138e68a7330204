"""The one pool: never more threads at work than torch has, errors come back, nesting and forks do not hang."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch

from discrepancy._loops.threads import in_parallel, ranges


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_never_more_threads_work_than_torch_has(threads):
    at_work, most, who, lock = 0, 0, set(), threading.Lock()

    def work(part):
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
            who.add(threading.get_ident())
        time.sleep(0.005)
        with lock:
            at_work -= 1
        return part * part

    assert in_parallel(work, range(30)) == [k * k for k in range(30)]
    assert most == threads == len(who)
    assert threading.get_ident() in who


def test_the_setting_counts_at_each_call_also_when_it_falls():
    before = torch.get_num_threads()
    try:
        for count in (3, 1, 2):
            torch.set_num_threads(count)
            who = set()

            def work(_, who=who):
                time.sleep(0.005)
                who.add(threading.get_ident())

            in_parallel(work, range(20))
            assert len(who) == count
    finally:
        torch.set_num_threads(before)


def test_an_error_in_any_thread_is_raised_and_the_rest_is_left(threads):
    done = []

    def work(part):
        if part == 2:
            raise ValueError("part 2")
        time.sleep(0.002)
        done.append(part)

    with pytest.raises(ValueError, match="part 2"):
        in_parallel(work, range(100))
    assert len(done) < 10
    assert in_parallel(abs, [-1, 2]) == [1, 2]  # the pool is as good as before


def test_a_call_within_a_part_runs_in_its_own_thread(threads):
    def outer(part):
        me = threading.get_ident()
        return all(in_parallel(lambda _: threading.get_ident() == me, range(4)))

    assert all(in_parallel(outer, range(8)))


def test_callers_in_several_threads_all_get_their_answers(threads):
    found = {}

    def call(k):
        found[k] = in_parallel(lambda part: (time.sleep(0.001), k + part)[1], range(20))

    callers = [threading.Thread(target=call, args=(100 * k,)) for k in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert found == {100 * k: [100 * k + part for part in range(20)] for k in range(4)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        in_parallel(abs, [1, 2, 3])  # the parent's pool exists
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, str(in_parallel(abs, [-1, -2, -3])).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 100) == b"[1, 2, 3]"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("n", "least", "most"), [(0, 5, 4), (3, 5, 4), (10, 5, 4), (1000, 7, 64), (101, 1, 10)])
def test_ranges_cover_without_overlap(n, least, most):
    cut = ranges(n, least, most)
    assert [k for start, stop in cut for k in range(start, stop)] == list(range(n))
    assert 1 <= len(cut) <= most
    sizes = [stop - start for start, stop in cut]
    assert max(sizes) - min(sizes) <= 1
    assert n < least or min(sizes) >= least
