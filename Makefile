# Each target sets up what it needs: a virtual environment in .venv with the project and its tools.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install repro report test test-fast test-newest faults fuzz bits audit lint format clean

help:
	@echo "make repro      regenerate every result of the default suite and the report"
	@echo "make test       all tests"
	@echo "make test-fast  all but the pipeline and browser tests"
	@echo "make test-newest  all but those, with the newest versions that pyproject.toml allows"
	@echo "make faults     kill the pipeline 200 times at random instants (KILLS, SEED) and compare; half an hour and more"
	@echo "make fuzz       100,000 inputs for everything that reads text (INPUTS, SEED)"
	@echo "make bits       the same seed in new processes, with one thread and with two"
	@echo "make audit      known vulnerabilities of the pinned packages; needs a network"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff format the code"
	@echo "make report     the report alone, from the records that are there"
	@echo "make clean      remove .venv and working state; results stay"

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; try: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

repro: install
	ltbench grid
	dvc repro
	@echo
	@echo "The report is ready; open it in a browser: $(CURDIR)/reports/leaderboard.html"

report: install
	ltbench collect
	ltbench report

test: install
	pytest

test-fast: install
	pytest -m 'not pipeline and not browser'

NEWEST := .venv-newest

test-newest:
	rm -rf $(NEWEST)
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[dev]'
	$(NEWEST)/bin/python -m pytest -m 'not pipeline and not browser'

KILLS ?= 200
INPUTS ?= 100000
SEED ?= 0

faults: install
	python -m tests.faults.kill --kills $(KILLS) --seed $(SEED)

fuzz: install
	python -m tests.faults.fuzz --inputs $(INPUTS) --seed $(SEED)

bits: install
	python -m tests.faults.determinism

AUDIT := .venv-audit

audit:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(AUDIT)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

lint: install
	ruff check .
	ruff format --check .
	mypy

format: install
	ruff format .
	ruff check --fix .

clean:
	rm -rf .venv .venv-newest .venv-audit .ltbench .mypy_cache .ruff_cache .pytest_cache
