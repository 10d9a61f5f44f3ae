# Needs Python >= 3.11 and make, nothing else. Every target sets up what it needs.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
BENCH_READY := .venv-bench/.ready
BENCH_INSTALL := .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check
INTEROP_READY := .venv-interop/.ready
INTEROP_INSTALL := .venv-interop/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup demo run test interop ops check format bench lock clean

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(INSTALL) "pip>=25.1"
	$(INSTALL) --constraint requirements.lock --editable ".[picture]" --group test --group check --group ops
	touch $@

demo: $(READY)
	$(BIN)/cascade-monitor demo

run: $(READY)
	$(BIN)/cascade-monitor run

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile

# Points ccxt, a client that nobody here wrote, at the simulated venues; in an environment of its
# own, because nothing else here needs ccxt.
interop: $(INTEROP_READY)
	INTEROP=required .venv-interop/bin/pytest tests/interop

$(INTEROP_READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv-interop
	$(INTEROP_INSTALL) "pip>=25.1"
	$(INTEROP_INSTALL) --constraint requirements.lock --editable . --group test --group interop
	touch $@

# Rules, routes and dashboards. Needs promtool, amtool, Prometheus and Alertmanager.
ops: $(READY)
	promtool check rules --lint=all --lint-fatal config/prometheus/rules/*.yml
	promtool check config config/prometheus/prometheus.yml
	promtool test rules tests/ops/*_test.yml
	amtool check-config config/alertmanager/alertmanager.yml
	$(BIN)/python -m grafana.generate --check
	OPS=required $(BIN)/pytest tests/ops/test_end_to_end.py

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Measures the daemon beside the least Python can do and beside cryptofeed, which is built from
# source (gcc) and goes into an environment of its own; without it the bench says so and goes on.
bench: $(BENCH_READY)
	.venv-bench/bin/python -m tests.bench

$(BENCH_READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv-bench
	$(BENCH_INSTALL) "pip>=25.1"
	$(BENCH_INSTALL) --constraint requirements.lock --editable .
	$(BENCH_INSTALL) --constraint requirements.lock --group bench > .venv-bench/cryptofeed.log 2>&1 \
	  || { echo "cryptofeed cannot be installed here:"; tail -n 5 .venv-bench/cryptofeed.log; }
	touch $@

# Pins every version for every Python and platform; change a dependency, then run this.
lock: $(READY)
	$(INSTALL) uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url --extra picture --group test --group check --group ops --group interop pyproject.toml \
	  --output-file requirements.lock

clean:
	rm -rf .venv .venv-bench .venv-interop .pytest_cache .mypy_cache .ruff_cache .hypothesis
