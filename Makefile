# Everything runs in .venv, which the first command makes. Needs only make and Python 3.11 or newer.
PYTHON ?= python3
PIP_ARGS ?=
TRAJECTORIES ?= 150
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=

.PHONY: help install train watch test simulate test-containers test-browser test-hostile test-wheel check format proto bench clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv with everything in it.

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FedPG needs Python 3.11 or newer: make PYTHON=python3.11")'
	@echo "Installing into $(VENV); the first time takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: $(INSTALLED) ## Two defences under attack, in runs/defence/figure.png (one run: make train ARGS="--byzantine 3 ...").
ifeq ($(strip $(ARGS)),)
	$(BIN)/fedpg experiment defence
else
	$(BIN)/fedpg train --task CartPole-v1 --agents 10 --byzantine 3 $(ARGS)
endif

watch: $(INSTALLED) ## Show the runs in runs/ on a page, live or finished (another folder: make watch ARGS=FOLDER).
	$(BIN)/fedpg watch $(ARGS)

test: $(INSTALLED) ## Run the tests.
	$(BIN)/pytest $(ARGS)

simulate: $(INSTALLED) ## Print what one schedule of the simulator goes through (make simulate ARGS=17).
	$(BIN)/python tests/simulate.py $(ARGS)

test-containers: $(INSTALLED) ## Build the images and test federations in containers (needs a Docker engine with Compose).
	$(BIN)/pytest --timeout=0 tests/containers $(ARGS)

test-browser: $(INSTALLED) ## Test the page of fedpg watch in a real browser (needs Chromium: apt-get install chromium).
	$(BIN)/pytest tests/browser $(ARGS)

test-hostile: $(INSTALLED) ## Attack a federation while it learns (for longer: make test-hostile TRAJECTORIES=5000).
	FEDPG_HOSTILE_TRAJECTORIES=$(TRAJECTORIES) $(BIN)/pytest --timeout=0 tests/hostile $(ARGS)

test-wheel: $(INSTALLED) ## Build the wheel and use it in a clean environment outside the repository.
	$(BIN)/python .ci/wheel.py

check: $(INSTALLED) ## Lint, check types, and see that the generated code is in step.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python proto/generate.py --check

format: $(INSTALLED) ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(INSTALLED) ## Generate the Python of the contract.
	$(BIN)/python proto/generate.py

bench: $(INSTALLED) ## Measure speed and write docs/benchmarks.md.
	$(BIN)/python benchmarks/report.py docs/benchmarks.md

clean: ## Remove .venv and caches; runs stay.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
