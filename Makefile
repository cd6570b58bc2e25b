# make, or make help, says what there is and what each target costs. Each says it again before it starts.
.DEFAULT_GOAL := help

define HELP
what                  what it does                                                          what it costs (2 CPU cores)
make demo             fills holes in street facades with the networks that ship,            2 to 3 minutes
                      prints two tables, draws demo/picture.png
make web              a page in the browser to paint holes on;                              10 seconds to start
                      make web ARGS="--model NAME=FOLDER --open"
make demo-train       trains three small networks on photographs, and fills holes           8 minutes; goes on where it was stopped
                      of others with them
make test             the whole test suite, in two processes; TESTERS=8: in eight           6 to 8 minutes
make gpu              is everything right on this GPU, how fast is it, what fits;           at most 10 minutes for each of five parts
                      make gpu ARGS="tests networks --minutes 5"
make install          what the others need, into .venv; they do it themselves               a minute or more, 6 GB
make clean-demo       removes the folder demo, with what was trained there                 -

for those who change the program:
make lint             formats and checks the code                                           seconds; changes files
make lock             writes requirements*.txt anew; ARGS=--upgrade takes newer versions    a minute
make licences         writes docs/licences.md anew                                          seconds

the networks that ship, and every number of docs/benchmark.md, from nothing (each goes on where it was stopped):
make benchmark-train         the networks of weights/benchmark and weights/benchmark_irsde  hours
make benchmark-judge         the judge of results                                           10 minutes
make benchmark-noise         the texture network once more, predicting the noise            hours
make benchmark-prior         the priors of RePaint                                          3 hours on one core
make benchmark-dgts          DGTS and its enlarging network                                3 hours on one core
make benchmark-joint         networks in which structure leads, and second seeds            12 hours
make benchmark-compare       short trainings that compare settings                          hours
make benchmark-tables        every table of docs/benchmark.md                               hours
make benchmark-prior-tables  the tables of docs/repaint.md                                  hours

VENV=FOLDER installs elsewhere than into .venv, PYTHON=python3.12 takes another Python.
endef
export HELP

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WEB_INSTALLED := $(VENV)/.web
ARGS ?=
TESTERS ?= 2

.PHONY: help demo demo-train gpu test web lint lock licences install benchmark-train benchmark-noise benchmark-prior benchmark-dgts benchmark-compare benchmark-joint benchmark-judge benchmark-tables benchmark-prior-tables clean-demo

help:
	@echo "$$HELP"

install: $(INSTALLED)

$(INSTALLED): requirements.txt setup.py
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@echo "installing into $(VENV): 6 GB, a minute or more, without a bar"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(INSTALLED)
	@echo "make demo: 2 to 3 minutes on 2 CPU cores; writes into demo/"
	$(BIN)/python scripts/demo.py

demo-train: $(INSTALLED)
	@echo "make demo-train: 8 minutes on 2 CPU cores; writes into demo/; stopped, the same command goes on"
	$(BIN)/python scripts/prepare_demo.py demo/data
	$(BIN)/python scripts/train_structure.py -opt configs/demo/structure.yml resume=auto
	$(BIN)/python scripts/train_texture.py -opt configs/demo/texture.yml resume=auto
	$(BIN)/python scripts/train_discriminator.py -opt configs/demo/discriminator.yml resume=auto
	$(BIN)/python scripts/test.py -opt configs/demo/test.yml overwrite=true

# nothing is installed for it: with what is in .venv, or else with the torch that $(PYTHON) has
gpu:
	@echo "make gpu: at most 10 minutes for each of its parts; writes into results/gpu"
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) scripts/gpu.py $(ARGS)

$(WEB_INSTALLED): $(INSTALLED) requirements-web.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-web.txt
	touch $@

web: $(WEB_INSTALLED)
	@echo "make web: the page in 10 seconds or more; Ctrl-C ends it"
	$(BIN)/python -m strdiffusion web $(ARGS)

# the page's tests need Gradio and Playwright; if these cannot be installed, the tests are skipped, and the others run
test: $(INSTALLED)
	@echo "make test: 6 to 8 minutes on 2 CPU cores"
	@$(MAKE) --no-print-directory $(WEB_INSTALLED) || echo "no Gradio or no Playwright: the tests of the page will be skipped"
	$(BIN)/python -m pytest -q -rs -n $(TESTERS) --dist worksteal tests

# lay the code out and check it, as ruff.toml says
lint: $(INSTALLED)
	@echo "make lint: seconds; changes files that are not laid out as ruff.toml says"
	$(BIN)/ruff format .
	$(BIN)/ruff check .

# every package that a fresh machine gets, with versions and hashes, for all systems and every Python from 3.10 on
LOCK := .venv-lock
COMPILE := $(LOCK)/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.10 --no-annotate --custom-compile-command "make lock" $(ARGS)

lock:
	@echo "make lock: a minute; asks the package index, and writes requirements.txt and requirements-web.txt"
	$(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(COMPILE) requirements.in requirements-web.in -o requirements-web.txt
	$(COMPILE) requirements.in -c requirements-web.txt -o requirements.txt

licences: $(WEB_INSTALLED)
	@echo "make licences: seconds; writes docs/licences.md"
	$(BIN)/python scripts/licences.py docs/licences.md

# the networks that ship with the repository, from nothing: hours on a CPU, each training can be stopped and continued
TRAIN = $(BIN)/python scripts/train_$(1).py -opt configs/benchmark/$(1).yml resume=auto
RUNS := runs/benchmark
PACK := $(BIN)/python scripts/pack_model.py --dtype float16
DEFAULTS := sampler.solver=posterior sampler.clip=true sampler.resampling=none sampler.steps=10 'sampler.released={u_max: 10, u_min: 2, jump: 1, re: 2}' "provenance=[make benchmark-train]"

benchmark-train: $(INSTALLED)
	@echo "make benchmark-train: hours; writes into runs/benchmark; stopped, the same command goes on"
	$(BIN)/python scripts/make_dataset.py datasets/facades
	$(call TRAIN,structure)
	$(call TRAIN,texture)
	$(call TRAIN,texture) objective.guidance=none output=$(RUNS)/irsde
	$(call TRAIN,discriminator)
	$(PACK) $(RUNS)/model texture=$(RUNS)/texture/latest.pt structure=$(RUNS)/structure/latest.pt discriminator=$(RUNS)/discriminator/latest.pt $(DEFAULTS)
	$(PACK) $(RUNS)/model_irsde texture=$(RUNS)/irsde/latest.pt $(DEFAULTS)

# the texture network once more, predicting the noise as the authors do, with the same budget: evidence for docs/benchmark.md, not shipped
benchmark-noise: $(INSTALLED)
	@echo "make benchmark-noise: hours; writes into runs/benchmark; stopped, the same command goes on"
	$(BIN)/python scripts/make_dataset.py datasets/facades
	$(call TRAIN,texture) network.prediction=noise objective.loss_on=step output=$(RUNS)/texture_noise

# RePaint's prior, as published (it predicts the noise) and predicting x0, as long as the texture network by the clock: about an hour and a half each on one core
# each is packed beside its run; the better of the two by configs/tables/benchmark_priors.yml belongs into weights/benchmark_prior
CHEAP := repaint.steps=25 repaint.jump_length=5 repaint.jump_n_sample=2 "provenance=[make benchmark-prior]"
benchmark-prior: $(INSTALLED)
	@echo "make benchmark-prior: 3 hours on one core; writes into runs/benchmark; stopped, the same command goes on"
	$(BIN)/python scripts/make_dataset.py datasets/facades
	$(call TRAIN,prior)
	$(call TRAIN,prior) network.prediction=x0 output=$(RUNS)/prior_x0
	$(PACK) $(RUNS)/model_prior prior=$(RUNS)/prior/latest.pt $(CHEAP)
	$(PACK) $(RUNS)/model_prior_x0 prior=$(RUNS)/prior_x0/latest.pt $(CHEAP)

benchmark-dgts: $(INSTALLED)
	@echo "make benchmark-dgts: 3 hours on one core; writes into runs/benchmark; stopped, the same command goes on"
	$(BIN)/python scripts/make_dataset.py datasets/facades
	$(call TRAIN,dgts)
	$(call TRAIN,upsampler)
	$(PACK) $(RUNS)/model_dgts dgts=$(RUNS)/dgts/latest.pt upsampler=$(RUNS)/upsampler/latest.pt

# networks in which structure leads, and a second seed of everything that they are compared with: about twelve hours on two cores
JOINT_TRAIN = $(BIN)/python scripts/train_texture.py -opt configs/benchmark/$(1).yml resume=auto
SECOND := seed=1 output=$(RUNS)

benchmark-joint: $(INSTALLED)
	@echo "make benchmark-joint: about 12 hours on 2 cores; writes into runs/benchmark; stopped, the same command goes on"
	$(BIN)/python scripts/make_dataset.py datasets/facades
	for form in joint joint_labels; do \
		$(call JOINT_TRAIN,$$form) || exit 1; \
		$(call JOINT_TRAIN,$$form) $(SECOND)/$${form}_seed1 || exit 1; \
	done
	$(call TRAIN,structure) objective.sees=known output=$(RUNS)/structure_known
	$(call TRAIN,structure) $(SECOND)/structure_seed1
	$(call TRAIN,texture) $(SECOND)/texture_seed1
	$(call TRAIN,texture) objective.guidance=none $(SECOND)/irsde_seed1

# short trainings for docs/benchmark.md, after benchmark-train: what decides how fast the networks become good, and the pairs of structures
SHORT := training.iterations=500 training.warmup=50 training.ema_decay=0.99 training.save_every=500 validation.every=500 validation.samples=0
PAIRS := training.iterations=1500 training.save_every=1500 validation.every=1500
COMPARE = $(call TRAIN,$(1)) $(SHORT) output=runs/compare/$(2)

benchmark-compare: $(INSTALLED)
	@echo "make benchmark-compare: hours; needs the runs of make benchmark-train; writes into runs/compare"
	$(BIN)/python scripts/make_dataset.py datasets/facades
	$(call COMPARE,texture,base)
	$(call COMPARE,texture,l2) objective.norm=l2
	$(call COMPARE,texture,on_step) objective.loss_on=step
	$(call COMPARE,texture,noise_x0) network.prediction=noise
	$(call COMPARE,texture,noise_step) network.prediction=noise objective.loss_on=step
	$(call COMPARE,texture,noise_slow) network.prediction=noise objective.loss_on=step training.learning_rate=1e-4
	$(call COMPARE,texture,lr_3e-3) training.learning_rate=3e-3
	$(call COMPARE,texture,lr_3e-4) training.learning_rate=3e-4
	$(call COMPARE,texture,no_warmup) training.warmup=0
	$(call COMPARE,texture,denoised) objective.guidance=denoised objective.structure_checkpoint=$(RUNS)/structure/latest.pt
	for pair in gray2edge gray2gray edge2edge edge2gray; do \
		$(call COMPARE,structure,structure_$$pair) $(PAIRS) structure.pair=$$pair || exit 1; \
		$(call COMPARE,texture,texture_$$pair) $(PAIRS) structure.pair=$$pair || exit 1; \
	done

# the judge of results, weights/judge: about ten minutes
benchmark-judge: $(INSTALLED)
	@echo "make benchmark-judge: about 10 minutes; writes into runs/benchmark"
	$(BIN)/python scripts/make_dataset.py datasets/facades
	$(call TRAIN,judge)
	$(BIN)/python scripts/pack_judge.py $(RUNS)/judge/best.pt $(RUNS)/judge/packed --images facades:64/test --labels facades:64/test

# every table of docs/benchmark.md, after benchmark-train, benchmark-noise and benchmark-compare
benchmark-tables: $(INSTALLED)
	@echo "make benchmark-tables: hours; needs make benchmark-train, -noise and -compare; writes into results/tables"
	for table in main steps guide edge_source training prediction pairs; do $(BIN)/python scripts/reproduce.py configs/tables/benchmark_$$table.yml || exit 1; done

# the tables of docs/repaint.md, with weights/benchmark_prior: hours
benchmark-prior-tables: $(INSTALLED)
	@echo "make benchmark-prior-tables: hours; needs weights/benchmark_prior; writes into results/tables"
	for table in priors repaint cheap families jumps slower; do $(BIN)/python scripts/reproduce.py configs/tables/benchmark_$$table.yml || exit 1; done

clean-demo:
	rm -rf demo
