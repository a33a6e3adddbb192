# Everything is made below .venv (gridmad and what its tests need), .gwd (a real GridWay) and
# build; `make clean` removes them.  PYTHON names another interpreter than python3, GWD_HOME an
# environment that has gwd already.

PYTHON ?= python3
GWD_HOME ?= $(CURDIR)/.gwd
GWD_VERSION = 3.0.13
export PYTHON GWD_HOME

BIN = .venv/bin
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
SOURCES = pyproject.toml setup.py README.md LICENSE $(wildcard ext/*.p*) \
	$(shell find src -name '*.py' -o -name '*.pyi' -o -name '*.sh' -o -name py.typed)
EXTENSIONS = $(patsubst ext/%.pyx,gridmad.%,$(wildcard ext/*.pyx))
CODE = setup.py src tests bench
TEST_PYTHONS = python3.11 python3.12 python3.13
# Most tests wait for a server or for time to pass: four at once keep two cores busy.  The tests
# of a file stay with one worker, which starts their server once.  PYTEST=-n0 runs one by one.
WORKERS = --numprocesses=4 --dist=loadfile --no-loadscope-reorder

# Runs pytest with arguments.  What has failed beside other tests runs once more, alone: a fault
# fails again, a machine that was too busy does not, and both are shown.
define run_tests
$(BIN)/python -m pytest $(1) || { [ $$? = 1 ] \
	&& echo && echo 'What failed runs once more, alone.' \
	&& $(BIN)/python -m pytest $(1) -n0 -x --last-failed --last-failed-no-failures=none; }
endef

.PHONY: help
help:
	@echo 'make demo          run an array of jobs through a real GridWay and our drivers'
	@echo 'make test          run all tests (TESTS=tests/unit PYTEST="-x -n0" for a part)'
	@echo 'make test-grid     tests on servers whose jobs take their time (ARC)'
	@echo 'make test-transfers  10,000 small files and 1 GiB over each protocol'
	@echo 'make lint          ruff, mypy, and stubtest of the compiled modules'
	@echo 'make bench         all benches; make bench-quick: a look at each'
	@echo 'make build         sdist and wheel in build/dist, and the proof that both work'
	@echo 'make test-pythons  the unit tests on each of $(TEST_PYTHONS) that is here'
	@echo 'make clean         remove .venv, .gwd and build'

.PHONY: demo
demo: setup
	@.ci/prerequisites broker
	@$(BIN)/python -B -m tests.system.demo

.PHONY: test
test: setup
	@.ci/prerequisites servers
	$(call run_tests,-m 'not grid' $(WORKERS) $(PYTEST) $(TESTS))

.PHONY: test-grid
test-grid: setup
	@.ci/prerequisites servers
	$(call run_tests,-m grid $(PYTEST) tests/conformance tests/services)

.PHONY: test-transfers
test-transfers: export GRIDMAD_LARGE_TRANSFERS = 1
test-transfers: setup
	@.ci/prerequisites servers
	$(call run_tests,-k 'many_small_files or a_large_file' --timeout=900 $(PYTEST) \
		$(patsubst %,tests/services/test_%.py,gridftp sftp dav xrootd))

.PHONY: bench bench-quick
bench: setup
	@.ci/prerequisites servers
	@.ci/prerequisites bench
	@$(PIP) install --group bench || echo 'without python-ldap, whose contest is skipped' >&2
	$(BIN)/python -m pytest --timeout=1200 $(PYTEST) bench

bench-quick: setup
	@.ci/prerequisites servers
	GRIDMAD_BENCH_QUICK=1 $(BIN)/python -m pytest $(PYTEST) bench

.PHONY: lint
lint: .venv/lint
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --allowlist .ci/stubtest-allowlist $(EXTENSIONS)

# The wheel is built from the unpacked sdist, which proves that nothing misses there.
.PHONY: build
build: .venv/lint
	rm -rf build/dist build/proof
	$(BIN)/python -m build --outdir build/dist build/tree
	$(PYTHON) -m venv build/proof
	build/proof/bin/python -m pip --quiet --disable-pip-version-check install build/dist/*.whl
	build/proof/bin/gw_im_mad_static --version

.PHONY: test-pythons
test-pythons: build/tree/.made
	@set -e; for python in $(TEST_PYTHONS); do \
		if ! $$python -V >/dev/null 2>&1; then echo "$$python is not here"; continue; fi; \
		rm -rf build/$$python; $$python -m venv build/$$python; \
		pip="build/$$python/bin/python -m pip --quiet --disable-pip-version-check install"; \
		$$pip --upgrade pip; $$pip './build/tree[all]' --group test; \
		echo "== $$python"; build/$$python/bin/python -m pytest -q tests/unit; \
	done

.PHONY: clean
clean:
	rm -rf .venv .gwd build .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	rm -rf src/*.egg-info src/gridmad/*.so ext/*.c
	find . -name __pycache__ -prune -exec rm -rf {} +

# Both environments are made at once, since gwd takes most of a minute to compile.
.PHONY: setup gwd
setup:
	@.ci/prerequisites build
	@$(MAKE) --no-print-directory --jobs=2 .venv/test gwd

ifeq ($(GWD_HOME),$(CURDIR)/.gwd)
gwd: .gwd/$(GWD_VERSION)
else
gwd:
endif

.gwd/$(GWD_VERSION):
	@echo 'Installing a real GridWay (from drm4g $(GWD_VERSION)) into .gwd'
	@$(PYTHON) -m venv .gwd
	@.gwd/bin/python -m pip --quiet --disable-pip-version-check install drm4g==$(GWD_VERSION)
	@touch $@

# Built from a copy, so that nothing is left between the sources.
build/tree/.made: $(SOURCES)
	@rm -rf build/tree
	@mkdir -p build/tree/src
	@tar -c $(SOURCES) | tar -x -C build/tree
	@touch $@

.venv/pip:
	@$(PYTHON) -m venv .venv
	@$(PIP) install --upgrade pip
	@touch $@

.venv/test: .venv/pip build/tree/.made
	@echo 'Installing gridmad into .venv'
	@$(PIP) install './build/tree[all]' --group test
	@touch $@

.venv/lint: .venv/test
	@$(PIP) install --group lint --group build
	@touch $@
