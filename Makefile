# make demo | test | test-slow | bench | lint | clean. Each makes what it needs in .venv and is fast the second time.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Bytecode is written when a module is first used: compiling the clouds' whole SDKs would take longer than the demo.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# Much of a test here is waiting for processes; each file stays on one worker, for what its tests share.
PYTEST ?= $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=10
# The CPU build, installed first and exactly so: a plain `torch` would bring gigabytes of CUDA packages.
TORCH ?= torch==2.13.0

.PHONY: demo test test-slow bench lint clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.demo ## Both clouds emulated: deploy, train, compare, take down
	@$(BIN)/fedspan demo $(ARGS)

test: $(VENV)/.dev ## The default suite, under ten minutes on two cores
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(VENV)/.dev $(VENV)/.torch ## The slow suite: kills, fuzzing, torch, whole topologies
	@# one more at a time than processors: most of it waits for machines to boot and for clouds that answer late
	$(PYTEST) -n 3 -m slow $(ARGS)

bench: $(VENV)/.dev $(VENV)/.torch ## The figures of benchmarks/README.md but deployments' (deploy.py): some ten minutes and 25 GB of disk; nothing else should run
	$(BIN)/python benchmarks/rounds.py --model-mib 512
	$(BIN)/python benchmarks/rounds.py --model-mib 64
	$(BIN)/python benchmarks/rounds.py --model-mib 512 --sites 8 --rounds 2
	@# one tensor of 2.5 GiB; the limit needs root
	$(BIN)/python benchmarks/rounds.py --model-mib 2560 --tensors 1 --rounds 1 $$([ "$$(id -u)" != 0 ] || echo --limit-mb 600)
	$(BIN)/python benchmarks/algorithms.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/starts.py
	$(BIN)/python benchmarks/simulator.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/codecs.py
	$(BIN)/python benchmarks/push.py

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## Removes what make made; federations, kits and results stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "fedspan needs Python 3.10 to 3.13, $(PYTHON) is another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python's venv module is missing: install the package python3-venv" >&2; exit 1; }

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing fedspan and the emulated clouds into $(VENV) (once, a minute or two) …"
	@$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing fedspan and its development tools into $(VENV) (once) …"
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.torch: | $(BIN)/python
	@$(INSTALL) '$(TORCH)'
	@$(INSTALL) 'lightning>=2.5,<3'
	@touch $@
