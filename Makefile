# One virtual environment in .venv, updated whenever pyproject.toml changes.
#   make demo    train the tiny model on a Wikipedia excerpt and draw a heatmap
#   make lab     JupyterLab on a copy of the notebooks, my-notebooks, which Git ignores
#   make test    lint, documentation and the test suite
#   make docs    the documentation as a site in site/
#   make gallery run the notebooks on the tiny model and write them as pages in docs/gallery
#   make bench   compare speed and memory with bilm-tf and simple-elmo on two cores (one hour)
# To use another Python: make demo PYTHON=python3.12

PYTHON ?= python3
EXTRAS ?= all,test
PYTEST_ARGS ?=
BENCH_ARGS ?=
GALLERY_ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/installed-$(EXTRAS)
RUN := runs/tiny
PAPERMILL := $(BIN)/papermill -f params/tiny.yaml --no-progress-bar --log-output

# `jupyter trust` is necessary, because JupyterLab shows stored widgets only in trusted notebooks.
define execute
$(PAPERMILL) notebooks/$(1).ipynb $(RUN)/$(1).ipynb || \
  { $(BIN)/python notebooks/which_cell_died.py $(RUN)/$(1).ipynb; exit 1; }
@$(BIN)/jupyter trust $(RUN)/$(1).ipynb
endef

# A kernel called python3 in the home folder must not replace the kernel in .venv.
export JUPYTER_PREFER_ENV_PATH = 1
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo lab test lint docs gallery bench clean

demo: $(INSTALLED)
	@mkdir -p $(RUN)
	$(call execute,01_prepare)
	$(call execute,02_train)
	$(call execute,04_explore)
	@ls $(RUN)/elmo.h5 $(RUN)/heatmap.png > /dev/null
	@echo
	@echo "Executed notebooks: $(CURDIR)/$(RUN)/01_prepare.ipynb, 02_train.ipynb, 04_explore.ipynb"
	@echo "Weights:            $(CURDIR)/$(RUN)/elmo.h5"
	@echo "Heatmap:            $(CURDIR)/$(RUN)/heatmap.png"

lab: $(INSTALLED)
	@[ -d my-notebooks ] || cp -R notebooks my-notebooks
	$(BIN)/jupyter lab my-notebooks

test: lint docs
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/sizes.py

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

gallery: $(INSTALLED)
	$(BIN)/python docs/make_gallery.py $(GALLERY_ARGS)

bench: .venv/installed-all,peers,ray
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "elmolib needs Python 3.11 to 3.13: set PYTHON, as in make PYTHON=python3.12"; exit 1; }
	@echo "Installing into .venv; the first time takes a few minutes"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
