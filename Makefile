# Each target sets up what it needs: a virtual environment in .venv with the project and its tools.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install repro report test test-fast lint format clean

help:
	@echo "make repro      regenerate every result of the default suite and the report"
	@echo "make test       all tests"
	@echo "make test-fast  all but the pipeline and browser tests"
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

lint: install
	ruff check .
	ruff format --check .
	mypy

format: install
	ruff format .
	ruff check --fix .

clean:
	rm -rf .venv .ltbench .mypy_cache .ruff_cache .pytest_cache
