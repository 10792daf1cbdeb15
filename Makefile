# Everything a newcomer needs: `make demo` and `make test` set themselves up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Idle OpenMP threads that spin starve the other processes: two workers on two cores get 8 to 19 times slower.
export OMP_WAIT_POLICY = passive

.PHONY: demo test test-all lint types docs leaderboards benchmarks clean

demo: $(VENV)/.installed
	$(BIN)/rbl run --attack pgd

# In the order of the folders: the files that take longest do not have the most tests, and the short ones come last.
XDIST := -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(XDIST) -m "not slow"

test-all: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(XDIST)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/docs

leaderboards: $(VENV)/.installed-test
	$(BIN)/python leaderboards/build.py

benchmarks: $(VENV)/.installed-test
	$(BIN)/python benchmarks/attack_loop.py
	$(BIN)/python benchmarks/startup.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "rbl needs Python 3.11 to 3.13: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml constraints.txt tests/no-deps.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,lint]"
	@# Without them their tests are skipped, with the reason: no need to fail where they cannot be had.
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/no-deps.txt
	@touch $@ $(VENV)/.installed
