# Two commands do all: `make demo` shows the product, `make test` proves it.
# Every target does its own set-up; a second run starts in seconds.

# The first interpreter that runs and is new enough; the name alone proves nothing where version managers leave shims.
PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done),python3)
NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
  echo 'setup: $(PYTHON) is no Python 3.11 or newer; install one, or name it: make $(MAKECMDGOALS) PYTHON=/where/it/is' >&2; exit 1; }
VENV   := .venv/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-lab demo test lab check fix chaos mutants fuzz bench gpu-bundle lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup:  ## install everything into .venv and build the native parts
	@$(NEW_ENOUGH)
	@$(PYTHON) tools/setup.py

setup-lab:
	@$(NEW_ENOUGH)
	@$(PYTHON) tools/setup.py --lab

demo: setup-lab  ## a real Kubernetes places slices on cards; ARGS="--help" for more
	@$(VENV)/hami demo $(ARGS)

test: check setup-lab  ## gates and all tests; ARGS go to pytest
	@$(VENV)/python -m pytest -n 2 $(ARGS)

lab: setup-lab  ## start the lab's control plane and print KUBECONFIG
	@$(VENV)/hami lab up $(ARGS)

check: setup  ## gates only: changes nothing
	@$(VENV)/python tools/check.py

fix: setup  ## repair what ruff can
	@$(VENV)/ruff check --fix . ; $(VENV)/ruff format .

chaos: setup-lab  ## 100,000 random schedules of lost, doubled, reordered and late events
	@HAMI_CHAOS_SCHEDULES=100000 $(VENV)/python -m pytest tests/chaos $(ARGS)

MODULE ?= hami.plan.exact.charge
mutants: setup  ## break MODULE in small ways and see whether its tests notice
	@$(VENV)/python tools/mutants.py $(MODULE) $(ARGS)

fuzz: setup  ## parsers and packets under libFuzzer, where clang has one; ARGS="--minutes 10"
	@$(VENV)/python tools/fuzz.py $(ARGS)

bench: setup-lab  ## every benchmark, as tables
	@$(VENV)/python -m benchmarks

gpu-bundle: setup-lab  ## lab, project and packages as archives for a machine with a card and no network; ARGS="--python 3.12"
	@$(VENV)/python tools/gpu_bundle.py $(ARGS)

lock:  ## renew requirements.lock from pyproject.toml (needs uv)
	@uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --upgrade --extra scheduler --extra agent --group test --group gates --group build -o requirements.lock

clean:  ## remove what was built here; the lab's cache stays
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache logs
