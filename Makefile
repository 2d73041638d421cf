# Every target makes the environment it needs: `make demo` and `make test` each work alone on a
# machine that has nothing but make and Python >= 3.11 (with pip and venv).
#
#   make test ARGS="-m 'not slow' -x"      pass options on to pytest
#   make test JOBS=0                       one test at a time, in the order of the folders
#   make test PYTHON=python3.13            choose the interpreter of a new environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
WHEEL := .venv-wheel
WORKDIR ?= demo
ARGS ?=
SOURCES := netflixdask flows tests

# Two tests at a time fill two cores; those of a file stay in one process, as they share fixtures.
JOBS ?= 2
BESIDE := --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

# $(call install,ENVIRONMENT,ARGUMENTS OF PIP): silent, but a failure shows all that pip said.
define install
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("netflixdask needs Python 3.11 or newer, found " + sys.version.split()[0] + "; name another one: make PYTHON=python3.13")'
	@echo "Installing into $(1) (a minute or two the first time) ..."
	@$(PYTHON) -m venv $(1)
	@( $(1)/bin/python -m pip install --upgrade pip && $(1)/bin/python -m pip install $(2) ) \
		> $(1)/install.log 2>&1 || { cat $(1)/install.log; exit 1; }
endef

# Made again when pyproject.toml is newer than the stamp: a dependency may have changed.
$(VENV)/.installed: pyproject.toml
	$(call install,$(VENV),--editable ".[dev]")
	@touch $@

.PHONY: venv
venv: $(VENV)/.installed ## make .venv, with the package editable and all tools

.PHONY: demo
demo: $(VENV)/.installed ## run the quickstart flow into ./demo (a second run skips what is complete)
	$(BIN)/netflixdask run quickstart --workdir $(WORKDIR) $(ARGS)

.PHONY: test
test: $(VENV)/.installed ## run every test, JOBS (2) at a time
	$(BIN)/python -m pytest $(BESIDE) $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.installed ## run every test and say which lines it reached (kernels are compiled, so not traced)
	$(BIN)/python -m pytest $(BESIDE) --cov --cov-report=term:skip-covered $(ARGS)

.PHONY: test-fast
test-fast: $(VENV)/.installed ## run the tests that need no cluster, no real data and no patience
	$(BIN)/python -m pytest $(BESIDE) -m "not slow and not distributed and not realdata" $(ARGS)

CHECKS := check-style check-format check-types check-layers check-spelling check-metadata
.PHONY: lint $(CHECKS)
lint: $(CHECKS) ## check style, types, layers, spelling and metadata (`make -k lint` does not stop early)
$(CHECKS): $(VENV)/.installed
check-style:
	$(BIN)/ruff check .
check-format:
	$(BIN)/ruff format --check .
check-types:
	$(BIN)/mypy
check-layers:
	$(BIN)/lint-imports
check-spelling:
	$(BIN)/codespell
check-metadata:
	$(BIN)/validate-pyproject pyproject.toml

.PHONY: format
format: $(VENV)/.installed ## rewrite the sources in the house style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: hooks
hooks: $(VENV)/.installed ## run the checks of .pre-commit-config.yaml at every commit
	$(BIN)/pre-commit install

.PHONY: bench
bench: $(VENV)/.installed ## measure kernels and stages
	$(BIN)/python tests/benchmarks/run.py $(ARGS)

.PHONY: bench-plan
bench-plan: $(VENV)/.installed ## compare what --plan says with what the verbs then take
	$(BIN)/python tests/benchmarks/plan.py $(ARGS)

.PHONY: bench-scaling
bench-scaling: $(VENV)/.installed ## measure 1 and 2 pinned workers and the scheduler; predict more
	$(BIN)/python tests/benchmarks/scaling.py $(ARGS)

.PHONY: bench-ingest
bench-ingest: $(VENV)/.installed ## measure the ingest beside DuckDB (ARGS="--scale 0.01" is quick)
	$(BIN)/python tests/benchmarks/ingest.py $(ARGS)

.PHONY: bench-als
bench-als: $(VENV)/.installed ## measure ALS, beside its peers if ARGS="--peers-python PYTHON"
	$(BIN)/python tests/benchmarks/als.py $(ARGS)

.PHONY: bench-similarity
bench-similarity: $(VENV)/.installed ## measure similarity beside the libraries that come nearest
	$(BIN)/python tests/benchmarks/similarity.py $(ARGS)

.PHONY: bench-hosts
bench-hosts: $(VENV)/.installed ## run the prize's flow on hosts, ssh, SLURM with deaths (ARGS="--on ssh")
	$(BIN)/python tests/benchmarks/hosts.py $(ARGS)

.PHONY: bench-faults
bench-faults: $(VENV)/.installed ## measure what faults cost the prize's flow on two hosts
	$(BIN)/python tests/benchmarks/faults.py $(ARGS)

.PHONY: bench-streaming
bench-streaming: $(VENV)/.installed ## put a set of four times the memory of a worker through the stages
	$(BIN)/python tests/benchmarks/streaming.py $(ARGS)

.PHONY: bench-watching
bench-watching: $(VENV)/.installed ## measure what events, the page and Prometheus add to a fit
	$(BIN)/python tests/benchmarks/watching.py $(ARGS)

# Only the direct dependencies are held at their lower bounds, as pip would never choose them;
# wheels only, because an old sdist would be compiled against new headers.
$(LOWEST)/.installed: pyproject.toml tests/lowest.py
	@mkdir -p $(LOWEST)
	@$(PYTHON) tests/lowest.py pyproject.toml > $(LOWEST)/constraints.txt
	$(call install,$(LOWEST),--only-binary :all: --constraint $(LOWEST)/constraints.txt --editable ".[test]")
	@touch $@

.PHONY: venv-lowest
venv-lowest: $(LOWEST)/.installed ## make .venv-lowest, with the oldest versions that pyproject.toml admits

.PHONY: test-lowest
test-lowest: $(LOWEST)/.installed ## run every test on the oldest versions that pyproject.toml admits
	$(LOWEST)/bin/python -m pytest $(BESIDE) $(ARGS)

.PHONY: wheel
wheel: $(VENV)/.installed ## build the sdist, and from it the wheel, into ./dist
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

# The tests are copied away from the sources, so that `import netflixdask` can only find the wheel.
.PHONY: test-wheel
test-wheel: wheel ## run the unit tests against the built wheel
	rm -rf $(WHEEL)
	$(call install,$(WHEEL),"$$(ls $(CURDIR)/dist/*.whl)[test]")
	cp -r tests pyproject.toml $(WHEEL)/
	cd $(WHEEL) && bin/pytest $(BESIDE) --ignore tests/unit/test_project.py tests/unit $(ARGS)

.PHONY: clean
clean: ## remove what the targets above made, the environments too
	rm -rf $(VENV) $(LOWEST) $(WHEEL) dist build demo htmlcov .coverage .coverage.* dask-scratch-space
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
