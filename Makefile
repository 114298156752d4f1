PYTHON ?= python3
BIN := .venv/bin
INPUTS := pyproject.toml constraints.txt
comma := ,

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:  # two installs into one .venv break it
.PHONY: grow test test-all lint bench mutate exactness clean help

grow: .venv/.run  ## train and grow a network on the digits, then export it
	$(BIN)/growir grow digits

test: .venv/.dev  ## all tests but the slow ones
	GROWIR_HYPOTHESIS_PROFILE=ci $(BIN)/python -m pytest -n 2 -m "not slow"

test-all: .venv/.dev  ## every test, with many more examples
	GROWIR_HYPOTHESIS_PROFILE=all $(BIN)/python -m pytest -n 2

lint: .venv/.dev  ## style, types, layers, and that the JSON Schema is current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/growir schema --check

bench: .venv/.dev  ## measure speed and size
	$(BIN)/python -m benchmarks

mutate: .venv/.dev  ## break the code on purpose and see tests fail
	$(BIN)/python -m tests.mutants

exactness: .venv/.dev  ## measure docs/exactness.md anew
	$(BIN)/python -m tests.exactness

clean:  ## remove builds and caches; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . \( -name .venv -o -name .git -o -name runs \) -prune -o -type d -name __pycache__ -exec rm -rf {} +

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/\1/p' $(MAKEFILE_LIST) | awk '{ name = $$1; $$1 = ""; printf "  make %-9s%s\n", name, $$0 }'

# Torch comes first and by its exact version, so that a build of it that is already
# there, or is set for the installer, is kept and not replaced by the default one.
define install
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install -c constraints.txt torch==2.13.0
	$(BIN)/pip install -c constraints.txt -e '.[$(1)]'
endef

.venv/.run: $(INPUTS)
	$(call install,demo)
	touch $@

.venv/.dev: $(INPUTS)
	$(call install,demo$(comma)dev)
	touch .venv/.run $@
