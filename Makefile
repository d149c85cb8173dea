# Thin wrappers around `olmp` and the experiments. `make` alone lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

CORPUS ?= homeassistant
PAIR ?= en-de
SEED ?= 1
PLAN ?= smoke
EXECUTOR ?= local
PIP_ARGS ?=
RESULTS ?= results
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
# reading results takes the base alone: without an environment that has everything, a light one
READER := $(if $(wildcard $(PY)),$(VENV),.venv-analysis)
READ := $(READER)/bin/olmp
DATA := data/$(CORPUS).$(PAIR)
OLMP := $(VENV)/bin/olmp
# where `olmp grid` puts a plan's grid, unless OUT says otherwise
RUNS = $(or $(OUT),runs/$(patsubst %.toml,%,$(notdir $(subst :,.,$(PLAN)))))

# the first interpreter that really runs and is neither too old nor too new
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c '$(FITS)' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: help
help: ## list the targets and their variables
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(READY) ## install everything into .venv [PYTHON=python3.12 PIP_ARGS="--extra-index-url …"]

$(READY): WHAT := -e '.[study,dev]'
# byte code of all packages takes longer than what is read of them
.venv-analysis/.ready: WHAT := --no-compile -e .
$(READY) .venv-analysis/.ready: pyproject.toml requirements.lock $(wildcard harness/decoding/*.[ch])
	@$(if $(PYTHON),,echo "no Python 3.11 or 3.12 with venv and ensurepip found (Debian, Ubuntu: the package python3-venv): make setup PYTHON=/path/to/python" >&2; exit 2)
	@"$(PYTHON)" -c '$(FITS)' || { echo "$(PYTHON) cannot be used: Python 3.11 or 3.12 with venv and ensurepip is needed" >&2; exit 2; }
	test -x $(@D)/bin/python || "$(PYTHON)" -m venv $(@D)
	$(@D)/bin/python -m pip install $(PIP_ARGS) -c requirements.lock $(WHAT)
	@touch $@

.PHONY: data
data: $(READY) ## fetch and prepare the text [CORPUS=homeassistant PAIR=en-de; CORPUS=multi30k FROM=folder]
	$(VENV)/bin/olmp corpus $(CORPUS) --pair $(PAIR) --out $(DATA) $(if $(FROM),--from $(FROM)) $(if $(filter data,$(MAKECMDGOALS)),,--quiet)

WIDE := data/homeassistant-2400.en-de
.PHONY: data-2400
data-2400: data ## the default corpus with a search set of 2,418 sentences: search and confirm; test gives half of itself as confirm
	@mkdir -p $(WIDE).parts
	for l in en de; do cat data/homeassistant.en-de/bpe/{search,confirm,test}.$$l > $(WIDE).parts/held-out.$$l; done
	test -d $(WIDE).parts/bin || { $(PY) -m fairseq_cli.preprocess -s en -t de --testpref $(WIDE).parts/held-out \
	  --srcdict data/homeassistant.en-de/bin/dict.en.txt --tgtdict data/homeassistant.en-de/bin/dict.de.txt \
	  --destdir $(WIDE).parts/bin.part >/dev/null && mv $(WIDE).parts/bin.part $(WIDE).parts/bin; }
	$(OLMP) corpus databin $(WIDE).parts/bin --bpe data/homeassistant.en-de/bpe.model --out $(WIDE) \
	  --split 'search=test[:2418]' --split 'confirm=test[2418:3421]' --split 'test=test[3421:]'

.PHONY: baselines
baselines: data ## train the dense models [MODEL=transformer, all without it; SEED=1; PARAMETERS=1000000 for a small one, MORE_UPDATES=1650, DROPOUT=0.1, DEVICE=cuda]
	$(PY) -m experiments.baselines $(if $(MODEL),--model $(MODEL)) --seed $(SEED) \
	  $(if $(PARAMETERS),--parameters $(PARAMETERS)) $(if $(MORE_UPDATES),--more-updates $(MORE_UPDATES)) \
	  $(if $(DROPOUT),--dropout $(DROPOUT)) $(if $(DEVICE),--device $(DEVICE))

.PHONY: ship
ship: $(READY) ## put a trained model beside the shipped ones, or, with SEED=1, in place of one [MODEL=luong SEED=1]
	$(PY) -m experiments.baselines.ship $(if $(MODEL),checkpoints/$(MODEL).seed$(SEED)/checkpoint_best.pt) \
	  --corpus $(DATA) --out models/$(CORPUS).$(PAIR)

.PHONY: demo
demo: data ## compress shipped models under a BLEU tolerance (minutes)
	$(PY) -m experiments.demo

.PHONY: plan
plan: data ## list the cells of a plan, what is done, what the rest will take; runs nothing [PLAN=smoke]
	$(OLMP) plan $(PLAN) $(if $(OUT),--out $(OUT))

.PHONY: grid
grid: data ## run what is not done of a plan; resumes [PLAN=smoke JOBS=2 EXECUTOR=local|slurm|debug SITE=file.toml GRID_ARGS=…]
	$(OLMP) grid $(PLAN) --executor $(EXECUTOR) $(if $(OUT),--out $(OUT)) $(if $(JOBS),--jobs $(JOBS)) $(if $(SITE),--site $(SITE)) $(GRID_ARGS)

.PHONY: status
status: $(READY) ## how a grid is going, and why cells have failed [PLAN=smoke]
	$(OLMP) status $(RUNS)

.PHONY: watch
watch: $(READY) ## watch a running grid: cells, the best so far, when it will end [PLAN=smoke]
	$(OLMP) watch $(RUNS)

.PHONY: collect
collect: $(READY) ## gather a grid's cells into tables for the analysis (parquet) [PLAN=smoke INTO=results/smoke]
	$(OLMP) collect $(RUNS) $(if $(INTO),--into $(INTO))

.PHONY: verify
verify: $(READY) ## check a grid's files, evaluate a random sample of its cells again [PLAN=smoke]
	$(OLMP) verify $(RUNS)

.PHONY: clean-failed
clean-failed: $(READY) ## forget the failures of a grid, so that its cells are run again [PLAN=smoke]
	$(OLMP) clean-failed $(RUNS)

.PHONY: table
table: grid collect ## run what is not done of a plan, collect it and print the table [PLAN=smoke]
	$(OLMP) tables $(RUNS) --only cells

.PHONY: tables
tables: $(READER)/.ready ## write the tables of collected results as Markdown, HTML and LaTeX [RESULTS="results" OUT=tables]
	$(READ) tables $(RESULTS) --out $(or $(OUT),tables)

.PHONY: figures
figures: $(READER)/.ready ## draw the figures of collected results [RESULTS="results" FORMAT="svg pdf png html" OUT=figures]
	$(READ) figures $(RESULTS) --out $(or $(OUT),figures) --format $(or $(FORMAT),svg pdf)

.PHONY: report
report: $(READER)/.ready ## write what collected results say into one page to explore [RESULTS="results" OUT=report.html]
	$(READ) report $(RESULTS) --out $(or $(OUT),report.html)

.PHONY: agreement
agreement: data ## our translations against those of fairseq-generate, full test set (minutes)
	for model in models/homeassistant.en-de/*.pt; do $(PY) -m experiments.agreement --checkpoint $$model || exit; done

.PHONY: bench
bench: data ## our speed over other programs', as ratios into results/bench.json (hours) [ONLY="greedy_transformer two_workers"]
	$(PY) -m pip install --quiet $(PIP_ARGS) -c requirements.lock -e '.[study,dev,bench]'
	$(PY) -m experiments.bench $(if $(ONLY),--only $(ONLY))

.PHONY: test
# three for two cores: tests also wait, for SLURM and for what was killed
test: data lint ## lint, then the tests with coverage; `make test-long` has more
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 3 -m "not long" --cov=grouping --cov=harness --cov-fail-under=90

.PHONY: test-long
test-long: data ## the tests that `make test` leaves out: more cases of what takes long (minutes)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 3 -m long -rs

.PHONY: test-latex
test-latex: $(READY) ## the tables compiled by the LaTeX of this machine
	$(PY) -m pytest -m latex -rs

.PHONY: test-browser
test-browser: data ## the report in the Chromium of this machine (a minute)
	OMP_NUM_THREADS=1 $(PY) -m pytest -m browser -rs

.PHONY: test-slurm
test-slurm: data ## the tests that need SLURM, on a cluster that they start (a minute)
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slurm -rs

.PHONY: smoke-slurm
smoke-slurm: data ## the plan smoke on a SLURM cluster that is started for it (minutes)
	$(PY) -m tests.slurm_cluster $(OLMP) grid smoke --executor slurm --wait --out $(or $(OUT),runs/smoke-slurm)

.PHONY: faults
faults: data ## grids under kills, full disks, torn files and wrong clocks (a quarter of an hour) [KILLS=100 SEED=1]
	OMP_NUM_THREADS=1 $(PY) tests/faults.py $(if $(KILLS),--kills $(KILLS)) --seed $(SEED)

.PHONY: lint
lint: $(READY) ## style, types and the directions of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

.PHONY: lock
lock: ## renew requirements.lock from what pyproject.toml allows today
	@$(if $(PYTHON),,echo "no Python 3.11 or 3.12 found" >&2; exit 2)
	rm -rf $(VENV).lock && "$(PYTHON)" -m venv $(VENV).lock
	$(VENV).lock/bin/python -m pip install $(PIP_ARGS) -e '.[study,dev,bench]'
	{ echo "# Constraints of pip for the extras study, dev and bench; \`make lock\` writes this file."; \
	  $(VENV).lock/bin/python -m pip freeze --exclude-editable \
	  | sed -E '/^(nvidia-|cuda-|triton)/d; s/\+[a-z0-9.]+$$//'; } > requirements.lock.part
	mv requirements.lock.part requirements.lock && rm -rf $(VENV).lock

.PHONY: clean
clean: ## remove the environment and all caches; text, checkpoints and results stay
	rm -rf $(VENV) $(VENV).lock .venv-analysis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage build *.egg-info
	find grouping harness experiments analysis tests -name __pycache__ -type d -prune -exec rm -rf {} +
