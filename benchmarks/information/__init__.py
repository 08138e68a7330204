"""The public benchmark of mutual-information estimators: contenders and tables of `bench_information.py`."""
