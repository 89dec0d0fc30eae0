# Each target sets up what it needs: a virtual environment in .venv with the project and its tools.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONDONTWRITEBYTECODE := # hundreds of processes import the same code: each file is compiled once

.PHONY: help install repro report docs notebook test test-fast test-newest faults fuzz fuzz-images forgeries bits audit lint format clean campaign campaign-status \
  campaign-save gpu gpu-import gpu-repro

help:
	@echo "make repro      regenerate every result of the default suite and the report"
	@echo "make test       all tests"
	@echo "make test-fast  all but the pipeline and browser tests"
	@echo "make test-newest  all but those, with the newest versions that pyproject.toml allows"
	@echo "make faults     kill the pipeline 200 times at random instants (KILLS, SEED) and compare; half an hour and more"
	@echo "make fuzz       100,000 inputs for everything that reads text (INPUTS, SEED)"
	@echo "make forgeries  forged records of every kind against import and collect"
	@echo "make fuzz-images 20,000 image files for everything that reads images (INPUTS, SEED)"
	@echo "make bits       the same seed in new processes, with one thread and with two"
	@echo "make audit      known vulnerabilities of the pinned packages; needs a network"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff format the code"
	@echo "make campaign   start the full-length runs behind all other work, or go on with them (CONTRIBUTING.md)"
	@echo "make gpu MINUTES=9  on a GPU that is lent for minutes: tests, benchmark, full-length runs (CONTRIBUTING.md)"
	@echo "make report     the report alone, from the records that are there"
	@echo "make docs       the Markdown files as a site, in site/"
	@echo "make notebook   docs/library.ipynb from docs/library.md"
	@echo "make clean      remove .venv and working state; results stay"

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@git rev-parse --git-dir > /dev/null 2>&1 || \
		{ echo "Not a git repository, which DVC needs. In an unpacked archive: git init && git add -A && git commit -m start"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; try: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	@# On every core, where pip takes one. What is seldom used is compiled when it is; templates never.
	@$(BIN)/python -m compileall -qq -j 0 -x '/(tests?|ray|sklearn|pip|setuptools)/' .venv/lib || true
	@touch $@

repro: install
	ltbench grid
	dvc repro
	@echo
	-@ltbench reproduce
	@echo
	@echo "The report is ready; open it in a browser: $(CURDIR)/reports/leaderboard.html"

report: install
	ltbench collect
	ltbench report

# Files of tests side by side: what they share within a file is made once. One more than cores: some wait (for a browser, Slurm).
WORKERS := $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() + 1))')
SIDE_BY_SIDE := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test: install
	pytest $(SIDE_BY_SIDE)

test-fast: install
	pytest $(SIDE_BY_SIDE) -m 'not pipeline and not browser'

NEWEST := .venv-newest

test-newest:
	rm -rf $(NEWEST)
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[dev]'
	$(NEWEST)/bin/python -m pytest $(SIDE_BY_SIDE) -m 'not pipeline and not browser'

KILLS ?= 200
INPUTS ?= 100000
SEED ?= 0

faults: install
	python -m tests.faults.kill --kills $(KILLS) --seed $(SEED)

fuzz: install
	python -m tests.faults.fuzz --inputs $(INPUTS) --seed $(SEED)

forgeries: install
	LTBENCH_FIGURES=$(CURDIR)/results/faults/forgeries.json pytest -n 0 tests/faults/test_forgeries.py

fuzz-images: INPUTS = 20000
fuzz-images: install
	python -m tests.faults.fuzz_images --inputs $(INPUTS) --seed $(SEED) --json results/faults/fuzz-images-$(SEED).json

bits: install
	python -m tests.faults.determinism

# Full-length runs take days of a CPU. They run from a clone at one commit, with an environment of its own, so that work on
# the code never touches them.
CAMPAIGNS ?= $(abspath ../campaigns)
CAMPAIGN_COMMIT := a69eb540877c
AT_ONCE ?= 2
CAMPAIGN := $(CAMPAIGNS)/full-length$(PART:%=-%)
KEPT := results/running/full-length$(PART:%=-%)

$(CAMPAIGNS)/code/.venv/installed:
	test -d $(CAMPAIGNS)/code || git clone --quiet . $(CAMPAIGNS)/code
	git -C $(CAMPAIGNS)/code checkout --quiet $(CAMPAIGN_COMMIT)
	$(MAKE) -C $(CAMPAIGNS)/code install

# The kernel shares a processor between groups of processes first, and only within a group by `nice`: so the group gets the
# lowest share, where there are groups (autogroup).
campaign: export LTBENCH_DATA ?= $(CAMPAIGNS)/data
campaign: $(CAMPAIGNS)/code/.venv/installed
	mkdir -p $(CAMPAIGN)
	if [ -d $(KEPT) ] && [ ! -f $(CAMPAIGN)/progress.json ]; then cp -r $(KEPT)/. $(CAMPAIGN)/; fi
	cd $(CAMPAIGNS)/code && .venv/bin/ltbench fetch cifar100
	cd $(CAMPAIGNS)/code && LTBENCH_CHECKPOINT_SECONDS=60 \
		setsid sh -c 'echo 19 > /proc/self/autogroup; exec nice -n 19 .venv/bin/ltbench campaign full-length \
		--device cpu --per-device $(AT_ONCE) $(ONLY:%=--only %) --budget 100000 --out $(CAMPAIGN)' >> $(CAMPAIGN).log 2>&1 < /dev/null &

campaign-status: install
	ltbench status full-length --out $(CAMPAIGN)

campaign-save: install
	ltbench status full-length --out $(CAMPAIGN) --save $(KEPT)
	if [ -d $(CAMPAIGN)/records ]; then ltbench collect --import $(CAMPAIGN); fi

# The documents as a site, in site/: the Markdown files as they lie here, their links checked. And docs/library.md as a notebook.
SITE := .ltbench/documents

docs: install
	rm -rf $(SITE) && mkdir -p $(SITE)
	git ls-files -z ':(glob)*.md' docs 'results/*.md' tests/bench/README.md 'reports/figures/*.svg' 'reports/tables/*.md' 'results/weights/*.json' LICENSE CITATION.cff | xargs -0 cp --parents --target-directory=$(SITE)
	mkdocs build --strict --quiet
	@echo "open $(CURDIR)/site/index.html"

KERNEL := {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}

notebook: install
	jupytext --quiet --to notebook --update-metadata '$(KERNEL)' --output docs/library.ipynb docs/library.md

# A GPU that is lent for minutes: tests, a benchmark and full-length runs; OUT is the folder that outlives the loan. It takes
# the Python that is there, since such a machine may have no network. `gpu-import` takes the records over, where they came home.
MINUTES ?= 9
OUT ?= gpu
GPU_PYTHON ?= $(firstword $(wildcard $(BIN)/python) python3)

gpu:
	$(GPU_PYTHON) -m harness.running.borrowed --minutes $(MINUTES) --home $(OUT)

gpu-import: install
	python -m harness.running.borrowed --minutes 0 --home $(OUT) --unpack
	ltbench collect --import runs/borrowed/full-length

# The default suite on the card, in a copy of this checkout with a repository of its own, held against the committed records.
SCRATCH := runs/gpu-repro
LEFT_BEHIND := .git .venv* runs data datasets raw $(OUT) results/runs

gpu-repro: SHELL := bash
gpu-repro:
	rm -rf $(SCRATCH)
	mkdir -p $(SCRATCH)/.bin $(OUT)
	tar -cf - $(LEFT_BEHIND:%=--exclude=./%) . | tar -xf - -C $(SCRATCH)
	printf '#!/bin/sh\nexec $(abspath $(shell command -v $(GPU_PYTHON))) -m harness "$$@"\n' > $(SCRATCH)/.bin/ltbench
	chmod +x $(SCRATCH)/.bin/ltbench
	cd $(SCRATCH) && git init -q && git add -A && git -c user.name=x -c user.email=x commit -qm start && rm -rf results/records
	set -o pipefail; cd $(SCRATCH) && export PATH=$(abspath $(SCRATCH))/.bin:$$PATH PYTHONPATH=$(abspath $(SCRATCH)) && \
		{ timeout $$(($(MINUTES) * 60 - 30)) $(abspath $(shell command -v $(GPU_PYTHON))) -m dvc repro && ltbench reproduce; } \
		2>&1 | tee $(abspath $(OUT))/repro.log
	! grep --quiet 'something differs here' $(OUT)/repro.log

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
	rm -rf site .venv .venv-newest .venv-audit .ltbench .mypy_cache .ruff_cache .pytest_cache
