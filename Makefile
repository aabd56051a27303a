# Everything runs in .venv, which the first target that needs it creates.
#
#   make demo | test | lint | bench | clean
#
# PYTHON picks the interpreter (make test PYTHON=python3.12); another version rebuilds .venv.
# JOBS is the number of test processes; PYTEST_ARGS is passed on to pytest. EXTRAS=models installs
# what the tests of exported models need (torch, transformers, OpenVINO); without it they skip.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first interpreter that is new enough.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
    "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
JOBS ?= auto
PYTEST_ARGS ?=
EXTRAS ?=
COMMA := ,

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

# Stamps, so that nothing is installed twice. The one of the interpreter carries its version.
HAS_VENV := $(VENV)/.python-$(VERSION)
HAS_TEST := $(VENV)/.installed-test
HAS_DEV := $(VENV)/.installed-dev$(addprefix -,$(EXTRAS))
HAS_MODELS := $(VENV)/.installed-models

.PHONY: help demo test lint format bench clean

help:
	@echo "make demo    compile and run the example models"
	@echo "make test    run the tests (JOBS=n processes, PYTEST_ARGS=...)"
	@echo "make lint    ruff, pyright and the import contracts"
	@echo "make format  apply ruff's fixes and formatting"
	@echo "make bench   run every benchmark"
	@echo "make clean   remove .venv and all caches"

$(HAS_VENV):
	@test -n "$(VERSION)" || { echo "transect needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3"; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	touch $@

$(HAS_TEST): pyproject.toml $(HAS_VENV)
	$(PIP) --editable '.[test]'
	touch $@

# Holds all that `test` holds.
$(HAS_DEV): pyproject.toml $(HAS_VENV)
	$(PIP) --editable '.[dev$(addprefix $(COMMA),$(EXTRAS))]'
	touch $(HAS_TEST) $@

$(HAS_MODELS): pyproject.toml $(HAS_VENV)
	$(PIP) --editable '.[test,models]'
	touch $(HAS_TEST) $@

demo: $(HAS_TEST)
	$(BIN)/python examples/magika_demo.py
	$(BIN)/python examples/rapidocr_demo.py
	$(BIN)/python examples/one_program.py

test: $(HAS_DEV)
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --maxprocesses=8 $(PYTEST_ARGS)

lint: $(HAS_DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo --no-cache

format: $(HAS_DEV)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# A benchmark is a script or a package that runs alone; a name that starts with an underscore is
# shared code.
bench: $(HAS_MODELS)
	@for script in $(basename $(notdir $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))) ops; do \
	    echo "== benchmarks.$$script"; $(BIN)/python -m benchmarks.$$script; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find transect tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
