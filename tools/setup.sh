#!/usr/bin/env bash
# Create .venv with the pinned packages, and check for the GDAL command-line tools.
#   tools/setup.sh            for everything but a cluster
#   tools/setup.sh cluster    also Slurm, for the tests on it, and what the workflow needs to run on it
set -euo pipefail
cd "$(dirname "$0")/.."

log() { printf '%s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

# Install Debian packages if allowed, else print the command that installs them.
install_packages() {
    log "Installing $* ..."
    if command -v apt-get >/dev/null \
        && as_root apt-get update -qq >&2 \
        && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2; then
        return
    fi
    log "Could not install $*. Please run: sudo apt-get update && sudo apt-get install -y $*"
    return 1
}

need_packages() {
    install_packages "$@" || exit 1
}

python=${PYTHON:-python3}
command -v "$python" >/dev/null || need_packages python3 python3-venv
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    log "$("$python" --version) is too old: Python 3.11 or newer is needed. Name one with: make PYTHON=python3.11 ..."
    exit 1
}
"$python" -c 'import ensurepip' 2>/dev/null || need_packages python3-venv

for tool in gdalwarp gdalbuildvrt gdal_translate; do
    command -v "$tool" >/dev/null || { need_packages gdal-bin; break; }
done

extras=dev
if [ "${1:-}" = cluster ]; then
    extras=dev,cluster
    PATH=$PATH:/usr/sbin command -v slurmctld >/dev/null \
        || install_packages slurmctld slurmd slurm-client munge || log "The tests are skipped without Slurm."
fi

stamp=.venv/.installed_$extras
wanted=$(cat pyproject.toml constraints.txt | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi
log "Installing the Python environment into .venv (one to five minutes) ..."
# An interrupted set-up may have left an environment without pip.
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
.venv/bin/python -m pip install -q uv
# Compile bytecode now: without it every job would spend ten seconds on its imports.
UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" VIRTUAL_ENV=$PWD/.venv \
    .venv/bin/uv pip install -q --compile-bytecode -c constraints.txt -e ".[$extras]"
printf '%s\n' "$wanted" >"$stamp"
