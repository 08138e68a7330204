"""Tasks and contenders of `bench_divergences.py`."""
