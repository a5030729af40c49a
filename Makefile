PY := .venv/bin/python
ifeq ($(shell uname -s),Darwin)
EXTRAS ?= dev,server
else
EXTRAS ?= cpu,dev,server
endif

# Tests run in as many processes as there are cores, up to four; each computes in one thread.
WORKERS ?= auto

.PHONY: help setup links demo test lint form floors types installed format axe bench bench-check parity fuzz fuzz-faults train-demo clean

help:
	@echo "make demo        set up, then describe a picture and a sound with LIME, each word with its share of them"
	@echo "make test        set up, then run the tests"
	@echo "make setup       only the environment, in .venv; on Linux with a GPU: make setup EXTRAS=cuda13,dev,server"
	@echo "make lint        ruff, the floors and the types"
	@echo "make types       only the types, by mypy"
	@echo "make axe         axe-core, by npm, for the tests of pages"
	@echo "make bench       speed and memory of each method, against mlx-lm"
	@echo "make bench-check what looking costs, against the stored figures; fails where it costs more"
	@echo "make parity      compare with transformers; needs PyTorch"
	@echo "make fuzz        hostile inputs, SECONDS=600; the next run goes on where this one stopped"
	@echo "make fuzz-faults ten faults seeded into copies of the code, each of which fuzzing must find"
	@echo "make train-demo  train a bundled model again, DEMO=picture or DEMO=sound; up to 3 hours"

setup: .venv/.setup

.venv/.setup: pyproject.toml
	@python=; for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && python=$$p && break; \
	done; \
	test -n "$$python" || { echo "lime-mlx needs Python 3.10 or newer." >&2; exit 1; }; \
	test -x $(PY) || { echo "Setting up .venv; this takes about a minute"; $$python -m venv .venv; }
	@$(PY) -m pip install -qq --disable-pip-version-check -e ".[$(EXTRAS)]"
	@$(MAKE) --no-print-directory links
	@touch $@

# An editable install maps convert/ and cli/ into the package while Python runs, which type checkers cannot see.
# They see these two links, in the folder that the .pth file names.
links:
	@ln -sfn ../cli lime_mlx/cli
	@ln -sfn ../convert lime_mlx/convert
	@$(PY) -c "from pathlib import Path; from sysconfig import get_path; \
	  Path(get_path('purelib'), 'lime_mlx_types.pth').write_text(str(Path.cwd()))"

demo: setup
	@.venv/bin/lime-mlx generate --image examples/scene.png -p "What is in the picture?" --explain
	@.venv/bin/lime-mlx generate --audio examples/sounds.wav -p "What do you hear?" --explain

test: setup
	@rm -rf build/coverage
	@mkdir -p build/coverage
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS) --maxprocesses 4 --cov --cov-report=
	@echo "Lines that the tests ran: $$($(PY) -m coverage report --format=total) %"

lint: form floors types

form: setup
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .

# The package as it is installed, with convert/ and cli/ as lime_mlx.convert and lime_mlx.cli.
installed: setup
	@rm -rf build/lint
	@$(PY) -c "import setuptools; setuptools.setup()" --quiet build_py --build-lib build/lint

floors: installed
	@cd build/lint && ../../.venv/bin/lint-imports --config ../../pyproject.toml --no-cache >report || { cat report; exit 1; }

types: installed
	@cd build/lint && ../../.venv/bin/mypy --config-file ../../pyproject.toml --cache-dir ../mypy lime_mlx

format: setup
	@.venv/bin/ruff check --quiet --fix .
	@.venv/bin/ruff format --quiet .

# For the tests of pages: axe-core, a development tool that judges accessibility.
axe:
	@rm -rf build/axe
	@mkdir -p build/axe
	@cd build/axe && npm pack --silent axe-core >/dev/null && tar -xzf axe-core-*.tgz

bench-check: setup
	@$(PY) benchmarks/costs.py --check

bench: setup
	@$(PY) benchmarks/speed.py

parity: setup
	@$(PY) -c "import torch" 2>/dev/null || { echo "make parity needs PyTorch: $(PY) -m pip install torch" >&2; exit 1; }
	@$(PY) benchmarks/parity.py

# Hostile inputs, SECONDS long; the next run goes on where this one stopped. TARGET=config tries one target only.
SECONDS ?= 600
fuzz: setup
	@cd tests && OMP_NUM_THREADS=1 ../$(PY) -m fuzz.run --seconds $(SECONDS) $(addprefix --target ,$(TARGET))

# Ten faults, each seeded into a copy of the code: fuzzing must find it.
fuzz-faults: setup
	@cd tests && OMP_NUM_THREADS=1 ../$(PY) -m fuzz.faults

DEMO ?= picture
train-demo: setup
	@$(PY) benchmarks/train_demo.py $(DEMO)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache lime_mlx/cli lime_mlx/convert
