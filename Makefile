# archiveprobe: `make demo` shows it working, `make help` lists the rest.
TASK ?= demo-archive/task.toml
RECIPE ?= demo-tiny
PYTHON ?= python3
RUN = .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo review-demo embed probe finetune test reliability check bench fuzz

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## create .venv and install into it, pinned by constraints.txt

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make setup PYTHON=python3.11")'
	test -x $(RUN)/python || $(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(RUN)/pip install --quiet --progress-bar off -e '.[dev]'
	mkdir -p .venv/src && ln -sfn ../.. .venv/src/archiveprobe
	@touch $@

demo: setup demo-archive/task.toml ## draw the built-in archive and run the whole way on it, offline
	$(RUN)/archiveprobe embed demo-archive/task.toml
	$(RUN)/archiveprobe cache show demo-archive/task.toml
	$(RUN)/archiveprobe cache verify demo-archive/task.toml --deep
	$(RUN)/archiveprobe probe demo-archive/task.toml
	$(RUN)/archiveprobe look demo-archive/task.toml -o demo-archive/page.html

demo-archive/task.toml: | setup
	$(RUN)/archiveprobe demo demo-archive

review-demo: demo ## play a review of the built-in archive with its known labels, to a certificate
	$(RUN)/python benchmarks/review_demo.py demo-archive

embed: setup $(filter demo-archive/task.toml,$(TASK)) ## run the backbones once: make embed TASK=my/task.toml
	$(RUN)/archiveprobe embed $(TASK)

probe: setup $(filter demo-archive/task.toml,$(TASK)) ## the leaderboard of systems on the cache: make probe TASK=...
	$(RUN)/archiveprobe probe $(TASK)

finetune: setup $(filter demo-archive/task.toml,$(TASK)) ## train a recipe in the probes' folds: make finetune TASK=... RECIPE=...
	test -e $(dir $(TASK))work/manifest.csv || $(RUN)/archiveprobe embed $(TASK)
	$(RUN)/archiveprobe finetune $(TASK) --recipe $(RECIPE) --fold all

test: setup ## run the tests; those marked real where ../shared is present
	$(RUN)/python -m pytest -n logical --dist worksteal

reliability: setup ## write RELIABILITY.md from the promises and the marks on the tests
	$(RUN)/python tests/support/promises.py

check: setup ## lint, format and types
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	MYPYPATH=.venv/src $(RUN)/mypy

bench: setup ## measure accuracy, speed, memory and the cache against their targets
	$(RUN)/python benchmarks/real_images.py
	$(RUN)/python benchmarks/cache_rates.py
	$(RUN)/python benchmarks/cache_million.py --rows 1000000
	$(RUN)/python benchmarks/near_duplicates.py
	$(RUN)/python benchmarks/memory_growth.py
	$(RUN)/python benchmarks/archive_sources.py
	$(RUN)/python benchmarks/embed_speed.py
	$(RUN)/python benchmarks/shared_cores.py
	$(RUN)/python benchmarks/peer_loop.py
	$(RUN)/python benchmarks/evaluate_speed.py
	$(RUN)/python benchmarks/probe_speed.py
	$(RUN)/python benchmarks/submit_speed.py
	$(RUN)/python benchmarks/look_million.py
	$(RUN)/python benchmarks/archive_million.py --images 2000 --kills 4
	$(RUN)/python benchmarks/ray_engine.py --images 2000
	$(RUN)/python benchmarks/interval_truth.py
	$(RUN)/python benchmarks/threshold_aims.py
	$(RUN)/python benchmarks/recall_truth.py
	$(RUN)/python benchmarks/prevalence_truth.py
	$(RUN)/python benchmarks/finetune_tokens.py
	$(RUN)/python benchmarks/finetune_loader.py
	$(RUN)/python benchmarks/review_million.py
	$(RUN)/python benchmarks/review_real.py

FUZZ_SECONDS ?= 60
fuzz: setup ## fuzz every file format, FUZZ_SECONDS each
	PIP_CONSTRAINT=constraints.txt $(RUN)/pip install --quiet -e '.[fuzz]'
	$(RUN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS)
