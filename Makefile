# make demo, make test, make docs and make bench do all their own set-up from a bare Python 3.11.
#
#   PYTHON=python3.12        another interpreter
#   TORCH_INDEX=URL          another index for torch, as https://download.pytorch.org/whl/cpu for the small CPU build
#   VENV=DIR                 another place for the virtual environment
#   SEEDS=1                  a demo of fewer seeds than three
#   N=300 SEED=1             how many cases of fuzz or trials of chaos, and which ones
#   FLIPS=1000               how many aimed flips of a bit fuzz makes besides

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
TORCH_INDEX ?=
SEEDS ?=
N ?=
SEED ?= 0
FLIPS ?= 0
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check

.PHONY: demo test test-fast fuzz chaos bench lint types docs release clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	$(BIN)/asgt reproduce digits --scale quick --out demo $(if $(SEEDS),--seeds $(SEEDS))

# A process for each core, a file at a time: each test has one thread, and what a file sets up is set up once. The long
# files come first, by tests/conftest.py: by the number of tests in them, they would come last.
test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

# Without the tests that are marked slow: every layer, in a minute or so on two cores.
test-fast: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n logical --dist loadfile -m "not slow"

# Odd command lines, documents, images and damaged folders: no traceback, no hang, no other figures in silence. The same
# call goes on where it was stopped; a fault leaves what repeats it in build/fuzz.
fuzz: $(VENV)/.ready-test
	PYTHONPATH=tests $(BIN)/python -m fuzz $(or $(N),1000) --seed $(SEED) --flips $(FLIPS)

# Kills, full disks, torn files, steps of the clock, second writers: the same command goes on to the same results.
chaos: $(VENV)/.ready-test
	PYTHONPATH=tests $(BIN)/python -m chaos $(or $(N),100) --seed $(SEED)

bench: $(VENV)/.ready-bench
	$(BIN)/python benchmarks/robustness_curve.py --write docs/performance.md
	$(BIN)/python benchmarks/saliency_panel.py --write docs/performance.md
	$(BIN)/python benchmarks/training_step.py --write docs/performance.md

lint: $(VENV)/.ready-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.ready-test
	$(BIN)/mypy

# The documentation site, in build/site; it needs no network once it is set up, and build/site/index.html opens by itself.
docs: $(VENV)/.ready-docs
	OMP_NUM_THREADS=1 $(BIN)/python scripts/docs_site.py

# The archives of a release, in dist/, built and checked; nothing is uploaded.
release: $(VENV)/.ready-release
	$(BIN)/python scripts/release.py

# torch first and by itself: only it may come from another index, and what is there already is not fetched again.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("asgt needs Python 3.11 or later: PYTHON=... names one")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

# torchattacks is the oracle of the attacks' tests; what it asks for beside torch, it does not need for that. timm asks for
# torchvision, which in turn would ask for another torch.
$(VENV)/.ready-test: $(VENV)/.ready
	$(PIP) install -q -c constraints.txt --no-deps torchattacks torchvision
	$(PIP) install -q -c constraints.txt -e '.[test,tensorboard,hf,timm,augment,docs,app,trackio]'
	@touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(PIP) install -q -c constraints.txt -e '.[docs]'
	@touch $@

$(VENV)/.ready-release: $(VENV)/.ready
	$(PIP) install -q -c constraints.txt -e '.[release]'
	@touch $@

# The list of the peers is whole: what torchattacks asks for beside it would not go together with foolbox.
$(VENV)/.ready-bench: $(VENV)/.ready-test benchmarks/requirements.txt
	$(PIP) install -q --no-deps -c constraints.txt -r benchmarks/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) demo build dist benchmarks/runs .pytest_cache .mypy_cache .ruff_cache
