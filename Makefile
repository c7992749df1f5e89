# Each target sets up what it needs in .venv. The two that a new user wants: `make demo` and `make test`.

VENV ?= .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard dataforge/native/*)
BUILD := $(NATIVE) CMakeLists.txt pyproject.toml constraints.txt
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO ?= demo
OUT ?= benchmarks/results
export OMP_NUM_THREADS ?= 2
# Threads that wait give their core to others: beside other work, spinning made a training step 3 to 10 times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test check format soak soak-slice test-corpus bench gpu-check clean setup

# torch comes first and pinned: it has a small CPU build, and every later package then finds it there.
$(VENV)/.demo-ready: $(BUILD)
	@echo "setting up $(VENV)"
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@began=$$(date +%s); \
	 $(PIP) torch==2.13.0 && \
	 $(PIP) "scikit-build-core>=0.11" "nanobind>=2.8" ninja && \
	 $(PIP) --no-build-isolation --editable ".[all]" && \
	 touch $@ && echo "set-up took $$(( $$(date +%s) - began )) s"

$(VENV)/.dev-ready: $(VENV)/.demo-ready
	@$(PIP) --no-build-isolation --editable ".[all,dev]" && touch $@

setup: $(VENV)/.dev-ready

demo: $(VENV)/.demo-ready
	@$(BIN)/python -m dataforge.pipelines.demo --folder $(DEMO)

test: $(VENV)/.dev-ready
	$(BIN)/python -m pytest -m "not gpu and not corpus and not soak"
	$(BIN)/python -m pytest --doctest-modules dataforge services pipelines -p no:cacheprovider -q

check: $(VENV)/.dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(VENV)/.dev-ready
	$(BIN)/python -m pytest -m soak -p no:cacheprovider
	$(BIN)/python tests/soak.py --save $(OUT)/soak.json

soak-slice: $(VENV)/.dev-ready
	$(BIN)/python tests/soak.py --seconds 300

test-corpus: $(VENV)/.dev-ready
	$(BIN)/python -m pytest -m corpus

bench: $(VENV)/.dev-ready
	@for script in benchmarks/bench_*.py; do echo "$$script"; $(BIN)/python $$script --save || exit 1; done

gpu-check:
	python3 -m pytest -m gpu tests

clean:
	rm -rf build dist $(DEMO) .pytest_cache .hypothesis .mypy_cache .ruff_cache
