# The front door: `make run` simulates New York, `make test` checks everything that is quick to check.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first of these that is Python 3.11 or later; `make PYTHON=/path/to/python run` chooses another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

# Threads that wait for a core that another process has must sleep, not spin: on a busy machine spinning costs ten times the run.
OMP_WAIT_POLICY ?= PASSIVE
export OMP_WAIT_POLICY

AGENTS ?= 8400000
DAYS ?= 90
SEED ?= 0
OUT ?= runs/nyc-$(shell date +%Y%m%d-%H%M%S)
OUT := $(OUT)
PYTEST_ARGS ?=

.PHONY: help run test slow laws lint format docs bench bench-all clean

help: ## list these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F"|" '{printf "  %-12s %s\n", $$1, $$2}'

# A stamp is written only after pip has finished, so an interrupted set-up is done again from the start.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later found; install one or say: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; some minutes) ..."
	@if [ -e $@ ]; then rm -f $(VENV)/.installed*; else $(PYTHON) -m venv --clear $(VENV); fi
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	@echo "Installing the extras for $* ..."
	$(PIP) --editable '.[$*]'
	touch $@

run: $(VENV)/.installed ## simulate an epidemic among the 8.4 million people of New York and write its report
	@mkdir -p $(dir $(OUT))
	$(BIN)/lpmppl simulate nyc --model seirm --agents $(AGENTS) --days $(DAYS) --seed $(SEED) --out $(OUT)
	@echo "The report is $(CURDIR)/$(OUT)/report.html"

test: $(VENV)/.installed-dev ## all tests but the slow ones, doctests included
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

slow: $(VENV)/.installed-dev ## only the slow tests
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

laws: $(VENV)/.installed-dev ## only the laws: every model under every handler
	$(BIN)/python -m pytest tests/laws $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## style, types, import contract, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/typos

format: $(VENV)/.installed-dev ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs ## the documentation site, in docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going --quiet -d docs/_build/doctrees -b html docs docs/_build/html
	@echo "The documentation is $(CURDIR)/docs/_build/html/index.html"

# SIZES="10000 100000" takes other numbers of agents than the page has, and leaves the page as it is.
bench: $(VENV)/.installed ## the quick benchmarks, a quarter of an hour; writes docs/benchmarks.md
	$(BIN)/python bench/record.py quick $(if $(SIZES),--sizes $(SIZES))

bench-all: $(VENV)/.installed ## all benchmarks, an hour and more, up to 100 million agents; writes docs/benchmarks.md
	$(BIN)/python bench/record.py all $(if $(SIZES),--sizes $(SIZES))

clean: ## remove the environment and everything built (runs are kept)
	rm -rf $(VENV) docs/_build build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .cache
