# Words for people. `make run` and `make test` set up first; everything else assumes nothing more.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
MIRROR ?= $(wildcard ../shared/data)
ARGS ?=
STORE ?= .store
ARCHIVE ?= results.tar.gz
SNAKEMAKE := $(BIN)/snakemake

.PHONY: run test test-slurm lint bench bench-gpu figures archive report demo docs setup lock clean clean-store help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: setup ## set up, then the whole workflow on config.yaml; ARGS="..." goes to snakemake
	@bash envs/run.sh $(SNAKEMAKE) $(ARGS)

test: setup ## set up, then lint and all tests (MIRROR=<folder> for those on real data)
	STEERLAB_MIRROR=$(abspath $(MIRROR)) $(BIN)/python -m pytest $(ARGS)

test-slurm: setup ## the tiny preset on a Slurm of this machine's own (Debian, root; installs it); STEERLAB_SLURM=all for the whole preset
	$(BIN)/pip install --quiet -r envs/cluster.txt
	$(BIN)/python -m pytest -n 0 -m slurm tests/slurm $(ARGS)

lint: setup ## ruff, snakefmt, snakemake --lint, basedpyright, import-linter
	$(BIN)/python -m pytest -q tests/test_lint.py

bench: setup ## side-by-side ratios, not part of the tests
	$(SNAKEMAKE) --quiet all -- results/models/smollm2-135m-instruct
	$(BIN)/python -m benchmarks --model results/models/smollm2-135m-instruct $(ARGS)

bench-gpu: setup ## the same on a card, beside its ceilings; random weights of real shapes
	$(BIN)/python -m benchmarks.gpu $(ARGS)

figures: setup ## redraw every figure from the metrics that are there, or an archive's, without touching a model
	$(SNAKEMAKE) figures --allowed-rules plot_figure figures --forcerun plot_figure $(ARGS)

archive: ## put what figures are drawn from, without models and texts, into ARCHIVE=<file>
	tar -czf $(ARCHIVE) --exclude='*.safetensors' $(wildcard results/metrics results/choices results/analyses results/steers/*/latentqa/readers)

report: run ## the page results/report/index.html and Snakemake's own snakemake.zip
	$(SNAKEMAKE) --report results/report/snakemake.zip $(ARGS)

docs: setup ## the site docs/_build/index.html; a broken link or anchor is an error
	$(BIN)/sphinx-build -qEaW --keep-going docs docs/_build

demo: setup ## a local page that continues a prompt without and with steers; ARGS="--port 8000" and so on
	@$(BIN)/python -m steerlab demo $(ARGS)

setup: $(VENV)/.ready ## the virtual environment, from the lock

$(VENV)/.ready: envs/requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed, this is " + sys.version.split()[0] + "; call make PYTHON=python3.11")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "python3 -m venv needs Debian's package python3-venv: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	for turn in 1 2 3; do $(BIN)/pip install --quiet --require-hashes --no-deps -r $< && break; [ $$turn != 3 ] && sleep 20; done
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip check
	@touch $@

lock: ## make envs/requirements.lock again from envs/requirements.in
	$(BIN)/python envs/make_lock.py $(TORCH)

clean: ## remove results/; the store stays
	find results -mindepth 1 -not -name .gitignore -delete

clean-store: ## empty the store of all but the scores (STORE=<folder> if not .store)
	[ ! -d $(STORE) ] || find $(STORE) -mindepth 1 -not -name 'scores.sqlite*' -delete
