# make demo   metalearn a loss on noisy digits and compare it with cross-entropy
# make test   lint, type-check, test
# make docs   build the documentation into site/, warnings as errors
# make package   build sdist and wheel into dist/, and try the wheel in an empty environment
# make test-slow   the tests that `make test` leaves out: Ray, notebook, wheel, launchers, compilers; some 10 minutes
# make test-faults   kill, corrupt and misuse it at length: some minutes
# make test-pythons   `make test` with each of PYTHONS, in environments of their own, .venv-3.10 and so on
# All install into .venv first, if something has changed. Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
PYTHONS ?= 3.10 3.12 3.13
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-pythons test-slow test-faults docs package setup

demo: setup
	$(BIN)/tglo-train experiment=digits_noisy

test: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not faults"

test-pythons:
	for version in $(PYTHONS); do $(MAKE) test PYTHON=python$$version VENV=.venv-$$version || exit 1; done

test-slow: setup
	$(BIN)/pytest -n 2 --dist loadfile -m "slow and not faults"

test-faults: setup
	$(BIN)/pytest tests/faults -m "faults or not faults"

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html"

package: setup
	rm -rf dist build/empty
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/python -m venv build/empty
	build/empty/bin/python -m pip install --quiet -c constraints.txt torch
	build/empty/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	build/empty/bin/python -m pip check
	cd build/empty && bin/tglo-train trainer.max_epochs=1 search.generations=1 search.population=2 \
	  search.finals.finalists=1 search.finals.seeds=1 search.finals.confirm=1 evaluation.seeds=1 trainer.enable_progress_bar=false
	rm -rf build/empty

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): a few minutes, the first time"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@
