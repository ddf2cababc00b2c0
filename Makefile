# Everything needed from a clean clone: Python 3.11 or newer, and make (GNU make 3.81 or newer, as macOS has it).
#
# Variables: PYTHON      the interpreter to make .venv with
#            BASE_IMAGE  the base of the sandbox image (default: python:3.12-slim, or what `make base-image` made)
#            ARGS        more arguments for pytest, the benchmarks or jupyter

VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALLED := $(VENV)/.installed
NOTEBOOK := notebooks/quickstart.ipynb
RUN_NOTEBOOK := $(BIN)/python -m codemode_kernel.demo
STUBS := proto/codemode_proto/v1

.DEFAULT_GOAL := help
.PHONY: help install sandbox demo test lab lint format bench image base-image proto lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: sandbox ## Set everything up, run the quickstart notebook and print its results
	$(RUN_NOTEBOOK) $(NOTEBOOK)

test: sandbox ## Set everything up and run the tests
	$(BIN)/python -m pytest $(ARGS)

lab: sandbox ## Set everything up and open the notebooks in JupyterLab
	$(BIN)/jupyter lab $$(test "$$(id -u)" -ne 0 || echo --allow-root) $(ARGS) notebooks

install: $(INSTALLED) ## Make .venv and install the project with its tools

$(INSTALLED): pyproject.toml constraints.txt scripts/install
	@PYTHON="$(PYTHON)" scripts/install $(VENV)
	@touch $@

sandbox: $(INSTALLED) ## Build the sandbox image if there is a Docker Engine, else say what is used
	@BASE_IMAGE="$(BASE_IMAGE)" $(BIN)/python scripts/set_up_sandbox.py

image: $(INSTALLED) ## Build the sandbox image, and fail without a Docker Engine
	@CI=1 BASE_IMAGE="$(BASE_IMAGE)" $(BIN)/python scripts/set_up_sandbox.py

base-image: ## Make a base image from Debian packages where no image registry is reached (as root)
	@scripts/make-base-image

lint: $(INSTALLED) ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED) ## Put the sources into the project's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: sandbox ## Measure speed, each row beside its floor
	$(BIN)/python -m benchmarks $(ARGS)

proto: $(INSTALLED) ## Generate the gRPC stubs anew from proto/*.proto
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto --grpc_python_out=proto --mypy_out=proto --mypy_grpc_out=proto $(STUBS)/*.proto

lock: ## Pin the newest versions of all packages in constraints.txt
	@scripts/lock

clean: ## Remove the virtual environment and everything generated
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
