# Two commands: `make run` and `make test`. Everything else is a part of one of them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# the model, and the engine that labs 07 and 12 and the tests share: built once, before anything runs beside it
MODEL   = $(BIN)/labs fetch && $(BIN)/labs build -q "$$($(BIN)/labs convert -q --dtype float32)"
TORCH  := torch==2.13.0
JOBS   ?= 2

.PHONY: setup run test check lab handouts lock clean

run: $(READY)            ## set up, fetch the model, run every lab headless, write the handouts, print a summary
	$(MODEL)
	$(BIN)/labs run all --jobs $(JOBS) --handouts

test: check              ## lint, types and all tests
	$(MODEL)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations=20 tests

check: $(READY)          ## lint and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check labsupport tests
	$(BIN)/mypy
	$(BIN)/labs lint

lab: $(READY)            ## JupyterLab on learner copies
	$(BIN)/labs lab

handouts: $(READY)       ## HTML and PDF handouts, learner and instructor edition, and what a workshop needs beside them
	$(MODEL)
	$(BIN)/labs run all --jobs $(JOBS)
	$(BIN)/labs handout all --workshop --pdf

setup: $(READY)
$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock $(TORCH)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

lock: requirements.in    ## compile requirements.lock: no address in it, torch left out (modelopt would pull it in)
	$(PYTHON) -m venv build/lock && build/lock/bin/python -m pip install --quiet uv
	echo 'torch ; python_version < "0"' > build/lock/without-torch.txt
	build/lock/bin/uv pip compile requirements.in --overrides build/lock/without-torch.txt --universal \
	    --python-version 3.10 --no-header --no-annotate --quiet --output-file requirements.lock

clean:                   ## everything that was made, the model included
	rm -rf $(VENV) build work
