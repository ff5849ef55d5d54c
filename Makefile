# What each target does: make help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
TOOLS := tools/engineering/doc_search tools/handbook/search tools/support/tickets tools/writing/text
GENERATED := llmesh/api buf $(foreach tool,$(TOOLS),$(tool)/acme)

.DEFAULT_GOAL := help
.PHONY: help setup up test check lint format type imports protos generated contracts xds bench

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# The stamp is touched last, so an install that broke off is done again.
.venv/.installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: .venv/.installed ## Make .venv and install everything

up: setup ## Start the mesh and call it: the whole thing in one terminal
	@$(BIN)/llmesh up

test: setup ## Run every test
	$(BIN)/pytest

protos: setup ## Generate the stubs from the .proto files
	$(BIN)/python protos/generate.py
