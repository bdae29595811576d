# `make demo` and `make test` need Python 3.11 or newer and nothing else; both make what they need and can be repeated.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TESTED := .venv/.test-tools
COMPRESSOR := .venv/.neural-compressor

.PHONY: demo test check campaign places install clean

demo: $(INSTALLED) $(COMPRESSOR)
	@echo "== run every stage on generated endoscopy-like frames (synthetic)"
	$(BIN)/edgeproof demo --run runs/demo

test: $(TESTED) $(COMPRESSOR) check
	@echo "== run the tests"
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: $(TESTED)
	@echo "== check style and types"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Hours; `make campaign STRIKES=40 MUTANTS=2000` is a quarter of an hour. 0 strikes: at every event of every command.
STRIKES ?= 170
MUTANTS ?= 100000

campaign: $(TESTED)
	@echo "== disturb every command $(STRIKES) times in each way, damage $(MUTANTS) inputs of each kind (docs/reliability.md)"
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python tests/campaigns --budget $(STRIKES)
	$(BIN)/python -m tests.campaigns.mutations --budget $(MUTANTS) --whole 300

# What a place lacks beside its packages (qemu, Node.js, Chromium) is told with how to get it; its tests skip then.
places: $(TESTED)
	@echo "== install the places that this machine can have, then ask each of them"
	-$(BIN)/edgeproof places --install all
	$(BIN)/python -m pytest -rs tests/stages/validate/places tests/pipeline/places

install: $(INSTALLED) $(COMPRESSOR)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...")'
	@echo "== create the virtual environment .venv"
	$(PYTHON) -m venv .venv

# The OpenVINO provider is an extra that exists for Linux on x86-64 only; its marker leaves it out elsewhere.
$(INSTALLED): pyproject.toml | $(BIN)/python
	@echo "== install edgeproof and what it needs into .venv (PyTorch is large: some minutes the first time)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[openvino]'
	@touch $@

$(TESTED): $(INSTALLED)
	@echo "== install the test tools into .venv"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[openvino,test]'
	@touch $@

# Without it a run still finishes, says what was not measured, and exits with 3; so a failure here stops nothing.
$(COMPRESSOR): stages/quantize/neural_compressor/requirements.txt $(INSTALLED)
	@echo "== create the pinned environment of Intel Neural Compressor"
	-$(BIN)/python -m stages.quantize.neural_compressor && touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
