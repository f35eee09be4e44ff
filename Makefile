# `make demo` and `make test` do all set-up themselves: they need Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test lint clean

help:
	@echo "make install   the environment in $(VENV), with everything in it"
	@echo "make demo      a real search on the built-in digits, into runs/demo"
	@echo "make test      lint, types and tests"
	@echo "make lint      lint and types"
	@echo "make clean     remove $(VENV) and caches; runs/ stays"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "hssl-search needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@cache=$$($(BIN)/uv cache dir) && mkdir -p "$$cache" && touch "$$cache/.link" \
		&& { ln -f "$$cache/.link" $(VENV)/.link 2>/dev/null || export UV_LINK_MODE=copy; } && rm -f $(VENV)/.link "$$cache/.link" \
		&& VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/hssl-search --data digits --base test_resnet --base-arg output_stride=8 --image-size 32 \
		--trainer simclr --space tiny --budget 5cpu-min --name demo

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --ignore tests/whole
	$(BIN)/python -m pytest tests/whole

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
