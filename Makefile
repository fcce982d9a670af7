# Each target sets up what it needs in .venv, from tested versions (constraints.txt).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test light mutants hostile nodes soak lint docs docs-links docs-test mlflow-server clean

quickstart: .venv/.cpu
	$(BIN)/capsbench run suites/quickstart.yaml

test: .venv/.dev
	$(BIN)/python -m pytest

# What needs neither a framework nor Ray nor MLflow: minutes, and a small installation.
LIGHT := analysis cost journal machine prediction suite test_capsbench.py test_registry.py stats test_wheel.py \
	commands/test_startup.py commands/test_suites.py commands/test_table.py data/test_data.py executors/test_inline.py impls/test_spectral.py \
	spec/test_impl.py views/test_screen.py views/test_sheet.py views/test_tables.py worker/test_stop.py
light: .venv/.light
	$(BIN)/python -m pytest $(addprefix tests/,$(LIGHT))

mutants: .venv/.dev
	$(BIN)/python -m tests.mutants.run

# Twelve trials on three nodes, of which two are killed; needs root, for namespaces.
nodes: .venv/.dev
	$(BIN)/python -m tests.soak.three_nodes

hostile: .venv/.dev
	$(BIN)/python -m tests.hostile.run

# An hour: make soak MINUTES=60 SEED=0
MINUTES := 60
SEED := 0
soak: .venv/.dev
	$(BIN)/python -m tests.soak.run --minutes $(MINUTES) --seed $(SEED)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright --project pyproject.toml

# The site, in docs/_build/html. A warning is an error: a link that leads nowhere, a page that no navigation has.
docs: .venv/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Links to other sites, which the network may forbid; those within the site are checked by `make docs`.
docs-links: .venv/.docs
	$(BIN)/python -m sphinx --quiet --builder linkcheck docs docs/_build/links

# Every block of commands in README.md and docs/, a page after the other. PAGES="tutorial pandas" chooses some.
PAGES :=
docs-test: .venv/.dev
	$(BIN)/python -m tests.docs.run $(PAGES)

# An MLflow server over PostgreSQL, for this machine only; ends on Ctrl-C. PORT and FOLDER choose another place.
PORT ?= 5000
FOLDER ?= mlflow-server
mlflow-server: .venv/.server
	$(BIN)/python -m examples.mlflow_server.serve --port $(PORT) --folder "$(FOLDER)"

clean:
	rm -rf .venv

.venv/.cpu: EXTRAS := cpu
.venv/.dev: EXTRAS := cpu,dev
.venv/.light: EXTRAS := test,report,pandas
.venv/.server: EXTRAS := mlflow,postgres
.venv/.docs: EXTRAS := docs
.venv/.cpu .venv/.dev .venv/.light .venv/.server .venv/.docs: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "capsbench needs Python 3.11 or newer; $$($(PYTHON) --version) was found. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing capsbench[$(EXTRAS)] into .venv: a few minutes, once."
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[$(EXTRAS)]'
	-@$(BIN)/python -m compileall -qq -j 0 .venv/lib >/dev/null 2>&1  # what pip does on one core alone
	touch $@
