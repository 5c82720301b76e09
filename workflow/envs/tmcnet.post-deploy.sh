#!/usr/bin/env bash
# Run by Snakemake inside the new conda environment, in the user's working folder. The workflow sets TMCNET_SOURCE to its
# repository.
set -euo pipefail
source=${TMCNET_SOURCE:-.}
pip install -c "$source/constraints.txt" "$source"
