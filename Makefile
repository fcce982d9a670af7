# Each target sets up what it needs in .venv, from tested versions (constraints.txt).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test mutants lint clean

quickstart: .venv/.cpu
	$(BIN)/capsbench run suites/quickstart.yaml

test: .venv/.dev
	$(BIN)/python -m pytest

mutants: .venv/.dev
	$(BIN)/python -m tests.mutants.run

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright --project pyproject.toml

clean:
	rm -rf .venv

.venv/.cpu .venv/.dev: .venv/.%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "capsbench needs Python 3.11 or newer; $$($(PYTHON) --version) was found. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing PyTorch, TensorFlow, JAX, Ray and MLflow into .venv: a few minutes, once."
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[cpu$(if $(filter dev,$*),$(comma)dev)]'
	-@$(BIN)/python -m compileall -qq -j 0 .venv/lib >/dev/null 2>&1  # what pip does on one core alone
	touch $@

comma := ,
