"""The rows of `benchmarks/discrepancies.py`: one module a family, all with the same measure, all on one thread."""

import os

for _pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_pool] = "1"  # before the libraries start their pools

import torch  # noqa: E402

torch.set_num_threads(1)
