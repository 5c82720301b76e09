#!/usr/bin/env bash
# Run by Snakemake in the repository root, inside the new conda environment.
set -euo pipefail
pip install -c constraints.txt -e .
