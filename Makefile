# `make run` serves with the built-in defaults; `make test` checks everything. Both set up what
# they need first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := ctsd searchers tests twisted benchmarks setup.py

# What live tests call, by the name of its command and of its Debian package.
TOOLS := curl

.PHONY: run test tools clean

run: $(VENV)/.installed
	@$(BIN)/twistd -n --pidfile= -y ctsd.tac

test: $(VENV)/.installed-for-tests tools
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/trial -j2 tests

tools:
	@missing=""; \
	for tool in $(TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && apt-get install -q -y --no-install-recommends $$missing; \
	else \
		echo "Not installed:$$missing. The live tests that call them are skipped."; \
	fi

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ctsd needs Python 3.11 or newer; say make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.py pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-for-tests: setup.py pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info _trial_temp*
