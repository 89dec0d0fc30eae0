# Each target sets up what it needs: a virtual environment in .venv with the project and its tools.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install repro report test test-fast test-newest faults fuzz fuzz-images forgeries bits audit lint format clean campaign campaign-status \
  campaign-save

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
	@echo "make report     the report alone, from the records that are there"
	@echo "make clean      remove .venv and working state; results stay"

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@git rev-parse --git-dir > /dev/null 2>&1 || \
		{ echo "Not a git repository, which DVC needs. In an unpacked archive: git init && git add -A && git commit -m start"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; try: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
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

# Files of tests side by side: what they share within a file is made once.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

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
CAMPAIGN := $(CAMPAIGNS)/full-length
KEPT := results/running/full-length

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
		--device cpu --per-device 2 --budget 100000 --out $(CAMPAIGN)' >> $(CAMPAIGN).log 2>&1 < /dev/null &

campaign-status: install
	ltbench status full-length --out $(CAMPAIGN)

campaign-save: install
	ltbench status full-length --out $(CAMPAIGN) --save $(KEPT)
	if [ -d $(CAMPAIGN)/records ]; then ltbench collect --import $(CAMPAIGN); fi

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
