# Every target but gpu and sanitize sets up .venv by itself; PYTHON= chooses the interpreter it is made with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OUT ?= bench/results
PARALLEL ?= ddp
DEVICE ?= cuda
SANITIZER ?= compute-sanitizer
TOOLS ?= memcheck racecheck
# of Material's notice about another program
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# two makes at once install one after the other
LOCKED := $(if $(shell command -v flock),flock $(VENV).lock,)

.DEFAULT_GOAL := help
.PHONY: help install train train-distributed train-rl gallery test test-all test-integrations test-versions test-recorded lint fix dist \
	release-notes tune bench docs docs-serve test-docs gpu gpu-rehearsal \
	sanitize clean

help:  ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: $(INSTALLED)  ## set up .venv with the tested versions

$(INSTALLED): pyproject.toml constraints.txt
	$(LOCKED) sh -ec 'test $@ -nt pyproject.toml -a $@ -nt constraints.txt && exit 0; \
		$(PYTHON) -m venv $(VENV); \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"; \
		touch $@'

train: install  ## train a byte-level GPT, beside torch.optim.RMSprop
	$(BIN)/python examples/train_gpt.py $(ARGS)

train-distributed: FOLDER := runs/$(shell date +%Y-%m-%d_%H-%M-%S)
train-distributed: OPTIONS = --steps 40 --lr 1e-4 --no-compare $(ARGS)
train-distributed: export OMP_NUM_THREADS := 1
train-distributed: install  ## train in 2 processes (PARALLEL=ddp or fsdp), then in one, and compare the losses
	$(BIN)/python -m torch.distributed.run --standalone --nproc-per-node 2 \
		examples/train_gpt.py --parallel $(PARALLEL) $(OPTIONS) --output $(FOLDER)/$(PARALLEL)
	$(BIN)/python examples/train_gpt.py $(OPTIONS) --output $(FOLDER)/one
	$(BIN)/python examples/compare_runs.py $(FOLDER)/$(PARALLEL) $(FOLDER)/one

train-rl: $(VENV)/.installed-rl  ## learn CartPole by A3C, whose processes share one RMSProp without locks, and by A2C
	$(BIN)/python examples/train_a3c.py $(ARGS)

gallery: $(VENV)/.installed-gallery  ## execute the scripts of examples/gallery/ and write their pages into docs/gallery/; ARGS=gpt_bfloat16
	$(BIN)/python -m bench.gallery $(ARGS)

test: install  ## every kind of check that needs no GPU, in minutes: natively, then the Triton kernels in the interpreter
	$(BIN)/python -m pytest -n $(JOBS) -m "not gpu and not exhaustive"
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -n $(JOBS) -m "interpret and not gpu and not exhaustive"

# no GPU is simulated where none is tested
test-all: test  ## then every combination of what it samples, and every rule and mode for sm_80, sm_90 and sm_100, executed on this CPU
	TEST_GPU=cuda $(BIN)/python -m pytest -n $(JOBS) -m "exhaustive and not gpu"
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -n $(JOBS) -m "exhaustive and interpret and not gpu"

test-integrations: $(VENV)/.installed-integrations  ## the optimizers in other projects' trainers, which it adds to .venv
	TEST_GPU=cuda $(BIN)/python -m pytest tests/integrations

test-versions: $(VENV)/.installed-versions  ## some tests with older and newer versions, each in its own gigabytes; ARGS=--list
	$(BIN)/nox --noxfile tests/noxfile.py $(ARGS); worst=$$?; $(BIN)/python -m bench.report --documents && exit $$worst

test-recorded: $(VENV)/.installed-versions  ## other systems against what was recorded of them; ARGS="--session recorded-mlx -- --write"
	$(BIN)/nox --noxfile tests/noxfile.py --tags recorded $(ARGS)

$(VENV)/.installed-%: $(INSTALLED)
	$(LOCKED) sh -ec 'test $@ -nt $(INSTALLED) && exit 0; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$*]"; \
		touch $@'

lint: install  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

fix: install  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: $(VENV)/.installed-dist  ## build sdist and wheel, try the wheel alone in a new environment, and only then put both into dist/
	$(BIN)/python tests/wheel/build_dist.py

release-notes:  ## the changelog's section of the present version, if it can be released
	@$(PYTHON) tests/wheel/release_notes.py

docs: $(VENV)/.installed-docs  ## build the documentation site into build/site; any warning fails
	$(MKDOCS) build --strict

docs-serve: $(VENV)/.installed-docs  ## show it at http://127.0.0.1:8000, anew with each change
	$(MKDOCS) serve --livereload $(ARGS)

test-docs: docs  ## open each of its pages in Chromium, on a desktop and on a phone; pictures go into build/screenshots
	$(BIN)/python -m pytest -n $(JOBS) tests/site

tune: install  ## measure the best chunk and block sizes of this machine's device, for later runs
	$(BIN)/fusedrms tune $(ARGS)

bench: install  ## time step() beside torch's optimizers: report, plots and JSON into bench/results/
	$(BIN)/python -m bench --output $(OUT)

gpu:  ## all that a GPU must show, in nine minutes, with $(PYTHON) as it is and nothing installed; ARGS="--only tests"
	$(PYTHON) -m bench.gpu --python "$(PYTHON)" --device $(DEVICE) --output $(OUT) $(ARGS)

gpu-rehearsal: FOLDER := runs/gpu-rehearsal-$(shell date +%Y-%m-%d_%H-%M-%S)
gpu-rehearsal: export SIMULATED_WITHOUT := platformdirs,expecttest
gpu-rehearsal: install  ## the same in small on a simulated GPU, without the packages that a machine with a GPU may lack
	$(MAKE) gpu PYTHON="$(BIN)/python tests/simulated" DEVICE=simulated OUT=$(FOLDER) ARGS="--quick --patience 10 $(ARGS)"

sanitize:  ## every rule and precision mode under compute-sanitizer, with $(PYTHON) as it is; TOOLS=racecheck
	@command -v $(firstword $(SANITIZER)) >/dev/null || { \
		echo "there is no $(firstword $(SANITIZER)): it comes with the CUDA toolkit; say where with SANITIZER=/path/to/compute-sanitizer" >&2; \
		exit 1; \
	}
	@modes=$$($(PYTHON) -c 'import fusedrms.tools.variants as v; print(*v.MODES, sep=",")') || exit 1; worst=0; \
	for tool in $(TOOLS); do \
		echo "== $$tool =="; \
		PYTORCH_NO_CUDA_MEMORY_CACHING=1 $(SANITIZER) --tool $$tool --error-exitcode 1 \
			$(PYTHON) -m fusedrms compile --target $(DEVICE) --dtypes $$modes && result=passed || { result="failed ($$?)"; worst=1; }; \
		echo "== $$tool $$result =="; \
	done; exit $$worst

clean:  ## remove .venv, .nox and caches, but neither runs/ nor results
	rm -rf $(VENV) $(VENV).lock .nox build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
