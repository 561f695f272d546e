# The two commands are `make report` and `make test`; each sets everything up when needed.
SHELL := /bin/bash
VENV ?= .venv
STUDY ?= quick
PORT ?= 8888
# Handed to pip (a proxy, a mirror, a folder of wheels), to pytest and to JupyterLab.
PIP_ARGS ?=
PYTEST_ARGS ?=
LAB_ARGS ?=
# Address of PyTorch's package index for CPU-only builds; see README.md.
CPU_INDEX ?=

ifneq ($(words $(VENV)),1)
$(error VENV is '$(VENV)': give it one path without spaces)
endif

SUITABLE = import sys; sys.exit(not (3, 11, 5) <= sys.version_info[:3] < (3, 12))
PYTHON ?= $(shell for p in python3.11 python3 python; do $$p -c '$(SUITABLE)' 2>/dev/null && { echo $$p; break; }; done)
PY := $(VENV)/bin/python
LOCK_HASH := $(shell { sha256sum requirements.lock 2>/dev/null || shasum -a 256 requirements.lock; } | cut -c1-16)
STAMP := $(VENV)/.installed-$(LOCK_HASH)
CUDA_LINES := ^(cuda-|nvidia-|triton==)
# A launch ends with the make that started it, where the system can do that (Linux).
MORTAL := $(shell command -v setpriv > /dev/null 2>&1 && echo setpriv --pdeathsig TERM)
PIP_NOISE := is ignored: it is 

# Only what a set-up made may be removed; a half-made .venv is one, a conda environment is not.
REMOVABLE = [ ! -d "$(VENV)/conda-meta" ] && { [ "$(VENV)" = .venv ] || [ ! -e "$(VENV)" ] || [ -e "$(VENV)/pyvenv.cfg" ]; } || \
	{ echo "VENV is '$(VENV)', which exists and is not a virtual environment: name another folder" >&2; exit 2; }

# Waiting OpenMP threads must sleep: spinning ones make two processes on two cores 40 times slower.
export OMP_WAIT_POLICY := passive
# The kernel named python3 is the environment's own, whatever else is installed for this user.
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help setup report test test-full lint verify claim lab lock clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-23s %s\n", $$1, $$2}' Makefile
	@echo "Options: STUDY= (a file of workflow/studies), PYTHON=, VENV=, PIP_ARGS=, CPU_INDEX=, PYTEST_ARGS=, LAB_ARGS=, PORT="

setup: $(STAMP) ## the environment in .venv, from requirements.lock

# The stamp comes last: a set-up that was interrupted, or made from another lock, is made anew.
$(STAMP):
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 (3.11.5 or later) was not found: install it, or name it with PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c '$(SUITABLE)' 2>/dev/null || { echo "PYTHON is '$(PYTHON)' ($$("$(PYTHON)" -V 2>&1 | head -n 1)): Python 3.11 (3.11.5 or later) is needed, name one with PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "'$(PYTHON)' cannot make virtual environments: install its venv package (Debian, Ubuntu: apt-get install python3.11-venv)" >&2; exit 2; }
	@$(REMOVABLE)
	@echo "Setting up $(VENV): some minutes, up to 6.4 GB (README.md says how to have less)"
	@rm -rf "$(VENV)"
	@"$(PYTHON)" -m venv "$(VENV)"
	@grep -Ev '$(if $(CPU_INDEX),$(CUDA_LINES),^#)' requirements.lock > "$(VENV)/requirements.txt"
	@set -o pipefail; "$(PY)" -m pip install -q --no-deps $(if $(CPU_INDEX),--extra-index-url "$(CPU_INDEX)") $(PIP_ARGS) \
		-r "$(VENV)/requirements.txt" 2>&1 | { grep -v '$(PIP_NOISE)' || true; }
	@"$(PY)" -m pip check
	@"$(PY)" -c 'import os, sysconfig; site = sysconfig.get_path("purelib"); open(os.path.join(site, "hrnet_reproduction.pth"), "w").write(os.path.relpath(".", site) + "\n")'
	@touch "$@"

report: $(STAMP) ## from nothing to reports/report.pdf: the quick study, or STUDY=
	@$(MORTAL) "$(PY)" -m workflow.launch report --study "$(STUDY)"

test: $(STAMP) ## the fast tests
	@"$(PY)" -m pytest $(PYTEST_ARGS)

test-full: $(STAMP) ## the tests that take longer
	@"$(PY)" -m pytest -m full $(PYTEST_ARGS)

lint: $(STAMP) ## style, format and types
	@"$(PY)" -m ruff check .
	@"$(PY)" -m ruff format --check .
	@"$(PY)" -m mypy

verify: $(STAMP) ## tables and figures again from the records; any difference fails
	@"$(PY)" -m comparison verify

claim: $(if $(ID),$(STAMP)) ## one claim of the report again: make claim ID=C1
	@[ -n "$(ID)" ] || { echo "which claim? README.md lists them: make claim ID=C1" >&2; exit 2; }
	@$(MORTAL) "$(PY)" -m workflow.launch claim "$(ID)" --study "$(STUDY)"

lab: $(STAMP) ## JupyterLab on this machine only; the address it prints carries its token
	@"$(PY)" -m jupyterlab --ServerApp.ip=127.0.0.1 --ServerApp.port=$(PORT) --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
		$(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS)

# One resolution for each platform; a line that only one of them has gets its marker.
# jsonschema only asks whether rfc3987-syntax is there; importing it costs every kernel two seconds.
lock: ## requirements.lock from pyproject.toml (for maintainers; needs uv)
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	for platform in x86_64-unknown-linux-gnu aarch64-apple-darwin; do \
		sed -e '/^#/d' -e 's/ ;.*//' requirements.lock > "$$folder/$$platform"; \
		MACOSX_DEPLOYMENT_TARGET=14.0 uv pip compile -q --python-version 3.11.5 --python-platform $$platform \
			--no-header --no-annotate --no-emit-package rfc3987-syntax $(PIP_ARGS) \
			pyproject.toml -o "$$folder/$$platform" > /dev/null; \
		LC_ALL=C sort -o "$$folder/$$platform" "$$folder/$$platform"; done; \
	cd "$$folder"; \
	{ comm -12 x86_64-unknown-linux-gnu aarch64-apple-darwin; \
	  comm -23 x86_64-unknown-linux-gnu aarch64-apple-darwin | sed "s/$$/ ; sys_platform == 'linux'/"; \
	  comm -13 x86_64-unknown-linux-gnu aarch64-apple-darwin | sed "s/$$/ ; sys_platform == 'darwin'/"; \
	} | LC_ALL=C sort > sorted; \
	{ echo "# Every package of the study, exactly; made by 'make lock' from pyproject.toml."; cat sorted; } > "$(CURDIR)/requirements.lock"

clean: ## removes the environment, caches, and results of the quick and tiny studies
	@$(REMOVABLE)
	@rm -rf "$(VENV)" .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis results/quick results/tiny
	@find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
