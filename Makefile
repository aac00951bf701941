# `make demo` does the main job, `make test` runs the tests; both set up `.venv` first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := build/fashion
HARDWARE := build/fashion-tiny
EXAMPLE := examples/fashion_mnist

.DEFAULT_GOAL := help
.PHONY: help demo hardware test lint format lock clean

help: ## list these commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	@touch $@

demo: $(READY) ## compile the example model, classify images, prove it, measure its accuracy
	$(BIN)/intaglio compile $(EXAMPLE)/vit_qdq.onnx --target cpu --input uint8 --mean 0.2860 --std 0.3530 -o $(DEMO)
	$(BIN)/intaglio run $(DEMO) --input $(EXAMPLE)/images --labels $(EXAMPLE)/labels.txt
	$(BIN)/intaglio verify $(DEMO) --input $(EXAMPLE)/images
	$(BIN)/intaglio evaluate $(DEMO) --dataset fashion-mnist

hardware: $(READY) ## compile the example for a small accelerator, prove it, simulate its RTL
	$(BIN)/intaglio compile $(EXAMPLE)/vit_qdq.onnx --target tiny --input uint8 --mean 0.2860 --std 0.3530 -o $(HARDWARE)
	$(BIN)/intaglio verify $(HARDWARE) --input $(EXAMPLE)/images
	$(BIN)/intaglio simulate $(HARDWARE) --input $(EXAMPLE)/images --images 3

test: $(READY) ## run the tests
	$(BIN)/pytest -n auto -m 'not vendor and not exporters'

lint: $(READY) ## check style, types and layering
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: ## write requirements.lock from a fresh environment
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet '.[dev]'
	{ echo "# Exact versions, for pip install -c; made by: make lock"; \
	  build/lock/bin/pip freeze --exclude intaglio; } > requirements.lock

clean: ## remove what was built
	rm -rf build dist .venv
