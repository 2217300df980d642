# make demo   metalearn a loss on noisy digits and compare it with cross-entropy
# make test   lint, type-check, test
# make test-faults   kill, corrupt and misuse it at length: some minutes
# All install into .venv first, if something has changed. Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-faults setup

demo: setup
	$(BIN)/tglo-train experiment=digits_noisy

test: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n 2 -m "not slow and not faults"

test-faults: setup
	$(BIN)/pytest tests/faults -m "faults or not faults"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): a few minutes, the first time"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@
