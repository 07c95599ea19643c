# Every target sets up what it needs in .venv; nothing has to be installed first but Python and make.
#   make help      what there is
#   make book ALPHA=0.2      the settings below may be given to `book` and `experiment`

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := book,workflow,dev,benchmarks
PORT ?= 8000

# Settings of the experiment, named as in notebooks/exp.ipynb but in capitals. Only what stands on
# make's command line is passed on: a DEVICE or SEED in the environment may mean something else.
SETTINGS := DATASET SPLIT MODEL LOSS ALPHA BETA TEMPERATURE K EPOCHS LEARNING_RATE WEIGHT_DECAY SEED DEVICE
lower = $(shell printf '%s' '$(1)' | tr A-Z a-z)
PARAMETERS = $(foreach name,$(SETTINGS),$(if $(filter command,$(origin $(name))),-p $(call lower,$(name)) '$($(name))'))

RUN := notebooks/_run
PAPERMILL = $(BIN)/papermill notebooks/exp.ipynb

.PHONY: help install book clean-book serve lab test experiment lint format peers bench bench-full clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  Settings of book and experiment: $(SETTINGS)"
	@echo "  such as: make experiment MODEL=lightgcn ALPHA=0.2 BETA=0.01"

# Set-up, in two steps so that a change of the small packages does not touch the large one.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "inforec needs Python 3.11 or later; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	@touch $@

$(VENV)/.inforec: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

install: $(VENV)/.inforec ## Create .venv with everything the other targets use

book: $(VENV)/.inforec ## Run the notebooks and build the book around their outputs
	@mkdir -p $(RUN)
	$(PAPERMILL) $(RUN)/exp.ipynb $(PARAMETERS) </dev/null
	$(BIN)/papermill notebooks/study.ipynb $(RUN)/study.ipynb </dev/null
	$(BIN)/jupyter-book build . --warningiserror --nitpick --keep-going --quiet
	@echo
	@echo "The book is built. Open _build/html/index.html, or type: make serve"

serve: ## Serve the built book on this computer, http://127.0.0.1:8000 (PORT=... for another)
	@test -f _build/html/index.html || { echo "There is no book yet: make book" >&2; exit 1; }
	$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lab: $(VENV)/.inforec ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

experiment: $(VENV)/.inforec ## Run notebooks/exp.ipynb; the record goes to results/exp
	@mkdir -p $(RUN)
	$(PAPERMILL) $(RUN)/experiment.ipynb $(PARAMETERS) </dev/null
	@echo
	@echo "The executed notebook is $(RUN)/experiment.ipynb"

test: $(VENV)/.inforec ## Run every test, those of the notebooks too
	$(BIN)/pytest --nbval

lint: $(VENV)/.inforec ## Check style, form and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(VENV)/.inforec ## Bring the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# RecBole needs an older NumPy than inforec, and LensKit's versions are its own.
PEERS := .venv-recbole .venv-lenskit
.venv-%/.peers: benchmarks/peers/%.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement $<
	@touch $@

peers: $(PEERS:%=%/.peers) ## Create an environment for each library that inforec is compared with

bench: $(VENV)/.inforec peers ## Measure speed and memory, here and beside other libraries
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.limits
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.peers.compare

bench-full: $(VENV)/.inforec peers ## The same on MovieLens-1M and Gowalla: hours
	$(BIN)/python -m benchmarks.peers.compare --full

clean-book: ## Remove the built book and the runs shown in it
	rm -rf _build $(RUN)

clean: clean-book ## Remove everything that make made, .venv too
	rm -rf $(VENV) $(PEERS) lib/inforec.egg-info .pytest_cache .ruff_cache
