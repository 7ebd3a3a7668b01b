# `make test`, `make test-device`, `make demo` and `make demo-spos` need Python 3.9 or newer and make; each sets up
# .venv first.

PYTHON ?= python3
VENV := .venv
# Of tests, at most four. One more than there are cores: tests of several processes spend much of their time waiting.
WORKERS = $(shell $(VENV)/bin/python -c 'import os; print(min(os.cpu_count() + 1, 4))')
# Written last and named after the interpreter, so that an interrupted set-up, another PYTHON or a changed
# requirement makes the environment anew.
INSTALLED := $(VENV)/installed-with-$(subst /,-,$(PYTHON))

.PHONY: test test-device demo demo-spos clean

test: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest -q --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# All jobs on a plug-in device, docs/devices.md: three minutes of processor time. `make test` runs a short form.
test-device: $(INSTALLED)
	PIMM_TEST_DEVICE=1 $(VENV)/bin/python -m pytest -q tests/device

demo: $(INSTALLED)
	@$(VENV)/bin/python tools/demo.py

demo-spos: $(INSTALLED)
	@$(VENV)/bin/python tools/demo.py spos

$(INSTALLED): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || \
		{ echo 'error: $(PYTHON) is not Python 3.9 or newer; name one with PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'error: $(PYTHON) cannot make virtual environments (on Debian and Ubuntu: apt install python3-venv)' >&2; exit 1; }
	@echo 'Setting up $(VENV); this downloads about 300 MB, most of it Paddle.'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' || \
		{ echo 'error: the installation failed; Paddle 3.3 is made for Python 3.9 to 3.13 (choose with PYTHON=...)' >&2; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
