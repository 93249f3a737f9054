# make demo    serve a page on which a person uploads files
# make test    check and test everything
# make soak    the tests that take many minutes
# make bench   measure against other servers

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of processes; without it each of them compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test soak bench lint clean

demo: $(VENV)/.demo
	$(BIN)/upload-helper demo $(ARGS)

test: lint
	$(BIN)/pytest --numprocesses auto --dist worksteal $(ARGS)

soak: $(VENV)/.test
	sh tests/setup-system nginx
	$(BIN)/pytest -m soak $(ARGS)

bench: $(VENV)/.bench
	sh tests/setup-system nginx node npm chromium curl rclone
	$(BIN)/python -m tests.bench $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist plugin/*.egg-info tests/node/node_modules tests/bench/node/node_modules

$(VENV)/.demo: setup.cfg pyproject.toml
	sh tests/setup-system python-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[server]'
	touch $@

$(VENV)/.test: setup.cfg pyproject.toml tests/setup-system tests/node/package.json
	sh tests/setup-system python-venv node npm chromium-headless-shell nginx postgresql dbus-daemon
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]'
	cd tests/node && npm install --silent --no-audit --no-fund
	touch $@

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/pip install --quiet --editable '.[bench]'
	touch $@
