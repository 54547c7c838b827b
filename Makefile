# One virtual environment, in .venv, made anew whenever pyproject.toml changes.
#   make demo    train the tiny model on a Wikipedia excerpt and draw a heatmap
#   make test    everything that must hold: lint and the test suite
#   make gallery the notebooks, run on the tiny model, as pages in docs/gallery
#   make bench   speed and memory beside bilm-tf and simple-elmo, on two cores: about an hour
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
EXTRAS ?= test
PYTEST_ARGS ?=
BENCH_ARGS ?=
GALLERY_ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/installed-$(EXTRAS)
RUN := runs/tiny
PAPERMILL := $(BIN)/papermill -f params/tiny.yaml --no-progress-bar --log-output

# A python3 kernel in the home folder must not stand in for the one in .venv.
export JUPYTER_PREFER_ENV_PATH = 1
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test lint gallery bench clean

demo: $(INSTALLED)
	@mkdir -p $(RUN)
	$(PAPERMILL) notebooks/01_prepare.ipynb $(RUN)/01_prepare.ipynb
	$(PAPERMILL) notebooks/02_train.ipynb $(RUN)/02_train.ipynb
	$(PAPERMILL) notebooks/04_explore.ipynb $(RUN)/04_explore.ipynb
	@ls $(RUN)/elmo.h5 $(RUN)/heatmap.png > /dev/null
	@echo
	@echo "Executed notebooks: $(CURDIR)/$(RUN)/01_prepare.ipynb, 02_train.ipynb, 04_explore.ipynb"
	@echo "Weights:            $(CURDIR)/$(RUN)/elmo.h5"
	@echo "Heatmap:            $(CURDIR)/$(RUN)/heatmap.png"

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

gallery: $(INSTALLED)
	$(BIN)/python docs/make_gallery.py $(GALLERY_ARGS)

bench: .venv/installed-peers
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "elmolib needs Python 3.11 to 3.13: name one, as in make PYTHON=python3.12"; exit 1; }
	@echo "Installing into .venv: a few minutes the first time"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
