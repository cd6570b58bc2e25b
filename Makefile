# make demo: train three small networks on photographs and inpaint others; run again, it goes on where it was.
# make test: run the tests.
# make web: a page in the browser to paint holes on; make web ARGS="--model NAME=FOLDER --open".
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WEB_INSTALLED := $(VENV)/.web
ARGS ?=

.PHONY: demo test web install benchmark-train clean-demo

install: $(INSTALLED)

$(INSTALLED): requirements.txt setup.py
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: $(INSTALLED)
	$(BIN)/python scripts/prepare_demo.py demo/data
	$(BIN)/python scripts/train_structure.py -opt configs/demo/structure.yml resume=auto
	$(BIN)/python scripts/train_texture.py -opt configs/demo/texture.yml resume=auto
	$(BIN)/python scripts/train_discriminator.py -opt configs/demo/discriminator.yml resume=auto
	$(BIN)/python scripts/test.py -opt configs/demo/test.yml overwrite=true

$(WEB_INSTALLED): $(INSTALLED) requirements-web.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-web.txt
	touch $@

web: $(WEB_INSTALLED)
	$(BIN)/python -m strdiffusion web $(ARGS)

# the page's tests need Gradio and Playwright; where these cannot be had they are skipped, and the others run
test: $(INSTALLED)
	@$(MAKE) --no-print-directory $(WEB_INSTALLED) || echo "no Gradio or no Playwright: the tests of the page will be skipped"
	$(BIN)/python -m pytest -q tests

# the networks that ship with the repository, from nothing: hours on a CPU, each network can be left and gone on with
benchmark-train: $(INSTALLED)
	$(BIN)/python scripts/make_dataset.py datasets/facades
	$(BIN)/python scripts/train_structure.py -opt configs/benchmark/structure.yml resume=auto
	$(BIN)/python scripts/train_texture.py -opt configs/benchmark/texture.yml resume=auto
	$(BIN)/python scripts/train_texture.py -opt configs/benchmark/texture.yml objective.guidance=none output=runs/benchmark/irsde resume=auto
	$(BIN)/python scripts/train_discriminator.py -opt configs/benchmark/discriminator.yml resume=auto

clean-demo:
	rm -rf demo
