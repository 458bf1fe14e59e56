# What a newcomer, a developer and CI run. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help

.PHONY: help
help:  ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/demo.stamp: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.PHONY: install
install: $(VENV)/dev.stamp  ## Make .venv with everything that building and testing need

.PHONY: demo
demo: $(VENV)/demo.stamp  ## Build a bundle, find a face with it, and compare its artifacts (in build/)
	$(BIN)/python docs/demo.py

.PHONY: test
test: $(VENV)/dev.stamp  ## Run the tests (PYTEST="-k name" chooses some)
	$(BIN)/pytest -n 2 --dist loadfile $(PYTEST)

build/demo/manifest.json: $(VENV)/demo.stamp
	$(BIN)/retinaface-edge build --output build/demo --force

build/integers/manifest.json: $(VENV)/demo.stamp
	$(BIN)/retinaface-edge build --recipe fast --output build/integers --force

.PHONY: bench
bench: build/demo/manifest.json  ## Time the demo's bundle on one core; fails when its fastest artifact misses 30 frames a second
	$(BIN)/retinaface-edge bench build/demo --quick --target vga-30fps --json build/bench.json $(BENCH)

.PHONY: test-arm64
test-arm64: $(VENV)/dev.stamp build/integers/manifest.json  ## Compare with an emulated Raspberry Pi 4 and 5 (Debian; as root, once)
	$(BIN)/python tests/acceptance/arm64/run.py build/integers

build/test-bundles/plain/manifest.json: $(VENV)/demo.stamp
	$(BIN)/retinaface-edge build --images 24 --output build/test-bundles/plain --force

build/test-bundles/mesh/manifest.json: $(VENV)/demo.stamp
	$(BIN)/retinaface-edge build --images 24 --mesh demo --output build/test-bundles/mesh --force

.PHONY: test-runtime
test-runtime: build/test-bundles/plain/manifest.json build/test-bundles/mesh/manifest.json  ## Test the runtime without PyTorch, on Python 3.10 and 3.13 where found
	$(BIN)/python tests/acceptance/without_torch.py build/test-bundles

COUNTING_PACKAGES := qemu-user llvm-19 gcc
BASELINES := tests/acceptance/arm64/baselines

.PHONY: arm64-userspace
arm64-userspace: $(VENV)/dev.stamp  ## Make what `retinaface-edge cost` counts in (Debian; as root, once)
	for program in qemu-aarch64 llvm-mca-19 gcc; do command -v $$program >/dev/null || missing=1; done; \
	test -z "$$missing" || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $(COUNTING_PACKAGES); } || \
	{ echo "counting needs Debian's packages $(COUNTING_PACKAGES), which could not be installed" >&2; exit 1; }
	$(BIN)/python tests/acceptance/arm64/userland.py build/arm64

.PHONY: cost
cost: arm64-userspace build/demo/manifest.json build/integers/manifest.json  ## Count what the demo's bundles cost on a Raspberry Pi 4 and 5; fails when a count rose (COST="--core cortex-a72")
	$(BIN)/retinaface-edge cost build/demo --json build/cost-demo.json --baseline $(BASELINES)/balanced.json --max-regression 1% $(COST)
	$(BIN)/retinaface-edge cost build/integers --json build/cost-integers.json --baseline $(BASELINES)/fast.json --max-regression 1% $(COST)

.PHONY: cost-baselines
cost-baselines: arm64-userspace build/demo/manifest.json build/integers/manifest.json  ## Count anew what `make cost` compares with and the Pi's targets are chosen by
	$(BIN)/retinaface-edge build --recipe accurate --output build/accurate --force
	$(BIN)/retinaface-edge build --target raspberry-pi-5 --output build/pi5 --force
	for bundle in demo integers accurate pi5; do \
	$(BIN)/retinaface-edge cost build/$$bundle --json build/cost-$$bundle.json || exit 1; done
	mkdir -p $(BASELINES)
	$(BIN)/python tests/acceptance/arm64/cost_baseline.py $(BASELINES) $(foreach b,demo integers accurate pi5,build/$(b)=build/cost-$(b).json)

.PHONY: coverage
coverage: $(VENV)/dev.stamp  ## Run the tests and show which branches they take (at least 90 %)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist loadfile $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

.PHONY: fuzz
fuzz: $(VENV)/dev.stamp  ## Fuzz every parser, two million inputs (FUZZ="--target gate" chooses one)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	nice $(BIN)/python tests/robustness/fuzz/drive.py --inputs 2000000 $(FUZZ)

.PHONY: soak
soak: $(VENV)/dev.stamp  ## A hundred thousand frames from four threads, and ten thousand loads, of each backend
	$(BIN)/retinaface-edge build --size 160x128 --output build/soak --force
	nice $(BIN)/python tests/robustness/trust/soak.py build/soak

.PHONY: mutation
mutation: $(VENV)/dev.stamp  ## Mutants of the runtime and the lowering that the tests must kill (a sample of 300)
	nice $(BIN)/python tests/robustness/trust/mutation.py --sample 300 --keep build/mutation --survivors build/survivors.txt $(MUTATION)

.PHONY: docs
docs: $(VENV)/dev.stamp  ## Build the documentation into build/site
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict --quiet

.PHONY: lint
lint: $(VENV)/dev.stamp  ## Check style (ruff) and types (mypy; basedpyright for the public API)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright --level error

.PHONY: wheel
wheel: $(VENV)/dev.stamp  ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build --no-isolation --outdir dist .

.PHONY: clean
clean:  ## Remove what make has made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
