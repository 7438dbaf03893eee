# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs benchmarks validate constraints clean

help:  ## Show what can be made.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.run: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "skyloom needs Python 3.11 or newer: set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,lint,docs,notebook]'
	@touch $@

demo: $(VENV)/.run  ## Simulate flats with known truth, measure them, compare, write a report.
	$(BIN)/skyloom demo $(DEMO)

test: $(VENV)/.dev  ## Run the tests.
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.dev  ## Check style, spelling, types and the import contract.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev  ## Build the guide into docs/_build/html.
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

benchmarks: $(VENV)/.dev  ## Time every kernel beside its peers, in one run.
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only -p no:xdist -s

$(VENV)/.peers: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[peers]'
	@touch $@

validate: $(VENV)/.peers  ## Rerun every promised number and write docs/validation.md.
	$(BIN)/python -m tests.validation

constraints: $(VENV)/.dev  ## Choose newer versions and write them to constraints.txt (needs uv).
	uv pip compile --quiet --universal --upgrade --python-version 3.11 --all-extras --no-header --no-annotate --no-emit-index-url pyproject.toml -o constraints.txt

clean:  ## Remove what was built.
	rm -rf $(VENV) dist build docs/_build
