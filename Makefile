# `make run` and `make test` need Python >= 3.11, make, and a package index; nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RECIPE ?=
RUN    ?= runs/$(or $(RECIPE),default)
ARGS   ?=
PARTS  := --editable ./crypto --editable ./privacy
TRIED  := .venv-tried

# Hundreds of processes of a test run import the same files: they are compiled once, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run demo test lint types coverage docs notebooks dist test-slow-flower test-newest test-lowest try-installed examples install install-dev clean help

help:           ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

run: $(VENV)/.installed  ## train, print where the report is; RECIPE=cross-silo, one-shot or prism, RUN=DIR, ARGS="--set ..."
	$(BIN)/prism-secure run --out $(RUN) $(if $(RECIPE),--recipe $(RECIPE)) $(ARGS)

demo: $(VENV)/.installed  ## thirty seconds, no training: the page of a real sweep, and images from its models
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PARTS) --editable '.[sweep]'
	$(BIN)/prism-secure demo --out runs/demo

test: $(VENV)/.installed-dev  ## everything CI checks, side by side
	$(MAKE) --jobs=3 lint types coverage

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# Tests make 50,000 files: on a disk they wait for half of their time. 1.2 GB, gone when they end.
IN_MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 { print "-p /dev/shm" }')
# Of glibc's: large arrays that are freed are used again, not given back to be cleared. A fifteenth of all CPU time.
KEPT_PAGES := MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296
# One more than there are cores: some tests wait for processes and servers.
WORKERS = $(shell $(BIN)/python -c 'import os; print(os.cpu_count() + 1)')

coverage: $(VENV)/.compiled
	rm -rf .reached && mkdir .reached
	place=$$(mktemp -d $(IN_MEMORY)) && chmod 711 $$place && trap "rm -rf $$place" EXIT && TMPDIR=$$place REACHED=.reached \
		$(KEPT_PAGES) $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal -m "not slow"
	$(BIN)/python tests/coverage_floors.py .reached

docs: $(VENV)/.installed-docs  ## the documents as a site, in site/; strict, and with no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Look at it: $(BIN)/python -m http.server --directory site, then http://localhost:8000"

notebooks: $(VENV)/.installed-docs  ## run every notebook; an error in a cell fails
	PYTHONWARNINGS='ignore:IProgress not found' $(BIN)/jupyter nbconvert --execute --to markdown --output-dir notebooks/made notebooks/*.ipynb

dist: $(VENV)/.installed-docs  ## wheels and sdists of the three distributions, checked, in dist/
	rm -rf dist
	for part in crypto privacy .; do $(BIN)/python -m build --outdir dist $$part || exit 1; done
	$(BIN)/twine check --strict dist/*

test-slow-flower: $(VENV)/.installed-simulation  ## SuperLink, SuperNodes, 200 simulated clients, all of docs/deploy.md
	$(BIN)/pytest tests/flower -m slow

EVERYTHING := $(PARTS) --editable '.[flower,dashboard,dp-sgd,onnx,postgresql]' 'flwr[simulation]'

test-newest: NEW = $(TRIED)/bin/python -m pip install --quiet --upgrade
test-newest: try-installed  ## import all and make a tiny run with the newest of everything: downloads 3 GB

test-lowest: NEW = $(TRIED)/bin/uv pip install --python $(TRIED)/bin/python --quiet --resolution lowest-direct
test-lowest: try-installed  ## the same with the oldest that pyproject.toml allows

try-installed:
	$(PYTHON) -m venv --clear $(TRIED)
	@echo '*' > $(TRIED)/.gitignore
	$(TRIED)/bin/python -m pip install --quiet uv
	$(NEW) $(EVERYTHING)
	$(TRIED)/bin/python tests/installation.py
	rm -rf $(TRIED)

EXAMPLES := fedpm/fedpm fedpm/fedpm_secure fedpm/fedpm_client_level fedpm/fedpm_dp_sgd fedpm/fedpm_measured \
	signsgd/signsgd signsgd/signsgd_secure numpy_vector/run http/run

examples: $(VENV)/.installed-simulation  ## every script of examples/ on real images: minutes
	@for script in $(EXAMPLES); do echo "== examples/$$script.py"; \
		(cd examples/$${script%/*} && $(CURDIR)/$(BIN)/python $${script##*/}.py) || exit 1; done
	@echo "== examples/fl4health/run.py"; cd examples/fl4health && $(CURDIR)/$(BIN)/python run.py

install: $(VENV)/.installed       ## make .venv with what `run` needs
install-dev: $(VENV)/.installed-dev  ## and with what `test` needs

PROJECTS := pyproject.toml crypto/pyproject.toml privacy/pyproject.toml constraints.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else f"prism-secure needs Python >= 3.11, but $(PYTHON) is {v}; try: make run PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip  # Python 3.11's own takes twice as long

$(VENV)/.installed: $(PROJECTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PARTS) --editable .
	@touch $@

# What `run` needs is among it. --no-compile: tests import a tenth of the files; the first import compiles those.
# What builds our three parts comes first, once: pip would install it anew for each of them.
$(VENV)/.installed-dev: $(PROJECTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --no-compile --no-build-isolation --constraint constraints.txt $(PARTS) --editable '.[dev]'
	@touch $(VENV)/.installed $@

# Compiled once, in one process: otherwise every worker compiles the same modules. What fails here fails in the tests.
$(VENV)/.compiled: $(VENV)/.installed-dev
	$(BIN)/pytest --collect-only --quiet > /dev/null || true
	@touch $@

# Ray: 190 MB that only Flower's simulations need.
$(VENV)/.installed-simulation: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'flwr[simulation]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PARTS) --editable '.[docs]'
	@touch $@

clean:          ## remove the environment and caches, keep runs
	rm -rf $(VENV) $(TRIED) site dist notebooks/made .pytest_cache .mypy_cache .ruff_cache .hypothesis .reached .import_linter_cache
