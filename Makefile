# `make` lists what there is. Each target makes what it needs, a virtual environment included.

PORT  ?= 8000
EXPLORE_PORT ?= 8866
BENCH ?= headline
PROFILE ?= quick
VENV  := .venv
BIN   := $(VENV)/bin
PY    := $(BIN)/python
READY := $(VENV)/.installed
SITE  := _build/html
# One after the other; what a + joins runs side by side, as each of these keeps one core busy.
STAGES ?= lint+types+site unit notebooks browser

# An activated environment, a user site or a stray PYTHONPATH must not leak into ours.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install book serve lab explore refresh test quick lint types unit notebooks site browser format lock bench clean

help: ## List the targets
	@echo "Targets (make TARGET):"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "Variables: PYTHON=python3.12  PORT=$(PORT)  PROFILE=$(PROFILE)  BENCH=$(BENCH)  LEE_DATA=/path/to/data"

install: $(READY) ## Make .venv with every pinned dependency and lee itself

# PYTHON=... chooses the interpreter; otherwise the first one that is new enough.
$(READY): requirements.txt pyproject.toml
	@set -e; for python in "$(PYTHON)" python3 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; python=; done; \
	if [ -z "$$python" ]; then echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	echo "Installing into $(VENV) with $$("$$python" --version) (some minutes the first time)"; \
	[ -x $(PY) ] && $(PY) -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

book: $(READY) ## Execute every chapter (PROFILE=quick) and render the site into _build/html
	@$(BIN)/lee book --profile $(PROFILE)

serve: $(SITE)/index.html ## Serve the rendered book on this machine only (PORT=8000)
	@echo "http://127.0.0.1:$(PORT)/  (Ctrl-C stops it)"
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

$(SITE)/index.html: | $(READY)
	@$(MAKE) --no-print-directory book

lab: $(READY) ## Open the chapters in JupyterLab
	@$(BIN)/jupyter lab --ServerApp.root_dir=book

explore: $(READY) ## Serve the explorer, live, on this machine only (EXPLORE_PORT=8866)
	@$(BIN)/lee explore --port $(EXPLORE_PORT) --no-browser

refresh: $(READY) ## Re-execute the committed notebooks in place, normalised to stable bytes
	@$(PY) -m lee.book.install
	@$(BIN)/lee book --refresh

test: $(READY) ## Run every check, in order, and sum up (each one is a target of its own, below)
	@failed=; summary=; \
	for stage in $(STAGES); do \
	  echo; echo "=== make $$stage"; start=$$(date +%s); \
	  if $(MAKE) --no-print-directory -k -j2 $$(echo $$stage | tr + ' '); then verdict=passed; else verdict=FAILED; failed="$$failed $$stage"; fi; \
	  summary="$$summary$$(printf '  %-16s %-6s %4d s' $$stage $$verdict $$(( $$(date +%s) - start )))\n"; \
	done; \
	echo; echo "=== summary"; printf "$$summary"; \
	if [ -n "$$failed" ]; then echo "Failed:$$failed" >&2; exit 1; fi; echo "All checks passed."

# A room's tests are those of tests/ROOM; BASE=main compares with a branch instead of the last commit.
BASE ?= HEAD
CHANGED = $(shell git diff --name-only $(BASE) -- lee tests; git ls-files --others --exclude-standard -- lee tests)
CHANGED_TESTS = $(wildcard $(sort $(filter tests/test_%.py tests/%_test.py,$(CHANGED)) \
  $(foreach file,$(CHANGED),tests/$(word 2,$(subst /, ,$(file)))/.)))

quick: lint types ## Check lint, types and the tests of the rooms that changed since BASE=HEAD
	@if [ -n "$(CHANGED_TESTS)" ]; then OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadgroup -m "not browser" $(CHANGED_TESTS); \
	else echo "Nothing below lee/ or tests/ has changed since $(BASE)."; fi

lint: $(READY) ## Check lint, format (notebooks included), which room imports which, and for unsafe calls
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive lee benchmarks

types: $(READY) ## Check types
	@$(BIN)/mypy

unit: export OMP_NUM_THREADS := 1
unit: $(READY) ## Run the unit tests and the doctests
	@$(PY) -m pytest -q -n 2 --dist loadgroup -m "not browser"

notebooks: export OMP_NUM_THREADS := 1
notebooks: $(READY) ## Re-run the committed notebooks and compare their outputs
	@$(PY) -m pytest -q -o addopts=--strict-markers --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
	  --nbval-cell-timeout 300 -n 2 --dist loadfile book

site: $(READY) ## Render the committed notebooks, warnings as errors
	@$(BIN)/lee book --no-execute

browser: $(READY) ## Open the rendered site in headless Chromium
	@$(PY) -m pytest -q -n 2 --dist loadgroup -m browser tests/browser

format: $(READY) ## Format the code and fix what the linter can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(READY) ## Recompute requirements.txt (UPGRADE=1 takes newer versions)
	@$(BIN)/uv pip compile pyproject.toml --quiet --all-extras --universal --python-version 3.11 \
	  --no-emit-index-url --generate-hashes --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) --output-file requirements.txt

bench: $(READY) ## Print every headline ratio; one benchmark alone with BENCH=derivative
	@$(PY) benchmarks/$(BENCH).py $(ARGS)

clean: ## Remove everything that was built, and the virtual environment
	rm -rf _build dist $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
