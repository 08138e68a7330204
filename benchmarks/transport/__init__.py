"""The rows of `benchmarks/bench_transport.py`: transport solvers beside their peers, at equal error.

Each contender of a row runs in a process of its own, forked for it: its peak memory is its own, it can be stopped at a time
limit, and no library's threads disturb another's. The processes take turns, one call at a time.
"""
