"""The rows of `benchmarks/discrepancies.py`: one module a family, all with the same measure."""
