# make demo: the whole story on the bundled model and data.   make test: every test, one process a core.
# make faults: every fault of docs/reliability.md, injected.   make gpu: what a CUDA device does beside the processor.
# Each creates .venv and installs the pinned dependencies first, once; later calls start at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check faults gpu

demo: $(STAMP)
	$(BIN)/tunesmith demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

faults: $(STAMP)
	$(BIN)/python -m tests.faults

gpu: $(STAMP)
	TUNESMITH_TEST_GPU=1 $(BIN)/python -m pytest tests/gpu

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy scripts benchmarks
	$(BIN)/python -m pytest tests/test_architecture.py tests/test_docs.py

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tunesmith needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 demo"; exit 2; }
	@echo "Installing into $(VENV), once; torch is a large download."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
