#!/usr/bin/env bash
# Look up the pinned packages in the vulnerability database of PyPI. The tool has an environment of its own.
set -euo pipefail
no_data() {
    echo "No vulnerability data: $1. Nothing was audited." >&2
    exit 2
}
tool=.audit/bin/pip-audit
if [ ! -x "$tool" ]; then
    "${PYTHON:-python3}" -m venv .audit
    .audit/bin/python -m pip install --quiet pip-audit || no_data "pip-audit cannot be installed without the package index"
fi
status=0
output=$("$tool" --requirement constraints.txt --no-deps --disable-pip --progress-spinner off 2>&1) || status=$?
echo "$output"
# A mirror of the package index knows the packages, but not their vulnerabilities.
missed=$(grep -c "could not be audited" <<< "$output" || true)
[ "$missed" -lt "$(grep -c "==" constraints.txt)" ] || no_data "the database knows none of the packages"
[ "$missed" = 0 ] || echo "No vulnerability data for $missed packages, which are named above." >&2
case "$output" in
    *"No known vulnerabilities found"* | *"known vulnerabilit"*) exit "$status" ;;
    *) no_data "the database cannot be reached" ;;
esac
