# `make run` serves with the built-in defaults; `make test` checks everything. Both set up what
# they need first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := ctsd searchers tests twisted benchmarks setup.py

# What live tests call, by the name of its command and of its Debian package.
TOOLS := chromium curl haproxy pgbouncer systemd
# PostgreSQL's initdb is not on the path.
SERVER := postgresql

# Other Pythons that the unit tests run on, where they are there.
OTHERS := 3.12 3.13

.PHONY: run test test-others tools clean

run: $(VENV)/.installed
	@$(BIN)/twistd -n --pidfile= -y ctsd.tac

test: $(VENV)/.installed-for-tests tools
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/trial -j2 tests

# A Python may be on the path, or be one of pyenv's.
test-others:
	@for version in $(OTHERS); do \
		for python in python$$version $$HOME/.pyenv/versions/$$version*/bin/python; do \
			if $$python -c "" 2>/dev/null; then \
				$(MAKE) VENV=.venv-$$version PYTHON=$$python unit-tests || exit 1; \
				continue 2; \
			fi; \
		done; \
		echo "There is no Python $$version here."; \
	done

.PHONY: unit-tests
unit-tests: $(VENV)/.installed-for-tests
	$(BIN)/trial -j2 $(patsubst tests/%.py,tests.%,$(wildcard tests/test_*.py))

tools:
	@missing=""; \
	for tool in $(TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
		|| missing="$$missing $(SERVER)"; \
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
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,postgres]'
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info _trial_temp*
