# archiveprobe: `make demo` shows it working, `make help` lists the rest.
TASK ?= demo/task.toml
PYTHON ?= python3
RUN = .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo embed test check bench

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## create .venv and install into it, pinned by constraints.txt

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make setup PYTHON=python3.11")'
	test -x $(RUN)/python || $(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(RUN)/pip install --quiet --progress-bar off -e '.[dev]'
	@touch $@

demo: setup demo/task.toml ## draw the built-in archive and run the whole way on it, offline
	$(RUN)/archiveprobe embed demo/task.toml
	$(RUN)/archiveprobe cache show demo/task.toml
	$(RUN)/archiveprobe cache verify demo/task.toml --deep

demo/task.toml: | setup
	$(RUN)/archiveprobe demo demo

embed: setup $(filter demo/task.toml,$(TASK)) ## run the backbones once: make embed TASK=my/task.toml
	$(RUN)/archiveprobe embed $(TASK)

test: setup ## run the tests; those marked real where ../shared is present
	$(RUN)/python -m pytest

check: setup ## lint, format and types
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

bench: setup ## measure accuracy on real photographs, and speed against its limits
	$(RUN)/python benchmarks/real_photographs.py
	$(RUN)/python benchmarks/embed_speed.py
