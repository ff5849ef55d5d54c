# What each target does: make help
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
BUILD_CONTRACTS := $(BIN)/buf build --exclude-path tests/tools/echo/protos/acme --exclude-source-info

.DEFAULT_GOAL := help
.PHONY: help setup model up test node check lint types imports contracts generated protos docs release-contracts format xds bench

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# The stamp is touched last, so an install that broke off is done again.
.venv/.installed: pyproject.toml
	@echo "making .venv and installing everything: this takes some minutes, once"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: .venv/.installed ## Make .venv and install everything

# vLLM and all that it needs, in an environment of its own: about 2.5 GB. `make model DEVICE=gpu` for NVIDIA's.
# Without dependencies: the lock has them, less those that are asked for and not needed.
DEVICE ?= cpu
.venv-model/.locked-$(DEVICE): model_server/requirements-$(DEVICE).txt
	$(PYTHON) -m venv --clear .venv-model
	.venv-model/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@
.venv-model/.installed: .venv-model/.locked-$(DEVICE) pyproject.toml
	.venv-model/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

model: .venv-model/.installed ## Make .venv-model, the model server's environment

up: setup ## Start the mesh and call it: the whole thing in one terminal
	@$(BIN)/llmesh up

# A worker that crashes ends the run: xdist 3.8 would replace it, and then wait for ever for tests that were done.
test: setup node model ## Run every test
	$(BIN)/pytest -n 2 --dist loadfile --max-worker-restart 0

# The tests of other languages' clients and tools.
node: tests/e2e/node/node_modules/.installed
tests/e2e/node/node_modules/.installed: tests/e2e/node/package-lock.json
	npm ci --prefix tests/e2e/node --no-audit --no-fund --silent
	@touch $@

bench: setup model ## Measure every figure; `make bench-NAME` for one: data-path, rules, blocks, records, fleet, fanout, up, hostile, restart, model, passages, questions, search
	$(BIN)/python -m tests.bench
	$(BIN)/python -m docs.generate

bench-model: model
bench-%: setup
	$(BIN)/python -m tests.bench $*
	$(BIN)/python -m docs.generate

check: setup lint types imports generated contracts test ## What CI runs: everything

lint: setup ## Style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup ## Types, strictly
	$(BIN)/pyright

imports: setup ## The import rules
	PYTHONPATH=$(subst $(eval) ,:,$(wildcard tools/*/*)) $(BIN)/lint-imports

contracts: setup ## The .proto files: style, format, and nothing broken since the last release
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BUILD_CONTRACTS) -o -#format=binpb | $(BIN)/buf breaking -#format=binpb --against protos/released.binpb

generated: setup ## That the committed stubs are what the .proto files give
	$(BIN)/python protos/generate.py
	@git diff --exit-code --stat -- '*_pb2*' || { echo 'generated code differs: run `make protos` and commit'; exit 1; }
	@test -z "$$(git status --porcelain -- '*_pb2*')" || { echo 'generated code is not committed'; exit 1; }

protos: setup ## Generate the stubs from the .proto files
	$(BIN)/python protos/generate.py

docs: setup ## Write the pages that are made from models and from what was measured
	$(BIN)/python -m docs.generate

release-contracts: setup ## Take the contracts as they are for the base that later ones must not break
	$(BUILD_CONTRACTS) -o protos/released.binpb

format: setup ## Put code and contracts in order
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format
	$(BIN)/buf format --write

# In an environment of its own: the package's top-level modules clash with others.
xds: ## Build gateway/xds/envoy.binpb, the Envoy messages that we use
	$(PYTHON) -m venv --clear .venv-xds
	.venv-xds/bin/pip install --quiet --disable-pip-version-check 'xds-protos==1.85.0' 'protobuf<8' grpcio
	.venv-xds/bin/python gateway/xds/build_envoy_binpb.py gateway/xds/envoy.binpb
	rm -rf .venv-xds
