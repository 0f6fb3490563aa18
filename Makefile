# Set-up and checks. Wants Python 3.11 and make, nothing else.
#   make train    install, fetch the demo corpus, pre-train    ARGS="size=tiny out=runs/mine" adds overrides
#                 RECIPE=music_w2vbert EXTRAS=music trains another recipe, with the readers that its data want
#   make test     install with the dev extra, then all checks and tests
#   make lint     the checks alone
#   make docs     build the documentation into build/site; a broken link is an error
#   make clean    remove the environment and every cache; runs/ stays

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
RECIPE ?= speech_w2vbert
EXTRAS ?= audio
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Two torch threads that wait for each other cost more than they give on small tensors.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: train test lint docs clean

train: $(VENV)/installed-$(EXTRAS)
	$(BIN)/seqssl train recipe=$(RECIPE) $(ARGS)

test: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed-dev
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis .ruff_cache .mypy_cache .import_linter_cache build dist

# A stamp per extra: the install is skipped until a file that decides it changes.
$(VENV)/installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing seqssl[$*] into $(VENV) (the first time takes minutes)"
	$(PIP_INSTALL) --editable '.[$*]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
