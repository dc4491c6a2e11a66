# `make run` and `make test` need Python >= 3.11, make, and a package index; nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    ?= runs/default
ARGS   ?=
FLOWER := .venv-flower

.PHONY: run test lint types coverage test-flower test-flower-slow examples install install-dev clean help

help:           ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

run: $(VENV)/.installed  ## train with the default recipe and print where the report is
	$(BIN)/prism-secure run --out $(RUN) $(ARGS)

test: lint types coverage  ## everything CI checks

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

coverage: $(VENV)/.installed-dev
	$(BIN)/pytest --numprocesses auto --dist loadfile --cov --cov-report=term -m "not slow and not flower"

test-flower: $(FLOWER)/.installed  ## the secure sum over Flower's messages: minutes, in an environment of its own
	$(FLOWER)/bin/pytest tests/flower tests/examples/test_fl4health.py tests/test_public_api.py -m "not slow"

test-flower-slow: $(FLOWER)/.installed  ## SuperLink, SuperNodes, fifty simulated clients, all of docs/deploy.md
	$(FLOWER)/bin/pytest tests/flower -m slow

EXAMPLES := fedpm/fedpm fedpm/fedpm_secure fedpm/fedpm_client_level fedpm/fedpm_dp_sgd \
	signsgd/signsgd signsgd/signsgd_secure numpy_vector/run

examples: $(VENV)/.installed-dev $(FLOWER)/.installed  ## every script of examples/ on real images: minutes
	@for script in $(EXAMPLES); do echo "== examples/$$script.py"; \
		(cd examples/$${script%/*} && $(CURDIR)/$(BIN)/python $${script##*/}.py) || exit 1; done
	@echo "== examples/fl4health/run.py"; cd examples/fl4health && $(CURDIR)/$(FLOWER)/bin/python run.py

install: $(VENV)/.installed       ## make .venv with what `run` needs
install-dev: $(VENV)/.installed-dev  ## and with what `test` needs

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else f"prism-secure needs Python >= 3.11, but $(PYTHON) is {v}; try: make run PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Flower wants older packages than constraints.txt pins.
$(FLOWER)/.installed: pyproject.toml tests/flower/constraints.txt
	test -x $(FLOWER)/bin/python || $(PYTHON) -m venv $(FLOWER)
	@echo '*' > $(FLOWER)/.gitignore
	$(FLOWER)/bin/python -m pip install --quiet --constraint tests/flower/constraints.txt --editable '.[flower]' \
		'flwr[simulation]' pytest pytest-timeout
	@touch $@

clean:          ## remove the environment and caches, keep runs
	rm -rf $(VENV) $(FLOWER) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .import_linter_cache
