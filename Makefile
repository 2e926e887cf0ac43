# make demo    the whole job on the embedded default: pre-train, evaluate, draw, report (SCALE=smoke: under 2 minutes)
# make evaluations   one pre-training and every evaluation, each number beside its baselines (SCALE=smoke: minutes)
# make test    the test suite
# make check   what CI runs beside the tests: format, lint, types, import contract
# make lowest  the test suite on the lowest versions that pyproject.toml states
# make bench   the CPU rows of benchmarks/results
PYTHON ?= python3
VENV ?= .venv
SCALE ?= full
PYTEST_ARGS ?= -n 2
BIN := $(VENV)/bin
PACKAGE := --editable ".[train,fast,hub,dev]"

.PHONY: demo evaluations test check format lowest bench clean

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dppmask needs Python 3.11 or newer, got %s; try make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(PACKAGE) \
	  || { echo "uv could not install from here; pip, which reads pip.conf, tries next" >&2; \
	       $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PACKAGE); }
	touch $@

demo: $(VENV)/installed
	$(BIN)/python -m dppmask.demo --scale $(SCALE) --out $(or $(OUT),demo)

evaluations: $(VENV)/installed
	$(BIN)/python -m dppmask.chain --scale $(SCALE) --out $(or $(OUT),evaluations)

test: $(VENV)/installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct $(PACKAGE)
	.venv-lowest/bin/python -m pytest $(PYTEST_ARGS)

bench: $(VENV)/installed
	$(BIN)/python -m dppmask bench --device cpu --out benchmarks/results
	$(BIN)/python benchmarks/data.py

clean:
	rm -rf $(VENV) .venv-lowest demo evaluations dist .mypy_cache .ruff_cache .pytest_cache
