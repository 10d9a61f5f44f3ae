# Needs Python >= 3.11 and make, nothing else. Every target sets up what it needs.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup run test check format bench lock clean

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(INSTALL) "pip>=25.1"
	$(INSTALL) --constraint requirements.lock --editable . --group test --group check
	touch $@

run: $(READY)
	$(BIN)/cascade-monitor run

test: $(READY)
	$(BIN)/pytest

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Pins every version for every Python and platform; change a dependency, then run this.
lock: $(READY)
	$(INSTALL) uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url --group test --group check pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv .venv-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
