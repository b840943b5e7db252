PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: bench test lint format types benchmark faults fuzz gpu-check wheel clean
.DEFAULT_GOAL := bench

# Set up everything and run the main job on synthetic data: no GPU, no data, no network beyond the package index.
bench: $(INSTALLED)
	$(BIN)/fusebench phantom data/phantom --scale 0.05
	$(BIN)/fusebench prepare data/quick --busi data/phantom/busi --oasbud data/phantom/oasbud/OASBUD.mat --rsna data/phantom/rsna --image-size 80
	$(BIN)/fusebench run quick --data data/quick --out results/quick

# Set up everything and run all checks; what CI runs.
test: $(INSTALLED) lint types
	$(BIN)/python -m pytest

# Style and likely mistakes.
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Rewrite the code in the project's format.
format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Type checks.
types: $(INSTALLED)
	$(BIN)/mypy

# Timings, compared as ratios in one run; BUSI=DIR takes the real images of BUSI instead of phantoms.
benchmark: $(INSTALLED)
	FUSEBENCH_BUSI="$(BUSI)" $(BIN)/python -m pytest tests/benchmarks --benchmark-enable --override-ini addopts="-q --strict-markers"

# Faults in real processes (kill -9, signals, a full disk, ...), each continued and compared; writes docs/faults.md.
faults: $(INSTALLED)
	$(BIN)/python -m tests.faults.campaign $(ARGS)

# Damaged and hostile files over every reader; fails on a crash, a hang or a silent acceptance. ARGS="--seed 7" takes others.
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz.campaign --inputs 1000 $(ARGS)

# On a machine with a GPU: its tests, the data path and the whole matrix, kept in results/reference/. Uses the packages
# of the machine where there is no .venv; ARGS="--protocol both" adds options.
gpu-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m bench gpu-check $(ARGS)

# Build the wheel and the source distribution into dist/.
wheel: $(INSTALLED)
	$(BIN)/python -m build --no-isolation --outdir dist .

# Remove what make made; data/ and results/ stay.
clean:
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable ".[dev]"
	@touch $@
