PY := .venv/bin/python
ifeq ($(shell uname -s),Darwin)
EXTRAS ?= dev
else
EXTRAS ?= cpu,dev
endif

.PHONY: help setup demo test lint format bench parity train-demo clean

help:
	@echo "make demo        set up, then describe a picture and a sound with LIME, each word with its share of them"
	@echo "make test        set up, then run the tests"
	@echo "make setup       only the environment, in .venv; on Linux with a GPU: make setup EXTRAS=cuda13,dev"
	@echo "make lint        ruff and the floors"
	@echo "make bench       speed and memory of each method, against mlx-lm"
	@echo "make parity      compare with transformers; needs PyTorch"
	@echo "make train-demo  train a bundled model again, DEMO=picture or DEMO=sound; up to 3 hours"

setup: .venv/.setup

.venv/.setup: pyproject.toml
	@python=; for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && python=$$p && break; \
	done; \
	test -n "$$python" || { echo "lime-mlx needs Python 3.10 or newer." >&2; exit 1; }; \
	test -x $(PY) || { echo "Setting up .venv; this takes about a minute"; $$python -m venv .venv; }
	@$(PY) -m pip install -qq --disable-pip-version-check -e ".[$(EXTRAS)]"
	@touch $@

demo: setup
	@.venv/bin/lime-mlx generate --image examples/scene.png -p "What is in the picture?" --method lime --explain
	@.venv/bin/lime-mlx generate --audio examples/sounds.wav -p "What do you hear?" --method lime --explain

test: setup
	@$(PY) -m pytest -q

lint: setup
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@rm -rf build/lint
	@$(PY) -c "import setuptools; setuptools.setup()" --quiet build_py --build-lib build/lint
	@cd build/lint && ../../.venv/bin/lint-imports --config ../../pyproject.toml --no-cache >report || { cat report; exit 1; }

format: setup
	@.venv/bin/ruff check --quiet --fix .
	@.venv/bin/ruff format --quiet .

bench: setup
	@$(PY) benchmarks/speed.py

parity: setup
	@$(PY) -c "import torch" 2>/dev/null || { echo "make parity needs PyTorch: $(PY) -m pip install torch" >&2; exit 1; }
	@$(PY) benchmarks/parity.py

DEMO ?= picture
train-demo: setup
	@$(PY) benchmarks/train_demo.py $(DEMO)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
