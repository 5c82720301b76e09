# `make report` and `make test` do all the set-up themselves.
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
CORES ?= all
RESULTS ?= results
export PYTHON
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
# Real imagery for tests; those that need it are skipped without it.
ifneq ($(wildcard ../shared/data),)
export TMCNET_DATA ?= $(abspath ../shared/data)
endif

.DEFAULT_GOAL := help
.PHONY: help setup report test test-slow test-faults fuzz audit test-gpu test-cluster lint format bench mlflow send verify-splits docs clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

setup: ## Make .venv with the pinned stack, and the GDAL tools
	@tools/setup.sh

report: setup ## Run the demo from raw scenes to results/report.html
	snakemake --cores $(CORES) results/report.html
	@echo "Open results/report.html in any browser."

test: setup lint ## Lint, types and all tests that need no GPU
	python -m pytest -n $$(nproc) --dist loadfile -m "not slow and not gpu and not cluster"

test-slow: setup ## Tests that take more than a minute each
	python -m pytest -m "slow and not cluster"

test-faults: setup ## Kill the workflow, fill its disk, take its network: about an hour
	python -m pytest -s -m slow tests/faults

fuzz: setup ## Try damaged files of every kind for ten minutes
	TMCNET_FUZZ_SECONDS=600 python -m pytest -s tests/faults/test_fuzz.py

audit: setup ## Look for known vulnerabilities of the pinned packages
	@tools/audit.sh

test-gpu: setup ## Tests that need a CUDA device
	python -m pytest -m gpu

# Several nodes and strips that need no Slurm. The others mostly wait, so that all run at the same time.
WITHOUT_SLURM := \
	tests/train/test_distributed.py::test_two_nodes_train_as_one_process_and_go_on_after_one_was_killed \
	tests/evaluate/test_maps.py::test_strips_of_several_jobs_join_to_the_map_of_one_byte_for_byte

test-cluster: ## Tests on a Slurm of two emulated nodes, which is installed where that is allowed
	@tools/setup.sh cluster
	python -m pytest $(WITHOUT_SLURM) & \
	python -m pytest -n 6 --dist worksteal -rs tests/cluster; code=$$?; wait $$! && exit $$code

lint: setup ## ruff, snakefmt, mypy and snakemake --lint
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	mypy
	snakemake --lint

format: setup ## Format the sources
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

bench: setup ## Repeat the measurements of benchmarks/
	python -m benchmarks

mlflow: setup ## Open the MLflow UI on the runs in RESULTS (loopback only)
	python -m tmcnet.tracking open $(RESULTS)

send: setup ## Send the runs in RESULTS that the MLflow server missed while it was down
	python -m tmcnet.tracking send $(RESULTS)

verify-splits: setup ## Recompute the splits' hashes and say what changed
	snakemake --cores 1 --forcerun verify_split -- verify_splits

docs: setup ## Write config/README.md and config/schema.json from the typed config
	python -m tmcnet.config.document > config/README.md
	python -m tmcnet.config.document schema > config/schema.json

clean: ## Remove results (the raw data and .venv stay)
	rm -rf results .snakemake
