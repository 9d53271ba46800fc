# hybridflow: `make help` lists what there is.
#
# Overridable: PYTHON=python3.11 (what makes .venv where there is none), LOCK=… (what goes into it),
# TORCH_INDEX=… (a mirror of PyTorch's CPU index; see requirements/cpu_torch.py),
# PYTEST_ARGS="-k layout -x", PYTEST_PROCESSES=0 (all tests in pytest's own process, as for a debugger),
# TRAIN_ARGS="algorithm=grpo" (for the last command of `make train` and `make train-smollm2`),
# BENCH_ARGS="--only step --write" (measures the baseline of these ratios anew).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

LOCK ?= requirements/cpu.lock
PARITY := requirements/parity.lock
PIP_AUDIT := pip-audit==2.10.1
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3 python)
PYTEST_ARGS ?=
PYTEST = $(BIN)/python -m pytest -n $(PYTEST_PROCESSES)
TRAIN_ARGS ?=
AUDIT_ARGS ?=
BENCH_ARGS ?=

# One thread a process: ranks share the cores, and spinning OpenMP teams cost more than they give. No hub is needed.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
export VLLM_NO_USAGE_STATS ?= 1
# What Material for MkDocs says about MkDocs 2 at each build is nothing that a reader of ours can act on.
export NO_MKDOCS_2_WARNING ?= 1
# A caller's environment must not leak into .venv.
unexport PYTHONPATH PYTHONHOME

RIGHT_PYTHON := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))

# For two cores. A process whose tests start others waits for a third of its time.
test-fast test-system: PYTEST_PROCESSES ?= 2
test test-all: PYTEST_PROCESSES ?= 3

GPU_TESTS := tests/engines tests/parallel tests/resharding tests/workers
NEED_GPU := import torch; raise SystemExit(None if torch.cuda.is_available() else \
  "error: torch sees no GPU here, so nothing was run; make test runs these tests on a CPU")

.PHONY: help setup train train-smollm2 audit docs test-fast test test-all test-system test-gpu bench bench-fast lint format clean

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

setup: $(STAMP) ## .venv with everything pinned in the lock file, and hybridflow itself, editable

$(STAMP): $(LOCK) $(PARITY) pyproject.toml
	@if ! $(BIN)/python -c '$(RIGHT_PYTHON)' 2>/dev/null; then \
	  found=; \
	  for python in $(CANDIDATES); do \
	    if "$$python" -c '$(RIGHT_PYTHON)' 2>/dev/null; then found="$$python"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "error: hybridflow needs Python 3.11 or 3.12 with its venv module; found:" >&2; \
	    for python in $(CANDIDATES); do echo "  $$python: $$("$$python" --version 2>&1 | head -1 || true)" >&2; done; \
	    echo "Install one (Debian: python3.11-venv), or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	  fi; \
	  echo "setup: .venv from $$("$$found" --version)"; \
	  rm -rf $(VENV); "$$found" -m venv $(VENV); \
	fi
	@echo "setup: installing $(LOCK) (the first time: some minutes and 4 GB)"
	@$(BIN)/python requirements/cpu_torch.py $(LOCK) $(if $(TORCH_INDEX),--index "$(TORCH_INDEX)")
	@$(PIP) --no-deps -r $(LOCK)
	@$(PIP) --no-deps --upgrade --target $(VENV)/parity -r $(PARITY)
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

train: setup ## a small model learns to add: supervised warm-up, then PPO
	$(BIN)/hybridflow model addition --out models/addition
	$(BIN)/hybridflow sft experiment=addition_warmup
	$(BIN)/hybridflow train experiment=addition $(TRAIN_ARGS)

train-smollm2: setup ## GRPO on a real model, SmolLM2-135M-Instruct
	$(BIN)/hybridflow model smollm2 --out models/smollm2-135m-instruct
	$(BIN)/hybridflow train experiment=smollm2 $(TRAIN_ARGS)

lint: setup ## style, types and import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

audit: setup ## known vulnerabilities of what the lock files pin: asks PyPI (AUDIT_ARGS=--vulnerability-service=osv)
	@[ -x $(VENV)/audit/bin/pip-audit ] || { \
	  $(BIN)/python -m venv $(VENV)/audit && $(VENV)/audit/bin/python -m pip install --quiet "$(PIP_AUDIT)"; }
	@$(BIN)/python requirements/audit.py $(VENV)/audit/bin/pip-audit $(LOCK) $(PARITY) $(AUDIT_ARGS)

docs: setup ## docs/ as a site, in site/; a link to nowhere is an error
	$(BIN)/python -m mkdocs build
	@echo "docs: open site/index.html"

test-fast: setup ## while writing: the tests that start no ranks, no Ray and no programs (under two minutes)
	$(PYTEST) -m "not slow and not ranks and not processes and not browser and not system" $(PYTEST_ARGS)

test: lint ## before a commit: lint and all tests but the slow ones (about nine minutes)
	$(PYTEST) -m "not slow and not system" $(PYTEST_ARGS)

test-all: lint ## lint and every test, also whole matrices of models and layouts, with more examples
	$(PYTEST) -m "not system" --hypothesis-profile=thorough $(PYTEST_ARGS)

test-system: setup ## the tests that need programs of the system: bubblewrap, redis-server, trace_processor_shell
	$(PYTEST) -m system $(PYTEST_ARGS)

bench: setup ## every ratio that docs/ quotes beside benchmarks/baseline.json: let nothing else run (about two hours)
	$(BIN)/python -m benchmarks.all_ratios $(BENCH_ARGS)

bench-fast: setup ## the part of that which takes some five minutes
	$(BIN)/python -m benchmarks.all_ratios --fast $(BENCH_ARGS)

# No setup: the lock is of CPU builds. PYTHON is that of an environment made as docs/install.md says.
test-gpu: ## on GPUs and NCCL, the tests of what runs on ranks: make test-gpu PYTHON=env/bin/python
	@$(or $(PYTHON),$(BIN)/python) -c '$(NEED_GPU)'
	$(or $(PYTHON),$(BIN)/python) -m pytest -m ranks $(GPU_TESTS) $(PYTEST_ARGS)

format: setup ## put the code into its form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove .venv and every tool's leavings; models/ and runs/ stay
	rm -rf $(VENV) build dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find hybridflow tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
